// Stage 2 tasks: the goal that the high-level policy observes and the reward that it is given, as pure functions of
// one environment's state.
//
// Input: the root now and one control step ago, and the task's own target. World frame, metres, radians, seconds;
// directions are unit vectors in the floor plane (x, y). Output: goals as numbers in the root's heading frame, written
// to `out`; rewards in [0, 1]. Nothing is owned or kept, nothing throws; a target at the root's own place has no
// direction, which counts as direction zero.
//
// Sources: specification, "Stage 2" (styled heading); Peng et al., "ASE", SIGGRAPH 2022, appendix on tasks, for the
// form of the other rewards; coefficients agree with the golden numbers (tests/golden/tasks_golden_test.cpp) except
// where a function's comment says otherwise.
#pragma once

#include "base/math.h"

namespace calm {

using Vec2 = Eigen::Vector2f;

struct RootMotion {
  Vec3 pos = Vec3::Zero();
  Vec3 prev_pos = Vec3::Zero();  // `dt` ago
  Quat rot = Quat::Identity();
  float dt = 1.0f / 30.0f;  // control step, s

  // Mean over the step, in the floor plane. Rewards use it rather than the simulator's momentary velocity, which a
  // swaying pelvis changes within a step.
  Vec2 velocity() const { return (pos - prev_pos).head<2>() / dt; }
};

// Move in a direction, at a speed, in one of several styles.
struct StyledHeadingTarget {
  Vec2 direction = Vec2::UnitX();
  float speed = 1.0f;  // m/s
  int style = 0;       // index into the trained styles
};
inline constexpr int kStyledHeadingGoalSize = 3;
// Direction (2), style index (1). The speed belongs to the style and is not observed.
void write_styled_heading_goal(const Quat& root_rot, const StyledHeadingTarget& target, float* out);
// 0.4 exp(-0.25 (speed - s)²), 0 unless s > 0, + 0.6 exp(-2 |direction - movement direction|); s: speed along the
// target direction.
float styled_heading_reward(const RootMotion& root, const StyledHeadingTarget& target);

// The paper's form: move in a direction at a speed; the style is a latent of its own.
struct DirectedTarget {
  Vec2 direction = Vec2::UnitX();
  float speed = 1.0f;  // m/s
};
inline constexpr int kDirectedGoalSize = 3;
// Direction (2), speed (1).
void write_directed_goal(const Quat& root_rot, const DirectedTarget& target, float* out);
// 0.6 exp(-2 |direction - movement direction|), as styled heading's, + 0.4 exp(-4 ((speed - s) / max(speed, 0.5))²), 0
// unless s > 0; s: speed along the direction. Ours: the speed is observed and told apart at a walk as at a run. The
// paper's own exp(-0.25 |direction - movement direction|²) still gives 0.6 for going at a right angle.
float directed_reward(const RootMotion& root, const DirectedTarget& target);

// Move in one direction at a speed while facing another.
struct HeadingTarget {
  Vec2 direction = Vec2::UnitX();
  Vec2 facing = Vec2::UnitX();
  float speed = 1.0f;  // m/s
};
inline constexpr int kHeadingGoalSize = 5;
// Direction (2), speed (1), facing (2).
void write_heading_goal(const Quat& root_rot, const HeadingTarget& target, float* out);
// 0.7 exp(-0.25 ((speed - s)² + 0.1 (x + y)²)), 0 unless s > 0, + 0.3 max(facing . heading, 0); (x, y): the velocity's
// part across the direction. Its components are added before squaring, as the reference does and the golden numbers
// hold: sideways drift along x = -y costs nothing.
float heading_reward(const RootMotion& root, const HeadingTarget& target);

// Go to a place.
struct LocationTarget {
  Vec2 pos = Vec2::Zero();
  float speed = 1.0f;  // m/s; at least so fast on the way
};
inline constexpr int kLocationGoalSize = 2;
// Place relative to the root (2).
void write_location_goal(const Vec3& root_pos, const Quat& root_rot, const LocationTarget& target, float* out);
// 0.5 exp(-0.5 d²) + 0.4 exp(-4 max(speed - s, 0)²), 0 unless s > 0, + 0.1 max(heading . direction, 0); d: distance,
// s: speed towards the place. Nearer than d² = 0.5 m² both latter terms are full. The recorded numbers do not reach
// the factor 4 nor the 0.5 m²: those are the location task's of MimicKit (X. B. Peng).
float location_reward(const RootMotion& root, const LocationTarget& target);

// Strike a pillar down.
struct StrikeTarget {
  Vec3 pos = Vec3::Zero();
  Quat rot = Quat::Identity();
  Vec3 vel = Vec3::Zero();      // m/s
  Vec3 ang_vel = Vec3::Zero();  // rad/s
};
inline constexpr int kStrikeGoalSize = 15;
// Place relative to the root but with its height over the floor (3), rotation as tangent and normal (6), linear (3) and
// angular velocity (3).
void write_strike_goal(const Vec3& root_pos, const Quat& root_rot, const StrikeTarget& target, float* out);
// 1 once the pillar's up axis is below cos 0.2 of the vertical; before, 0.6 max(1 - up_z, 0) + 0.4 exp(-4 max(1 - s,
// 0)²), the latter 0 unless s > 0; s: speed of the root towards the pillar, m/s. The recorded numbers hold the first
// term and the 1, but no pillar that stands while the root comes nearer: the speed term is location's, at 1 m/s, with
// the weight that 0.6 leaves.
float strike_reward(const RootMotion& root, const StrikeTarget& target);

// Bring a body, the sword, to a point.
inline constexpr int kReachGoalSize = 3;
// The point (3), turned into the heading frame but, as the reference does and the golden numbers hold, not made
// relative to the root. An environment whose root leaves the origin passes target_pos less the root's place in the
// floor plane.
void write_reach_goal(const Quat& root_rot, const Vec3& target_pos, float* out);
// exp(-4 |target - body|²).
float reach_reward(const Vec3& body_pos, const Vec3& target_pos);

}  // namespace calm
