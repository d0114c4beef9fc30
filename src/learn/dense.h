// Fully connected layers for the learner's inner loops. As against torch::linear and torch::relu: an input of two parts
// needs no joining, a part without gradients costs no product, bias and ReLU are applied while a block of rows is in
// the cache, and on one CPU thread products go to oneDNN where LibTorch brings it (as fast as OpenBLAS, and twice as
// fast where OpenBLAS does not use all of the processor's vectors). All float32, all on one device.
#pragma once

#include <torch/torch.h>

namespace calm {

// Rows that pass through a layer at a time; a block of some hundred units then fits a core's cache.
constexpr int64_t kDenseBlock = 512;

// [x, s] weightᵀ + bias, then ReLU if asked for. x (n, i), s (n, j) or undefined, weight (o, i + j), bias (o) -> (n,
// o).
torch::Tensor dense(const torch::Tensor& x, const torch::Tensor& s, const torch::Tensor& weight,
                    const torch::Tensor& bias, bool relu);

// a b. (n, k), (k, m) -> (n, m).
torch::Tensor product(const torch::Tensor& a, const torch::Tensor& b);
// w wᵀ. (n, k) -> (n, n).
torch::Tensor gram(const torch::Tensor& w);

// Threads for the calling thread's products and other operations; every thread that computes says how many.
void set_math_threads(int threads);

}  // namespace calm
