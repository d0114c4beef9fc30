// Puts a CharacterState into MuJoCo, for tests that hold ours against it. `data` belongs to the compiled to_mjcf.
#pragma once

#include "character/mujoco_model.h"
#include "character/state.h"

namespace calm {

inline void set_mujoco_state(const Character& character, const CharacterState& state, mjData* data) {
  const auto put = [](const auto& vector, mjtNum*& to) {
    for (int k = 0; k < 3; ++k) *to++ = vector[k];
  };
  const auto put_quat = [](const Quat& q, mjtNum*& to) {
    for (const float x : {q.w(), q.x(), q.y(), q.z()}) *to++ = x;
  };
  const RootState root = state.root();
  mjtNum* q = data->qpos;
  put(root.pos, q);
  put_quat(root.rot, q);
  mjtNum* v = data->qvel;
  put(root.vel, v);
  put(Vec3(root.rot.conjugate() * root.ang_vel), v);  // of a free joint: in the body's own frame
  for (const Joint& joint : character.joints) {
    if (joint.kind == JointKind::kBall)
      put_quat(joint_rotation(joint, state.dof_pos.data()), q);
    else
      *q++ = state.dof_pos[joint.dof];
    for (int k = 0; k < joint.num_dofs; ++k) *v++ = state.dof_vel[joint.dof + k];
  }
}

}  // namespace calm
