#include "sim/coordinates.h"

#include <cmath>

#include "base/error.h"
#include "sim/smooth_dynamics.h"

namespace calm {

namespace {

bool finite(const RootState& s) {
  return s.pos.allFinite() && s.rot.coeffs().allFinite() && s.vel.allFinite() && s.ang_vel.allFinite();
}
bool finite(std::span<const float> values) {
  return std::ranges::all_of(values, [](float x) { return std::isfinite(x); });
}

void put_quat(const Eigen::Quaterniond& rot, double* to) {
  to[0] = rot.w(), to[1] = rot.x(), to[2] = rot.y(), to[3] = rot.z();
}

void put_root(const RootState& state, double* q, double* v) {
  const Eigen::Quaterniond rot = state.rot.cast<double>().normalized();
  const Eigen::Vector3d local = rot.conjugate() * state.ang_vel.cast<double>();
  put_quat(rot, q + 3);
  for (int k = 0; k < 3; ++k) q[k] = state.pos[k], v[k] = state.vel[k], v[3 + k] = local[k];
}

RootState root_at(const double* q, const double* v) {
  RootState root;
  const Eigen::Quaterniond rot(q[3], q[4], q[5], q[6]);
  root.rot = rot.cast<float>();
  root.ang_vel = (rot * Eigen::Vector3d(v[3], v[4], v[5])).cast<float>();
  root.pos = Eigen::Vector3d(q[0], q[1], q[2]).cast<float>();
  root.vel = Eigen::Vector3d(v[0], v[1], v[2]).cast<float>();
  return root;
}

}  // namespace

// The smooth dynamics of one environment, without drives.
struct Coordinates::Pusher {
  ModelView<double> model;
  std::vector<std::byte> memory;
  std::unique_ptr<SmoothDynamics<double>> dynamics;

  explicit Pusher(const ModelView<double>& of) : model(of) {
    Arena dry;
    const Sizes room = Sizes::of(model, 0);
    (void)SmoothDynamics<double>(model, room, dry);
    memory.resize(dry.used() + Arena::kAlignment);
    const auto address = reinterpret_cast<size_t>(memory.data());
    const size_t aligned = (address + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
    Arena arena(memory.data() + (aligned - address), nullptr);  // it has nothing common to lanes
    dynamics = std::make_unique<SmoothDynamics<double>>(model, room, arena);
  }
};

Coordinates::Coordinates(const Character& character, Model<double> model)
    : character_(character), model_(std::move(model)), pusher_(std::make_unique<Pusher>(model_.view())) {}

Coordinates::~Coordinates() = default;

const LinkRow<double>& Coordinates::prop_link(int prop) const {
  return model_.links[model_.bodies[character_.num_bodies() + prop].link];
}

void Coordinates::set_character(int env, const RootState& root, std::span<const float> dof_pos,
                                std::span<const float> dof_vel, double* q, double* v) const {
  const int dofs = character_.num_dofs;
  if (static_cast<int>(dof_pos.size()) != dofs || static_cast<int>(dof_vel.size()) != dofs) {
    fail("simulator: a state of {} positions and {} velocities for {} DoFs", dof_pos.size(), dof_vel.size(), dofs);
  }
  if (!finite(root) || !finite(dof_pos) || !finite(dof_vel))
    fail("simulator: environment {} set to a state that is not finite", env);
  put_root(root, q, v);
  for (int j = 0; j < character_.num_joints(); ++j) {
    const Joint& joint = character_.joints[j];
    double* at = q + model_.joints[j].position;
    if (joint.kind == JointKind::kHinge) {
      at[0] = dof_pos[joint.dof];
      continue;
    }
    const Eigen::Vector3d map = ConstVec3Map(&dof_pos[joint.dof]).cast<double>();
    const double angle = map.norm();
    const Eigen::Vector3d axis = angle > 1e-12 ? Eigen::Vector3d(map / angle) : Eigen::Vector3d::UnitX();
    put_quat(Eigen::Quaterniond(Eigen::AngleAxisd(angle, axis)), at);
  }
  for (int i = 0; i < dofs; ++i) v[6 + i] = dof_vel[i];
}

void Coordinates::set_prop(int env, int prop, const RootState& state, double* q, double* v) const {
  if (prop < 0 || prop >= model_.scalars.num_props) fail("simulator: prop {} of {}", prop, model_.scalars.num_props);
  if (!finite(state)) fail("simulator: prop {} of environment {} set to a state that is not finite", prop, env);
  put_root(state, q + prop_link(prop).first_position, v + prop_link(prop).first_velocity);
}

void Coordinates::show_character(const double* q, const double* v, int env, BatchState& out) const {
  CharacterState scratch(character_);
  show_character(q, v, env, out, scratch);
}

void Coordinates::show_character(const double* q, const double* v, int env, BatchState& out,
                                 CharacterState& scratch) const {
  for (int j = 0; j < character_.num_joints(); ++j) {
    const Joint& joint = character_.joints[j];
    const double* at = q + model_.joints[j].position;
    if (joint.kind == JointKind::kHinge) {
      scratch.dof_pos[joint.dof] = static_cast<float>(at[0]);
      continue;
    }
    // the shorter way round
    Eigen::Quaterniond rot(at[0], at[1], at[2], at[3]);
    if (rot.w() < 0.0) rot.coeffs() = -rot.coeffs();
    const double s = rot.vec().norm(), scale = s < 1e-9 ? 2.0 : 2.0 * std::atan2(s, rot.w()) / s;
    for (int k = 0; k < 3; ++k) scratch.dof_pos[joint.dof + k] = static_cast<float>(scale * rot.vec()[k]);
  }
  for (int i = 0; i < character_.num_dofs; ++i) scratch.dof_vel[i] = static_cast<float>(v[6 + i]);
  forward_kinematics(character_, root_at(q, v), scratch);

  const size_t body = static_cast<size_t>(env) * out.num_bodies, dof = static_cast<size_t>(env) * out.num_dofs;
  std::ranges::copy(scratch.body_pos, &out.body_pos[3 * body]);
  std::ranges::copy(scratch.body_rot, &out.body_rot[4 * body]);
  std::ranges::copy(scratch.body_vel, &out.body_vel[3 * body]);
  std::ranges::copy(scratch.body_ang_vel, &out.body_ang_vel[3 * body]);
  std::ranges::copy(scratch.dof_pos, out.dof_pos.begin() + dof);
  std::ranges::copy(scratch.dof_vel, out.dof_vel.begin() + dof);
}

void Coordinates::show_prop(const double* q, const double* v, int env, int prop, BatchState& out) const {
  const RootState root = root_at(q + prop_link(prop).first_position, v + prop_link(prop).first_velocity);
  const size_t at = static_cast<size_t>(env) * out.num_props + prop;
  Vec3Map(&out.prop_pos[3 * at]) = root.pos;
  QuatMap(&out.prop_rot[4 * at]) = root.rot;
  Vec3Map(&out.prop_vel[3 * at]) = root.vel;
  Vec3Map(&out.prop_ang_vel[3 * at]) = root.ang_vel;
}

// v += M⁻¹ Jᵀ (J M⁻¹ Jᵀ)⁻¹ change, of the body's centre of mass.
void Coordinates::push(int body, const Vec3& change, const double* q, double* v) {
  if (body < 0 || body >= character_.num_bodies())
    fail("simulator: push of body {} of {}", body, character_.num_bodies());
  const std::scoped_lock lock(push_mutex_);
  const ModelView<double> m = model_.view();
  SmoothDynamics<double>& dynamics = *pusher_->dynamics;
  dynamics.forward(q, v);
  dynamics.assemble(nullptr);
  dynamics.factorise();

  const BodyRow<double>& row = m.bodies[body];
  const Vec3& com = character_.bodies[body].com;
  const Vec3Of<double> in_body = {com.x(), com.y(), com.z()};
  const Vec3Of<double> in_link = row.pos + rotate(row.quat, in_body);
  const Vec3Of<double> point = dynamics.pos[row.link] + dynamics.rot[row.link] * in_link;
  using Rows = Eigen::Matrix<double, 3, Eigen::Dynamic, Eigen::RowMajor>;
  Rows jacobian = Rows::Zero(3, m.num_velocities);
  for (int e = m.links[row.link].last_velocity; e >= 0; e = m.parent_velocity[e]) {
    const Vec3Of<double> moves = at_point(dynamics.axes[e], point);
    jacobian.col(e) << moves.x, moves.y, moves.z;
  }
  Rows response = jacobian;
  for (int k = 0; k < 3; ++k) dynamics.solve(&response(k, 0));
  const Eigen::Vector3d strength = (jacobian * response.transpose()).ldlt().solve(change.cast<double>());
  for (int i = 0; i < m.num_velocities; ++i) v[i] += response.col(i).dot(strength);
}

}  // namespace calm
