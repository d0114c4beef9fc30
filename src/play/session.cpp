#include "play/session.h"

#include "base/error.h"
#include "env/task_table.h"
#include "sim/fall.h"

namespace calm {

namespace {

constexpr int kStepsBeforeFall = 2;  // contacts settle first

}  // namespace

Session::Session(const Character& character, const Policy& policy, const SessionSettings& settings, ThreadPool& pool,
                 const HighLevelPolicy* high, std::span<const Machine> machines)
    : character_(character),
      policy_(policy),
      settings_(settings),
      actors_(policy, character, settings.physics, settings.backend, 1, pool,
              high != nullptr ? std::vector<Prop>{strike_pillar()} : std::vector<Prop>{}),
      machines_(high != nullptr ? machines : std::span<const Machine>{}),
      rng_(settings.seed),
      dt_(1.0 / settings.physics.control_rate) {
  settings_.blend_steps = std::max(settings_.blend_steps, 1);
  blend_step_ = settings_.blend_steps;
  if (high != nullptr) director_ = std::make_unique<Director>(actors_, *high);
  if (!policy_.latents.empty()) {
    select_clip(0);
    actors_.set_latent(0, z_to_);
    blend_step_ = settings_.blend_steps;
  }
  if (director_) put_pillar_aside();
  reset();
  statistics_.resets = 0;
}

void Session::tick() {
  const Vec3 root_before = state().view(0).pos(0);
  if (stage_) {
    direct();
  } else {
    blend_latent();
    actors_.step();
  }
  observe_outcome(root_before);
}

void Session::direct() {
  stage_->step();
  clip_ = stage_->command(0).clip;
  // another target once it has celebrated
  const MachinePlace& place = stage_->place(0);
  steps_final_ = stage_->machine().states[place.state].final && !place.getting_up ? steps_final_ + 1 : 0;
  if (steps_final_ * dt_ < settings_.again_after) return;
  put_up_target();
  stage_->start_machine(0);
  steps_final_ = 0;
}

// Anywhere round the character.
void Session::put_up_target() {
  const float way = rng_.uniform(-kPi, kPi);
  stage_->set_target(0,
                     state().view(0).pos(0).head<2>() + settings_.target_distance * Vec2(std::cos(way), std::sin(way)));
}

int Session::machine_index(const std::string& name) const {
  const auto machine = std::ranges::find(machines_, name, &Machine::name);
  return machine == machines_.end() ? -1 : static_cast<int>(machine - machines_.begin());
}

void Session::select_machine(const std::string& name) {
  const int index = machine_index(name);
  if (index < 0) {
    if (machines_.empty()) fail("`{}`: state machines need a high-level policy; see `calm train high-level`", name);
    fail("`{}`: there is no state machine of that name", name);
  }
  machine_ = index;
  const Machine& machine = machines_[static_cast<size_t>(index)];
  put_pillar_aside();
  stage_ =
      std::make_unique<Stage>(actors_, *director_, machine, strikes(machine) ? TargetKind::kPillar : TargetKind::kPlace,
                              static_cast<float>(dt_));
  director_->forget(0);
  stage_->start_machine(0);
  put_up_target();
  steps_final_ = 0;
}

void Session::put_pillar_aside() {
  RootState aside;
  aside.pos = state().view(0).pos(0) + Vec3(100.0f, 0.0f, 0.0f);
  aside.pos.z() = strike_pillar().size.z();
  actors_.simulator().set_prop(0, 0, aside);
}

RootState Session::target() const {
  if (target_kind() == TargetKind::kPillar) return actors_.prop(0, 0);
  RootState place;
  if (stage_) place.pos.head<2>() = stage_->senses(0).target;
  return place;
}

std::string Session::machine_state() const {
  if (!stage_) return {};
  const MachinePlace& place = stage_->place(0);
  return place.getting_up ? "get up" : stage_->machine().states[place.state].name;
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
  if (stage_) {
    stage_.reset(), machine_ = -1;
    put_pillar_aside();
  }
  clip_ = index;
  z_from_ = latent();
  z_to_ = policy_.latents[index].z;
  blend_step_ = 0;
}

void Session::step_once() {
  paused_ = true;
  tick();
}

void Session::reset() {
  const CharacterState pose = default_state(character_);
  actors_.place(0, pose.root(), pose.dof_pos, pose.dof_vel);
  if (stage_) {
    director_->forget(0);
    stage_->start_machine(0);
    put_up_target();
  }
  statistics_.root_height = state().view(0).pos(0).z();
  statistics_.root_speed = 0.0f;
  statistics_.fallen = false;
  ++statistics_.resets;
  steps_since_reset_ = steps_down_ = 0;
  ++epoch_;
}

void Session::push() {
  const float direction = rng_.uniform(-kPi, kPi);
  actors_.simulator().push(0, 0, settings_.push_speed * Vec3(std::cos(direction), std::sin(direction), 0.0f));
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
  actors_.set_latent(0, z.norm() > 1e-4f ? z.normalized() : z_to_);
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
