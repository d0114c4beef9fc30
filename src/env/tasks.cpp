#include "env/tasks.h"

#include <algorithm>
#include <cmath>

namespace calm {
namespace {

// a unit vector, or zero where there is no direction
Vec2 direction_of(const Vec2& v) {
  const float length = v.norm();
  return length > 1e-12f ? Vec2(v / length) : Vec2::Zero();
}

Vec2 facing_of(const Quat& root_rot) {
  const float angle = heading(root_rot);
  return {std::cos(angle), std::sin(angle)};
}

void write_flat(const Quat& to_heading, const Vec2& v, float* out) {
  const Vec3 local = to_heading * Vec3(v.x(), v.y(), 0.0f);
  out[0] = local.x();
  out[1] = local.y();
}

void write_vec3(const Quat& to_heading, const Vec3& v, float* out) { Vec3Map{out} = to_heading * v; }

// reward of going at least `wanted` m/s the right way, shared by location and strike
float approach_reward(float wanted, float speed) {
  if (speed <= 0.0f) return 0.0f;
  const float missing = std::max(wanted - speed, 0.0f);
  return std::exp(-4.0f * missing * missing);
}

}  // namespace

void write_styled_heading_goal(const Quat& root_rot, const StyledHeadingTarget& target, float* out) {
  write_flat(inverse_heading(root_rot), target.direction, out);
  out[2] = static_cast<float>(target.style);
}

float styled_heading_reward(const RootMotion& root, const StyledHeadingTarget& target) {
  const Vec2 velocity = root.velocity();
  const float speed = velocity.dot(target.direction);
  const float error = target.speed - speed;
  const float speed_reward = speed > 0.0f ? std::exp(-0.25f * error * error) : 0.0f;
  const float direction_reward = std::exp(-2.0f * (target.direction - direction_of(velocity)).norm());
  return 0.4f * speed_reward + 0.6f * direction_reward;
}

void write_directed_goal(const Quat& root_rot, const DirectedTarget& target, float* out) {
  write_flat(inverse_heading(root_rot), target.direction, out);
  out[2] = target.speed;
}

float directed_reward(const RootMotion& root, const DirectedTarget& target) {
  const Vec2 velocity = root.velocity();
  const float speed = velocity.dot(target.direction);
  const float error = (target.speed - speed) / std::max(target.speed, 0.5f);
  const float speed_reward = speed > 0.0f ? std::exp(-4.0f * error * error) : 0.0f;
  return 0.6f * std::exp(-2.0f * (target.direction - direction_of(velocity)).norm()) + 0.4f * speed_reward;
}

void write_heading_goal(const Quat& root_rot, const HeadingTarget& target, float* out) {
  const Quat to_heading = inverse_heading(root_rot);
  write_flat(to_heading, target.direction, out);
  out[2] = target.speed;
  write_flat(to_heading, target.facing, out + 3);
}

float heading_reward(const RootMotion& root, const HeadingTarget& target) {
  const Vec2 velocity = root.velocity();
  const float speed = velocity.dot(target.direction);
  const float error = target.speed - speed;
  const float across = (velocity - speed * target.direction).sum();
  const float move_reward = speed > 0.0f ? std::exp(-0.25f * (error * error + 0.1f * across * across)) : 0.0f;
  const float facing_reward = std::max(facing_of(root.rot).dot(target.facing), 0.0f);
  return 0.7f * move_reward + 0.3f * facing_reward;
}

void write_location_goal(const Vec3& root_pos, const Quat& root_rot, const LocationTarget& target, float* out) {
  write_flat(inverse_heading(root_rot), target.pos - root_pos.head<2>(), out);
}

float location_reward(const RootMotion& root, const LocationTarget& target) {
  constexpr float kArrivedSquared = 0.5f;  // m²
  const Vec2 offset = target.pos - root.pos.head<2>();
  const Vec2 direction = direction_of(offset);
  const bool arrived = offset.squaredNorm() < kArrivedSquared;
  const float speed_reward = arrived ? 1.0f : approach_reward(target.speed, root.velocity().dot(direction));
  const float facing_reward = arrived ? 1.0f : std::max(facing_of(root.rot).dot(direction), 0.0f);
  return 0.5f * std::exp(-0.5f * offset.squaredNorm()) + 0.4f * speed_reward + 0.1f * facing_reward;
}

void write_strike_goal(const Vec3& root_pos, const Quat& root_rot, const StrikeTarget& target, float* out) {
  const Quat to_heading = inverse_heading(root_rot);
  write_vec3(to_heading, {target.pos.x() - root_pos.x(), target.pos.y() - root_pos.y(), target.pos.z()}, out);
  write_tangent_normal(to_heading * target.rot, out + 3);
  write_vec3(to_heading, target.vel, out + 9);
  write_vec3(to_heading, target.ang_vel, out + 12);
}

float strike_reward(const RootMotion& root, const StrikeTarget& target) {
  constexpr float kFallen = 0.2f;         // cosine between the pillar's axis and the vertical
  constexpr float kApproachSpeed = 1.0f;  // m/s
  const float upright = (target.rot * Vec3::UnitZ()).z();
  if (upright < kFallen) return 1.0f;
  const Vec2 direction = direction_of((target.pos - root.pos).head<2>());
  return 0.6f * std::max(1.0f - upright, 0.0f) + 0.4f * approach_reward(kApproachSpeed, root.velocity().dot(direction));
}

void write_reach_goal(const Quat& root_rot, const Vec3& target_pos, float* out) {
  write_vec3(inverse_heading(root_rot), target_pos, out);
}

float reach_reward(const Vec3& body_pos, const Vec3& target_pos) {
  return std::exp(-4.0f * (target_pos - body_pos).squaredNorm());
}

}  // namespace calm
