#include "play/session.h"

#include "base/error.h"
#include "features/features.h"
#include "sim/fall.h"

namespace calm {

namespace {

constexpr int kStepsBeforeFall = 2;  // contacts settle first

}  // namespace

Session::Session(const Character& character, const Policy& policy, const SessionSettings& settings, ThreadPool& pool)
    : character_(character),
      policy_(policy),
      settings_(settings),
      simulator_(make_simulator(settings.backend, character, settings.physics, 1, pool)),
      rng_(settings.seed),
      dt_(1.0 / settings.physics.control_rate),
      obs_(character.observation_size()),
      targets_(character.num_dofs),
      z_(Eigen::VectorXf::Unit(policy.latent_size, 0)) {
  settings_.blend_steps = std::max(settings_.blend_steps, 1);
  blend_step_ = settings_.blend_steps;
  if (!policy_.latents.empty()) {
    select_clip(0);
    z_ = z_to_;
    blend_step_ = settings_.blend_steps;
  }
  reset();
  statistics_.resets = 0;
}

void Session::tick() {
  blend_latent();

  const Vec3 root_before = state().view(0).pos(0);
  write_observation(character_, state().view(0), obs_.data());
  const Eigen::VectorXf action = policy_.act(obs_, z_);
  for (int i = 0; i < character_.num_dofs; ++i)
    targets_[i] = character_.action_offset[i] + character_.action_scale[i] * action[i];
  simulator_->step(targets_);

  observe_outcome(root_before);
}

bool Session::advance() {
  if (paused_) return false;
  tick();
  return true;
}

void Session::select_clip(const std::string& name) {
  const int index = policy_.latent_index(name);
  if (index < 0) fail("`{}`: the policy knows no clip of that name", name);
  select_clip(index);
}

void Session::select_clip(int index) {
  clip_ = index;
  z_from_ = z_;
  z_to_ = policy_.latents[index].z;
  blend_step_ = 0;
}

void Session::step_once() {
  paused_ = true;
  tick();
}

void Session::reset() {
  const CharacterState pose = default_state(character_);
  simulator_->set_state(0, pose.root(), pose.dof_pos, pose.dof_vel);
  statistics_.root_height = state().view(0).pos(0).z();
  statistics_.root_speed = 0.0f;
  statistics_.fallen = false;
  ++statistics_.resets;
  steps_since_reset_ = steps_down_ = 0;
  ++epoch_;
}

void Session::push() {
  const float direction = rng_.uniform(-kPi, kPi);
  simulator_->push(0, 0, settings_.push_speed * Vec3(std::cos(direction), std::sin(direction), 0.0f));
}

float Session::mean_speed() const {
  return statistics_.ticks > 0 ? static_cast<float>(statistics_.distance / time()) : 0.0f;
}

void Session::blend_latent() {
  if (blend_step_ >= settings_.blend_steps) return;
  ++blend_step_;
  const float share = static_cast<float>(blend_step_) / static_cast<float>(settings_.blend_steps);
  const Eigen::VectorXf z = (1.0f - share) * z_from_ + share * z_to_;
  // opposite latents: the straight line passes through zero, where there is no direction
  z_ = z.norm() > 1e-4f ? z.normalized() : z_to_;
}

void Session::observe_outcome(const Vec3& root_before) {
  ++statistics_.ticks;
  ++steps_since_reset_;
  if (state().diverged[0]) {
    ++statistics_.diverged;
    ++epoch_;
    steps_since_reset_ = 0;
  }

  const CharacterStateView view = state().view(0);
  statistics_.root_height = view.pos(0).z();
  statistics_.root_speed = view.vel(0).head<2>().norm();
  if (!state().diverged[0]) statistics_.distance += (view.pos(0) - root_before).head<2>().norm();

  // down counts from the first touch until it stands again: someone on hands and knees is still down
  const bool down = touches_while_low(character_, state(), 0);
  if (!statistics_.fallen && down && steps_since_reset_ > kStepsBeforeFall) {
    statistics_.fallen = true;
    ++statistics_.falls;
  } else if (statistics_.fallen && !down && statistics_.root_height > settings_.risen_share * character_.stand_height) {
    statistics_.fallen = false;
  }

  steps_down_ = statistics_.fallen ? steps_down_ + 1 : 0;
  if (settings_.auto_reset && steps_down_ * dt_ >= settings_.auto_reset_after) reset();
}

}  // namespace calm
