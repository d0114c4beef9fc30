#include "features/features.h"

namespace calm {

namespace {

void write_observation_impl(const Character& character, const CharacterStateView& state, bool local_root, float* out) {
  const int n = character.num_bodies();
  const Vec3 root_pos = state.pos(0);
  const Quat to_heading = inverse_heading(state.rot(0));
  const Eigen::Matrix3f heading_matrix = to_heading.toRotationMatrix();

  *out++ = root_pos.z();
  for (int b = 1; b < n; ++b, out += 3) Vec3Map{out} = heading_matrix * (state.pos(b) - root_pos);
  for (int b = 0; b < n; ++b, out += 6)
    write_tangent_normal(b == 0 && !local_root ? Quat(state.rot(0)) : to_heading * state.rot(b), out);
  for (int b = 0; b < n; ++b, out += 3) Vec3Map{out} = heading_matrix * state.vel(b);
  for (int b = 0; b < n; ++b, out += 3) Vec3Map{out} = heading_matrix * state.ang_vel(b);
}

}  // namespace

void write_observation(const Character& character, const CharacterStateView& state, float* out) {
  write_observation_impl(character, state, true, out);
}

void write_observation_global_root(const Character& character, const CharacterStateView& state, float* out) {
  write_observation_impl(character, state, false, out);
}

void write_motion_features(const Character& character, const CharacterStateView& state, float* out) {
  const Vec3 root_pos = state.pos(0);
  const Quat to_heading = inverse_heading(state.rot(0));
  const Eigen::Matrix3f heading_matrix = to_heading.toRotationMatrix();

  *out++ = root_pos.z();
  write_tangent_normal(to_heading * state.rot(0), out), out += 6;
  Vec3Map{out} = heading_matrix * state.vel(0), out += 3;
  Vec3Map{out} = heading_matrix * state.ang_vel(0), out += 3;
  for (const Joint& joint : character.joints) write_tangent_normal(joint_rotation(joint, state.dof_pos), out), out += 6;
  out = std::copy_n(state.dof_vel, character.num_dofs, out);
  for (const int body : character.key_bodies) Vec3Map{out} = heading_matrix * (state.pos(body) - root_pos), out += 3;
}

}  // namespace calm
