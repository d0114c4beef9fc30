// Memory of the simulation's stages: taken once at construction, from blocks whose sizes a first, dry run tells. What
// is the same in all lanes lies in a block of its own, which a GPU's warp has in its shared memory.
#pragma once

#include <cstddef>
#include <type_traits>

#include "base/vectors.h"

namespace calm {

class Arena {
 public:
  static constexpr size_t kAlignment = 64;  // no type taken needs more

  // Dry: hands out nothing, only counts.
  CALM_DEVICE constexpr Arena() {}
  // Of `used()` and `common_used()` bytes of the dry run, aligned to kAlignment, or to the most that a type taken
  // needs.
  CALM_DEVICE Arena(void* memory, void* common)
      : base_(static_cast<char*>(memory)), common_base_(static_cast<char*>(common)) {}

  template <class T>
  CALM_DEVICE constexpr T* take(int count) {
    return take<T>(count, base_, used_);
  }
  template <class T>
  CALM_DEVICE constexpr T* take_common(int count) {
    return take<T>(count, common_base_, common_used_);
  }
  // On a GPU only at compile time: to ask a pointer would hide from its compiler where the memory is.
  CALM_DEVICE constexpr bool dry() const {
#ifdef __CUDA_ARCH__
    return std::is_constant_evaluated();
#else
    return base_ == nullptr;
#endif
  }
  CALM_DEVICE constexpr size_t used() const { return used_; }
  CALM_DEVICE constexpr size_t common_used() const { return common_used_; }

 private:
  template <class T>
  CALM_DEVICE constexpr T* take(int count, char* base, size_t& used) {
    static_assert(alignof(T) <= kAlignment);
    used = (used + alignof(T) - 1) / alignof(T) * alignof(T);
    const size_t at = used;
    used += sizeof(T) * static_cast<size_t>(count);
    return dry() ? nullptr : reinterpret_cast<T*>(base + at);
  }

  char *base_ = nullptr, *common_base_ = nullptr;
  size_t used_ = 0, common_used_ = 0;
};

}  // namespace calm
