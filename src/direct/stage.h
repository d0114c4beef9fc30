// Characters side by side, each under a state machine of one kind, each with a target of its own: a pillar that it can
// strike down, or a place. What `calm run`, the measures and the demo play.
#pragma once

#include "direct/director.h"
#include "direct/machine.h"

namespace calm {

enum class TargetKind { kNone, kPlace, kPillar };

class Stage {
 public:
  // All references must outlive it. Actors must have strike_pillar() as their only prop where the target is a pillar.
  Stage(Actors& actors, Director& director, const Machine& machine, TargetKind target, float dt);

  int size() const { return actors_.size(); }
  Actors& actors() { return actors_; }

  // Puts character i at the origin in the standing pose, facing `heading`, and starts its machine; its target at `at`.
  void start(int i, float heading, const Vec2& at);
  // Starts its machine, and time, anew where the character is.
  void start_machine(int i);
  // Where its target is from now on: a pillar is put up there, standing.
  void set_target(int i, const Vec2& at);
  TargetKind target_kind() const { return target_; }
  void send(int i, const std::string& event);  // in the next step

  // One control step of all.
  void step();

  // As of the last step.
  Senses senses(int i) const;
  const Machine& machine() const { return machine_; }
  const MachinePlace& place(int i) const { return places_[i]; }
  const Command& command(int i) const { return commands_[i]; }
  const std::string& transition(int i) const { return transitions_[i]; }  // taken in it; empty if none
  float time(int i) const { return static_cast<float>(steps_[i]) * dt_; }
  bool fallen(int i) const { return actors_.fallen(i); }

 private:
  Actors& actors_;
  Director& director_;
  const Machine& machine_;
  TargetKind target_;
  float dt_;
  std::vector<int> steps_;
  std::vector<Vec2> targets_;
  std::vector<MachinePlace> places_;
  std::vector<Command> commands_;
  std::vector<std::string> transitions_;
  std::vector<std::vector<std::string>> events_;
};

}  // namespace calm
