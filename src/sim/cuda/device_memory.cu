#include "sim/cuda/device_memory.h"

#include <algorithm>

#include "sim/cuda/cuda_error.h"

namespace calm {

void DeviceMemoryDeleter::operator()(void* memory) const { cudaFree(memory); }

namespace device_memory {

void* take(size_t bytes) {
  void* memory = nullptr;
  bytes = std::max(bytes, size_t{1});  // an empty array has an address too
  check_cuda(cudaMalloc(&memory, bytes), "memory on the GPU");
  const cudaError_t error = cudaMemset(memory, 0, bytes);
  if (error != cudaSuccess) cudaFree(memory);
  check_cuda(error, "memory on the GPU");
  return memory;
}

void upload(void* to, const void* from, size_t bytes) {
  check_cuda(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "copying to the GPU");
}

void download(void* to, const void* from, size_t bytes) {
  check_cuda(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "copying from the GPU");
}

}  // namespace device_memory

}  // namespace calm
