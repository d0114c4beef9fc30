#include "sim/cuda/cuda_simulator.h"

#include <cmath>
#include <limits>

#include "base/error.h"
#include "sim/backend.h"
#include "sim/compile.h"

namespace calm {

CudaSimulator::CudaSimulator(const Character& character, const std::vector<Prop>& props,
                             const PhysicsSettings& settings, int num_envs, ThreadPool& pool)
    : pool_(pool) {
  if (num_envs < 1) fail("simulator: number of environments is {}; it must be at least 1", num_envs);
  const MujocoModel driven = compile_driven(character, props, settings);
  coordinates_ = std::make_unique<Coordinates>(character, make_model<double>(character, props, settings, *driven));
  engine_ = std::make_unique<CudaEngine>(make_model<float>(character, props, settings, *driven), num_envs);
  const int num_props = static_cast<int>(props.size());
  state_.resize(character, num_envs, num_props);
  const auto at = [&](Rows rows) { return engine_->device(rows); };
  device_ = {num_envs,           state_.num_bodies,  state_.num_dofs,         num_props,
             at(Rows::kBodyPos), at(Rows::kBodyRot), at(Rows::kBodyVel),      at(Rows::kBodyAngVel),
             at(Rows::kDofPos),  at(Rows::kDofVel),  at(Rows::kContactForce), at(Rows::kPropPos),
             at(Rows::kPropRot), at(Rows::kPropVel), at(Rows::kPropAngVel),   at(Rows::kPropForce),
             at(Rows::kDiverged)};

  slot_of_.assign(num_envs, -1);
  start_standing(*this, num_envs, character, props);
  send();
}

// ---- to the GPU ----

// Where an environment's rows that are to be set lie until they are sent.
float* CudaSimulator::slot(int env, Rows rows) {
  int& index = slot_of_[env];
  if (index < 0) {
    index = num_slots_++;
    engine_->slot_envs()[index] = env;
    std::fill_n(engine_->slots() + static_cast<size_t>(index) * engine_->slot_width(), engine_->slot_width(),
                std::numeric_limits<float>::quiet_NaN());
  }
  return engine_->slots() + static_cast<size_t>(index) * engine_->slot_width() + engine_->slot_offset(rows);
}

void CudaSimulator::send() const {
  const int count = num_slots_;
  for (int i = 0; i < count; ++i) slot_of_[engine_->slot_envs()[i]] = -1;
  num_slots_ = 0;
  engine_->set(count);
}

// What the GPU has or will have of an environment.
std::vector<float> CudaSimulator::rows_of(int env, Rows rows) const {
  std::vector<float> out = engine_->read(rows, env);
  if (slot_of_[env] < 0) return out;
  const float* set = engine_->slots() + static_cast<size_t>(slot_of_[env]) * engine_->slot_width();
  set += engine_->slot_offset(rows);
  for (size_t i = 0; i < out.size(); ++i)
    if (!std::isnan(set[i])) out[i] = set[i];
  return out;
}

auto CudaSimulator::copy(int env) const -> Copy {
  const std::vector<float> rows = rows_of(env, Rows::kState);
  const auto positions = rows.begin(), velocities = positions + coordinates_->model().scalars.num_positions;
  return {{positions, velocities}, {velocities, velocities + coordinates_->model().scalars.num_velocities}};
}

// These rows are also where the environment goes should it diverge. A solver that starts from nothing has no past.
void CudaSimulator::set(int env, const Copy& from, int q, int num_positions, int v, int num_velocities) {
  const int nq = coordinates_->model().scalars.num_positions, nv = coordinates_->model().scalars.num_velocities;
  float* positions = slot(env, Rows::kState);
  float *velocities = positions + nq, *accelerations = velocities + nv;
  float *set_positions = accelerations + nv, *set_velocities = set_positions + nq;
  for (int i = q; i < q + num_positions; ++i) positions[i] = set_positions[i] = static_cast<float>(from.positions[i]);
  for (int i = v; i < v + num_velocities; ++i) {
    velocities[i] = set_velocities[i] = static_cast<float>(from.velocities[i]);
    accelerations[i] = 0.0f;
  }
}

// What state_ shows is what the GPU is to show.
void CudaSimulator::show(int env, Rows rows, int first, int count) {
  const float* from = host(rows) + static_cast<size_t>(env) * engine_->width(rows);
  std::copy_n(from + first, count, slot(env, rows) + first);
}

void CudaSimulator::show_character(int env, const Copy& from) {
  coordinates_->show_character(from.positions.data(), from.velocities.data(), env, state_);
  for (const Rows rows : {Rows::kBodyPos, Rows::kBodyRot, Rows::kBodyVel, Rows::kBodyAngVel, Rows::kDofPos,
                          Rows::kDofVel, Rows::kContactForce})
    show(env, rows, 0, engine_->width(rows));
  *slot(env, Rows::kDiverged) = state_.diverged[env];
}

void CudaSimulator::show_prop(int env, int prop, const Copy& from) {
  coordinates_->show_prop(from.positions.data(), from.velocities.data(), env, prop, state_);
  for (const Rows rows : {Rows::kPropPos, Rows::kPropVel, Rows::kPropAngVel}) show(env, rows, 3 * prop, 3);
  show(env, Rows::kPropRot, 4 * prop, 4);
}

void CudaSimulator::set_state(int env, const RootState& root, std::span<const float> dof_pos,
                              std::span<const float> dof_vel) {
  const ModelView<double>& m = coordinates_->model().scalars;
  Copy rows = {std::vector<double>(m.num_positions), std::vector<double>(m.num_velocities)};
  coordinates_->set_character(env, root, dof_pos, dof_vel, rows.positions.data(), rows.velocities.data());
  set(env, rows, 0, coordinates_->character_positions(), 0, coordinates_->character_velocities());
  clear_forces(state_, env);
  state_.diverged[env] = 0;
  show_character(env, rows);
}

void CudaSimulator::set_prop(int env, int prop, const RootState& state) {
  const ModelView<double>& m = coordinates_->model().scalars;
  Copy rows = {std::vector<double>(m.num_positions), std::vector<double>(m.num_velocities)};
  coordinates_->set_prop(env, prop, state, rows.positions.data(), rows.velocities.data());
  const LinkRow<double>& link = coordinates_->prop_link(prop);
  set(env, rows, link.first_position, 7, link.first_velocity, 6);
  show_prop(env, prop, rows);
}

void CudaSimulator::push(int env, int body, const Vec3& impulse) {
  Copy rows = copy(env);
  coordinates_->push(body, impulse, rows.positions.data(), rows.velocities.data());
  float* velocities = slot(env, Rows::kState) + coordinates_->model().scalars.num_positions;
  std::ranges::transform(rows.velocities, velocities, [](double v) { return static_cast<float>(v); });
}

// ---- steps ----

void CudaSimulator::step(std::span<const float> pd_targets) {
  check_targets(pd_targets, state_);
  send();
  engine_->step(pd_targets.data(), false);
  engine_->fetch();
  pool_.parallel_for(kNumRows, 1, [&](int rows, int) { copy_report(static_cast<Rows>(rows)); });
  stale_ = false;
}

void CudaSimulator::step_on_device(const float* device_targets) {
  send();
  engine_->step(device_targets, true);
  stale_ = true;
}

std::vector<float> CudaSimulator::rows_of(std::span<const State> states) {
  const std::vector<double> before = save(0);
  std::vector<float> rows;
  for (const State& state : states) {
    set_state(0, state.root, state.dof_pos, state.dof_vel);
    const float* row = slot(0, Rows::kState);  // the first of a slot
    rows.insert(rows.end(), row, row + row_width());
  }
  restore(0, before);
  return rows;
}

void CudaSimulator::set_on_device(const float* table, const int* row_of) {
  send();
  engine_->set_from(table, row_of);
  stale_ = true;
}

const DeviceState& CudaSimulator::device_state() const {
  send();
  return device_;
}

// ---- from the GPU ----

float* CudaSimulator::host(Rows rows) const {
  switch (rows) {
    case Rows::kBodyPos:
      return state_.body_pos.data();
    case Rows::kBodyRot:
      return state_.body_rot.data();
    case Rows::kBodyVel:
      return state_.body_vel.data();
    case Rows::kBodyAngVel:
      return state_.body_ang_vel.data();
    case Rows::kDofPos:
      return state_.dof_pos.data();
    case Rows::kDofVel:
      return state_.dof_vel.data();
    case Rows::kContactForce:
      return state_.contact_force.data();
    case Rows::kPropPos:
      return state_.prop_pos.data();
    case Rows::kPropRot:
      return state_.prop_rot.data();
    case Rows::kPropVel:
      return state_.prop_vel.data();
    case Rows::kPropAngVel:
      return state_.prop_ang_vel.data();
    case Rows::kPropForce:
      return state_.prop_force.data();
    case Rows::kResidual:
      return state_.solver_residual.data();
    default:
      return nullptr;  // state_ does not have it, or as another type
  }
}

void CudaSimulator::copy_report(Rows rows) const {
  if (rows == Rows::kState) return;
  const float* from = engine_->rows(rows);
  const size_t count = static_cast<size_t>(state_.num_envs) * engine_->width(rows);
  if (rows == Rows::kDiverged) {
    std::transform(from, from + count, state_.diverged.begin(), [](float x) { return static_cast<uint8_t>(x); });
  } else if (rows == Rows::kNumContacts) {
    std::transform(from, from + count, state_.num_contacts.begin(), [](float x) { return static_cast<int>(x); });
  } else if (rows == Rows::kIterations) {
    std::transform(from, from + count, state_.solver_iterations.begin(), [](float x) { return static_cast<int>(x); });
  } else {
    std::copy_n(from, count, host(rows));
  }
}

// After steps whose reports stayed on the GPU.
void CudaSimulator::refresh() const {
  if (!stale_) return;
  const std::scoped_lock lock(refresh_mutex_);
  if (!stale_) return;
  send();
  engine_->fetch();
  for (int rows = 0; rows < kNumRows; ++rows) copy_report(static_cast<Rows>(rows));
  stale_ = false;
}

const BatchState& CudaSimulator::state() const {
  refresh();
  return state_;
}

int64_t CudaSimulator::num_diverged() const {
  refresh();
  return engine_->num_diverged();
}

int64_t CudaSimulator::num_overflows() const {
  refresh();
  return engine_->num_left_out();
}

// The rows of kState, contact forces, diverged.
std::vector<double> CudaSimulator::save(int env) const {
  std::vector<double> out;
  for (const Rows rows : {Rows::kState, Rows::kContactForce, Rows::kPropForce, Rows::kDiverged}) {
    const std::vector<float> values = rows_of(env, rows);
    out.insert(out.end(), values.begin(), values.end());
  }
  return out;
}

void CudaSimulator::restore(int env, std::span<const double> saved) {
  size_t expected = 0;
  for (const Rows rows : {Rows::kState, Rows::kContactForce, Rows::kPropForce, Rows::kDiverged})
    expected += engine_->width(rows);
  check_saved(saved, expected);
  const double* in = saved.data();
  const auto take = [&](auto* to, int count) {
    for (int i = 0; i < count; ++i) to[i] = static_cast<std::decay_t<decltype(*to)>>(*in++);
  };
  take(slot(env, Rows::kState), engine_->width(Rows::kState));
  take(host(Rows::kContactForce) + static_cast<size_t>(env) * engine_->width(Rows::kContactForce),
       engine_->width(Rows::kContactForce));
  take(host(Rows::kPropForce) + static_cast<size_t>(env) * engine_->width(Rows::kPropForce),
       engine_->width(Rows::kPropForce));
  take(&state_.diverged[env], 1);
  const Copy rows = copy(env);
  show_character(env, rows);
  for (int p = 0; p < state_.num_props; ++p) show_prop(env, p, rows);
  show(env, Rows::kPropForce, 0, engine_->width(Rows::kPropForce));
}

}  // namespace calm
