// A BatchEnv whose environments live on a GPU, with the simulator of backend "cuda": what an environment does is the
// same code (episode.h), what a step takes and leaves stays in the GPU's memory, and nothing is drawn by the processor.
//
// It goes on from a BatchEnv's state and hands it back for saving: upload(), download(). Everything is queued on the
// default stream. Not bitwise a BatchEnv: another compiler rounds differently.
#pragma once

#include "env/batch_env.h"
#include "env/cuda/env_kernels.h"
#include "sim/cuda/cuda_simulator.h"

namespace calm {

class CudaEnv {
 public:
  // `env`, which must outlive this, simulates with `simulator`. exploration: (env) probability to explore in a step.
  CudaEnv(BatchEnv& env, CudaSimulator& simulator, std::span<const float> exploration);

  // Episodes, latents and observations of the BatchEnv to the GPU, and back. The simulator's state is its own concern.
  void upload();
  void download();

  const float* observations() const { return observations_.data(); }  // (env x observation size)
  std::vector<int64_t> window_moments() const;                        // (env) of the latents in force; for a start

  // A step: explore() what a policy's means (env x dof) say, simulate() the actions, observe(), then reset(). mask:
  // (env) 1 where an environment explored.
  void explore(const float* means, float sigma, float* actions, float* mask);
  void simulate(const float* actions);
  void observe(const env_kernels::StepRows& out);
  void reset(const env_kernels::StepRows& out);

  void draw_clip_rows(float apart, uint64_t seed, uint64_t stream, int n, int64_t* newest, int64_t* moments,
                      int64_t* near, int64_t* other) const;

  BatchEnv::Counts counts() const;  // waits for all that is queued

 private:
  env_kernels::Batch batch() const;

  BatchEnv* env_;
  CudaSimulator* simulator_;
  EpisodeRules rules_;  // over the tables below
  FeatureLayout layout_;

  // constant
  DeviceArray<double> cumulative_weight_;
  DeviceArray<float> clip_length_, features_, fall_height_, action_offset_, action_scale_, exploration_;
  DeviceArray<int64_t> first_moment_;
  DeviceArray<int> clip_of_moment_, key_bodies_;
  DeviceArray<uint8_t> is_foot_;
  DeviceArray<FeatureJoint> joints_;
  DeviceArray<float> reset_states_;  // rows of CudaSimulator::rows_of

  // environments'
  DeviceArray<Episode> episodes_;
  DeviceArray<Window> windows_;
  DeviceArray<float> history_, observations_, targets_;
  DeviceArray<uint8_t> terminated_, truncated_;
  DeviceArray<int> reset_row_;
  DeviceArray<unsigned long long> counts_;
};

}  // namespace calm
