#include "sim/lane_simulator.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "sim/backend.h"

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
    buffer.assign(static_cast<size_t>(lanes) * LaneReport<S>::width(bodies, model.num_dofs), S{0});
    report = LaneReport<S>::over(buffer.data(), bodies, model.num_dofs, lanes);
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
  coordinates_ = std::make_unique<Coordinates>(character, make_model<double>(character, props, settings, *driven));
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
  start_standing(*this, held, character, props);
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
  check_targets(pd_targets, state_);
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
auto LaneSimulator<S>::copy(int env) -> Copy {
  Copy out = {std::vector<double>(model_.scalars.num_positions), std::vector<double>(model_.scalars.num_velocities)};
  for (int i = 0; i < model_.scalars.num_positions; ++i) out.positions[i] = position(env, i);
  for (int i = 0; i < model_.scalars.num_velocities; ++i) out.velocities[i] = velocity(env, i);
  return out;
}

// These rows are also where the environment goes should it diverge. A solver that starts from nothing has no past.
template <class S>
void LaneSimulator<S>::set(int env, const Copy& from, int q, int num_positions, int v, int num_velocities) {
  const size_t nq = model_.scalars.num_positions, nv = model_.scalars.num_velocities;
  for (int i = q; i < q + num_positions; ++i)
    set_positions_[env * nq + i] = position(env, i) = static_cast<S>(from.positions[i]);
  for (int i = v; i < v + num_velocities; ++i) {
    set_velocities_[env * nv + i] = velocity(env, i) = static_cast<S>(from.velocities[i]);
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
  clear_all_forces(state_, env);
}

template <class S>
void LaneSimulator<S>::set_state(int env, const RootState& root, std::span<const float> dof_pos,
                                 std::span<const float> dof_vel) {
  Copy rows = copy(env);
  coordinates_->set_character(env, root, dof_pos, dof_vel, rows.positions.data(), rows.velocities.data());
  set(env, rows, 0, coordinates_->character_positions(), 0, coordinates_->character_velocities());
  clear_forces(state_, env);
  state_.diverged[env] = 0;
  refresh_view(env);
}

template <class S>
void LaneSimulator<S>::set_prop(int env, int prop, const RootState& state) {
  Copy rows = copy(env);
  coordinates_->set_prop(env, prop, state, rows.positions.data(), rows.velocities.data());
  const LinkRow<double>& link = coordinates_->prop_link(prop);
  set(env, rows, link.first_position, 7, link.first_velocity, 6);
  refresh_view(env);
}

template <class S>
void LaneSimulator<S>::refresh_view(int env) {
  const Copy rows = copy(env);
  coordinates_->show_character(rows.positions.data(), rows.velocities.data(), env, state_);
  for (int p = 0; p < num_props_; ++p)
    coordinates_->show_prop(rows.positions.data(), rows.velocities.data(), env, p, state_);
}

template <class S>
void LaneSimulator<S>::push(int env, int body, const Vec3& impulse) {
  Copy rows = copy(env);
  coordinates_->push(body, impulse, rows.positions.data(), rows.velocities.data());
  for (int i = 0; i < model_.scalars.num_velocities; ++i) velocity(env, i) = static_cast<S>(rows.velocities[i]);
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
  check_saved(saved, 2 * nq + 3 * nv + 3 * (state_.num_bodies + num_props_) + 1);
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
