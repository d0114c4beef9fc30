// Marks what both the processor's compiler and a GPU's compile.
#pragma once

#ifdef __CUDACC__
// All of it in one function: only there do addresses in a thread's memory become constants.
#define CALM_DEVICE __host__ __device__ __forceinline__
#define CALM_DEVICE_CALL __host__ __device__ __noinline__  // what is rarely needed and large
#define CALM_INLINE __host__ __device__ __forceinline__
#else
#define CALM_DEVICE
#define CALM_DEVICE_CALL
#define CALM_INLINE [[gnu::always_inline]] inline  // compilers count a lane's instruction as many and would call
#endif

#ifdef __CUDA_ARCH__
#define CALM_UNROLL _Pragma("unroll")
#elif defined(__CUDACC__)
#define CALM_UNROLL
#else
#define CALM_UNROLL _Pragma("GCC unroll 4")
#endif
