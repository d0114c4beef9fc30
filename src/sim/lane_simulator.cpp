#include "sim/lane_simulator.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "sim/smooth_dynamics.h"

namespace calm {

// An engine and its buffers, lane by lane.
template <class S>
struct LaneSimulator<S>::Worker {
  std::unique_ptr<Engine<S>> engine;
  std::vector<S> targets, buffer;
  LaneReport<S> report;

  void allocate(const ModelView<S>& model) {
    const int lanes = engine->lanes(), bodies = model.num_bodies + model.num_props;
    targets.assign(static_cast<size_t>(lanes) * model.num_dofs, S{0});
    buffer.assign(static_cast<size_t>(lanes) * (16 * bodies + model.num_dofs + 4), S{0});
    S* at = buffer.data();
    const auto take = [&](int rows) { return std::exchange(at, at + static_cast<size_t>(rows) * lanes); };
    report.body_pos = take(3 * bodies), report.body_rot = take(4 * bodies), report.body_vel = take(3 * bodies);
    report.body_ang_vel = take(3 * bodies), report.contact_force = take(3 * bodies);
    report.dof_pos = take(model.num_dofs);
    report.broken = take(1), report.contacts = take(1), report.residual = take(1), report.iterations = take(1);
  }
};

// The smooth dynamics of one environment in double, without drives: what a push needs.
template <class S>
struct LaneSimulator<S>::Pusher {
  Model<double> model;
  std::vector<std::byte> memory;
  std::unique_ptr<SmoothDynamics<double>> dynamics;

  explicit Pusher(Model<double> m) : model(std::move(m)) {
    Arena dry;
    (void)SmoothDynamics<double>(model.view(), dry);
    memory.resize(dry.used() + Arena::kAlignment);
    const auto address = reinterpret_cast<size_t>(memory.data());
    const size_t aligned = (address + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
    Arena arena(memory.data() + (aligned - address));
    dynamics = std::make_unique<SmoothDynamics<double>>(model.view(), arena);
  }
};

template <class S>
LaneSimulator<S>::LaneSimulator(const Character& character, const std::vector<Prop>& props,
                                const PhysicsSettings& settings, int num_envs, ThreadPool& pool,
                                const MakeEngine& make_engine)
    : character_(character), pool_(pool), num_props_(static_cast<int>(props.size())) {
  if (num_envs < 1) fail("simulator: number of environments is {}; it must be at least 1", num_envs);
  const MujocoModel driven = compile_driven(character, props, settings);
  model_ = make_model<S>(character, props, settings, *driven);
  pusher_ = std::make_unique<Pusher>(make_model<double>(character, props, settings, *driven));
  workers_.resize(pool.size());
  for (Worker& worker : workers_) {
    worker.engine = make_engine(model_.view());
    worker.allocate(model_.view());
  }
  lanes_ = workers_[0].engine->lanes();
  blocks_ = (num_envs + lanes_ - 1) / lanes_;

  // the last block's idle lanes hold characters too
  const int held = blocks_ * lanes_;
  state_.resize(character, held, num_props_);
  positions_.resize(static_cast<size_t>(held) * model_.scalars.num_positions);
  velocities_.resize(static_cast<size_t>(held) * model_.scalars.num_velocities);
  accelerations_.resize(velocities_.size());
  set_positions_.resize(positions_.size()), set_velocities_.resize(velocities_.size());
  const CharacterState standing = default_state(character);
  for (int env = 0; env < held; ++env) {
    set_state(env, standing.root(), standing.dof_pos, standing.dof_vel);
    for (int p = 0; p < num_props_; ++p) {
      RootState at;
      at.pos = props[p].pos, at.rot = props[p].rot;
      set_prop(env, p, at);
    }
  }
  state_.resize(character, num_envs, num_props_);
  for (int env = 0; env < num_envs; ++env) refresh_view(env);
}

template <class S>
LaneSimulator<S>::~LaneSimulator() = default;

template <class S>
LaneRows<S> LaneSimulator<S>::rows(int block, Worker& worker) {
  const size_t first = static_cast<size_t>(block) * lanes_;
  return {&positions_[first * model_.scalars.num_positions], &velocities_[first * model_.scalars.num_velocities],
          &accelerations_[first * model_.scalars.num_velocities], worker.targets.data()};
}

template <class S>
void LaneSimulator<S>::gather_targets(int block, std::span<const float> pd_targets, Worker& worker) const {
  const int dofs = state_.num_dofs;
  for (int l = 0; l < lanes_; ++l) {
    const int env = block * lanes_ + l;
    const float* from =
        env < state_.num_envs ? &pd_targets[static_cast<size_t>(env) * dofs] : character_.default_dof_pos.data();
    for (int d = 0; d < dofs; ++d) worker.targets[static_cast<size_t>(d) * lanes_ + l] = static_cast<S>(from[d]);
  }
}

template <class S>
void LaneSimulator<S>::step(std::span<const float> pd_targets) {
  if (pd_targets.size() != state_.dof_pos.size()) {
    fail("simulator step: {} PD targets for {} environments of {} DoFs", pd_targets.size(), state_.num_envs,
         state_.num_dofs);
  }
  pool_.parallel_for(blocks_, 1, [&](int block, int index) {
    Worker& worker = workers_[index];
    gather_targets(block, pd_targets, worker);
    worker.engine->step(rows(block, worker), worker.report);
    scatter_report(block, worker);
  });
}

template <class S>
void LaneSimulator<S>::scatter_report(int block, const Worker& worker) {
  const LaneReport<S>& report = worker.report;
  const int bodies = state_.num_bodies, dofs = state_.num_dofs, props = num_props_;
  for (int l = 0; l < lanes_; ++l) {
    const int env = block * lanes_ + l;
    if (env >= state_.num_envs) break;
    const auto scatter = [&](const S* from, int first, int count, std::vector<float>& to) {
      float* out = to.data() + static_cast<size_t>(env) * count;
      from += static_cast<size_t>(first) * lanes_ + l;
      for (int i = 0; i < count; ++i) out[i] = static_cast<float>(from[static_cast<size_t>(i) * lanes_]);
    };
    scatter(report.body_pos, 0, 3 * bodies, state_.body_pos);
    scatter(report.body_rot, 0, 4 * bodies, state_.body_rot);
    scatter(report.body_vel, 0, 3 * bodies, state_.body_vel);
    scatter(report.body_ang_vel, 0, 3 * bodies, state_.body_ang_vel);
    scatter(report.contact_force, 0, 3 * bodies, state_.contact_force);
    scatter(report.dof_pos, 0, dofs, state_.dof_pos);
    for (int d = 0; d < dofs; ++d)
      state_.dof_vel[static_cast<size_t>(env) * dofs + d] = static_cast<float>(velocity(env, 6 + d));
    if (props > 0) {
      scatter(report.body_pos, 3 * bodies, 3 * props, state_.prop_pos);
      scatter(report.body_rot, 4 * bodies, 4 * props, state_.prop_rot);
      scatter(report.body_vel, 3 * bodies, 3 * props, state_.prop_vel);
      scatter(report.body_ang_vel, 3 * bodies, 3 * props, state_.prop_ang_vel);
      scatter(report.contact_force, 3 * bodies, 3 * props, state_.prop_force);
    }
    state_.num_contacts[env] = static_cast<int>(report.contacts[l]);
    state_.solver_residual[env] = static_cast<float>(report.residual[l]);
    state_.solver_iterations[env] = static_cast<int>(report.iterations[l]);
    state_.diverged[env] = report.broken[l] != S{0};
    if (state_.diverged[env]) {
      put_back(env);
      ++num_diverged_;
      refresh_view(env);
    }
  }
}

template <class S>
void LaneSimulator<S>::put_root(int env, int q, int v, const RootState& state) {
  const Eigen::Quaterniond rot = state.rot.cast<double>().normalized();
  const Eigen::Vector3d local = rot.conjugate() * state.ang_vel.cast<double>();
  const double wxyz[4] = {rot.w(), rot.x(), rot.y(), rot.z()};
  for (int k = 0; k < 4; ++k) position(env, q + 3 + k) = static_cast<S>(wxyz[k]);
  for (int k = 0; k < 3; ++k) {
    position(env, q + k) = state.pos[k];
    velocity(env, v + k) = state.vel[k];
    velocity(env, v + 3 + k) = static_cast<S>(local[k]);
  }
}

// These rows are where the environment goes should it diverge. A solver that starts from nothing has no past.
template <class S>
void LaneSimulator<S>::remember(int env, int q, int num_positions, int v, int num_velocities) {
  const size_t nq = model_.scalars.num_positions, nv = model_.scalars.num_velocities;
  for (int i = q; i < q + num_positions; ++i) {
    set_positions_[env * nq + i] = position(env, i);
    if (!std::isfinite(position(env, i))) fail("simulator: environment {} set to a state that is not finite", env);
  }
  for (int i = v; i < v + num_velocities; ++i) {
    set_velocities_[env * nv + i] = velocity(env, i);
    if (!std::isfinite(velocity(env, i))) fail("simulator: environment {} set to a state that is not finite", env);
    acceleration(env, i) = S{0};
  }
}

template <class S>
void LaneSimulator<S>::put_back(int env) {
  const int nq = model_.scalars.num_positions, nv = model_.scalars.num_velocities;
  for (int i = 0; i < nq; ++i) position(env, i) = set_positions_[static_cast<size_t>(env) * nq + i];
  for (int i = 0; i < nv; ++i) {
    velocity(env, i) = set_velocities_[static_cast<size_t>(env) * nv + i];
    acceleration(env, i) = S{0};
  }
  const size_t bodies = state_.num_bodies;
  std::fill_n(state_.contact_force.begin() + 3 * env * bodies, 3 * bodies, 0.0f);
  std::fill_n(state_.prop_force.begin() + 3 * env * num_props_, 3 * num_props_, 0.0f);
}

template <class S>
void LaneSimulator<S>::set_state(int env, const RootState& root, std::span<const float> dof_pos,
                                 std::span<const float> dof_vel) {
  if (static_cast<int>(dof_pos.size()) != state_.num_dofs || static_cast<int>(dof_vel.size()) != state_.num_dofs) {
    fail("simulator: a state of {} positions and {} velocities for {} DoFs", dof_pos.size(), dof_vel.size(),
         state_.num_dofs);
  }
  put_root(env, 0, 0, root);
  int positions = 7, velocities = 6;
  for (const Joint& joint : character_.joints) {
    const int q = model_.joints[&joint - character_.joints.data()].position;
    if (joint.kind == JointKind::kHinge) {
      position(env, q) = dof_pos[joint.dof];
    } else {
      const Eigen::Vector3d map = ConstVec3Map(&dof_pos[joint.dof]).template cast<double>();
      const double angle = map.norm();
      const Eigen::Vector3d axis = angle > 1e-12 ? Eigen::Vector3d(map / angle) : Eigen::Vector3d::UnitX();
      const Eigen::Quaterniond rot(Eigen::AngleAxisd(angle, axis));
      const double wxyz[4] = {rot.w(), rot.x(), rot.y(), rot.z()};
      for (int k = 0; k < 4; ++k) position(env, q + k) = static_cast<S>(wxyz[k]);
    }
    positions += joint.kind == JointKind::kBall ? 4 : 1;
    velocities += joint.num_dofs;
  }
  for (int i = 0; i < state_.num_dofs; ++i) velocity(env, 6 + i) = dof_vel[i];
  remember(env, 0, positions, 0, velocities);
  std::fill_n(state_.contact_force.begin() + 3 * static_cast<size_t>(env) * state_.num_bodies, 3 * state_.num_bodies,
              0.0f);
  state_.diverged[env] = 0;
  refresh_view(env);
}

template <class S>
void LaneSimulator<S>::set_prop(int env, int prop, const RootState& state) {
  if (prop < 0 || prop >= num_props_) fail("simulator: prop {} of {}", prop, num_props_);
  const LinkRow<S>& link = model_.links[model_.bodies[state_.num_bodies + prop].link];
  put_root(env, link.first_position, link.first_velocity, state);
  remember(env, link.first_position, 7, link.first_velocity, 6);
  refresh_view(env);
}

template <class S>
void LaneSimulator<S>::refresh_view(int env) {
  const auto root_at = [&](int q, int v) {
    RootState root;
    const Eigen::Quaterniond rot(position(env, q + 3), position(env, q + 4), position(env, q + 5),
                                 position(env, q + 6));
    root.rot = rot.cast<float>();
    const Eigen::Vector3d local(velocity(env, v + 3), velocity(env, v + 4), velocity(env, v + 5));
    root.ang_vel = (rot * local).cast<float>();
    for (int k = 0; k < 3; ++k) {
      root.pos[k] = static_cast<float>(position(env, q + k));
      root.vel[k] = static_cast<float>(velocity(env, v + k));
    }
    return root;
  };
  CharacterState scratch(character_);
  for (int j = 0; j < character_.num_joints(); ++j) {
    const Joint& joint = character_.joints[j];
    const int q = model_.joints[j].position;
    if (joint.kind == JointKind::kHinge) {
      scratch.dof_pos[joint.dof] = static_cast<float>(position(env, q));
      continue;
    }
    // the shorter way round
    Eigen::Quaterniond rot(position(env, q), position(env, q + 1), position(env, q + 2), position(env, q + 3));
    if (rot.w() < 0.0) rot.coeffs() = -rot.coeffs();
    const double s = rot.vec().norm(), scale = s < 1e-9 ? 2.0 : 2.0 * std::atan2(s, rot.w()) / s;
    for (int k = 0; k < 3; ++k) scratch.dof_pos[joint.dof + k] = static_cast<float>(scale * rot.vec()[k]);
  }
  for (int i = 0; i < state_.num_dofs; ++i) scratch.dof_vel[i] = static_cast<float>(velocity(env, 6 + i));
  forward_kinematics(character_, root_at(0, 0), scratch);

  const size_t body = static_cast<size_t>(env) * state_.num_bodies, dof = static_cast<size_t>(env) * state_.num_dofs;
  std::ranges::copy(scratch.body_pos, &state_.body_pos[3 * body]);
  std::ranges::copy(scratch.body_rot, &state_.body_rot[4 * body]);
  std::ranges::copy(scratch.body_vel, &state_.body_vel[3 * body]);
  std::ranges::copy(scratch.body_ang_vel, &state_.body_ang_vel[3 * body]);
  std::ranges::copy(scratch.dof_pos, &state_.dof_pos[dof]);
  std::ranges::copy(scratch.dof_vel, &state_.dof_vel[dof]);
  for (int p = 0; p < num_props_; ++p) {
    const LinkRow<S>& link = model_.links[model_.bodies[state_.num_bodies + p].link];
    const RootState root = root_at(link.first_position, link.first_velocity);
    const size_t at = static_cast<size_t>(env) * num_props_ + p;
    Vec3Map(&state_.prop_pos[3 * at]) = root.pos;
    QuatMap(&state_.prop_rot[4 * at]) = root.rot;
    Vec3Map(&state_.prop_vel[3 * at]) = root.vel;
    Vec3Map(&state_.prop_ang_vel[3 * at]) = root.ang_vel;
  }
}

template <class S>
void LaneSimulator<S>::push(int env, int body, const Vec3& impulse) {
  if (body < 0 || body >= state_.num_bodies) fail("simulator: push of body {} of {}", body, state_.num_bodies);
  const std::scoped_lock lock(push_mutex_);
  const ModelView<double> m = pusher_->model.view();
  SmoothDynamics<double>& dynamics = *pusher_->dynamics;
  std::vector<double> q(m.num_positions), v(m.num_velocities);
  for (int i = 0; i < m.num_positions; ++i) q[i] = position(env, i);
  for (int i = 0; i < m.num_velocities; ++i) v[i] = velocity(env, i);
  dynamics.forward(q.data(), v.data());
  dynamics.factorise(nullptr);

  // v += M⁻¹ Jᵀ (J M⁻¹ Jᵀ)⁻¹ change, of the body's centre of mass
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
  const Eigen::Vector3d strength = (jacobian * response.transpose()).ldlt().solve(impulse.cast<double>());
  for (int i = 0; i < m.num_velocities; ++i) velocity(env, i) += static_cast<S>(response.col(i).dot(strength));
}

// positions, velocities, last accelerations, last set positions and velocities, contact forces, diverged.
template <class S>
std::vector<double> LaneSimulator<S>::save(int env) const {
  auto& self = const_cast<LaneSimulator&>(*this);
  std::vector<double> out;
  const int nq = model_.scalars.num_positions, nv = model_.scalars.num_velocities;
  for (int i = 0; i < nq; ++i) out.push_back(self.position(env, i));
  for (int i = 0; i < nv; ++i) out.push_back(self.velocity(env, i));
  for (int i = 0; i < nv; ++i) out.push_back(self.acceleration(env, i));
  const auto append = [&](const auto& values, size_t width) {
    out.insert(out.end(), values.begin() + env * width, values.begin() + (env + 1) * width);
  };
  append(set_positions_, nq), append(set_velocities_, nv);
  append(state_.contact_force, 3 * state_.num_bodies), append(state_.prop_force, 3 * num_props_);
  append(state_.diverged, 1);
  return out;
}

template <class S>
void LaneSimulator<S>::restore(int env, std::span<const double> saved) {
  const int nq = model_.scalars.num_positions, nv = model_.scalars.num_velocities;
  const size_t expected = 2 * nq + 3 * nv + 3 * (state_.num_bodies + num_props_) + 1;
  if (saved.size() != expected || !std::ranges::all_of(saved, [](double x) { return std::isfinite(x); })) {
    fail("simulator: a saved state of {} numbers where {} finite ones belong; it is of another character", saved.size(),
         expected);
  }
  const double* in = saved.data();
  for (int i = 0; i < nq; ++i) position(env, i) = static_cast<S>(*in++);
  for (int i = 0; i < nv; ++i) velocity(env, i) = static_cast<S>(*in++);
  for (int i = 0; i < nv; ++i) acceleration(env, i) = static_cast<S>(*in++);
  const auto take = [&](auto& values, size_t width) {
    std::transform(in, in + width, values.begin() + env * width,
                   [](double x) { return static_cast<std::decay_t<decltype(values[0])>>(x); });
    in += width;
  };
  take(set_positions_, nq), take(set_velocities_, nv);
  take(state_.contact_force, 3 * state_.num_bodies), take(state_.prop_force, 3 * num_props_);
  take(state_.diverged, 1);
  refresh_view(env);
}

template <class S>
Inspection LaneSimulator<S>::inspect(int env, std::span<const float> pd_targets) {
  Worker& worker = workers_[0];
  for (int l = 0; l < lanes_; ++l)
    for (int d = 0; d < state_.num_dofs; ++d)
      worker.targets[static_cast<size_t>(d) * lanes_ + l] = static_cast<S>(pd_targets[d]);
  return worker.engine->inspect(rows(env / lanes_, worker), env % lanes_);
}

template class LaneSimulator<double>;
template class LaneSimulator<float>;

}  // namespace calm
