#include "direct/machine.h"

#include <fmt/format.h>

namespace calm {

namespace {

constexpr float kSteady = 0.5f;  // s upright after which a fallen character has got up

// From the character to where the state is bound for.
Vec2 way(const MachineState& state, const Senses& senses) {
  switch (state.destination.kind) {
    case Destination::Kind::kTarget:
      return senses.target - senses.pos;
    case Destination::Kind::kAway:
      return senses.pos - senses.target;
    case Destination::Kind::kPlace:
      return state.destination.place - senses.pos;
    case Destination::Kind::kDirection:
      return {std::cos(state.destination.angle), std::sin(state.destination.angle)};
    case Destination::Kind::kAhead:
      break;
  }
  return {std::cos(senses.heading), std::sin(senses.heading)};
}

// To where distances and angles are measured: a moving or turning state's own destination, else the target.
Vec2 measured_way(const MachineState& state, const Senses& senses) {
  if (state.kind != MachineState::Kind::kAct && state.destination.kind != Destination::Kind::kAway)
    return way(state, senses);
  return senses.target - senses.pos;
}

// Of the way against where the character faces, rad, in [-pi, pi]; to the left is positive.
float angle_to(const Vec2& v, const Senses& senses) {
  return std::remainder(std::atan2(v.y(), v.x()) - senses.heading, 2.0f * kPi);
}

bool holds(const Condition& c, const MachineState& state, const MachinePlace& place, const Senses& senses) {
  const auto compare = [&c](float x) { return c.greater ? x > c.value : x < c.value; };
  const float time = senses.time - place.since;
  switch (c.what) {
    case Condition::What::kDistance:
      return compare(measured_way(state, senses).norm());
    case Condition::What::kAngle:
      return compare(std::abs(angle_to(measured_way(state, senses), senses)));
    case Condition::What::kTime:
      return compare(time);
    case Condition::What::kSpeed:
      return compare(senses.speed);
    case Condition::What::kClipFinished:
      return time >= state.seconds;
    case Condition::What::kTargetDown:
      return senses.has_target && senses.target_up < 0.2f;
    case Condition::What::kTargetLeans:
      return senses.has_target && senses.target_up < 0.7f;
    case Condition::What::kUpright:
      return senses.upright;
    case Condition::What::kEvent:
      return std::ranges::find(senses.events, c.event) != senses.events.end();
    case Condition::What::kAlways:
      return true;
  }
  return false;
}

Command command_of(const Machine& machine, const MachinePlace& place, const Senses& senses) {
  Command command;
  if (place.getting_up) {
    command.clip = machine.get_up_clip;
    return command;
  }
  const MachineState& state = machine.states[place.state];
  command.clip = state.clip;
  if (state.kind == MachineState::Kind::kAct) return command;
  const Vec2 to = way(state, senses);
  if (state.kind == MachineState::Kind::kTurn) {
    if (angle_to(to, senses) < 0.0f) command.clip = state.clip_right;
    return command;
  }
  command.kind = Command::Kind::kMove;
  command.direction = to.norm() > 1e-6f ? Vec2(to.normalized()) : Vec2::UnitX();
  command.speed = state.speed;
  return command;
}

}  // namespace

bool strikes(const Machine& machine) {
  for (const MachineState& state : machine.states)
    for (const Transition& transition : state.transitions)
      for (const Condition& c : transition.when)
        if (c.what == Condition::What::kTargetDown || c.what == Condition::What::kTargetLeans) return true;
  return false;
}

MachinePlace begin(const Machine& machine) { return {machine.start, 0.0f, false, -1.0f}; }

Tick tick(const Machine& machine, const MachinePlace& place, const Senses& senses) {
  Tick out{place, {}, {}};
  if (senses.fallen && !place.getting_up) {
    out.place.getting_up = true, out.place.upright_since = -1.0f;
    out.why = "fallen";
  } else if (place.getting_up) {
    if (!senses.upright || senses.fallen) {
      out.place.upright_since = -1.0f;
    } else if (place.upright_since < 0.0f) {
      out.place.upright_since = senses.time;
    } else if (senses.time - place.upright_since >= kSteady) {
      out.place = {place.state, senses.time, false, -1.0f};
      out.why = "got up";
    }
  } else {
    const MachineState& state = machine.states[place.state];
    for (const Transition& transition : state.transitions) {
      if (!std::ranges::all_of(transition.when, [&](const auto& c) { return holds(c, state, place, senses); }))
        continue;
      out.place = {transition.to, senses.time, false, -1.0f};
      out.why = transition.text;
      break;
    }
  }
  out.command = command_of(machine, out.place, senses);
  return out;
}

}  // namespace calm
