// The GPU's half of the CUDA backend: all environments' state and reports in its memory, and the kernel that steps
// them. A thread is an environment: it runs the same Stepper as the processor's lanes, its memory the thread's own
// local memory, which the hardware interleaves so that a warp's accesses coalesce.
//
// Work is queued on the default stream, as LibTorch's is. One thread at a time, but read() at any time. Errors of CUDA
// are thrown as Error. No header of CUDA is needed to include this.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "sim/cuda/device_memory.h"
#include "sim/model.h"

struct CUevent_st;

namespace calm {

// What the GPU holds of an environment, each an array of its own, (env x width) floats. A control step reads and writes
// a row of kState once, so that rows of an environment lie together rather than those of a warp.
enum class Rows : int {
  kState,  // positions, velocities, accelerations; positions, velocities where a diverged one goes
  kBodyPos,
  kBodyRot,
  kBodyVel,
  kBodyAngVel,
  kDofPos,
  kDofVel,
  kContactForce,
  kPropPos,
  kPropRot,
  kPropVel,
  kPropAngVel,
  kPropForce,
  kDiverged,  // 0 or 1
  kNumContacts,
  kResidual,
  kIterations
};
inline constexpr int kNumRows = static_cast<int>(Rows::kIterations) + 1;
inline constexpr int kNumSettableRows = static_cast<int>(Rows::kDiverged) + 1;  // the rest is of a step alone

class CudaEngine {
 public:
  // False, without an error, where there is no driver or no GPU.
  static bool available();

  // Throws Error if there is no GPU that can run this, or a thread of it has not the memory for the model.
  CudaEngine(const Model<float>& model, int num_envs);
  ~CudaEngine();

  int width(Rows rows) const { return widths_[static_cast<int>(rows)]; }
  float* device(Rows rows) const { return device_[static_cast<int>(rows)]; }

  // Environments to be set lie in slots: slot_envs()[i] is set from slots()[i * slot_width() ...], all settable rows of
  // one environment after each other; what is not a number there leaves what the environment has.
  int slot_width() const { return slot_width_; }
  int slot_offset(Rows rows) const { return slot_offset_[static_cast<int>(rows)]; }
  float* slots() const { return slots_[filling_].get(); }
  int* slot_envs() const { return slot_envs_[filling_].get(); }
  // Queues the first `count` slots; slots() and slot_envs() are then others, free to be filled.
  void set(int count);

  // Queues setting every environment for which row_of[env] >= 0 from that row of `table`, rows as those of slots. Both
  // on the GPU.
  void set_from(const float* table, const int* row_of);

  // Queues a control step. targets: (env x dof) rad, on the processor or the GPU.
  void step(const float* targets, bool on_device);

  static void wait();  // for all that is queued

  // Waits for all that is queued and copies the report to the processor: rows() of all but kState, and the counts.
  void fetch();
  const float* rows(Rows rows) const { return report_.get() + report_offset_[static_cast<int>(rows)]; }
  int64_t num_diverged() const { return static_cast<int64_t>(counts()[0]); }
  int64_t num_left_out() const { return static_cast<int64_t>(counts()[1]); }

  // Waits for all that is queued; an environment's rows.
  std::vector<float> read(Rows rows, int env) const;

 private:
  template <void release(void*)>
  struct Release {
    void operator()(void* memory) const { release(memory); }
  };
  static void free_pinned(void* memory);
  static void destroy_event(void* event);
  template <class T>
  using Pinned = std::unique_ptr<T[], Release<free_pinned>>;  // the processor's, that the GPU copies from and to
  template <class T>
  static Pinned<T> pinned(size_t count);
  const unsigned long long* counts() const { return reinterpret_cast<const unsigned long long*>(report_.get()); }

  int num_envs_, kernel_ = 0;  // of the sizes that a thread's memory comes in
  std::vector<DeviceArray<std::byte>> tables_;
  ModelView<float> model_;   // over `tables_`
  size_t common_bytes_ = 0;  // of a warp
  std::array<int, kNumRows> widths_{}, slot_offset_{};
  std::array<size_t, kNumRows> report_offset_{};  // floats
  std::array<float*, kNumRows> device_{};
  DeviceArray<float> state_, device_report_;
  size_t report_size_ = 0;
  Pinned<float> report_;
  DeviceArray<float> targets_;

  int slot_width_ = 0, filling_ = 0;
  Pinned<float> slots_[2];
  Pinned<int> slot_envs_[2];
  std::unique_ptr<CUevent_st, Release<destroy_event>> copied_[2];
  DeviceArray<float> device_slots_;
  DeviceArray<int> device_slot_envs_;
};

}  // namespace calm
