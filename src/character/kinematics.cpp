// Forward kinematics in MuJoCo's order of operations, so that a clip's state and a simulated one agree: the body's
// fixed placement, then its joints one after the other, each about its own anchor.
#include "character/state.h"

namespace calm {

Quat joint_rotation(const Joint& joint, const float* dof_pos) {
  const float* q = dof_pos + joint.dof;
  if (joint.kind == JointKind::kBall) return quat_from_exp_map(ConstVec3Map(q));
  return Quat(Eigen::AngleAxisf(q[0], joint.axis));
}

void forward_kinematics(const Character& character, const RootState& root, CharacterState& state) {
  for (size_t i = 0; i < character.bodies.size(); ++i) {
    const Body& body = character.bodies[i];
    Vec3 pos = root.pos, vel = root.vel, ang_vel = root.ang_vel;
    Quat rot = root.rot;

    if (body.parent >= 0) {
      const ConstVec3Map parent_pos(&state.body_pos[3 * body.parent]), parent_vel(&state.body_vel[3 * body.parent]);
      const ConstQuatMap parent_rot(&state.body_rot[4 * body.parent]);
      const Vec3 offset = parent_rot * body.pos;
      ang_vel = ConstVec3Map(&state.body_ang_vel[3 * body.parent]);
      pos = parent_pos + offset;
      vel = parent_vel + ang_vel.cross(offset);
      rot = parent_rot * body.rot;
    }

    for (int j = body.first_joint; j < body.first_joint + body.num_joints; ++j) {
      const Joint& joint = character.joints[j];
      // the anchor moves with the frame before the joint, the frame behind it turns about the anchor
      const Vec3 before = rot * joint.anchor;
      const Vec3 anchor_vel = vel + ang_vel.cross(before);
      rot = rot * joint_rotation(joint, state.dof_pos.data());
      const Vec3 after = rot * joint.anchor;
      const float* rate = &state.dof_vel[joint.dof];
      ang_vel += rot * (joint.kind == JointKind::kBall ? Vec3(ConstVec3Map(rate)) : Vec3(rate[0] * joint.axis));
      pos += before - after;
      vel = anchor_vel - ang_vel.cross(after);
    }

    // unit length is lost a little with every product
    rot.normalize();
    Vec3Map(&state.body_pos[3 * i]) = pos;
    QuatMap(&state.body_rot[4 * i]) = rot;
    Vec3Map(&state.body_vel[3 * i]) = vel;
    Vec3Map(&state.body_ang_vel[3 * i]) = ang_vel;
  }
}

CharacterState default_state(const Character& character) {
  CharacterState state(character);
  state.dof_pos = character.default_dof_pos;
  RootState root;
  root.pos.z() = character.stand_height;
  root.rot = character.bodies[0].rot;
  forward_kinematics(character, root, state);
  return state;
}

}  // namespace calm
