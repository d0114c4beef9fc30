// Numbers, small vectors and matrices that the simulation's stages are written in. Real is a float or double of one
// environment, or several environments' in lanes (sim/lanes.h). One source for processor and GPU.
#pragma once

#include <cmath>

#include "base/device.h"

namespace calm {

// How many environments a Real holds, and their numbers' type.
template <class Real>
struct LanesOf {
  using Scalar = Real;
  using Mask = bool;
  static constexpr int kCount = 1;
};
template <class Real>
using ScalarOf = typename LanesOf<Real>::Scalar;
template <class Real>
using MaskOf = typename LanesOf<Real>::Mask;

// A constant, the same in every lane.
template <class Real>
CALM_INLINE Real real(double value) {
  return Real(static_cast<ScalarOf<Real>>(value));
}

CALM_INLINE double select(bool condition, double yes, double no) { return condition ? yes : no; }
CALM_INLINE float select(bool condition, float yes, float no) { return condition ? yes : no; }

// Over the lanes. To a GPU a warp is what a vector is to a processor: its threads take the same way, all of them.
CALM_INLINE bool any(bool condition) {
#ifdef __CUDA_ARCH__
  return __any_sync(0xffffffffu, condition) != 0;
#else
  return condition;
#endif
}
CALM_INLINE int most(int count) {
#ifdef __CUDA_ARCH__
  return __reduce_max_sync(0xffffffffu, count);
#else
  return count;
#endif
}
// Before and after memory common to the lanes changes.
CALM_INLINE void meet_lanes() {
#ifdef __CUDA_ARCH__
  __syncwarp();
#endif
}

CALM_INLINE double lane(double value, int) { return value; }
CALM_INLINE float lane(float value, int) { return value; }
CALM_INLINE bool lane(bool value, int) { return value; }
CALM_INLINE void set_lane(double& value, int, double to) { value = to; }
CALM_INLINE void set_lane(float& value, int, float to) { value = to; }

// put(i, get(i)) from begin to end. What is put is not what the next are got from, which a compiler cannot know: a GPU,
// which would wait for each, does `Count` at a time; a processor looks ahead by itself and has not the registers.
template <int Count, class Get, class Put>
CALM_INLINE void in_groups(int begin, int end, Get get, Put put) {
  int i = begin;
#ifdef __CUDA_ARCH__
  for (; i + Count <= end; i += Count) {
    decltype(get(0)) values[Count];
    CALM_UNROLL
    for (int k = 0; k < Count; ++k) values[k] = get(i + k);
    CALM_UNROLL
    for (int k = 0; k < Count; ++k) put(i + k, values[k]);
  }
#endif
  for (; i < end; ++i) put(i, get(i));
}

template <class Real>
CALM_INLINE Real larger(const Real& a, const Real& b) {
  return select(a > b, a, b);
}
template <class Real>
CALM_INLINE Real smaller(const Real& a, const Real& b) {
  return select(a < b, a, b);
}
template <class Real>
CALM_INLINE Real magnitude(const Real& a) {
  return larger(a, -a);
}
template <class Real>
CALM_INLINE Real square_root(const Real& a) {
  using std::sqrt;
  return sqrt(a);
}

// The nearest integer; |a| below 2^22 (float) or 2^51 (double).
template <class Real>
CALM_INLINE Real nearest(const Real& a) {
  const Real shift = real<Real>(sizeof(ScalarOf<Real>) == 4 ? 12582912.0 : 6755399441055744.0);
  return (a + shift) - shift;
}

// Sine and cosine to two units in the last place for |a| < 1e4 (float); double: the library's.
// Polynomials on [-pi/4, pi/4]: Taylor's to where they are exact in single precision.
template <class Real>
CALM_DEVICE void sine_cosine(const Real& a, Real& sine, Real& cosine) {
  if constexpr (sizeof(ScalarOf<Real>) == 8) {
    sine = std::sin(a), cosine = std::cos(a);
  } else {
    const auto c = [](double value) { return real<Real>(value); };
    const Real quarters = nearest(a * c(0.63661977236758134));
    // pi/2 in three parts, so that the difference keeps its digits
    const Real r =
        ((a - quarters * c(1.5703125)) - quarters * c(4.837512969970703125e-4)) - quarters * c(7.549789954891882e-8);
    const Real rr = r * r;
    const Real s = r + r * rr * (c(-1.0 / 6) + rr * (c(1.0 / 120) + rr * (c(-1.0 / 5040) + rr * c(1.0 / 362880))));
    const Real k = c(1) + rr * (c(-0.5) + rr * (c(1.0 / 24) + rr * (c(-1.0 / 720) + rr * c(1.0 / 40320))));
    const Real quarter = quarters - c(4) * nearest(quarters * c(0.25) - c(0.375));  // 0, 1, 2 or 3
    const auto odd = (quarter == c(1)) || (quarter == c(3));
    sine = select(odd, k, s), cosine = select(odd, s, k);
    sine = select(quarter >= c(2), -sine, sine);
    cosine = select((quarter == c(1)) || (quarter == c(2)), -cosine, cosine);
  }
}

// The angle of the point (x, y) for x, y >= 0, not both 0: 0 to pi/2.
template <class Real>
CALM_DEVICE Real angle_of(const Real& y, const Real& x) {
  if constexpr (sizeof(ScalarOf<Real>) == 8) {
    return std::atan2(y, x);
  } else {
    const auto c = [](double value) { return real<Real>(value); };
    const auto steep = y > x;
    const Real low = select(steep, x, y), high = select(steep, y, x);
    // a second halving above tan(pi/8); then the odd series, economised on |z| < tan(pi/8)
    const auto far = low > c(0.41421356237309503) * high;
    const Real z = select(far, low - high, low) / select(far, low + high, high), zz = z * z;
    const Real small =
        z +
        z * zz * (c(-0.333329491539) + zz * (c(0.199777106478) + zz * (c(-0.138776856032) + zz * c(0.0805374449538))));
    const Real angle = select(far, c(0.78539816339744831) + small, small);
    return select(steep, c(1.5707963267948966) - angle, angle);
  }
}

template <class Real>
struct Vec3Of {
  Real x{}, y{}, z{};
  CALM_INLINE friend Vec3Of operator+(const Vec3Of& a, const Vec3Of& b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
  CALM_INLINE friend Vec3Of operator-(const Vec3Of& a, const Vec3Of& b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
  CALM_INLINE friend Vec3Of operator*(const Real& s, const Vec3Of& a) { return {s * a.x, s * a.y, s * a.z}; }
};

template <class Real>
CALM_INLINE Real dot(const Vec3Of<Real>& a, const Vec3Of<Real>& b) {
  return a.x * b.x + a.y * b.y + a.z * b.z;
}

template <class Real>
CALM_INLINE Vec3Of<Real> cross(const Vec3Of<Real>& a, const Vec3Of<Real>& b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

template <class Real>
CALM_INLINE Vec3Of<Real> select(const MaskOf<Real>& condition, const Vec3Of<Real>& yes, const Vec3Of<Real>& no) {
  return {select(condition, yes.x, no.x), select(condition, yes.y, no.y), select(condition, yes.z, no.z)};
}

template <class Real>
struct Mat3Of {
  Vec3Of<Real> x, y, z;  // columns
  CALM_INLINE friend Vec3Of<Real> operator*(const Mat3Of& m, const Vec3Of<Real>& v) {
    return v.x * m.x + v.y * m.y + v.z * m.z;
  }
  CALM_INLINE friend Mat3Of operator*(const Mat3Of& a, const Mat3Of& b) { return {a * b.x, a * b.y, a * b.z}; }
};

// mᵀ v
template <class Real>
CALM_INLINE Vec3Of<Real> transposed_times(const Mat3Of<Real>& m, const Vec3Of<Real>& v) {
  return {dot(m.x, v), dot(m.y, v), dot(m.z, v)};
}

// A constant vector or matrix of a table, the same in every lane.
template <class Real>
CALM_INLINE Vec3Of<Real> wide(const Vec3Of<ScalarOf<Real>>& v) {
  return {Real(v.x), Real(v.y), Real(v.z)};
}
template <class Real>
CALM_INLINE Mat3Of<Real> wide(const Mat3Of<ScalarOf<Real>>& m) {
  return {wide<Real>(m.x), wide<Real>(m.y), wide<Real>(m.z)};
}

template <class Real>
struct QuatOf {
  Real w{}, x{}, y{}, z{};
  CALM_INLINE friend QuatOf operator*(const QuatOf& a, const QuatOf& b) {
    return {a.w * b.w - a.x * b.x - a.y * b.y - a.z * b.z, a.w * b.x + a.x * b.w + a.y * b.z - a.z * b.y,
            a.w * b.y - a.x * b.z + a.y * b.w + a.z * b.x, a.w * b.z + a.x * b.y - a.y * b.x + a.z * b.w};
  }
};

template <class Real>
CALM_INLINE QuatOf<Real> wide(const QuatOf<ScalarOf<Real>>& q) {
  return {Real(q.w), Real(q.x), Real(q.y), Real(q.z)};
}

// v turned by a quaternion of unit length.
template <class Real>
CALM_INLINE Vec3Of<Real> rotate(const QuatOf<Real>& q, const Vec3Of<Real>& v) {
  const Vec3Of<Real> axis = {q.x, q.y, q.z}, twice = real<Real>(2) * cross(axis, v);
  return v + q.w * twice + cross(axis, twice);
}

template <class Real>
CALM_DEVICE Mat3Of<Real> rotation(const QuatOf<Real>& q) {
  const Real one = real<Real>(1), x = q.x + q.x, y = q.y + q.y, z = q.z + q.z;
  const Real xx = x * q.x, yy = y * q.y, zz = z * q.z, xy = x * q.y, xz = x * q.z, yz = y * q.z;
  const Real wx = x * q.w, wy = y * q.w, wz = z * q.w;
  return {
      {one - (yy + zz), xy + wz, xz - wy}, {xy - wz, one - (xx + zz), yz + wx}, {xz + wy, yz - wx, one - (xx + yy)}};
}

}  // namespace calm
