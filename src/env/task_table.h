// The tasks of stage 2 as a table: what each asks for, what its policy observes of that, how it is rewarded and when it
// has succeeded. Goals and rewards themselves are the pure functions of tasks.h.
//
// Units: m, s, rad, world frame. Functions are pure but for the random stream they are given; nothing is kept.
#pragma once

#include <string>
#include <vector>

#include "base/rng.h"
#include "character/props.h"
#include "character/state.h"
#include "env/tasks.h"

namespace calm {

// What one environment is asked for; a task uses the part that it needs. Plain numbers: saved as bytes.
struct TaskTarget {
  Vec2 direction = Vec2::UnitX();  // of movement, unit
  Vec2 facing = Vec2::UnitX();     // unit
  Vec2 place = Vec2::Zero();
  Vec3 point = Vec3::Zero();  // to reach
  float speed = 1.0f;         // m/s
  int style = 0;              // of TaskWorld::styles
};

// A way to move: a clip that the low-level policy knows.
struct Style {
  int clip = 0;        // of policy.latents
  std::string name;    // of the clip
  float speed = 1.0f;  // of the clip's root along the floor, m/s
};

// What tasks know of the world beside the state.
struct TaskWorld {
  const Character* character = nullptr;
  std::vector<Style> styles;
  int hand = -1;    // body that reaches: the sword where there is one, else the right hand or the last key body
  int shield = -1;  // body that blocks; -1: there is none
};

// State of one environment after a step.
struct TaskView {
  RootMotion root;  // prev_pos: `root.dt` ago
  CharacterStateView body;
  RootState prop;                        // of the task's prop, if it has one
  Vec3 prop_force = Vec3::Zero();        // N, on the prop
  const float* contact_force = nullptr;  // (bodies x 3) N
};

struct Task {
  std::string name;  // as on the command line
  std::string asks;  // for --help
  int goal_size = 0;
  bool styled = false;  // moves in a requested style, whose latent is observed and rewarded
  std::vector<Prop> props;
  int redraw_min = 0, redraw_max = 0;  // control steps until the target is drawn anew; 0: never in an episode

  // A new target, for a character that stands where `view` says.
  void (*draw)(const TaskWorld&, const TaskView&, Rng&, TaskTarget&) = nullptr;
  // Where the prop starts; called after draw. nullptr: no prop.
  RootState (*place_prop)(const TaskWorld&, const TaskView&, Rng&, TaskTarget&) = nullptr;
  void (*write_goal)(const TaskWorld&, const TaskView&, const TaskTarget&, float* out) = nullptr;
  float (*reward)(const TaskWorld&, const TaskView&, const TaskTarget&) = nullptr;
  bool (*success)(const TaskWorld&, const TaskView&, const TaskTarget&) = nullptr;
};

// All of them, in the order of `calm train high-level --help`.
const std::vector<Task>& all_tasks();
// Throws Error that names the nearest.
const Task& find_task(const std::string& name);

// A pillar to strike down: as large and heavy as the reference's.
Prop strike_pillar();

}  // namespace calm
