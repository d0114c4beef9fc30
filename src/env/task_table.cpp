#include "env/task_table.h"

#include "base/error.h"
#include "base/settings.h"

namespace calm {

namespace {

Vec2 random_direction(Rng& rng) {
  const float angle = rng.uniform(-kPi, kPi);
  return {std::cos(angle), std::sin(angle)};
}

// The paper's directed movement: any style by its latent, a direction, a speed near the style's own.
void draw_directed(const TaskWorld& world, const TaskView& view, Rng& rng, TaskTarget& target) {
  target.style = rng.below(static_cast<int>(world.styles.size()));
  target.speed = world.styles[target.style].speed * rng.uniform(0.8f, 1.2f);
  // small turns as often as any: a player's stick moves by little
  if (rng.uniform() < 0.5f) {
    const float turn = heading(view.root.rot) + rng.uniform(-0.8f, 0.8f);
    target.direction = {std::cos(turn), std::sin(turn)};
  } else {
    target.direction = random_direction(rng);
  }
}
void goal_directed(const TaskWorld&, const TaskView& view, const TaskTarget& target, float* out) {
  write_directed_goal(view.root.rot, {target.direction, target.speed}, out);
}
float reward_directed(const TaskWorld&, const TaskView& view, const TaskTarget& target) {
  return directed_reward(view.root, {target.direction, target.speed});
}
bool success_directed(const TaskWorld&, const TaskView& view, const TaskTarget& target) {
  const Vec2 velocity = view.root.velocity();
  return velocity.norm() > 0.3f * target.speed && velocity.normalized().dot(target.direction) > 0.9f;
}

// The reference's: three styles by index, each with a speed that its clips do not reach.
constexpr float kIndexedSpeeds[] = {6.0f, 3.5f, 3.5f};  // run, walk, crouch-walk
StyledHeadingTarget styled_heading_of(const TaskTarget& target) {
  return {target.direction, target.speed, target.style};
}
void draw_styled_heading(const TaskWorld& world, const TaskView&, Rng& rng, TaskTarget& target) {
  target.style = rng.below(std::min<int>(3, static_cast<int>(world.styles.size())));
  target.speed = kIndexedSpeeds[target.style];
  target.direction = random_direction(rng);
}
void goal_styled_heading(const TaskWorld&, const TaskView& view, const TaskTarget& target, float* out) {
  write_styled_heading_goal(view.root.rot, styled_heading_of(target), out);
}
float reward_styled_heading(const TaskWorld&, const TaskView& view, const TaskTarget& target) {
  return styled_heading_reward(view.root, styled_heading_of(target));
}

void draw_heading(const TaskWorld&, const TaskView&, Rng& rng, TaskTarget& target) {
  target.direction = random_direction(rng), target.facing = random_direction(rng);
  target.speed = rng.uniform(0.5f, 1.5f);
}
HeadingTarget heading_of(const TaskTarget& target) { return {target.direction, target.facing, target.speed}; }
void goal_heading(const TaskWorld&, const TaskView& view, const TaskTarget& target, float* out) {
  write_heading_goal(view.root.rot, heading_of(target), out);
}
float reward_heading(const TaskWorld&, const TaskView& view, const TaskTarget& target) {
  return heading_reward(view.root, heading_of(target));
}
bool success_heading(const TaskWorld& world, const TaskView& view, const TaskTarget& target) {
  const float angle = heading(view.root.rot);
  return success_directed(world, view, target) && Vec2(std::cos(angle), std::sin(angle)).dot(target.facing) > 0.8f;
}

void draw_location(const TaskWorld&, const TaskView& view, Rng& rng, TaskTarget& target) {
  target.place = view.root.pos.head<2>() + Vec2(rng.uniform(-10.0f, 10.0f), rng.uniform(-10.0f, 10.0f));
  target.speed = 1.0f;
}
LocationTarget location_of(const TaskTarget& target) { return {target.place, target.speed}; }
void goal_location(const TaskWorld&, const TaskView& view, const TaskTarget& target, float* out) {
  write_location_goal(view.root.pos, view.root.rot, location_of(target), out);
}
float reward_location(const TaskWorld&, const TaskView& view, const TaskTarget& target) {
  return location_reward(view.root, location_of(target));
}
bool success_location(const TaskWorld&, const TaskView& view, const TaskTarget& target) {
  return (view.root.pos.head<2>() - target.place).norm() < 1.0f;
}

// A point in front, within the reach of an arm and what it holds, above the hips.
void draw_reach(const TaskWorld& world, const TaskView& view, Rng& rng, TaskTarget& target) {
  const float turn = heading(view.root.rot) + rng.uniform(-0.7f, 0.7f), far = rng.uniform(0.4f, 0.9f);
  target.point = Vec3(view.root.pos.x() + far * std::cos(turn), view.root.pos.y() + far * std::sin(turn),
                      world.character->stand_height * rng.uniform(0.9f, 1.8f));
}
// Relative to the root's place in the floor plane, as tasks.h asks of environments that leave the origin.
void goal_reach(const TaskWorld&, const TaskView& view, const TaskTarget& target, float* out) {
  write_reach_goal(view.root.rot, target.point - Vec3(view.root.pos.x(), view.root.pos.y(), 0.0f), out);
}
float reward_reach(const TaskWorld& world, const TaskView& view, const TaskTarget& target) {
  return reach_reward(view.body.pos(world.hand), target.point);
}
bool success_reach(const TaskWorld& world, const TaskView& view, const TaskTarget& target) {
  return (view.body.pos(world.hand) - target.point).norm() < 0.2f;
}

StrikeTarget strike_of(const TaskView& view) {
  return {view.prop.pos, view.prop.rot, view.prop.vel, view.prop.ang_vel};
}
void draw_nothing(const TaskWorld&, const TaskView&, Rng&, TaskTarget&) {}
RootState place_pillar(const TaskWorld&, const TaskView& view, Rng& rng, TaskTarget& target) {
  const float far = rng.uniform(1.0f, 10.0f);
  target.place = view.root.pos.head<2>() + far * random_direction(rng);
  RootState pillar;
  pillar.pos = Vec3(target.place.x(), target.place.y(), strike_pillar().size.z());
  pillar.rot = quat_about_z(rng.uniform(-kPi, kPi));
  return pillar;
}
void goal_strike(const TaskWorld&, const TaskView& view, const TaskTarget&, float* out) {
  write_strike_goal(view.root.pos, view.root.rot, strike_of(view), out);
}
float reward_strike(const TaskWorld&, const TaskView& view, const TaskTarget&) {
  return strike_reward(view.root, strike_of(view));
}
bool success_strike(const TaskWorld&, const TaskView& view, const TaskTarget&) {
  return (view.prop.rot * Vec3::UnitZ()).z() < 0.2f;
}

// A box comes flying at the chest.
Prop projectile() {
  Prop box;
  box.name = "projectile", box.size = Vec3(0.1f, 0.1f, 0.1f), box.mass = 0.5f;
  return box;
}
RootState place_projectile(const TaskWorld& world, const TaskView& view, Rng& rng, TaskTarget& target) {
  const float turn = heading(view.root.rot) + rng.uniform(-0.9f, 0.9f), far = rng.uniform(4.0f, 6.0f),
              speed = rng.uniform(4.0f, 6.0f);
  const Vec3 chest = view.root.pos + Vec3(0.0f, 0.0f, 0.35f * world.character->stand_height);
  RootState box;
  box.pos = Vec3(chest.x() + far * std::cos(turn), chest.y() + far * std::sin(turn), chest.z());
  const float time = far / speed;
  box.vel = (chest - box.pos) / time + Vec3(0.0f, 0.0f, 0.5f * 9.81f * time);
  target.point = chest;
  return box;
}
void goal_block(const TaskWorld&, const TaskView& view, const TaskTarget&, float* out) {
  const Quat to_heading = inverse_heading(view.root.rot);
  Vec3Map{out} = to_heading * (view.prop.pos - view.root.pos);
  Vec3Map(out + 3) = to_heading * view.prop.vel;
}
// Of Peng et al.'s form: how near the shield is to the way of what comes, and full when it has turned it back.
float reward_block(const TaskWorld& world, const TaskView& view, const TaskTarget&) {
  const Vec3 away = view.prop.pos - view.root.pos;
  if (away.dot(view.prop.vel) > 0.0f && away.head<2>().norm() < 3.0f) return 1.0f;  // turned back
  const Vec3 shield = view.body.pos(world.shield);
  const Vec3 to = shield - view.prop.pos;
  const float speed = view.prop.vel.norm();
  const Vec3 way = speed > 1e-3f ? Vec3(view.prop.vel / speed) : Vec3::Zero();
  const Vec3 beside = to - way * std::max(to.dot(way), 0.0f);
  return 0.8f * std::exp(-8.0f * beside.squaredNorm());
}
bool success_block(const TaskWorld& world, const TaskView& view, const TaskTarget&) {
  const ConstVec3Map force(view.contact_force + 3 * world.shield);
  return force.norm() > 0.1f && view.prop_force.norm() > 0.1f;
}

std::vector<Task> make_tasks() {
  std::vector<Task> tasks;
  Task t;
  t.name = "directed", t.asks = "move in the style of any clip, in a direction, at a speed (the paper's form)";
  t.goal_size = kDirectedGoalSize, t.styled = true, t.redraw_min = 60, t.redraw_max = 150;
  t.draw = draw_directed, t.write_goal = goal_directed, t.reward = reward_directed, t.success = success_directed;
  tasks.push_back(t);

  t = {};
  t.name = "styled-heading", t.asks = "move in one of three styles, by index, in a direction (the reference's form)";
  t.goal_size = kStyledHeadingGoalSize, t.styled = true, t.redraw_min = 100, t.redraw_max = 200;
  t.draw = draw_styled_heading, t.write_goal = goal_styled_heading, t.reward = reward_styled_heading;
  t.success = success_directed;
  tasks.push_back(t);

  t = {};
  t.name = "heading", t.asks = "move in one direction and face another";
  t.goal_size = kHeadingGoalSize, t.redraw_min = 100, t.redraw_max = 200;
  t.draw = draw_heading, t.write_goal = goal_heading, t.reward = reward_heading, t.success = success_heading;
  tasks.push_back(t);

  t = {};
  t.name = "location", t.asks = "go to a place within 10 m";
  t.goal_size = kLocationGoalSize;
  t.draw = draw_location, t.write_goal = goal_location, t.reward = reward_location, t.success = success_location;
  tasks.push_back(t);

  t = {};
  t.name = "reach", t.asks = "bring the sword, or the hand, to a point";
  t.goal_size = kReachGoalSize, t.redraw_min = 60, t.redraw_max = 120;
  t.draw = draw_reach, t.write_goal = goal_reach, t.reward = reward_reach, t.success = success_reach;
  tasks.push_back(t);

  t = {};
  t.name = "strike", t.asks = "walk up to a pillar and strike it down";
  t.goal_size = kStrikeGoalSize, t.props = {strike_pillar()};
  t.draw = draw_nothing, t.place_prop = place_pillar, t.write_goal = goal_strike, t.reward = reward_strike;
  t.success = success_strike;
  tasks.push_back(t);

  t = {};
  t.name = "block", t.asks = "meet what comes flying with the shield (characters that have one)";
  t.goal_size = 6, t.props = {projectile()}, t.redraw_min = t.redraw_max = 45;
  t.draw = draw_nothing, t.place_prop = place_projectile, t.write_goal = goal_block, t.reward = reward_block;
  t.success = success_block;
  tasks.push_back(t);
  return tasks;
}

}  // namespace

const std::vector<Task>& all_tasks() {
  static const std::vector<Task> tasks = make_tasks();
  return tasks;
}

const Task& find_task(const std::string& name) {
  std::vector<std::string> names;
  for (const Task& task : all_tasks()) {
    if (task.name == name) return task;
    names.push_back(task.name);
  }
  fail("task: there is no `{}`; did you mean `{}`?", name, nearest_name(name, names));
}

Prop strike_pillar() {
  Prop pillar;
  pillar.name = "pillar", pillar.size = Vec3(0.2f, 0.2f, 0.9f);
  pillar.mass = 8.6f;  // 30 kg/m³, as the reference's
  pillar.pos = Vec3(5.0f, 0.0f, 0.9f);
  return pillar;
}

}  // namespace calm
