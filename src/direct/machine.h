// State machines that direct a character without any training: states that move it in a style, turn it or let it act
// out a clip, and transitions on named conditions. docs/state_machines.md tells how to write one.
//
// A machine is plain data, checked when it is read (machine_file.h); nested machines are unfolded then. tick() is a
// pure function: from where a machine is and what its character senses, to where it is next and what is commanded.
#pragma once

#include <string>
#include <vector>

#include "character/state.h"
#include "env/tasks.h"

namespace calm {

// What a character senses of itself and of the target, world frame.
struct Senses {
  float time = 0.0f;  // s since the machine was started
  Vec2 pos = Vec2::Zero();
  float heading = 0.0f;  // rad
  float speed = 0.0f;    // of the root along the floor, m/s
  bool fallen = false;
  bool upright = true;
  bool has_target = false;
  Vec2 target = Vec2::Zero();
  float target_up = 1.0f;           // of the target's own upward axis, z: 1 stands, 0 lies
  std::vector<std::string> events;  // from outside, in this control step
};

struct Condition {
  enum class What {
    kDistance,
    kAngle,
    kTime,
    kSpeed,
    kClipFinished,
    kTargetDown,
    kTargetLeans,
    kUpright,
    kEvent,
    kAlways
  };
  What what = What::kAlways;
  bool greater = false;  // of the first four: greater than the value, else less
  float value = 0.0f;    // m, rad, s, m/s
  std::string event;
};

struct Transition {
  std::vector<Condition> when;  // all of them
  int to = 0;
  std::string text;  // as written, for logs and pictures
};

// Where a moving or turning state is bound for.
struct Destination {
  enum class Kind { kTarget, kAway, kPlace, kDirection, kAhead };
  Kind kind = Kind::kTarget;
  Vec2 place = Vec2::Zero();  // world, m
  float angle = 0.0f;         // kDirection: of the world, rad
};

struct MachineState {
  enum class Kind { kMove, kTurn, kAct };
  std::string name;
  Kind kind = Kind::kAct;
  int clip = 0;             // of the policy: style, or what is acted out; kTurn: to the left
  int clip_right = 0;       // kTurn
  float seconds = 0.0f;     // kAct: how long the clip lasts
  float speed = 0.0f;       // kMove, m/s; 0: the style's own
  Destination destination;  // kMove, kTurn
  bool final = false;
  std::vector<Transition> transitions;  // the first that holds is taken
  int line = 0;                         // of the file
};

struct Machine {
  std::string name;
  std::vector<MachineState> states;
  int start = 0;
  int get_up_clip = 0;  // acted out after a fall until the character stands
};

struct MachinePlace {
  int state = 0;
  float since = 0.0f;           // time at which it was entered, s
  bool getting_up = false;      // after a fall; then the state is entered anew
  float upright_since = -1.0f;  // s; while getting up
  bool operator==(const MachinePlace&) const = default;
};

struct Command {
  enum class Kind { kMove, kAct };
  Kind kind = Kind::kAct;
  int clip = 0;  // style, or what is acted out
  Vec2 direction = Vec2::UnitX();
  float speed = 0.0f;  // m/s; 0: the style's own
};

struct Tick {
  MachinePlace place;
  Command command;
  std::string why;  // the transition taken, empty if none
};

MachinePlace begin(const Machine& machine);
// Whether it waits for its target to lean or to lie: for a place there is nothing to wait for.
bool strikes(const Machine& machine);
// One control step. A fall leads through getting up and back to the state that it happened in.
Tick tick(const Machine& machine, const MachinePlace& place, const Senses& senses);

}  // namespace calm
