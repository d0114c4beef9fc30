#include "env/cuda/env_kernels.h"

#include "sim/cuda/cuda_error.h"

namespace calm::env_kernels {

namespace {

constexpr int kBlock = 64;       // a thread is an environment: blocks small, so that few spread over the GPU
constexpr int kWideBlock = 256;  // a thread is a number

int blocks(int64_t count, int block) { return static_cast<int>((count + block - 1) / block); }
__device__ int64_t index() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }

__device__ StateRows rows_of(const Batch& batch, int64_t env) {
  const SimulatedRows& s = batch.simulated;
  const int64_t b = env * batch.layout.num_bodies, d = env * batch.layout.num_dofs;
  return {s.body_pos + 3 * b,     s.body_rot + 4 * b, s.body_vel + 3 * b,
          s.body_ang_vel + 3 * b, s.dof_pos + d,      s.dof_vel + d};
}

__global__ void explore_kernel(const __grid_constant__ Batch batch, const float* means, const float* probability,
                               float sigma, float* actions, float* mask) {
  const int64_t env = index();
  if (env >= batch.num_envs) return;
  Rng& rng = batch.episodes[env].rng;
  const bool explores = rng.uniform() < probability[env];
  mask[env] = explores ? 1.0f : 0.0f;
  const int dofs = batch.layout.num_dofs;
  for (int64_t i = env * dofs; i < (env + 1) * dofs; ++i)
    actions[i] = explores ? means[i] + sigma * rng.normal() : means[i];
}

__global__ void targets_kernel(const __grid_constant__ Batch batch, const float* actions, float* targets) {
  const int64_t i = index();
  if (i >= static_cast<int64_t>(batch.num_envs) * batch.layout.num_dofs) return;
  const int d = static_cast<int>(i % batch.layout.num_dofs);
  targets[i] = batch.action_offset[d] + batch.action_scale[d] * fminf(fmaxf(actions[i], -1.0f), 1.0f);
}

// Every frame but the newest: the frame before it.
__global__ void shift_kernel(const __grid_constant__ Batch batch, float* windows) {
  const int features = batch.layout.motion_feature_size();
  const int64_t older = static_cast<int64_t>(features) * (batch.rules.settings.discriminator_frames - 1);
  const int64_t i = index();
  if (i >= older * batch.num_envs) return;
  const int64_t env = i / older, from = env * (older + features) + i % older;
  windows[from + features] = batch.history[from];
}

__global__ void observe_kernel(const __grid_constant__ Batch batch, const __grid_constant__ StepRows out) {
  const int64_t env = index();
  if (env >= batch.num_envs) return;
  const StateRows state = rows_of(batch, env);
  float* features = out.windows + env * batch.layout.motion_feature_size() * batch.rules.settings.discriminator_frames;
  write_motion_feature_rows(batch.layout, state, features);
  write_observation_rows(batch.layout, state, true, out.observations + env * batch.layout.observation_size());

  Episode& episode = batch.episodes[env];
  const float* forces = batch.simulated.contact_force + 3 * env * batch.layout.num_bodies;
  const StepEnd end =
      batch.rules.end_step(episode, batch.simulated.diverged[env] != 0.0f, features, forces, state.body_pos);
  out.tracking[env] = end.tracking;
  out.falls[env] = end.fell ? 1.0f : 0.0f;
  out.dones[env] = end.fell || end.out_of_time ? 1.0f : 0.0f;
  batch.terminated[env] = end.fell, batch.truncated[env] = end.out_of_time;
  if (!end.fell && !end.out_of_time) return;
  atomicAdd(batch.counts, 1ull), atomicAdd(batch.counts + (end.fell ? 1 : 2), 1ull);
  atomicAdd(batch.counts + 3, static_cast<unsigned long long>(episode.step));
}

__global__ void reset_kernel(const __grid_constant__ Batch batch, const __grid_constant__ StepRows out) {
  const int64_t env = index();
  if (env >= batch.num_envs) return;
  const EpisodeRules& rules = batch.rules;
  Episode& episode = batch.episodes[env];
  Window window = batch.windows[env];
  int row = -1;
  bool changed = true;
  if (batch.terminated[env] || batch.truncated[env]) {
    const bool in_place = batch.terminated[env] && batch.simulated.diverged[env] == 0.0f;
    const Reset reset = rules.draw_reset(episode, in_place, window);
    if (reset.to == Reset::To::kFallen) row = batch.first_fallen + reset.fallen;
    if (reset.to == Reset::To::kClip) row = static_cast<int>(rules.moments.at({reset.clip, reset.time}));
    if (reset.to == Reset::To::kStand) row = batch.standing;
  } else if (episode.latent_left <= 0) {
    window = rules.draw_window(episode);
  } else {
    changed = false;
  }
  batch.windows[env] = window;
  batch.reset_row[env] = row;
  out.changed[env] = changed;
  out.moments[env] = rules.moments.at(window);
}

// A block is an environment.
__global__ void refresh_kernel(const __grid_constant__ Batch batch, const __grid_constant__ StepRows out) {
  const int64_t env = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int features = batch.layout.motion_feature_size(), size = batch.layout.observation_size();
  const int frames = batch.rules.settings.discriminator_frames, numbers = features * frames;
  float *history = batch.history + env * numbers, *observation = batch.observations + env * size;
  const int row = batch.reset_row[env];
  const auto follow_new = [&](const float* newest) {
    if (thread == 0 && out.changed[env]) batch.rules.follow_new(batch.episodes[env], batch.windows[env].clip, newest);
  };
  if (row < 0) {
    for (int i = thread; i < numbers; i += threads) history[i] = out.windows[env * numbers + i];
    for (int i = thread; i < size; i += threads) observation[i] = out.observations[env * size + i];
    follow_new(out.windows + env * numbers);
    return;
  }
  const StateRows state = rows_of(batch, env);
  if (thread == 0) write_observation_rows(batch.layout, state, true, observation);
  if (row < batch.first_fallen) {  // frames as the clip had them
    const Moments& moments = batch.rules.moments;
    const int64_t first = moments.first[moments.clip_of[row]];
    for (int i = thread; i < numbers; i += threads) {
      int64_t moment = row - static_cast<int64_t>(i / features) * kMomentsPerStep;
      moment = moment < first ? first : moment;
      history[i] = moments.features[moment * features + i % features];
    }
    follow_new(moments.features + static_cast<int64_t>(row) * features);
    return;
  }
  if (thread == 0) write_motion_feature_rows(batch.layout, state, history);
  __syncthreads();
  follow_new(history);
  for (int i = features + thread; i < numbers; i += threads) history[i] = history[i % features];
}

__global__ void clip_rows_kernel(const __grid_constant__ EpisodeRules rules, float apart, uint64_t seed,
                                 uint64_t stream, int n, int64_t* newest, int64_t* moments, int64_t* near) {
  const int64_t i = index();
  if (i >= n) return;
  Rng rng(seed, stream + i);
  const ClipRow row = rules.draw_clip_row(apart, rng);
  newest[i] = row.newest, moments[i] = row.moment, near[i] = row.near;
}

__global__ void other_rows_kernel(const __grid_constant__ EpisodeRules rules, uint64_t seed, uint64_t stream, int n,
                                  const int64_t* moments, int64_t* other) {
  const int64_t i = index();
  if (i >= n) return;
  Rng rng(seed, stream + n + i);
  const int clip = rules.moments.clip_of[moments[i]];
  other[i] = -1;
  if (rules.clips.num_clips < 2) return;
  for (int attempt = 0; attempt < 32 && other[i] < 0; ++attempt) {
    const int j = rng.below(n);
    if (rules.moments.clip_of[moments[j]] != clip) other[i] = j;
  }
}

void check() { check_cuda(cudaGetLastError(), "environments"); }

}  // namespace

void explore(const Batch& batch, const float* means, const float* probability, float sigma, float* actions,
             float* mask) {
  explore_kernel<<<blocks(batch.num_envs, kBlock), kBlock>>>(batch, means, probability, sigma, actions, mask);
  check();
}

void find_targets(const Batch& batch, const float* actions, float* targets) {
  const int64_t numbers = static_cast<int64_t>(batch.num_envs) * batch.layout.num_dofs;
  targets_kernel<<<blocks(numbers, kWideBlock), kWideBlock>>>(batch, actions, targets);
  check();
}

void observe(const Batch& batch, const StepRows& out) {
  const int64_t older = static_cast<int64_t>(batch.num_envs) * batch.layout.motion_feature_size() *
                        (batch.rules.settings.discriminator_frames - 1);
  shift_kernel<<<blocks(older, kWideBlock), kWideBlock>>>(batch, out.windows);
  observe_kernel<<<blocks(batch.num_envs, kBlock), kBlock>>>(batch, out);
  check();
}

void draw_resets(const Batch& batch, const StepRows& out) {
  reset_kernel<<<blocks(batch.num_envs, kBlock), kBlock>>>(batch, out);
  check();
}

void refresh(const Batch& batch, const StepRows& out) {
  refresh_kernel<<<batch.num_envs, kWideBlock>>>(batch, out);
  check();
}

void draw_clip_rows(const EpisodeRules& rules, float apart, uint64_t seed, uint64_t stream, int n, int64_t* newest,
                    int64_t* moments, int64_t* near, int64_t* other) {
  clip_rows_kernel<<<blocks(n, kBlock), kBlock>>>(rules, apart, seed, stream, n, newest, moments, near);
  other_rows_kernel<<<blocks(n, kBlock), kBlock>>>(rules, seed, stream, n, moments, other);
  check();
}

}  // namespace calm::env_kernels
