// What the trainers of both stages share: parameters as one tensor, rates, checkpoints' parts, memory.
#pragma once

#include <torch/torch.h>

#include <string>
#include <vector>

#include "learn/normaliser.h"
#include "runtime/safetensors.h"

namespace calm {

double now_s();  // of a steady clock

torch::Tensor normalise_rows(const torch::Tensor& x);  // (n, d), each to length 1
std::vector<int> mlp_sizes(int input, std::vector<int> hidden, int output);
Tensor to_runtime(const torch::Tensor& t);

// Makes a network's parameters, and their gradients, parts of one tensor each, which the optimiser then steps at once.
torch::Tensor flatten(const torch::nn::Module& net);

// The rate of an optimiser's group.
void set_rate(torch::optim::Adam& optimiser, size_t group, float rate);
// A rate that keeps an iteration's KL divergence near the target: lower where it was half as much again, higher where
// it was two thirds.
float adapted_rate(float rate, double kl, float target_kl);
// Scales each group's gradients down to this norm; 0: leaves them.
void clip_gradients(torch::optim::Adam& optimiser, float norm);

torch::Tensor bytes_to_tensor(const std::string& bytes);
std::string tensor_to_bytes(const torch::Tensor& t);

// A fresh tensor: reading into one that exists would keep its type.
torch::Tensor read_tensor(torch::serialize::InputArchive& archive, const std::string& name);
void write_normaliser(torch::serialize::OutputArchive& archive, const std::string& name, const Normaliser& norm);
void read_normaliser(torch::serialize::InputArchive& archive, const std::string& name, Normaliser& norm);

// Every iteration takes and frees the same tensors of tens of megabytes. By default glibc gives each back to the system
// at once, and a third of the time goes into fetching zeroed pages again.
void keep_freed_memory();

}  // namespace calm
