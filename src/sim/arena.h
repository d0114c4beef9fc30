// Memory of the simulation's stages: taken once at construction, from one block whose size a first, dry run tells.
#pragma once

#include <cstddef>

#include "sim/vectors.h"

namespace calm {

class Arena {
 public:
  static constexpr size_t kAlignment = 64;  // no type taken needs more

  // Dry: hands out nothing, only counts.
  CALM_DEVICE Arena() {}
  // memory: of `used()` bytes of the dry run, aligned to kAlignment, or to the most that a type taken needs.
  CALM_DEVICE explicit Arena(void* memory) : base_(static_cast<char*>(memory)) {}

  template <class T>
  CALM_DEVICE T* take(int count) {
    static_assert(alignof(T) <= kAlignment);
    used_ = (used_ + alignof(T) - 1) / alignof(T) * alignof(T);
    const size_t at = used_;
    used_ += sizeof(T) * static_cast<size_t>(count);
    return base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + at);
  }
  CALM_DEVICE size_t used() const { return used_; }

 private:
  char* base_ = nullptr;
  size_t used_ = 0;
};

}  // namespace calm
