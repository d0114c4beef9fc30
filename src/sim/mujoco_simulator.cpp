// MuJoCo's stages are called one by one rather than through mj_step, because mj_step resets an environment that went
// wrong by itself and says so only in a log file; here it must be put back to a known state, counted and reported.
//
// Armature changes every substep (limits come and go), hence a model per worker. One mjData per environment would
// be 4096 buffers of megabytes; with one per worker all of it stays in the core's cache and 130 numbers are copied.
#include "sim/mujoco_simulator.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "sim/backend.h"

namespace calm {

namespace {

constexpr double kMaxSpeed = 1e3;  // rad/s or m/s; faster is an explosion
constexpr int kFreeDofs = 6;

bool all_finite(const double* values, int n) {
  double sum = 0.0;
  for (int i = 0; i < n; ++i) sum += values[i] * 0.0;  // 0, or NaN if one is not finite
  return sum == 0.0;
}

bool all_below(const double* values, int n, double bound) {
  bool ok = true;
  for (int i = 0; i < n; ++i) ok &= std::abs(values[i]) <= bound;  // false for NaN
  return ok;
}

bool all_finite(std::span<const float> values) {
  return std::ranges::all_of(values, [](float v) { return std::isfinite(v); });
}

}  // namespace

MujocoSimulator::MujocoSimulator(const Character& character, const std::vector<Prop>& props,
                                 const PhysicsSettings& settings, int num_envs, ThreadPool& pool)
    : character_(character),
      pool_(pool),
      num_props_(static_cast<int>(props.size())),
      substeps_(settings.substeps),
      timestep_(timestep_of(settings)),
      max_ang_vel_(settings.max_ang_vel) {
  if (num_envs < 1) fail("simulator: number of environments is {}; it must be at least 1", num_envs);
  compile(character, props, settings);

  state_.resize(character, num_envs, num_props_);
  const size_t envs = num_envs;
  for (auto* positions : {&qpos_, &set_qpos_}) positions->resize(envs * nq_);
  for (auto* velocities : {&qvel_, &warmstart_, &set_qvel_}) velocities->resize(envs * nv_);

  start_standing(*this, num_envs, character, props);
}

void MujocoSimulator::compile(const Character& character, const std::vector<Prop>& props,
                              const PhysicsSettings& settings) {
  const MujocoModel driven = compile_driven(character, props, settings);
  coordinates_ = std::make_unique<Coordinates>(character, make_model<double>(character, props, settings, *driven));
  nq_ = driven->nq, nv_ = driven->nv;
  for (int j = 0; j < character.num_joints(); ++j) joint_qpos_.push_back(driven->jnt_qposadr[1 + j]);
  plain_model_.reset(mj_copyModel(nullptr, driven.get()));

  for (int i = 0; i < character.num_dofs; ++i) {
    const bool ball = character.joints[character.dof_joint[i]].kind == JointKind::kBall;
    constexpr double kNone = std::numeric_limits<double>::infinity();
    const LimitSpring spring = limit_spring(character, settings, i);
    dofs_.push_back({.kp = character.kp[i],
                     .kd = character.kd[i],
                     .armature = character.armature[i],
                     .limit_lower = ball ? character.limit_lower[i] : -kNone,
                     .limit_upper = ball ? character.limit_upper[i] : kNone,
                     .limit_stiffness = spring.stiffness,
                     .limit_damping = spring.damping});
    plain_model_->dof_armature[kFreeDofs + i] = character.armature[i];
  }
  push_data_.reset(mj_makeData(plain_model_.get()));
  if (!push_data_) fail("{}: no memory for MuJoCo's data", character.name);
  for (int w = 0; w < pool_.size(); ++w) {
    Worker& worker = workers_.emplace_back(character);
    worker.model.reset(mj_copyModel(nullptr, driven.get()));
    worker.data.reset(mj_makeData(worker.model.get()));
    worker.dof_pos.resize(character.num_dofs);
    worker.inertial.resize(nv_);
    if (!worker.model || !worker.data) fail("{}: no memory for MuJoCo's data", character.name);
  }
}

void MujocoSimulator::step(std::span<const float> pd_targets) {
  check_targets(pd_targets, state_);
  pool_.parallel_for(state_.num_envs, 1, [&](int env, int worker) {
    step_env(env, &pd_targets[static_cast<size_t>(env) * state_.num_dofs], workers_[worker]);
  });
}

void MujocoSimulator::step_env(int env, const float* targets, Worker& worker) {
  mjData& d = *worker.data;
  mju_copy(d.qpos, qpos(env), nq_);
  mju_copy(d.qvel, qvel(env), nv_);
  mju_copy(d.qacc_warmstart, warmstart(env), nv_);
  if (simulate(env, targets, worker)) {
    mju_copy(qpos(env), d.qpos, nq_);
    mju_copy(qvel(env), d.qvel, nv_);
    mju_copy(warmstart(env), d.qacc_warmstart, nv_);
    read_contact_forces(env, worker);
    state_.diverged[env] = 0;
  } else {
    put_back(env);
    state_.diverged[env] = 1;
    ++num_diverged_;
  }
  refresh_view(env, worker.kinematics);
}

bool MujocoSimulator::simulate(int env, const float* targets, Worker& worker) {
  if (!all_finite(std::span(targets, state_.num_dofs))) return false;
  const mjModel* m = worker.model.get();
  mjData* d = worker.data.get();
  state_.solver_residual[env] = 0.0f, state_.solver_iterations[env] = 0;
  for (int substep = 0; substep < substeps_; ++substep) {
    apply_drives(targets, worker);
    d->warning[mjWARN_CONTACTFULL].number = d->warning[mjWARN_CNSTRFULL].number = 0;
    mj_forward(m, d);
    if (d->warning[mjWARN_CONTACTFULL].number || d->warning[mjWARN_CNSTRFULL].number) {
      if (num_overflows_++ == 0) spdlog::warn("simulator: more contacts than there is room for; some were left out");
    }
    if (!all_finite(d->qacc, nv_)) return false;
    state_.num_contacts[env] = d->ncon;
    state_.solver_iterations[env] += d->solver_iter;
    if (substep + 1 == substeps_) state_.solver_residual[env] = residual(worker);
    mj_Euler(m, d);
    if (!all_finite(d->qpos, nq_) || !all_below(d->qvel, nv_, kMaxSpeed)) return false;
    limit_speeds(d->qvel);
  }
  return true;
}

// As ConstraintSolver::residual.
float MujocoSimulator::residual(Worker& worker) const {
  const mjModel* m = worker.model.get();
  const mjData* d = worker.data.get();
  mj_mulM(m, d, worker.inertial.data(), d->qacc);
  double largest = 0.0, strongest = 1e-6;
  for (int i = 0; i < nv_; ++i) {
    const double force = d->qfrc_passive[i] - d->qfrc_bias[i] + d->qfrc_applied[i], root = std::sqrt(m->dof_M0[i]);
    largest = std::max(largest, std::abs(worker.inertial[i] - force - d->qfrc_constraint[i]) / root);
    strongest = std::max({strongest, std::abs(force) / root, std::abs(d->qacc[i]) * root});
  }
  return static_cast<float>(largest / strongest);
}

template <class T>
void MujocoSimulator::read_dof_pos(const double* qpos, T* dof_pos) const {
  for (int j = 0; j < character_.num_joints(); ++j) {
    const Joint& joint = character_.joints[j];
    const double* q = qpos + joint_qpos_[j];
    T* out = dof_pos + joint.dof;
    if (joint.kind == JointKind::kHinge) {
      out[0] = static_cast<T>(q[0]);
      continue;
    }
    // exponential map of w x y z, the shorter way round
    const double sign = q[0] < 0.0 ? -1.0 : 1.0;
    const double s = std::sqrt(q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    const double scale = sign * (s < 1e-9 ? 2.0 : 2.0 * std::atan2(s, sign * q[0]) / s);
    for (int k = 0; k < 3; ++k) out[k] = static_cast<T>(scale * q[1 + k]);
  }
}

void MujocoSimulator::apply_drives(const float* targets, Worker& worker) {
  const double h = timestep_;
  const double* v = worker.data->qvel + kFreeDofs;
  double* force = worker.data->qfrc_applied + kFreeDofs;
  double* armature = worker.model->dof_armature + kFreeDofs;
  read_dof_pos(worker.data->qpos, worker.dof_pos.data());
  for (int i = 0; i < state_.num_dofs; ++i) {
    const Dof& dof = dofs_[i];
    const double q = worker.dof_pos[i];
    double stiffness = dof.kp, damping = dof.kd, pull = dof.kp * (targets[i] - q);
    const double excess = q > dof.limit_upper ? q - dof.limit_upper : std::min(q - dof.limit_lower, 0.0);
    if (excess != 0.0) {
      stiffness += dof.limit_stiffness;
      damping += dof.limit_damping;
      pull -= dof.limit_stiffness * excess;
    }
    armature[i] = dof.armature + h * damping + h * h * stiffness;
    force[i] = pull - (damping + h * stiffness) * v[i];
  }
}

// Coriolis forces are integrated explicitly: at 120 Hz they feed on themselves from about 60 rad/s on, which targets
// far beyond a ball joint's half turn do reach by driving it round and round. PhysX bounds its speeds likewise.
void MujocoSimulator::limit_speeds(double* qvel) const {
  const auto limit = [this](double* v, int n) {
    double squared = 0.0;
    for (int k = 0; k < n; ++k) squared += v[k] * v[k];
    if (squared <= max_ang_vel_ * max_ang_vel_) return;
    const double scale = max_ang_vel_ / std::sqrt(squared);
    for (int k = 0; k < n; ++k) v[k] *= scale;
  };
  limit(qvel + 3, 3);
  for (const Joint& joint : character_.joints) limit(qvel + kFreeDofs + joint.dof, joint.num_dofs);
}

void MujocoSimulator::read_contact_forces(int env, Worker& worker) {
  const mjModel* m = worker.model.get();
  const mjData* d = worker.data.get();
  float* forces = state_.contact_force.data() + static_cast<size_t>(env) * 3 * state_.num_bodies;
  float* prop_forces = state_.prop_force.data() + static_cast<size_t>(env) * 3 * num_props_;
  std::fill_n(forces, 3 * state_.num_bodies, 0.0f);
  std::fill_n(prop_forces, 3 * num_props_, 0.0f);
  for (int c = 0; c < d->ncon; ++c) {
    const mjContact& contact = d->contact[c];
    if (contact.efc_address < 0) continue;
    mjtNum local[6], world[3];
    mj_contactForce(m, d, c, local);
    mju_mulMatTVec(world, contact.frame, local, 3, 3);
    // the contact's frame has its normal from geom1 to geom2
    const int bodies[2] = {m->geom_bodyid[contact.geom1], m->geom_bodyid[contact.geom2]};
    for (int side = 0; side < 2; ++side) {
      if (bodies[side] == 0) continue;
      const int body = bodies[side] - 1, prop = body - state_.num_bodies;
      float* force = prop < 0 ? forces + 3 * body : prop_forces + 3 * prop;
      for (int k = 0; k < 3; ++k) force[k] += static_cast<float>(side == 0 ? -world[k] : world[k]);
    }
  }
}

void MujocoSimulator::put_back(int env) {
  mju_copy(qpos(env), set_qpos(env), nq_);
  mju_copy(qvel(env), set_qvel(env), nv_);
  mju_zero(warmstart(env), nv_);
  clear_all_forces(state_, env);
}

void MujocoSimulator::refresh_view(int env, CharacterState& scratch) {
  coordinates_->show_character(qpos(env), qvel(env), env, state_, scratch);
  for (int p = 0; p < num_props_; ++p) coordinates_->show_prop(qpos(env), qvel(env), env, p, state_);
}

void MujocoSimulator::set_prop(int env, int prop, const RootState& state) {
  coordinates_->set_prop(env, prop, state, set_qpos(env), set_qvel(env));
  const LinkRow<double>& link = coordinates_->prop_link(prop);
  mju_copy(qpos(env) + link.first_position, set_qpos(env) + link.first_position, 7);
  mju_copy(qvel(env) + link.first_velocity, set_qvel(env) + link.first_velocity, 6);
  mju_zero(warmstart(env), nv_);
  CharacterState scratch(character_);
  refresh_view(env, scratch);
}

void MujocoSimulator::set_state(int env, const RootState& root, std::span<const float> dof_pos,
                                std::span<const float> dof_vel) {
  coordinates_->set_character(env, root, dof_pos, dof_vel, set_qpos(env), set_qvel(env));
  // the props stay where they are
  mju_copy(qpos(env), set_qpos(env), coordinates_->character_positions());
  mju_copy(qvel(env), set_qvel(env), coordinates_->character_velocities());
  mju_zero(warmstart(env), nv_);
  clear_forces(state_, env);
  state_.diverged[env] = 0;
  CharacterState scratch(character_);
  refresh_view(env, scratch);
}

void MujocoSimulator::push(int env, int body, const Vec3& impulse) {
  if (body < 0 || body >= state_.num_bodies) fail("simulator: push of body {} of {}", body, state_.num_bodies);
  const std::scoped_lock lock(push_mutex_);
  const mjModel* m = plain_model_.get();
  mjData* d = push_data_.get();
  mju_copy(d->qpos, qpos(env), nq_);
  mju_copy(d->qvel, qvel(env), nv_);
  mj_fwdPosition(m, d);

  // v += M⁻¹ Jᵀ (J M⁻¹ Jᵀ)⁻¹ change
  using Rows = Eigen::Matrix<double, 3, Eigen::Dynamic, Eigen::RowMajor>;
  Rows jacobian(3, nv_), response(3, nv_);
  mj_jacBodyCom(m, d, jacobian.data(), nullptr, body + 1);
  mj_solveM(m, d, response.data(), jacobian.data(), 3);
  Eigen::Matrix3d mobility;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) mobility(i, j) = mju_dot(&jacobian(i, 0), &response(j, 0), nv_);
  }
  const Eigen::Vector3d strength = mobility.ldlt().solve(impulse.cast<double>());
  Eigen::Map<Eigen::VectorXd>(qvel(env), nv_) += response.transpose() * strength;
}

// qpos, qvel, warm start, last set qpos and qvel, contact forces.
std::vector<double> MujocoSimulator::save(int env) const {
  std::vector<double> out;
  const size_t e = env;
  const auto append = [&](const auto& rows, size_t width) {
    out.insert(out.end(), rows.begin() + e * width, rows.begin() + (e + 1) * width);
  };
  append(qpos_, nq_), append(qvel_, nv_), append(warmstart_, nv_), append(set_qpos_, nq_), append(set_qvel_, nv_);
  append(state_.contact_force, 3 * state_.num_bodies), append(state_.prop_force, 3 * num_props_);
  append(state_.diverged, 1);
  return out;
}

void MujocoSimulator::restore(int env, std::span<const double> saved) {
  check_saved(saved, 2 * nq_ + 3 * nv_ + 3 * (state_.num_bodies + num_props_) + 1);
  const size_t e = env;
  const double* in = saved.data();
  const auto take = [&](auto& rows, size_t width) {
    std::transform(in, in + width, rows.begin() + e * width,
                   [](double x) { return static_cast<std::decay_t<decltype(rows[0])>>(x); });
    in += width;
  };
  take(qpos_, nq_), take(qvel_, nv_), take(warmstart_, nv_), take(set_qpos_, nq_), take(set_qvel_, nv_);
  take(state_.contact_force, 3 * state_.num_bodies), take(state_.prop_force, 3 * num_props_);
  take(state_.diverged, 1);
  CharacterState scratch(character_);
  refresh_view(env, scratch);
}

}  // namespace calm
