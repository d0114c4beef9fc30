#include "sim/cuda/cuda_engine.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "base/error.h"
#include "sim/stepper.h"

namespace calm {

namespace {

// More at once are left out and counted; a knight that thrashes on the floor has 35 at most.
constexpr int kContactRoom = 64;
constexpr int kBlock = 32;  // few environments spread over all of the GPU's processors
constexpr int kSetBlock = 128;

[[noreturn]] void refuse(const std::string& what) { throw Error("simulator \"cuda\": " + what); }

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) refuse(std::string(what) + ": " + cudaGetErrorString(error));
}

struct Batch {
  ModelView<float> model;
  int num_envs, contact_room;
  float* rows[kNumRows];
  int widths[kNumRows];
  unsigned long long* counts;  // diverged, contacts left out

  CALM_DEVICE float* row(Rows of, int env) const {
    const int i = static_cast<int>(of);
    return rows[i] + static_cast<size_t>(env) * widths[i];
  }
};

CALM_DEVICE size_t thread_bytes(const ModelView<float>& m, int contact_room) {
  Arena dry;
  (void)Stepper<float>(m, contact_room, dry);
  dry.take<float>(LaneReport<float>::width(m.num_bodies + m.num_props, m.num_dofs));
  return dry.used();
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

// One control step of one environment. memory: of thread_bytes().
__device__ __noinline__ void step_environment(const Batch& batch, const float* targets, int env, void* memory) {
  const ModelView<float>& m = batch.model;
  const int nq = m.num_positions, nv = m.num_velocities, bodies = m.num_bodies + m.num_props;
  Arena arena(memory);
  Stepper<float> stepper(m, batch.contact_room, arena);
  const LaneReport<float> report =
      LaneReport<float>::over(arena.take<float>(LaneReport<float>::width(bodies, m.num_dofs)), bodies, m.num_dofs, 1);

  float* state = batch.row(Rows::kState, env);
  const LaneRows<float> rows = {state, state + nq, state + nq + nv, targets + static_cast<size_t>(env) * m.num_dofs};
  stepper.load(rows);
  stepper.step();
  stepper.report(report);
  stepper.store(rows);
  if (stepper.finder.num_left_out > 0)
    atomicAdd(batch.counts + 1, static_cast<unsigned long long>(stepper.finder.num_left_out));

  if (*report.broken != 0.0f) {
    atomicAdd(batch.counts, 1ull);
    copy(state + nq + 2 * nv, nq + nv, state);
    for (int i = 0; i < nv; ++i) rows.accelerations[i] = 0.0f;
    stepper.load(rows);
    stepper.finder.num_contacts = 0;  // no forces
    stepper.report(report);
  }
  write_report(batch, report, env);
}

template <int Bytes>
__global__ void __launch_bounds__(kBlock) step_kernel(const __grid_constant__ Batch batch, const float* targets) {
  alignas(16) char memory[Bytes];
  const int env = static_cast<int>(blockIdx.x) * kBlock + static_cast<int>(threadIdx.x);
  if (env < batch.num_envs) step_environment(batch, targets, env, memory);
}

// A block sets an environment.
__global__ void set_kernel(const __grid_constant__ Batch batch, const float* slots, int slot_width, const int* envs) {
  const float* slot = slots + static_cast<size_t>(blockIdx.x) * slot_width;
  for (int of = 0; of < kNumSettableRows; ++of) {
    float* row = batch.row(static_cast<Rows>(of), envs[blockIdx.x]);
    for (int i = static_cast<int>(threadIdx.x); i < batch.widths[of]; i += static_cast<int>(blockDim.x))
      if (slot[i] == slot[i]) row[i] = slot[i];
    slot += batch.widths[of];
  }
}

// What a thread's memory comes in: the driver sets it aside for every thread that the GPU can hold.
struct SizeClass {
  size_t bytes;
  void (*kernel)(Batch, const float*);
};
template <int KiB>
constexpr SizeClass size_class() {
  return {KiB * size_t{1024}, step_kernel<KiB * 1024>};
}
const SizeClass kSizes[] = {size_class<8>(),  size_class<12>(), size_class<16>(), size_class<24>(), size_class<32>(),
                            size_class<40>(), size_class<48>(), size_class<64>(), size_class<96>(), size_class<128>()};

}  // namespace

void CudaEngine::free_device(void* memory) { cudaFree(memory); }
void CudaEngine::free_pinned(void* memory) { cudaFreeHost(memory); }
void CudaEngine::destroy_event(void* event) { cudaEventDestroy(static_cast<cudaEvent_t>(event)); }

template <class T>
auto CudaEngine::on_device(size_t count) -> Device<T> {
  void* memory = nullptr;
  const size_t bytes = std::max(count, size_t{1}) * sizeof(T);  // an empty array has an address too
  check(cudaMalloc(&memory, bytes), "memory on the GPU");
  Device<T> array(static_cast<T*>(memory));
  check(cudaMemset(memory, 0, bytes), "memory on the GPU");
  return array;
}

template <class T>
auto CudaEngine::pinned(size_t count) -> Pinned<T> {
  void* memory = nullptr;
  check(cudaMallocHost(&memory, std::max(count, size_t{1}) * sizeof(T)), "pinned memory");
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
  check(error, "no GPU that CUDA can use here");

  // the kernel whose threads have the memory
  contact_room_ = std::min(ContactFinder<float>::room_for_all(model.view()), kContactRoom);
  const size_t bytes = thread_bytes(model.view(), contact_room_);
  const SizeClass* size =
      std::find_if(std::begin(kSizes), std::end(kSizes), [&](const SizeClass& s) { return s.bytes >= bytes; });
  if (size == std::end(kSizes)) {
    refuse("the character needs " + std::to_string((bytes + 1023) / 1024) + " KiB a thread; " +
           std::to_string(std::end(kSizes)[-1].bytes / 1024) + " KiB is the most");
  }
  kernel_ = static_cast<int>(size - kSizes);
  cudaFuncAttributes attributes;
  check(cudaFuncGetAttributes(&attributes, size->kernel), "this GPU cannot run the kernels, which are for sm_80 on");
  // all of the cache for local memory
  check(cudaFuncSetAttribute(size->kernel, cudaFuncAttributePreferredSharedMemoryCarveout, 0), "the kernel's cache");

  model_ = model.placed([&](const auto& table) {
    using T = typename std::decay_t<decltype(table)>::value_type;
    static_assert(std::is_trivially_copyable_v<T>);
    const size_t table_bytes = table.size() * sizeof(T);
    tables_.push_back(on_device<std::byte>(table_bytes));
    check(cudaMemcpy(tables_.back().get(), table.data(), table_bytes, cudaMemcpyHostToDevice), "copying the model");
    return reinterpret_cast<const T*>(tables_.back().get());
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
  state_ = on_device<float>(envs * widths_[0]);
  device_report_ = on_device<float>(report_size_);
  report_ = pinned<float>(report_size_);
  std::memset(report_.get(), 0, report_size_ * sizeof(float));
  device_[0] = state_.get();
  for (int i = 1; i < kNumRows; ++i) device_[i] = device_report_.get() + report_offset_[i];
  targets_ = on_device<float>(envs * dofs);

  for (int k = 0; k < 2; ++k) {
    slots_[k] = pinned<float>(envs * slot_width_), slot_envs_[k] = pinned<int>(envs);
    cudaEvent_t event;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "an event");
    copied_[k].reset(event);
  }
  device_slots_ = on_device<float>(envs * slot_width_), device_slot_envs_ = on_device<int>(envs);
}

CudaEngine::~CudaEngine() = default;

namespace {

Batch batch_of(const ModelView<float>& model, int num_envs, int contact_room, const std::array<float*, kNumRows>& rows,
               const std::array<int, kNumRows>& widths, float* report) {
  Batch batch = {model, num_envs, contact_room, {}, {}, reinterpret_cast<unsigned long long*>(report)};
  std::ranges::copy(rows, batch.rows), std::ranges::copy(widths, batch.widths);
  return batch;
}

}  // namespace

void CudaEngine::set(int count) {
  if (count == 0) return;
  const size_t floats = static_cast<size_t>(count) * slot_width_;
  check(cudaMemcpyAsync(device_slots_.get(), slots(), floats * sizeof(float), cudaMemcpyHostToDevice), "setting");
  check(cudaMemcpyAsync(device_slot_envs_.get(), slot_envs(), count * sizeof(int), cudaMemcpyHostToDevice), "setting");
  check(cudaEventRecord(copied_[filling_].get()), "setting");
  set_kernel<<<count, kSetBlock>>>(batch_of(model_, num_envs_, contact_room_, device_, widths_, device_report_.get()),
                                   device_slots_.get(), slot_width_, device_slot_envs_.get());
  check(cudaGetLastError(), "setting");
  filling_ = 1 - filling_;
  check(cudaEventSynchronize(copied_[filling_].get()), "setting");  // of the time before
}

void CudaEngine::step(const float* targets, bool on_device) {
  if (!on_device) {
    const size_t bytes = static_cast<size_t>(num_envs_) * model_.num_dofs * sizeof(float);
    check(cudaMemcpyAsync(targets_.get(), targets, bytes, cudaMemcpyHostToDevice), "copying PD targets");
    targets = targets_.get();
  }
  const int blocks = (num_envs_ + kBlock - 1) / kBlock;
  kSizes[kernel_].kernel<<<blocks, kBlock>>>(
      batch_of(model_, num_envs_, contact_room_, device_, widths_, device_report_.get()), targets);
  check(cudaGetLastError(), "step");
}

void CudaEngine::fetch() {
  const size_t bytes = report_size_ * sizeof(float);
  check(cudaMemcpyAsync(report_.get(), device_report_.get(), bytes, cudaMemcpyDeviceToHost), "copying the report");
  check(cudaStreamSynchronize(nullptr), "step");
}

std::vector<float> CudaEngine::read(Rows rows, int env) const {
  std::vector<float> out(width(rows));
  const float* from = device(rows) + static_cast<size_t>(env) * width(rows);
  check(cudaMemcpy(out.data(), from, out.size() * sizeof(float), cudaMemcpyDeviceToHost), "reading an environment");
  return out;
}

}  // namespace calm
