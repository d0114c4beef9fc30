// Goals and rewards of the stage 2 tasks against golden numbers. Random states: none of them need be a possible pose.
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "env/tasks.h"
#include "golden/golden_file.h"

namespace calm {
namespace {

Vec2 vec2(const std::vector<float>& rows, int i) { return Eigen::Map<const Vec2>(rows.data() + 2 * i); }
Vec3 vec3(const std::vector<float>& rows, int i) { return ConstVec3Map(rows.data() + 3 * i); }
Quat quat(const std::vector<float>& rows, int i) { return ConstQuatMap(rows.data() + 4 * i); }

// What all tasks of the file share: one row an environment.
struct Roots {
  explicit Roots(const Json& golden)
      : n(golden_int(golden, "n")),
        dt(golden_float(golden, "dt")),
        pos(golden_floats(golden, "root_pos", 3u * n)),
        prev_pos(golden_floats(golden, "prev_root_pos", 3u * n)),
        rot(golden_floats(golden, "root_rot_xyzw", 4u * n)) {}
  RootMotion operator[](int i) const { return {vec3(pos, i), vec3(prev_pos, i), quat(rot, i), dt}; }

  int n;
  float dt;
  std::vector<float> pos, prev_pos, rot;
};

// Compares the task's goals and rewards over all environments.
void expect_task(const Json& task, int n, int goal_size, const std::function<void(int, float*)>& write_goal,
                 const std::function<float(int)>& reward) {
  // one goal more than written, so that a goal that is longer than said would show as a changed guard
  constexpr float kGuard = -12345.0f;
  std::vector<float> goals(static_cast<size_t>(n) * goal_size + 1, kGuard), rewards(n);
  for (int i = 0; i < n; ++i) {
    write_goal(i, goals.data() + static_cast<size_t>(i) * goal_size);
    rewards[i] = reward(i);
  }
  EXPECT_EQ(goals.back(), kGuard);
  goals.pop_back();
  expect_golden("obs", goals, golden_at(task, "obs"));
  expect_golden("reward", rewards, golden_at(task, "reward"));
}

TEST(TasksGolden, StyledHeading) {
  CALM_GOLDEN_OR_SKIP(golden, "tasks.json");
  const Roots roots(golden);
  const auto direction = golden_floats(golden, "target_dir", 2u * roots.n);
  const auto speed = golden_floats(golden, "target_speed", roots.n);
  const auto style = golden_floats(golden, "style_index", roots.n);
  const auto target = [&](int i) {
    return StyledHeadingTarget{vec2(direction, i), speed[i], static_cast<int>(style[i])};
  };
  expect_task(
      golden_at(golden, "heading_conditioned"), roots.n, kStyledHeadingGoalSize,
      [&](int i, float* out) { write_styled_heading_goal(roots[i].rot, target(i), out); },
      [&](int i) { return styled_heading_reward(roots[i], target(i)); });
}

TEST(TasksGolden, Heading) {
  CALM_GOLDEN_OR_SKIP(golden, "tasks.json");
  const Roots roots(golden);
  const auto direction = golden_floats(golden, "target_dir", 2u * roots.n);
  const auto facing = golden_floats(golden, "facing_dir", 2u * roots.n);
  const auto speed = golden_floats(golden, "target_speed", roots.n);
  const auto target = [&](int i) { return HeadingTarget{vec2(direction, i), vec2(facing, i), speed[i]}; };
  expect_task(
      golden_at(golden, "heading"), roots.n, kHeadingGoalSize,
      [&](int i, float* out) { write_heading_goal(roots[i].rot, target(i), out); },
      [&](int i) { return heading_reward(roots[i], target(i)); });
}

TEST(TasksGolden, Location) {
  CALM_GOLDEN_OR_SKIP(golden, "tasks.json");
  const Roots roots(golden);
  const Json& task = golden_at(golden, "location");
  const auto pos = golden_floats(golden, "target_pos", 2u * roots.n);
  const float speed = golden_float(task, "target_speed");
  const auto target = [&](int i) { return LocationTarget{vec2(pos, i), speed}; };
  expect_task(
      task, roots.n, kLocationGoalSize,
      [&](int i, float* out) { write_location_goal(roots[i].pos, roots[i].rot, target(i), out); },
      [&](int i) { return location_reward(roots[i], target(i)); });
}

// The file's strike_body_vel and near_dist are inputs that its reward does not use.
TEST(TasksGolden, Strike) {
  CALM_GOLDEN_OR_SKIP(golden, "tasks.json");
  const Roots roots(golden);
  const Json& task = golden_at(golden, "strike");
  const auto pos = golden_floats(task, "target_pos", 3u * roots.n);
  const auto rot = golden_floats(task, "target_rot_xyzw", 4u * roots.n);
  const auto vel = golden_floats(task, "target_vel", 3u * roots.n);
  const auto ang_vel = golden_floats(task, "target_ang_vel", 3u * roots.n);
  const auto target = [&](int i) { return StrikeTarget{vec3(pos, i), quat(rot, i), vec3(vel, i), vec3(ang_vel, i)}; };
  expect_task(
      task, roots.n, kStrikeGoalSize,
      [&](int i, float* out) { write_strike_goal(roots[i].pos, roots[i].rot, target(i), out); },
      [&](int i) { return strike_reward(roots[i], target(i)); });
}

TEST(TasksGolden, Reach) {
  CALM_GOLDEN_OR_SKIP(golden, "tasks.json");
  const Roots roots(golden);
  const Json& task = golden_at(golden, "reach");
  const auto body_pos = golden_floats(task, "reach_body_pos", 3u * roots.n);
  const auto target_pos = golden_floats(task, "target_pos", 3u * roots.n);
  expect_task(
      task, roots.n, kReachGoalSize,
      [&](int i, float* out) { write_reach_goal(roots[i].rot, vec3(target_pos, i), out); },
      [&](int i) { return reach_reward(vec3(body_pos, i), vec3(target_pos, i)); });
}

}  // namespace
}  // namespace calm
