#include "sim/cuda/cuda_engine.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "sim/cuda/cuda_error.h"
#include "sim/stepper.h"

namespace calm {

namespace {

constexpr int kWarp = 32;
constexpr int kSetBlock = 128;

[[noreturn]] void refuse(const std::string& what) { throw Error("simulator \"cuda\": " + what); }

struct Batch {
  ModelView<float> model;
  int num_envs;
  float* rows[kNumRows];
  int widths[kNumRows];
  unsigned long long* counts;  // diverged, contacts left out

  CALM_DEVICE float* row(Rows of, int env) const {
    const int i = static_cast<int>(of);
    return rows[i] + static_cast<size_t>(env) * widths[i];
  }
};

// What a thread has room for. The driver sets that memory aside for every thread that the GPU can hold, so that there
// are few sizes. Contacts are those of a warp's environments together; more at once are left out and counted.
struct Small {
  static constexpr Sizes kRoom = {10, 10, 24, 20, 120, 14, 12, 24, 96};
};
struct Medium {
  static constexpr Sizes kRoom = {20, 40, 64, 52, 500, 46, 24, 48, 128};
};
struct Large {
  static constexpr Sizes kRoom = {48, 96, 128, 104, 2400, 98, 64, 96, 256};
};

// What a thread needs, and a warp in common.
constexpr Arena arena_of(const Sizes& room) {
  Arena dry;
  const ModelView<float> none;
  (void)Stages<float>(none, room, dry);
  dry.take<float>(LaneReport<float>::width(room.bodies, room.dofs));
  return dry;
}

__device__ void copy(const float* from, int count, float* to) {
  for (int i = 0; i < count; ++i) to[i] = from[i];
}

__device__ void write_report(const Batch& batch, const LaneReport<float>& report, int env) {
  const ModelView<float>& m = batch.model;
  const int bodies = m.num_bodies, props = m.num_props;
  const auto write = [&](Rows rows, const float* from, int count) { copy(from, count, batch.row(rows, env)); };
  write(Rows::kBodyPos, report.body_pos, 3 * bodies), write(Rows::kBodyRot, report.body_rot, 4 * bodies);
  write(Rows::kBodyVel, report.body_vel, 3 * bodies), write(Rows::kBodyAngVel, report.body_ang_vel, 3 * bodies);
  write(Rows::kContactForce, report.contact_force, 3 * bodies);
  write(Rows::kDofPos, report.dof_pos, m.num_dofs);
  write(Rows::kDofVel, batch.row(Rows::kState, env) + m.num_positions + 6, m.num_dofs);
  write(Rows::kPropPos, report.body_pos + 3 * bodies, 3 * props);
  write(Rows::kPropRot, report.body_rot + 4 * bodies, 4 * props);
  write(Rows::kPropVel, report.body_vel + 3 * bodies, 3 * props);
  write(Rows::kPropAngVel, report.body_ang_vel + 3 * bodies, 3 * props);
  write(Rows::kPropForce, report.contact_force + 3 * bodies, 3 * props);
  write(Rows::kDiverged, report.broken, 1), write(Rows::kNumContacts, report.contacts, 1);
  write(Rows::kResidual, report.residual, 1), write(Rows::kIterations, report.iterations, 1);
}

// One control step of a warp's environments. Inlined, so that the batch is read as the constant that it is. Threads
// beyond the last environment go along with it and keep nothing.
template <class Size>
__device__ __forceinline__ void step_environments(const Batch& batch, const float* targets, void* memory,
                                                  void* common) {
  const ModelView<float>& m = batch.model;
  const int nq = m.num_positions, nv = m.num_velocities;
  const int thread = static_cast<int>(blockIdx.x) * kWarp + static_cast<int>(threadIdx.x);
  const int env = min(thread, batch.num_envs - 1);
  constexpr Sizes kRoom = Size::kRoom;
  Arena arena(memory, common);
  SmoothDynamics<float> dynamics(m, kRoom, arena);
  ContactFinder<float> finder(m, kRoom, dynamics, arena);
  ConstraintSolver<float> solver(m, kRoom, dynamics, finder, arena);
  Stepper<float> stepper(m, kRoom, dynamics, finder, solver, arena);
  float* out = arena.take<float>(LaneReport<float>::width(kRoom.bodies, kRoom.dofs));
  const LaneReport<float> report = LaneReport<float>::over(out, kRoom.bodies, kRoom.dofs, 1);

  float* state = batch.row(Rows::kState, env);
  const LaneRows<float> rows = {state, state + nq, state + nq + nv, targets + static_cast<size_t>(env) * m.num_dofs};
  stepper.load(rows);
  stepper.step();
  stepper.report(report);
  if (thread != env) return;
  stepper.store(rows);
  if (finder.num_left_out > 0) atomicAdd(batch.counts + 1, static_cast<unsigned long long>(finder.num_left_out));

  if (*report.broken != 0.0f) {
    atomicAdd(batch.counts, 1ull);
    copy(state + nq + 2 * nv, nq + nv, state);
    for (int i = 0; i < nv; ++i) rows.accelerations[i] = 0.0f;
    stepper.load(rows);
    finder.num_contacts = 0;  // no forces
    stepper.report(report);
  }
  write_report(batch, report, env);
}

template <class Size>
__global__ void __launch_bounds__(kWarp) step_kernel(const __grid_constant__ Batch batch, const float* targets) {
  alignas(16) char memory[arena_of(Size::kRoom).used()];
  extern __shared__ __align__(16) char common[];
  step_environments<Size>(batch, targets, memory, common);
}

// A block sets an environment: slot i of `slots` that of envs[i], or environment i from slot slot_of[i], if any.
__global__ void set_kernel(const __grid_constant__ Batch batch, const float* slots, int slot_width, const int* envs,
                           const int* slot_of) {
  const int block = static_cast<int>(blockIdx.x), from = slot_of == nullptr ? block : slot_of[block];
  if (from < 0) return;
  const int env = slot_of == nullptr ? envs[block] : block;
  const float* slot = slots + static_cast<size_t>(from) * slot_width;
  for (int of = 0; of < kNumSettableRows; ++of) {
    float* row = batch.row(static_cast<Rows>(of), env);
    for (int i = static_cast<int>(threadIdx.x); i < batch.widths[of]; i += static_cast<int>(blockDim.x))
      if (slot[i] == slot[i]) row[i] = slot[i];
    slot += batch.widths[of];
  }
}

struct SizeClass {
  Sizes room;
  void (*kernel)(Batch, const float*);
};
template <class Size>
constexpr SizeClass size_class() {
  return {Size::kRoom, step_kernel<Size>};
}
const SizeClass kSizes[] = {size_class<Small>(), size_class<Medium>(), size_class<Large>()};

}  // namespace

void CudaEngine::free_pinned(void* memory) { cudaFreeHost(memory); }
void CudaEngine::destroy_event(void* event) { cudaEventDestroy(static_cast<cudaEvent_t>(event)); }

template <class T>
auto CudaEngine::pinned(size_t count) -> Pinned<T> {
  void* memory = nullptr;
  check_cuda(cudaMallocHost(&memory, std::max(count, size_t{1}) * sizeof(T)), "pinned memory");
  return Pinned<T>(static_cast<T*>(memory));
}

bool CudaEngine::available() {
  static const bool found = [] {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
  }();
  return found;
}

CudaEngine::CudaEngine(const Model<float>& model, int num_envs) : num_envs_(num_envs) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count == 0) refuse("there is no GPU here");
  check_cuda(error, "no GPU that CUDA can use here");

  // the kernel whose threads have the room
  const Sizes needed = Sizes::of(model.view(), 0);
  const SizeClass* size =
      std::find_if(std::begin(kSizes), std::end(kSizes), [&](const SizeClass& s) { return s.room.hold(needed); });
  if (size == std::end(kSizes)) {
    const Sizes& most = std::end(kSizes)[-1].room;
    refuse("the character and its props are too large: " + std::to_string(needed.velocities) + " velocities, " +
           std::to_string(needed.links) + " links and " + std::to_string(needed.shapes) + " shapes, where there is " +
           "room for " + std::to_string(most.velocities) + ", " + std::to_string(most.links) + " and " +
           std::to_string(most.shapes) + "; use \"simd\"");
  }
  common_bytes_ = arena_of(size->room).common_used();
  kernel_ = static_cast<int>(size - kSizes);
  cudaFuncAttributes attributes;
  check_cuda(cudaFuncGetAttributes(&attributes, size->kernel),
             "this GPU cannot run the kernels, which are for sm_80 on");
  const int common = static_cast<int>(common_bytes_);
  check_cuda(cudaFuncSetAttribute(size->kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, common), "shared memory");
  // the cache is for local memory but for what the blocks need that registers leave room for
  int blocks = 0, available = 0, gpu = 0, processors = 0;
  check_cuda(cudaGetDevice(&gpu), "the GPU");
  check_cuda(cudaDeviceGetAttribute(&available, cudaDevAttrMaxSharedMemoryPerMultiprocessor, gpu), "the GPU");
  check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, size->kernel, kWarp, common_bytes_), "the GPU");
  check_cuda(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, gpu), "the GPU");
  blocks = std::min(blocks, (num_envs / kWarp + processors) / processors);
  // the sizes that the cache can be divided into; the driver may take the nearest below what is asked for
  int shared = available;
  for (const int kib : {132, 100, 64, 32, 16, 8})
    if (kib * 1024 >= blocks * (common + 1024)) shared = kib * 1024;
  const int percent = std::min(100, (shared * 100 + available - 1) / available);
  check_cuda(cudaFuncSetAttribute(size->kernel, cudaFuncAttributePreferredSharedMemoryCarveout, percent),
             "shared memory");

  model_ = model.placed([&](const auto& table) {
    using T = typename std::decay_t<decltype(table)>::value_type;
    static_assert(std::is_trivially_copyable_v<T>);
    tables_.emplace_back(std::as_bytes(std::span(table)));
    return reinterpret_cast<const T*>(tables_.back().data());
  });

  const int nq = model_.num_positions, nv = model_.num_velocities;
  const int bodies = model_.num_bodies, dofs = model_.num_dofs, props = model_.num_props;
  widths_ = {2 * nq + 3 * nv, 3 * bodies, 4 * bodies, 3 * bodies, 3 * bodies, dofs, dofs, 3 * bodies, 3 * props,
             4 * props,       3 * props,  3 * props,  3 * props,  1,          1,    1,    1};
  const size_t envs = num_envs;
  report_size_ = 2 * sizeof(unsigned long long) / sizeof(float);  // the counts come first
  for (int i = 0; i < kNumRows; ++i) {
    if (i < kNumSettableRows) slot_offset_[i] = slot_width_, slot_width_ += widths_[i];
    if (i > 0) report_offset_[i] = report_size_, report_size_ += envs * widths_[i];
  }
  state_ = DeviceArray<float>(envs * widths_[0]);
  device_report_ = DeviceArray<float>(report_size_);
  report_ = pinned<float>(report_size_);
  std::memset(report_.get(), 0, report_size_ * sizeof(float));
  device_[0] = state_.data();
  for (int i = 1; i < kNumRows; ++i) device_[i] = device_report_.data() + report_offset_[i];
  targets_ = DeviceArray<float>(envs * dofs);

  for (int k = 0; k < 2; ++k) {
    slots_[k] = pinned<float>(envs * slot_width_), slot_envs_[k] = pinned<int>(envs);
    cudaEvent_t event;
    check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "an event");
    copied_[k].reset(event);
  }
  device_slots_ = DeviceArray<float>(envs * slot_width_), device_slot_envs_ = DeviceArray<int>(envs);
}

CudaEngine::~CudaEngine() = default;

namespace {

Batch batch_of(const ModelView<float>& model, int num_envs, const std::array<float*, kNumRows>& rows,
               const std::array<int, kNumRows>& widths, float* report) {
  Batch batch = {model, num_envs, {}, {}, reinterpret_cast<unsigned long long*>(report)};
  std::ranges::copy(rows, batch.rows), std::ranges::copy(widths, batch.widths);
  return batch;
}

}  // namespace

void CudaEngine::set(int count) {
  if (count == 0) return;
  const size_t floats = static_cast<size_t>(count) * slot_width_;
  check_cuda(cudaMemcpyAsync(device_slots_.data(), slots(), floats * sizeof(float), cudaMemcpyHostToDevice), "setting");
  check_cuda(cudaMemcpyAsync(device_slot_envs_.data(), slot_envs(), count * sizeof(int), cudaMemcpyHostToDevice),
             "setting");
  check_cuda(cudaEventRecord(copied_[filling_].get()), "setting");
  set_kernel<<<count, kSetBlock>>>(batch_of(model_, num_envs_, device_, widths_, device_report_.data()),
                                   device_slots_.data(), slot_width_, device_slot_envs_.data(), nullptr);
  check_cuda(cudaGetLastError(), "setting");
  filling_ = 1 - filling_;
  check_cuda(cudaEventSynchronize(copied_[filling_].get()), "setting");  // of the time before
}

void CudaEngine::set_from(const float* table, const int* row_of) {
  set_kernel<<<num_envs_, kSetBlock>>>(batch_of(model_, num_envs_, device_, widths_, device_report_.data()), table,
                                       slot_width_, nullptr, row_of);
  check_cuda(cudaGetLastError(), "setting");
}

void CudaEngine::step(const float* targets, bool on_device) {
  if (!on_device) {
    const size_t bytes = static_cast<size_t>(num_envs_) * model_.num_dofs * sizeof(float);
    check_cuda(cudaMemcpyAsync(targets_.data(), targets, bytes, cudaMemcpyHostToDevice), "copying PD targets");
    targets = targets_.data();
  }
  const int blocks = (num_envs_ + kWarp - 1) / kWarp;
  kSizes[kernel_].kernel<<<blocks, kWarp, common_bytes_>>>(
      batch_of(model_, num_envs_, device_, widths_, device_report_.data()), targets);
  check_cuda(cudaGetLastError(), "step");
}

void CudaEngine::wait() { check_cuda(cudaStreamSynchronize(nullptr), "step"); }

void CudaEngine::fetch() {
  const size_t bytes = report_size_ * sizeof(float);
  check_cuda(cudaMemcpyAsync(report_.get(), device_report_.data(), bytes, cudaMemcpyDeviceToHost),
             "copying the report");
  wait();
}

std::vector<float> CudaEngine::read(Rows rows, int env) const {
  std::vector<float> out(width(rows));
  const float* from = device(rows) + static_cast<size_t>(env) * width(rows);
  check_cuda(cudaMemcpy(out.data(), from, out.size() * sizeof(float), cudaMemcpyDeviceToHost),
             "reading an environment");
  return out;
}

}  // namespace calm
