// The character state: what a simulated environment and a recorded clip both produce, and what every feature is
// computed from. Body 0 is the root. World frame, z up. Linear velocities are those of the body frame's origin.
#pragma once

#include <vector>

#include "character/character.h"

namespace calm {

// Views into one character's state; rows as in structure-of-arrays storage. Does not own.
struct CharacterStateView {
  const float* body_pos;      // (bodies x 3) m
  const float* body_rot;      // (bodies x 4) x y z w
  const float* body_vel;      // (bodies x 3) m/s
  const float* body_ang_vel;  // (bodies x 3) rad/s
  const float* dof_pos;       // (dofs) rad
  const float* dof_vel;       // (dofs) rad/s

  ConstVec3Map pos(int body) const { return ConstVec3Map(body_pos + 3 * body); }
  ConstQuatMap rot(int body) const { return ConstQuatMap(body_rot + 4 * body); }
  ConstVec3Map vel(int body) const { return ConstVec3Map(body_vel + 3 * body); }
  ConstVec3Map ang_vel(int body) const { return ConstVec3Map(body_ang_vel + 3 * body); }
};

// The reduced state, which a clip frame stores and a simulator is set to.
struct RootState {
  Vec3 pos = Vec3::Zero();
  Quat rot = Quat::Identity();
  Vec3 vel = Vec3::Zero();      // world
  Vec3 ang_vel = Vec3::Zero();  // world
};

// Owns one character's state.
struct CharacterState {
  explicit CharacterState(const Character& character)
      : body_pos(3 * character.bodies.size()),
        body_rot(4 * character.bodies.size()),
        body_vel(3 * character.bodies.size()),
        body_ang_vel(3 * character.bodies.size()),
        dof_pos(character.num_dofs),
        dof_vel(character.num_dofs) {}

  CharacterStateView view() const {
    return {body_pos.data(), body_rot.data(), body_vel.data(), body_ang_vel.data(), dof_pos.data(), dof_vel.data()};
  }
  RootState root() const {
    const auto v = view();
    return {v.pos(0), v.rot(0), v.vel(0), v.ang_vel(0)};
  }

  std::vector<float> body_pos, body_rot, body_vel, body_ang_vel, dof_pos, dof_vel;  // shapes as in the view
};

// Forward kinematics with velocities: fills all bodies of `state` from the root and state.dof_pos, state.dof_vel.
void forward_kinematics(const Character& character, const RootState& root, CharacterState& state);

// Rotation of joint `joint` (child in parent, beyond the body's fixed rotation) at the given positions of all DoFs.
Quat joint_rotation(const Joint& joint, const float* dof_pos);

// The default standing pose at the origin, at rest.
CharacterState default_state(const Character& character);

}  // namespace calm
