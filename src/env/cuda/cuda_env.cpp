#include "env/cuda/cuda_env.h"

#include <array>

#include "features/features.h"

namespace calm {

CudaEnv::CudaEnv(BatchEnv& env, CudaSimulator& simulator, std::span<const float> exploration)
    : env_(&env), simulator_(&simulator), rules_(env.rules()), exploration_(exploration) {
  const Character& c = *env.character_;
  const MomentTable& table = env.moments_;
  const size_t clips = env.library_->num_clips(), moments = table.num_moments(), envs = env.num_envs_;
  const auto copy = [](const auto* from, size_t count) {
    using T = std::remove_cvref_t<decltype(*from)>;
    return DeviceArray<T>(std::span<const T>(from, count));
  };
  cumulative_weight_ = copy(rules_.clips.cumulative_weight, clips), clip_length_ = copy(rules_.clips.length, clips);
  first_moment_ = copy(rules_.moments.first, clips + 1), clip_of_moment_ = copy(rules_.moments.clip_of, moments);
  features_ = copy(rules_.moments.features, moments * rules_.moments.num_features);
  is_foot_ = copy(rules_.is_foot, c.bodies.size()), fall_height_ = copy(rules_.fall_height, c.bodies.size());
  action_offset_ = copy(c.action_offset.data(), c.num_dofs), action_scale_ = copy(c.action_scale.data(), c.num_dofs);
  key_bodies_ = copy(c.key_bodies.data(), c.key_bodies.size());
  std::vector<FeatureJoint> joints;
  for (const Joint& joint : c.joints) joints.push_back(feature_joint(joint));
  joints_ = copy(joints.data(), joints.size());
  rules_.clips = {rules_.clips.num_clips, cumulative_weight_.data(), clip_length_.data()};
  rules_.moments = {rules_.moments.grid, rules_.moments.num_features, first_moment_.data(), clip_of_moment_.data(),
                    features_.data()};
  rules_.is_foot = is_foot_.data(), rules_.fall_height = fall_height_.data();
  layout_ = {c.num_bodies(), c.num_joints(),    c.num_dofs, static_cast<int>(c.key_bodies.size()),
             joints_.data(), key_bodies_.data()};

  // all that an environment can be reset to
  std::vector<CudaSimulator::State> states;
  CharacterState state(c);
  for (size_t m = 0; m < moments; ++m) {
    const auto moment = static_cast<int64_t>(m);
    const RootState root = env.clip_state(table.clip_of(moment), table.time_of(moment), state);
    states.push_back({root, state.dof_pos, state.dof_vel});
  }
  for (const BatchEnv::FallenState& fallen : env.fallen_)
    states.push_back({fallen.root, fallen.dof_pos, fallen.dof_vel});
  state = default_state(c);
  states.push_back({state.root(), state.dof_pos, state.dof_vel});
  const std::vector<float> rows = simulator.rows_of(states);
  reset_states_ = copy(rows.data(), rows.size());

  episodes_ = DeviceArray<Episode>(envs), windows_ = DeviceArray<Window>(envs);
  history_ = DeviceArray<float>(env.disc_windows_.size()), observations_ = DeviceArray<float>(env.observations_.size());
  targets_ = DeviceArray<float>(env.pd_targets_.size());
  terminated_ = DeviceArray<uint8_t>(envs), truncated_ = DeviceArray<uint8_t>(envs);
  reset_row_ = DeviceArray<int>(envs), counts_ = DeviceArray<unsigned long long>(4);
  upload();
}

void CudaEnv::upload() {
  episodes_.upload(env_->episodes_), windows_.upload(env_->windows_);
  history_.upload(env_->disc_windows_), observations_.upload(env_->observations_);
  terminated_.upload(env_->terminated_), truncated_.upload(env_->truncated_);
  const BatchEnv::Counts& c = env_->counts_;
  const auto number = [](int64_t n) { return static_cast<unsigned long long>(n); };
  counts_.upload(std::array<unsigned long long, 4>{number(c.episodes), number(c.falls), number(c.timeouts),
                                                   number(c.episode_steps)});
}

void CudaEnv::download() {
  episodes_.download(env_->episodes_), windows_.download(env_->windows_);
  history_.download(env_->disc_windows_), observations_.download(env_->observations_);
  terminated_.download(env_->terminated_), truncated_.download(env_->truncated_);
  env_->counts_ = counts();
}

env_kernels::Batch CudaEnv::batch() const {
  const DeviceState& s = simulator_->device_state();
  env_kernels::Batch batch;
  batch.rules = rules_, batch.layout = layout_, batch.num_envs = env_->num_envs_;
  batch.rules.follow_share = env_->follow_share_, batch.rules.first_new = env_->first_new_;
  batch.simulated = {s.body_pos, s.body_rot, s.body_vel,      s.body_ang_vel,
                     s.dof_pos,  s.dof_vel,  s.contact_force, s.diverged};
  batch.action_offset = action_offset_.data(), batch.action_scale = action_scale_.data();
  batch.episodes = episodes_.data(), batch.windows = windows_.data();
  batch.history = history_.data(), batch.observations = observations_.data();
  batch.terminated = terminated_.data(), batch.truncated = truncated_.data();
  batch.reset_row = reset_row_.data(), batch.counts = counts_.data();
  batch.first_fallen = static_cast<int>(env_->moments_.num_moments());
  batch.standing = batch.first_fallen + rules_.num_fallen;
  return batch;
}

std::vector<int64_t> CudaEnv::window_moments() const {
  std::vector<Window> windows(windows_.size());
  windows_.download(windows);
  std::vector<int64_t> moments;
  for (const Window& window : windows) moments.push_back(env_->moments_.moment(window));
  return moments;
}

void CudaEnv::explore(const float* means, float sigma, float* actions, float* mask) {
  env_kernels::explore(batch(), means, exploration_.data(), sigma, actions, mask);
}

void CudaEnv::simulate(const float* actions) {
  env_kernels::find_targets(batch(), actions, targets_.data());
  simulator_->step_on_device(targets_.data());
}

void CudaEnv::observe(const env_kernels::StepRows& out) { env_kernels::observe(batch(), out); }

void CudaEnv::reset(const env_kernels::StepRows& out) {
  const env_kernels::Batch b = batch();
  env_kernels::draw_resets(b, out);
  simulator_->set_on_device(reset_states_.data(), reset_row_.data());
  env_kernels::refresh(b, out);
}

void CudaEnv::draw_clip_rows(float apart, uint64_t seed, uint64_t stream, int n, int64_t* newest, int64_t* moments,
                             int64_t* near, int64_t* other) const {
  env_kernels::draw_clip_rows(rules_, apart, seed, stream, n, newest, moments, near, other);
}

BatchEnv::Counts CudaEnv::counts() const {
  std::array<unsigned long long, 4> counts{};
  counts_.download(counts);
  return {static_cast<int64_t>(counts[0]), static_cast<int64_t>(counts[1]), static_cast<int64_t>(counts[2]),
          static_cast<int64_t>(counts[3])};
}

}  // namespace calm
