// Rotations and vectors shared by every module: Eigen types, plus the few rotation maps that CALM names.
//
// Conventions: z up, x forward, right-handed, metres, radians, seconds. Eigen keeps a quaternion's coefficients
// in memory as x y z w, the order of our files, so a float[4] maps to a Quat without a shuffle.
// "Heading" of q: the yaw of q applied to +x. "Heading frame": the frame that only undoes that yaw.
#pragma once

#include <Eigen/Geometry>
#include <algorithm>
#include <cmath>
#include <numbers>

namespace calm {

using Vec3 = Eigen::Vector3f;
using Quat = Eigen::Quaternionf;
using Vec3Map = Eigen::Map<Eigen::Vector3f>;
using ConstVec3Map = Eigen::Map<const Eigen::Vector3f>;
using QuatMap = Eigen::Map<Eigen::Quaternionf>;
using ConstQuatMap = Eigen::Map<const Eigen::Quaternionf>;

inline constexpr float kPi = std::numbers::pi_v<float>;

// Rotation of angle |v| about v.
inline Quat quat_from_exp_map(const Vec3& v) {
  const float angle = v.norm();
  if (angle < 1e-6f) return Quat(1.0f, 0.5f * v.x(), 0.5f * v.y(), 0.5f * v.z()).normalized();
  const float s = std::sin(0.5f * angle) / angle;
  return Quat(std::cos(0.5f * angle), s * v.x(), s * v.y(), s * v.z());
}

// Axis times angle, the angle in [0, pi]: of q and -q, which are one rotation, the shorter way round.
inline Vec3 exp_map_from_quat(const Quat& q) {
  const float sign = q.w() < 0.0f ? -1.0f : 1.0f;
  const Vec3 v = sign * q.vec();
  const float s = v.norm();
  if (s < 1e-6f) return 2.0f * v;
  return v * (2.0f * std::atan2(s, sign * q.w()) / s);
}

inline float heading(const Quat& q) {
  const Vec3 forward = q * Vec3::UnitX();
  return std::atan2(forward.y(), forward.x());
}

inline Quat quat_about_z(float angle) { return Quat(std::cos(0.5f * angle), 0.0f, 0.0f, std::sin(0.5f * angle)); }

// Takes world vectors to the heading frame of q.
inline Quat inverse_heading(const Quat& q) { return quat_about_z(-heading(q)); }

// A rotation as six numbers without jumps: the images of +x (tangent) and +z (normal).
inline void write_tangent_normal(const Quat& q, float* out) {
  Vec3Map{out} = q * Vec3::UnitX();
  Vec3Map(out + 3) = q * Vec3::UnitZ();
}

// Shortest-way spherical interpolation; Eigen's own.
inline Quat slerp(const Quat& a, const Quat& b, float t) { return a.slerp(t, b); }

// Angle about a unit axis of the twist part of q, in (-pi, pi].
inline float twist_angle(const Quat& q, const Vec3& axis) {
  const float s = q.vec().dot(axis);
  const float angle = 2.0f * std::atan2(s, q.w());
  if (angle > kPi) return angle - 2.0f * kPi;
  if (angle <= -kPi) return angle + 2.0f * kPi;
  return angle;
}

}  // namespace calm
