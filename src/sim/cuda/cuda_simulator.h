// The simulation seam filled by a GPU, in single precision. Results of an environment do not depend, to the bit, on the
// number of environments or their order; another kind of GPU or compiler may round differently.
//
// All state lives in the GPU's memory. step() copies targets there and the report back; step_on_device() neither, for
// learning on the GPU: what it reads and writes is queued on the default stream. What is set reaches the GPU with the
// next step, device_state() or state(), all environments at once. Threads: as the seam has them, set_state and push of
// different environments at once; state() may copy from the GPU after step_on_device().
#pragma once

#include <atomic>
#include <mutex>

#include "sim/coordinates.h"
#include "sim/cuda/cuda_engine.h"
#include "sim/simulator.h"

namespace calm {

// Rows in the GPU's memory as BatchState's, valid for the simulator's life. The GPU may still be writing them: later
// work on the default stream comes after.
struct DeviceState {
  int num_envs = 0, num_bodies = 0, num_dofs = 0, num_props = 0;
  const float *body_pos = nullptr, *body_rot = nullptr, *body_vel = nullptr, *body_ang_vel = nullptr;
  const float *dof_pos = nullptr, *dof_vel = nullptr, *contact_force = nullptr;
  const float *prop_pos = nullptr, *prop_rot = nullptr, *prop_vel = nullptr, *prop_ang_vel = nullptr;
  const float* prop_force = nullptr;
  const float* diverged = nullptr;  // (env) 0 or 1
};

class CudaSimulator final : public Simulator {
 public:
  CudaSimulator(const Character& character, const std::vector<Prop>& props, const PhysicsSettings& settings,
                int num_envs, ThreadPool& pool);

  const BatchState& state() const override;
  void set_state(int env, const RootState& root, std::span<const float> dof_pos,
                 std::span<const float> dof_vel) override;
  void set_prop(int env, int prop, const RootState& state) override;
  void step(std::span<const float> pd_targets) override;
  void push(int env, int body, const Vec3& impulse) override;
  int64_t num_diverged() const override;
  int64_t num_overflows() const override;
  std::vector<double> save(int env) const override;
  void restore(int env, std::span<const double> saved) override;

  const DeviceState& device_state() const;
  // One control step. device_targets: (env x dof) rad, in the GPU's memory. Returns before it is done.
  void step_on_device(const float* device_targets);

  // What puts an environment into a state, as numbers that may wait in the GPU's memory: a row for each state, of
  // row_width(). And their use: environment e is set to row row_of[e] of `table`, or left where that is negative; both
  // in the GPU's memory.
  struct State {
    RootState root;
    std::vector<float> dof_pos, dof_vel;
  };
  int row_width() const { return engine_->slot_width(); }
  std::vector<float> rows_of(std::span<const State> states);
  void set_on_device(const float* table, const int* row_of);

  static void wait() { CudaEngine::wait(); }  // for all that is queued

 private:
  struct Copy {  // of an environment's coordinates
    std::vector<double> positions, velocities;
  };

  std::vector<float> rows_of(int env, Rows rows) const;
  Copy copy(int env) const;
  float* slot(int env, Rows rows);
  void set(int env, const Copy& from, int first_position, int num_positions, int first_velocity, int num_velocities);
  void show(int env, Rows rows, int first, int count);
  void show_character(int env, const Copy& from);
  void show_prop(int env, int prop, const Copy& from);
  float* host(Rows rows) const;
  void send() const;
  void copy_report(Rows rows) const;
  void refresh() const;

  ThreadPool& pool_;
  std::unique_ptr<Coordinates> coordinates_;
  std::unique_ptr<CudaEngine> engine_;
  DeviceState device_;
  mutable BatchState state_;

  // what has been set since the last time it was sent; not a number: not set
  mutable std::vector<int> slot_of_;  // (env) in the engine's slots, or -1
  mutable std::atomic<int> num_slots_ = 0;
  mutable std::atomic<bool> stale_ = false;  // state_ is older than what the GPU has
  mutable std::mutex refresh_mutex_;
};

}  // namespace calm
