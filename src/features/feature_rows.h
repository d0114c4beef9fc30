// What features.h computes, on flat rows: on a processor and on a GPU alike.
#pragma once

#include <cmath>

#include "base/vectors.h"

namespace calm {

// Rows of one character's state, as CharacterStateView has them.
struct StateRows {
  const float* body_pos;      // (bodies x 3) m
  const float* body_rot;      // (bodies x 4) x y z w
  const float* body_vel;      // (bodies x 3) m/s
  const float* body_ang_vel;  // (bodies x 3) rad/s
  const float* dof_pos;       // (dofs) rad
  const float* dof_vel;       // (dofs) rad/s
};

struct FeatureJoint {
  bool ball = false;
  int dof = 0;           // first
  Vec3Of<float> axis{};  // of a hinge, unit, in the body's frame
};

// What features need of a character; joints and key bodies lie elsewhere.
struct FeatureLayout {
  int num_bodies = 0, num_joints = 0, num_dofs = 0, num_key_bodies = 0;
  const FeatureJoint* joints = nullptr;
  const int* key_bodies = nullptr;

  CALM_DEVICE FeatureJoint joint(int j) const { return joints[j]; }
  CALM_DEVICE int key_body(int k) const { return key_bodies[k]; }
  CALM_DEVICE int observation_size() const { return 15 * num_bodies - 2; }
  CALM_DEVICE int motion_feature_size() const { return 13 + 6 * num_joints + num_dofs + 3 * num_key_bodies; }
};

namespace feature_rows {

using Vec = Vec3Of<float>;

CALM_INLINE Vec vec(const float* v) { return {v[0], v[1], v[2]}; }
CALM_INLINE QuatOf<float> quat(const float* q) { return {q[3], q[0], q[1], q[2]}; }
CALM_INLINE void put(const Vec& v, float*& out) {
  out[0] = v.x, out[1] = v.y, out[2] = v.z;
  out += 3;
}

// To the frame that undoes a rotation's heading, the yaw of where it takes +x.
struct ToHeading {
  float c = 1.0f, s = 0.0f;
  CALM_DEVICE explicit ToHeading(const QuatOf<float>& rot) {
    const Vec forward = rotate(rot, Vec{1.0f, 0.0f, 0.0f});
    const float length = sqrtf(forward.x * forward.x + forward.y * forward.y);
    if (length > 0.0f) c = forward.x / length, s = forward.y / length;
  }
  CALM_DEVICE Vec operator()(const Vec& v) const { return {c * v.x + s * v.y, c * v.y - s * v.x, v.z}; }
};

// The images of +x (tangent) and +z (normal).
CALM_INLINE void put_tangent_normal(const QuatOf<float>& q, float*& out) {
  put(rotate(q, Vec{1.0f, 0.0f, 0.0f}), out), put(rotate(q, Vec{0.0f, 0.0f, 1.0f}), out);
}
CALM_INLINE void put_tangent_normal(const ToHeading& to, const QuatOf<float>& q, float*& out) {
  put(to(rotate(q, Vec{1.0f, 0.0f, 0.0f})), out), put(to(rotate(q, Vec{0.0f, 0.0f, 1.0f})), out);
}

CALM_INLINE QuatOf<float> joint_quat(const FeatureJoint& joint, const float* dof_pos) {
  const float* q = dof_pos + joint.dof;
  if (!joint.ball) {
    const float s = sinf(0.5f * q[0]);
    return {cosf(0.5f * q[0]), s * joint.axis.x, s * joint.axis.y, s * joint.axis.z};
  }
  const float angle = sqrtf(q[0] * q[0] + q[1] * q[1] + q[2] * q[2]);
  const float s = angle < 1e-6f ? 0.5f : sinf(0.5f * angle) / angle;
  return {cosf(0.5f * angle), s * q[0], s * q[1], s * q[2]};
}

}  // namespace feature_rows

// Layout: FeatureLayout, or what has the same counts and functions.
template <class Layout>
CALM_DEVICE void write_observation_rows(const Layout& layout, const StateRows& state, bool local_root, float* out) {
  using namespace feature_rows;
  const int n = layout.num_bodies;
  const Vec root = vec(state.body_pos);
  const ToHeading to(quat(state.body_rot));
  *out++ = root.z;
  for (int b = 1; b < n; ++b) put(to(vec(state.body_pos + 3 * b) - root), out);
  for (int b = 0; b < n; ++b) {
    const QuatOf<float> rot = quat(state.body_rot + 4 * b);
    if (b == 0 && !local_root)
      put_tangent_normal(rot, out);
    else
      put_tangent_normal(to, rot, out);
  }
  for (int b = 0; b < n; ++b) put(to(vec(state.body_vel + 3 * b)), out);
  for (int b = 0; b < n; ++b) put(to(vec(state.body_ang_vel + 3 * b)), out);
}

template <class Layout>
CALM_DEVICE void write_motion_feature_rows(const Layout& layout, const StateRows& state, float* out) {
  using namespace feature_rows;
  const Vec root = vec(state.body_pos);
  const QuatOf<float> root_rot = quat(state.body_rot);
  const ToHeading to(root_rot);
  *out++ = root.z;
  put_tangent_normal(to, root_rot, out);
  put(to(vec(state.body_vel)), out), put(to(vec(state.body_ang_vel)), out);
  for (int j = 0; j < layout.num_joints; ++j) put_tangent_normal(joint_quat(layout.joint(j), state.dof_pos), out);
  for (int d = 0; d < layout.num_dofs; ++d) *out++ = state.dof_vel[d];
  for (int k = 0; k < layout.num_key_bodies; ++k) put(to(vec(state.body_pos + 3 * layout.key_body(k)) - root), out);
}

}  // namespace calm
