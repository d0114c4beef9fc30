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

namespace calm {

namespace {

constexpr double kMaxSpeed = 1e3;  // rad/s or m/s; faster is an explosion
constexpr int kMaxContacts = 160;  // more than all shapes of a character folded up give
constexpr int kMaxConstraints = 4 * kMaxContacts + 64;
constexpr double kSolverTolerance = 1e-6;
constexpr double kMinFriction = 0.01;  // less makes the friction pyramid so thin that the solver gains momentum
constexpr int kFreeDofs = 6;
constexpr int kFreePositions = 7;

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

MujocoSimulator::MujocoSimulator(const Character& character, const PhysicsSettings& settings, int num_envs,
                                 ThreadPool& pool)
    : character_(character),
      pool_(pool),
      substeps_(settings.substeps),
      timestep_(1.0 / (static_cast<double>(settings.control_rate) * settings.substeps)),
      max_ang_vel_(settings.max_ang_vel) {
  if (num_envs < 1) fail("simulator: number of environments is {}; it must be at least 1", num_envs);
  if (settings.substeps < 1) fail("physics: substeps is {}; it must be at least 1", settings.substeps);
  if (!(settings.control_rate > 0.0f)) fail("physics: control_rate is {}; it must be positive", settings.control_rate);
  if (!(settings.max_ang_vel > 0.0f)) fail("physics: max_ang_vel is {}; it must be positive", settings.max_ang_vel);
  if (!(settings.limit_stiffness >= 0.0f) || !(settings.floor_friction >= 0.0f) || settings.solver_iterations < 1) {
    fail("physics: limit_stiffness and floor_friction must not be negative, solver_iterations at least 1");
  }
  compile(character, settings);

  state_.num_envs = num_envs;
  state_.num_bodies = character.num_bodies();
  state_.num_dofs = character.num_dofs;
  const size_t envs = num_envs, bodies = envs * state_.num_bodies, dofs = envs * state_.num_dofs;
  state_.body_pos.resize(3 * bodies);
  state_.body_rot.resize(4 * bodies);
  state_.body_vel.resize(3 * bodies);
  state_.body_ang_vel.resize(3 * bodies);
  state_.dof_pos.resize(dofs);
  state_.dof_vel.resize(dofs);
  state_.contact_force.resize(3 * bodies);
  state_.diverged.resize(envs);
  for (auto* positions : {&qpos_, &set_qpos_}) positions->resize(envs * nq_);
  for (auto* velocities : {&qvel_, &warmstart_, &set_qvel_}) velocities->resize(envs * nv_);

  const CharacterState standing = default_state(character);
  for (int env = 0; env < num_envs; ++env) set_state(env, standing.root(), standing.dof_pos, standing.dof_vel);
}

void MujocoSimulator::compile(const Character& character, const PhysicsSettings& settings) {
  plain_model_ = compile_mjcf(to_mjcf(character), character.name);
  mjModel& m = *plain_model_;
  nq_ = m.nq, nv_ = m.nv;

  // the compiled model must have the character's own order of bodies and joints
  bool same = m.nv == kFreeDofs + character.num_dofs && m.nbody == 1 + character.num_bodies() &&
              m.njnt == 1 + character.num_joints() && m.jnt_type[0] == mjJNT_FREE;
  for (int j = 0; same && j < character.num_joints(); ++j) {
    const Joint& joint = character.joints[j];
    same = m.jnt_type[1 + j] == (joint.kind == JointKind::kBall ? mjJNT_BALL : mjJNT_HINGE) &&
           m.jnt_dofadr[1 + j] == kFreeDofs + joint.dof && m.jnt_bodyid[1 + j] == 1 + joint.body;
    joint_qpos_.push_back(m.jnt_qposadr[1 + j]);
  }
  if (!same) fail("{}: MuJoCo orders the compiled character's joints differently", character.name);

  // options
  m.opt.timestep = timestep_;
  m.opt.integrator = mjINT_EULER;
  m.opt.cone = mjCONE_PYRAMIDAL;
  m.opt.jacobian = mjJAC_DENSE;
  m.opt.solver = mjSOL_NEWTON;
  m.opt.iterations = settings.solver_iterations;
  m.opt.tolerance = kSolverTolerance;
  m.opt.disableflags = mjDSBL_EQUALITY | mjDSBL_FRICTIONLOSS | mjDSBL_ACTUATION | mjDSBL_SENSOR;
  m.opt.enableflags = 0;

  // who collides: the floor and, unless switched off, bodies with each other
  for (int g = 0; g < m.ngeom; ++g) {
    m.geom_condim[g] = 3;
    const bool floor = m.geom_bodyid[g] == 0;
    if (floor) m.geom_friction[3 * g] = settings.floor_friction;
    m.geom_friction[3 * g] = std::max(m.geom_friction[3 * g], kMinFriction);
    if (!m.geom_contype[g] && !m.geom_conaffinity[g]) continue;
    m.geom_contype[g] = floor ? 1 : 2;
    m.geom_conaffinity[g] = floor ? 0 : settings.self_collision ? 3 : 1;
  }
#if mjVERSION_HEADER >= 300
  for (int b = 0; b < m.nbody; ++b) {
    m.body_contype[b] = m.body_conaffinity[b] = 0;
    for (int g = m.body_geomadr[b]; g >= 0 && g < m.body_geomadr[b] + m.body_geomnum[b]; ++g) {
      m.body_contype[b] |= m.geom_contype[g];
      m.body_conaffinity[b] |= m.geom_conaffinity[g];
    }
  }
#else
  // room for contacts; MuJoCo 3 takes it from an arena that grows to need
  m.nconmax = kMaxContacts;
  m.njmax = kMaxConstraints;
  const int rows = m.njmax + m.nv;
  m.nstack = 6 * rows * rows + 50 * (m.nq + m.nv + m.nbody + m.ngeom);
#endif

  for (int i = 0; i < character.num_dofs; ++i) {
    const bool ball = character.joints[character.dof_joint[i]].kind == JointKind::kBall;
    constexpr double kNone = std::numeric_limits<double>::infinity();
    // damping that takes excess back with a time constant of two substeps: no bounce, no sticking
    const double stiffness = static_cast<double>(settings.limit_stiffness) * character.kp[i];
    dofs_.push_back({.kp = character.kp[i],
                     .kd = character.kd[i],
                     .armature = character.armature[i],
                     .limit_lower = ball ? character.limit_lower[i] : -kNone,
                     .limit_upper = ball ? character.limit_upper[i] : kNone,
                     .limit_stiffness = stiffness,
                     .limit_damping = stiffness * 2.0 * timestep_});
    m.dof_armature[kFreeDofs + i] = character.armature[i];
  }
  for (int i = 0; i < kFreeDofs; ++i) m.dof_armature[i] = 0.0;
  push_data_.reset(mj_makeData(&m));
  if (!push_data_) fail("{}: no memory for MuJoCo's data", character.name);
  mj_setConst(&m, push_data_.get());

  // constraint regularisation is scaled by the inertia that the solver meets: with drives
  MujocoModel driven(mj_copyModel(nullptr, &m));
  for (int i = 0; i < character.num_dofs; ++i) {
    driven->dof_armature[kFreeDofs + i] += timestep_ * dofs_[i].kd + timestep_ * timestep_ * dofs_[i].kp;
  }
  mj_setConst(driven.get(), push_data_.get());
  for (int w = 0; w < pool_.size(); ++w) {
    Worker& worker = workers_.emplace_back(character);
    worker.model.reset(mj_copyModel(nullptr, driven.get()));
    worker.data.reset(mj_makeData(worker.model.get()));
    worker.dof_pos.resize(character.num_dofs);
    if (!worker.model || !worker.data) fail("{}: no memory for MuJoCo's data", character.name);
  }
}

void MujocoSimulator::step(std::span<const float> pd_targets) {
  if (pd_targets.size() != state_.dof_pos.size()) {
    fail("simulator step: {} PD targets for {} environments of {} DoFs", pd_targets.size(), state_.num_envs,
         state_.num_dofs);
  }
  pool_.parallel_for(state_.num_envs, 1, [&](int env, int worker) {
    step_env(env, &pd_targets[static_cast<size_t>(env) * state_.num_dofs], workers_[worker]);
  });
}

void MujocoSimulator::step_env(int env, const float* targets, Worker& worker) {
  mjData& d = *worker.data;
  mju_copy(d.qpos, qpos(env), nq_);
  mju_copy(d.qvel, qvel(env), nv_);
  mju_copy(d.qacc_warmstart, warmstart(env), nv_);
  if (simulate(targets, worker)) {
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

bool MujocoSimulator::simulate(const float* targets, Worker& worker) {
  if (!all_finite(std::span(targets, state_.num_dofs))) return false;
  const mjModel* m = worker.model.get();
  mjData* d = worker.data.get();
  for (int substep = 0; substep < substeps_; ++substep) {
    apply_drives(targets, worker);
    d->warning[mjWARN_CONTACTFULL].number = d->warning[mjWARN_CNSTRFULL].number = 0;
    mj_forward(m, d);
    if (d->warning[mjWARN_CONTACTFULL].number || d->warning[mjWARN_CNSTRFULL].number) {
      if (num_overflows_++ == 0) spdlog::warn("simulator: more contacts than there is room for; some were left out");
    }
    if (!all_finite(d->qacc, nv_)) return false;
    mj_Euler(m, d);
    if (!all_finite(d->qpos, nq_) || !all_below(d->qvel, nv_, kMaxSpeed)) return false;
    limit_speeds(d->qvel);
  }
  return true;
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
  float* forces = &state_.contact_force[static_cast<size_t>(env) * 3 * state_.num_bodies];
  std::fill_n(forces, 3 * state_.num_bodies, 0.0f);
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
      float* force = forces + 3 * (bodies[side] - 1);
      for (int k = 0; k < 3; ++k) force[k] += static_cast<float>(side == 0 ? -world[k] : world[k]);
    }
  }
}

void MujocoSimulator::put_back(int env) {
  mju_copy(qpos(env), set_qpos(env), nq_);
  mju_copy(qvel(env), set_qvel(env), nv_);
  mju_zero(warmstart(env), nv_);
  std::fill_n(&state_.contact_force[static_cast<size_t>(env) * 3 * state_.num_bodies], 3 * state_.num_bodies, 0.0f);
}

void MujocoSimulator::refresh_view(int env, CharacterState& scratch) {
  const double* q = qpos(env);
  const double* v = qvel(env);
  const Eigen::Quaterniond rot(q[3], q[4], q[5], q[6]);
  RootState root;
  root.pos = Eigen::Map<const Eigen::Vector3d>(q).cast<float>();
  root.rot = rot.cast<float>();
  root.vel = Eigen::Map<const Eigen::Vector3d>(v).cast<float>();
  root.ang_vel = (rot * Eigen::Map<const Eigen::Vector3d>(v + 3)).cast<float>();  // MuJoCo's is in the body's frame
  const int dofs = state_.num_dofs, bodies = state_.num_bodies;
  read_dof_pos(q, scratch.dof_pos.data());
  for (int i = 0; i < dofs; ++i) scratch.dof_vel[i] = static_cast<float>(v[kFreeDofs + i]);
  forward_kinematics(character_, root, scratch);

  const size_t body = static_cast<size_t>(env) * bodies, dof = static_cast<size_t>(env) * dofs;
  std::ranges::copy(scratch.body_pos, &state_.body_pos[3 * body]);
  std::ranges::copy(scratch.body_rot, &state_.body_rot[4 * body]);
  std::ranges::copy(scratch.body_vel, &state_.body_vel[3 * body]);
  std::ranges::copy(scratch.body_ang_vel, &state_.body_ang_vel[3 * body]);
  std::ranges::copy(scratch.dof_pos, &state_.dof_pos[dof]);
  std::ranges::copy(scratch.dof_vel, &state_.dof_vel[dof]);
}

void MujocoSimulator::set_state(int env, const RootState& root, std::span<const float> dof_pos,
                                std::span<const float> dof_vel) {
  if (static_cast<int>(dof_pos.size()) != state_.num_dofs || static_cast<int>(dof_vel.size()) != state_.num_dofs) {
    fail("simulator: a state of {} positions and {} velocities for {} DoFs", dof_pos.size(), dof_vel.size(),
         state_.num_dofs);
  }
  double* q = set_qpos(env);
  double* v = set_qvel(env);
  const Eigen::Quaterniond rot = root.rot.cast<double>().normalized();
  const Eigen::Vector3d local_ang_vel = rot.conjugate() * root.ang_vel.cast<double>();
  const double rot_wxyz[4] = {rot.w(), rot.x(), rot.y(), rot.z()};
  for (int k = 0; k < 4; ++k) q[3 + k] = rot_wxyz[k];
  for (int k = 0; k < 3; ++k) {
    q[k] = root.pos[k];
    v[k] = root.vel[k];
    v[3 + k] = local_ang_vel[k];
  }
  for (int j = 0; j < character_.num_joints(); ++j) {
    const Joint& joint = character_.joints[j];
    double* out = q + joint_qpos_[j];
    if (joint.kind == JointKind::kHinge) {
      out[0] = dof_pos[joint.dof];
    } else {
      const mjtNum map[3] = {dof_pos[joint.dof], dof_pos[joint.dof + 1], dof_pos[joint.dof + 2]};
      mjtNum axis[3] = {map[0], map[1], map[2]};
      const mjtNum angle = mju_normalize3(axis);
      mju_axisAngle2Quat(out, axis, angle);
    }
  }
  for (int i = 0; i < state_.num_dofs; ++i) v[kFreeDofs + i] = dof_vel[i];
  if (!all_finite(q, nq_) || !all_finite(v, nv_))
    fail("simulator: environment {} set to a state that is not finite", env);

  put_back(env);
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
  append(state_.contact_force, 3 * state_.num_bodies);
  append(state_.diverged, 1);
  return out;
}

void MujocoSimulator::restore(int env, std::span<const double> saved) {
  const size_t expected = 2 * nq_ + 3 * nv_ + 3 * state_.num_bodies + 1;
  if (saved.size() != expected || !all_finite(saved.data(), static_cast<int>(saved.size()))) {
    fail("simulator: a saved state of {} numbers where {} finite ones belong; it is of another character", saved.size(),
         expected);
  }
  const size_t e = env;
  const double* in = saved.data();
  const auto take = [&](auto& rows, size_t width) {
    std::transform(in, in + width, rows.begin() + e * width,
                   [](double x) { return static_cast<std::decay_t<decltype(rows[0])>>(x); });
    in += width;
  };
  take(qpos_, nq_), take(qvel_, nv_), take(warmstart_, nv_), take(set_qpos_, nq_), take(set_qvel_, nv_);
  take(state_.contact_force, 3 * state_.num_bodies);
  take(state_.diverged, 1);
  CharacterState scratch(character_);
  refresh_view(env, scratch);
}

std::unique_ptr<Simulator> make_simulator(const std::string& backend, const Character& character,
                                          const PhysicsSettings& settings, int num_envs, ThreadPool& pool) {
  if (backend == "mujoco") return std::make_unique<MujocoSimulator>(character, settings, num_envs, pool);
  fail("unknown simulator \"{}\"; known: mujoco", backend);
}

}  // namespace calm
