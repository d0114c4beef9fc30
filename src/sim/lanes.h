// Numbers of one environment (double) or of several, an environment a lane (std::experimental::simd), behind one set of
// functions; and the small vectors and matrices made of them. No lane ever takes another way: what differs is selected.
#pragma once

#include <Eigen/Core>
#include <experimental/simd>
#include <type_traits>
#include <utility>

namespace calm {

template <class Real>
using MaskOf = decltype(std::declval<Real>() < std::declval<Real>());

// A constant, the same in every lane.
template <class Real>
Real real(double value) {
  if constexpr (std::is_floating_point_v<Real>)
    return static_cast<Real>(value);
  else
    return Real(static_cast<typename Real::value_type>(value));
}

inline double select(bool condition, double yes, double no) { return condition ? yes : no; }
inline bool any(bool condition) { return condition; }
inline double largest_lane(double value) { return value; }
template <class T, class Abi>
std::experimental::simd<T, Abi> select(const std::experimental::simd_mask<T, Abi>& condition,
                                       const std::experimental::simd<T, Abi>& yes,
                                       const std::experimental::simd<T, Abi>& no) {
  auto out = no;
  std::experimental::where(condition, out) = yes;
  return out;
}
template <class T, class Abi>
bool any(const std::experimental::simd_mask<T, Abi>& condition) {
  return std::experimental::any_of(condition);
}
template <class T, class Abi>
double largest_lane(const std::experimental::simd<T, Abi>& value) {
  return static_cast<double>(std::experimental::hmax(value));
}

template <class Real>
struct Vec3Of {
  Real x{}, y{}, z{};
  friend Vec3Of operator+(const Vec3Of& a, const Vec3Of& b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
  friend Vec3Of operator-(const Vec3Of& a, const Vec3Of& b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
  friend Vec3Of operator*(const Real& s, const Vec3Of& a) { return {s * a.x, s * a.y, s * a.z}; }
};

template <class Real>
Real dot(const Vec3Of<Real>& a, const Vec3Of<Real>& b) {
  return a.x * b.x + a.y * b.y + a.z * b.z;
}

template <class Real>
Vec3Of<Real> cross(const Vec3Of<Real>& a, const Vec3Of<Real>& b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

template <class Real>
struct Mat3Of {
  Vec3Of<Real> x, y, z;  // columns
  friend Vec3Of<Real> operator*(const Mat3Of& m, const Vec3Of<Real>& v) { return v.x * m.x + v.y * m.y + v.z * m.z; }
  friend Mat3Of operator*(const Mat3Of& a, const Mat3Of& b) { return {a * b.x, a * b.y, a * b.z}; }
};

template <class Real>
Vec3Of<Real> vec3(const Eigen::Vector3d& v) {
  return {real<Real>(v.x()), real<Real>(v.y()), real<Real>(v.z())};
}

template <class Real>
Mat3Of<Real> mat3(const Eigen::Matrix3d& m) {
  return {vec3<Real>(m.col(0)), vec3<Real>(m.col(1)), vec3<Real>(m.col(2))};
}

}  // namespace calm
