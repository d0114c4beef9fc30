// Velocities and joint coordinates of clips.
//
// Finite differences of captured rotations are noisy. The clip files of the reference carry root velocities that a
// Gaussian of 2 frames has smoothed, so clips that are built here get the same; joint velocities stay plain
// differences, because that is what the published policies were trained on.
#include "motion/clip.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace calm {

namespace {

constexpr double kSmoothingSigma = 2.0;  // frames
constexpr int kSmoothingRadius = 8;      // frames: 4 sigma

// Rows of three; frames beyond the ends repeat the first and last.
void smooth_rows(std::vector<float>& rows, int num_frames) {
  std::array<double, 2 * kSmoothingRadius + 1> kernel;
  double sum = 0.0;
  for (int k = -kSmoothingRadius; k <= kSmoothingRadius; ++k)
    sum += kernel[k + kSmoothingRadius] = std::exp(-0.5 * k * k / (kSmoothingSigma * kSmoothingSigma));
  const std::vector<float> raw = rows;
  for (int frame = 0; frame < num_frames; ++frame) {
    for (int axis = 0; axis < 3; ++axis) {
      double value = 0.0;
      for (int k = -kSmoothingRadius; k <= kSmoothingRadius; ++k)
        value += kernel[k + kSmoothingRadius] * raw[3 * std::clamp(frame + k, 0, num_frames - 1) + axis];
      rows[3 * frame + axis] = static_cast<float>(value / sum);
    }
  }
}

ConstQuatMap local_rotation(const Character& character, const Clip& clip, int frame, int body) {
  return ConstQuatMap(clip.body_rot.data() + 4 * (static_cast<size_t>(frame) * character.bodies.size() + body));
}

Quat joint_part(const Body& body, const float* local_rot) { return body.rot.conjugate() * ConstQuatMap(local_rot); }

// Angles of several hinges on one body whose product is nearest to `target`: each in turn takes the best angle given
// the others (coordinate descent).
void hinge_angles(const Character& character, const Body& body, const Quat& target, float* dof_pos) {
  const auto joint = [&](int k) -> const Joint& { return character.joints[body.first_joint + k]; };
  const int n = body.num_joints;
  for (int k = 0; k < n; ++k) dof_pos[joint(k).dof] = 0.0f;
  constexpr int kPasses = 30;
  for (int pass = 0; pass < kPasses; ++pass) {
    for (int k = 0; k < n; ++k) {
      Quat before = Quat::Identity(), after = Quat::Identity();
      for (int i = 0; i < k; ++i) before = before * joint_rotation(joint(i), dof_pos);
      for (int i = k + 1; i < n; ++i) after = after * joint_rotation(joint(i), dof_pos);
      dof_pos[joint(k).dof] = twist_angle(before.conjugate() * target * after.conjugate(), joint(k).axis);
    }
  }
}

float wrap_angle(float angle) { return std::remainder(angle, 2.0f * kPi); }

}  // namespace

void dof_pos_from_rotations(const Character& character, const float* body_rot, float* dof_pos) {
  for (int b = 0; b < character.num_bodies(); ++b) {
    const Body& body = character.bodies[b];
    if (body.num_joints == 0) continue;
    const Quat rot = joint_part(body, body_rot + 4 * b);
    const Joint& joint = character.joints[body.first_joint];
    if (joint.kind == JointKind::kBall)
      Vec3Map(dof_pos + joint.dof) = exp_map_from_quat(rot);
    else if (body.num_joints == 1)  // not the twist: a little smaller where a capture turns off the axis, as recorded
      dof_pos[joint.dof] = exp_map_from_quat(rot).dot(joint.axis);
    else
      hinge_angles(character, body, rot, dof_pos);
  }
}

void compute_dof_velocities(const Character& character, Clip& clip) {
  const int dofs = character.num_dofs;
  const size_t row = 4 * character.bodies.size();
  clip.dof_vel.assign(static_cast<size_t>(clip.num_frames) * dofs, 0.0f);
  std::vector<float> pos(dofs), next_pos(dofs);
  for (int frame = 0; frame + 1 < clip.num_frames; ++frame) {
    const float* rot = clip.body_rot.data() + frame * row;
    float* vel = clip.dof_vel.data() + static_cast<size_t>(frame) * dofs;
    for (int b = 0; b < character.num_bodies(); ++b) {
      const Body& body = character.bodies[b];
      if (body.num_joints == 0) continue;
      const Joint& joint = character.joints[body.first_joint];
      // between two rotations of one body the fixed rotation drops out; normalising keeps rounding out of the small
      // angle
      const Quat change = (ConstQuatMap(rot + 4 * b).conjugate() * ConstQuatMap(rot + row + 4 * b)).normalized();
      if (joint.kind == JointKind::kBall) {
        Vec3Map(vel + joint.dof) = exp_map_from_quat(change) * clip.fps;
      } else if (body.num_joints == 1) {
        vel[joint.dof] = exp_map_from_quat(change).dot(joint.axis) * clip.fps;
      } else {
        hinge_angles(character, body, joint_part(body, rot + 4 * b), pos.data());
        hinge_angles(character, body, joint_part(body, rot + row + 4 * b), next_pos.data());
        for (int k = 0; k < body.num_joints; ++k) {
          const int dof = character.joints[body.first_joint + k].dof;
          vel[dof] = wrap_angle(next_pos[dof] - pos[dof]) * clip.fps;
        }
      }
    }
  }
  if (clip.num_frames >= 2) std::copy_n(clip.dof_vel.end() - 2 * dofs, dofs, clip.dof_vel.end() - dofs);
}

void compute_velocities(const Character& character, Clip& clip) {
  const int n = clip.num_frames;
  clip.root_vel.assign(3 * static_cast<size_t>(n), 0.0f);
  clip.root_ang_vel.assign(3 * static_cast<size_t>(n), 0.0f);
  if (n >= 2) {
    const auto pos = [&](int frame) { return ConstVec3Map(clip.root_pos.data() + 3 * frame); };
    for (int frame = 0; frame < n; ++frame) {
      // central differences, one-sided at the ends
      const int before = std::max(frame - 1, 0), after = std::min(frame + 1, n - 1);
      Vec3Map(clip.root_vel.data() + 3 * frame) =
          (pos(after) - pos(before)) * (clip.fps / static_cast<float>(after - before));
      // the last frame repeats the one before
      const int first = std::min(frame, n - 2);
      const Quat change =
          local_rotation(character, clip, first + 1, 0) * local_rotation(character, clip, first, 0).conjugate();
      Vec3Map(clip.root_ang_vel.data() + 3 * frame) = exp_map_from_quat(change.normalized()) * clip.fps;
    }
    smooth_rows(clip.root_vel, n);
    smooth_rows(clip.root_ang_vel, n);
  }
  compute_dof_velocities(character, clip);
}

}  // namespace calm
