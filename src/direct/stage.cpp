#include "direct/stage.h"

#include "env/task_table.h"

namespace calm {

Stage::Stage(Actors& actors, Director& director, const Machine& machine, TargetKind target, float dt)
    : actors_(actors),
      director_(director),
      machine_(machine),
      target_(target),
      dt_(dt),
      steps_(actors.size(), 0),
      targets_(actors.size(), Vec2::Zero()),
      places_(actors.size(), begin(machine)),
      commands_(actors.size()),
      transitions_(actors.size()),
      events_(actors.size()) {}

void Stage::start(int i, float heading, const Vec2& at) {
  const CharacterState standing = default_state(actors_.character());
  RootState root = standing.root();
  root.rot = quat_about_z(heading) * root.rot;
  actors_.place(i, root, standing.dof_pos, standing.dof_vel);
  director_.forget(i);
  start_machine(i);
  set_target(i, at);
}

void Stage::start_machine(int i) {
  steps_[i] = 0, places_[i] = begin(machine_);
  transitions_[i].clear(), events_[i].clear();
}

void Stage::set_target(int i, const Vec2& at) {
  targets_[i] = at;
  if (target_ != TargetKind::kPillar) return;
  RootState pillar;
  pillar.pos = Vec3(at.x(), at.y(), strike_pillar().size.z());
  actors_.simulator().set_prop(i, 0, pillar);
}

void Stage::send(int i, const std::string& event) { events_[i].push_back(event); }

Senses Stage::senses(int i) const {
  const auto view = actors_.view(i);
  Senses s;
  s.time = time(i);
  s.pos = view.pos(0).head<2>();
  s.heading = heading(Quat(view.rot(0)));
  s.speed = view.vel(0).head<2>().norm();
  s.fallen = actors_.fallen(i);
  s.upright = !s.fallen && view.pos(0).z() > 0.75f * actors_.character().stand_height;
  s.has_target = target_ != TargetKind::kNone;
  s.target = targets_[i];
  if (target_ == TargetKind::kPillar) {
    const RootState pillar = actors_.prop(i, 0);
    s.target = pillar.pos.head<2>();
    s.target_up = (pillar.rot * Vec3::UnitZ()).z();
  }
  s.events = events_[i];
  return s;
}

void Stage::step() {
  for (int i = 0; i < size(); ++i) {
    Tick next = tick(machine_, places_[i], senses(i));
    places_[i] = next.place, commands_[i] = next.command, transitions_[i] = std::move(next.why);
    events_[i].clear();
  }
  director_.direct(commands_);
  actors_.step();
  for (int& steps : steps_) ++steps;
}

}  // namespace calm
