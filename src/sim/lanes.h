// Numbers of several environments, one a lane (std::experimental::simd), behind the same functions as those of one
// (float, double). No lane ever takes another way: what differs is selected.
//
// No function here lets one lane touch another's result: a lane that is not finite stays alone. That is why sines and
// angles are computed in vectors.h rather than by std::experimental, which leaves its fast way when any lane asks for
// it. Include it before any other header of this module, whose templates must see these overloads.
#pragma once

#include <experimental/simd>

namespace calm {

template <class Real>
struct LanesOf;  // base/vectors.h

template <class T, class Abi>
[[gnu::always_inline]] inline std::experimental::simd<T, Abi> select(
    const std::experimental::simd_mask<T, Abi>& condition, const std::experimental::simd<T, Abi>& yes,
    const std::experimental::simd<T, Abi>& no) {
  auto out = no;
  std::experimental::where(condition, out) = yes;
  return out;
}
template <class T, class Abi>
[[gnu::always_inline]] inline bool any(const std::experimental::simd_mask<T, Abi>& condition) {
  return std::experimental::any_of(condition);
}
template <class T, class Abi>
[[gnu::always_inline]] inline T lane(const std::experimental::simd<T, Abi>& value, int i) {
  return value[i];
}
template <class T, class Abi>
[[gnu::always_inline]] inline bool lane(const std::experimental::simd_mask<T, Abi>& mask, int i) {
  return mask[i];
}
template <class T, class Abi>
[[gnu::always_inline]] inline void set_lane(std::experimental::simd<T, Abi>& value, int i, T to) {
  value[i] = to;
}

template <class T, class Abi>
struct LanesOf<std::experimental::simd<T, Abi>> {
  using Scalar = T;
  using Mask = std::experimental::simd_mask<T, Abi>;
  static constexpr int kCount = static_cast<int>(std::experimental::simd<T, Abi>::size());
};

}  // namespace calm
