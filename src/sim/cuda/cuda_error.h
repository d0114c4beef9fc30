// For .cu files: errors of CUDA as Error.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "base/error.h"

namespace calm {

inline void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw Error("cuda: " + std::string(what) + ": " + cudaGetErrorString(error));
}

}  // namespace calm
