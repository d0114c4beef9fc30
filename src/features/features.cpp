#include "features/features.h"

#include "features/feature_rows.h"

namespace calm {

namespace {

struct CharacterLayout {
  explicit CharacterLayout(const Character& c)
      : character(c),
        num_bodies(c.num_bodies()),
        num_joints(c.num_joints()),
        num_dofs(c.num_dofs),
        num_key_bodies(static_cast<int>(c.key_bodies.size())) {}
  FeatureJoint joint(int j) const { return feature_joint(character.joints[j]); }
  int key_body(int k) const { return character.key_bodies[k]; }

  const Character& character;
  int num_bodies, num_joints, num_dofs, num_key_bodies;
};

StateRows rows_of(const CharacterStateView& s) {
  return {s.body_pos, s.body_rot, s.body_vel, s.body_ang_vel, s.dof_pos, s.dof_vel};
}

}  // namespace

FeatureJoint feature_joint(const Joint& joint) {
  return {joint.kind == JointKind::kBall, joint.dof, {joint.axis.x(), joint.axis.y(), joint.axis.z()}};
}

void write_observation(const Character& character, const CharacterStateView& state, float* out) {
  write_observation_rows(CharacterLayout(character), rows_of(state), true, out);
}

void write_observation_global_root(const Character& character, const CharacterStateView& state, float* out) {
  write_observation_rows(CharacterLayout(character), rows_of(state), false, out);
}

void write_motion_features(const Character& character, const CharacterStateView& state, float* out) {
  write_motion_feature_rows(CharacterLayout(character), rows_of(state), out);
}

}  // namespace calm
