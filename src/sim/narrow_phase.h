// Where two convex shapes touch: points, normals and depths for all ten pairs of sphere, capsule, cylinder and box.
// Pure functions of one pair in one environment, in float or double, for processor and GPU: no state, no allocation,
// bounded loops. Lengths in m; positions are taken relative to shape a, so that places far from the origin cost
// nothing.
//
// Spheres and capsules: closest points of centres and segments (Ericson, Real-Time Collision Detection, ch. 5); a
// capsule on a box has a second contact where MuJoCo's has.
// Box on box, and a capsule whose axis enters a box: the least overlap over the separating axes (Gottschalk, Lin and
// Manocha, OBBTree, SIGGRAPH 1996); what faces each other is clipped (Sutherland and Hodgman, CACM 1974).
// Other pairs with a cylinder: rays shot out of the Minkowski difference through portals (Snethen, XenoCollide, Game
// Programming Gems 7), again and again along the normal last found: the overlap only shrinks, until that normal is a
// local minimum. Contacts are clipped as the boxes' are: several where faces lie flat, two along a line, else one.
//
// MuJoCo 2.2.2 differs: it halves the distance of box on box at a face, and tells the radius alone for the depth of a
// centre inside a box (ours are whole); has more points where boxes' edges cross; repeats a capsule's contact with a
// box where there is no second; and solves all pairs with a cylinder, spheres too, by one portal ray (one point, and
// an overlap that need not be the least).
#pragma once

#include <cmath>
#include <type_traits>

#include "base/vectors.h"

namespace calm {

// In the order of MuJoCo's geom types, by which a pair is sorted.
enum class ConvexKind : int { kSphere, kCapsule, kCylinder, kBox };

template <class T>
struct ConvexShape {
  ConvexKind kind{};
  Vec3Of<T> size;  // radius | radius, half length | radius, half length | half extents
  Vec3Of<T> pos;
  Mat3Of<T> rot;  // columns: axes in the world; capsules and cylinders lie along z
};

template <class T>
struct PairContact {
  Vec3Of<T> point;   // half way between the surfaces
  Vec3Of<T> normal;  // unit, from a to b
  T distance{};      // m, negative inside
};

inline constexpr int kMaxPairContacts = 8;

namespace narrow {

template <class T>
using Vec = Vec3Of<T>;

// Of a size, what rounding may hide.
template <class T>
inline constexpr T kTight = std::is_same_v<T, float> ? T(1e-5) : T(1e-10);

template <class T>
CALM_DEVICE T minimum(T a, T b) {
  return a < b ? a : b;
}
template <class T>
CALM_DEVICE T clamp(T x, T lower, T upper) {
  return x < lower ? lower : x > upper ? upper : x;
}
template <class T>
CALM_DEVICE T with_sign(T size, T of) {
  return of < T(0) ? -size : size;
}
template <class T>
CALM_DEVICE T length(const Vec<T>& v) {
  using std::sqrt;
  return sqrt(dot(v, v));
}
// False where v has no direction.
template <class T>
CALM_DEVICE bool normalize(Vec<T>& v) {
  const T size = length(v);
  if (!(size > T(1e-15))) return false;
  v = (T(1) / size) * v;
  return true;
}
template <class T>
CALM_DEVICE const Vec<T>& axis(const Mat3Of<T>& m, int i) {
  return i == 0 ? m.x : i == 1 ? m.y : m.z;
}
template <class T>
CALM_DEVICE T& at(Vec<T>& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : v.z;
}
template <class T>
CALM_DEVICE T at(const Vec<T>& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : v.z;
}

template <class T>
struct Contacts {
  PairContact<T>* out;
  int count = 0;

  // Of more than there is room for, the deepest stay.
  CALM_DEVICE void add(const Vec<T>& point, const Vec<T>& normal, T distance) {
    if (!(distance <= T(0))) return;
    int place = count;
    if (count < kMaxPairContacts) {
      ++count;
    } else {
      place = 0;
      for (int i = 1; i < kMaxPairContacts; ++i)
        if (out[i].distance > out[place].distance) place = i;
      if (distance >= out[place].distance) return;
    }
    out[place] = {point, normal, distance};
  }
  // A sphere against a surface that is `gap` from its centre along the normal.
  CALM_DEVICE void add_sphere(const Vec<T>& centre, T radius, const Vec<T>& normal, T gap) {
    const T distance = gap - radius;
    add(centre + (radius + T(0.5) * distance) * normal, normal, distance);
  }
  CALM_DEVICE bool has(const Vec<T>& point, T within) const {
    for (int i = 0; i < count; ++i)
      if (length(out[i].point - point) <= within) return true;
    return false;
  }
};

// --- spheres and capsules

// Centres that coincide part along both axes' cross product, as in MuJoCo.
template <class T>
CALM_DEVICE void sphere_sphere(const ConvexShape<T>& a, const Vec<T>& at_a, const ConvexShape<T>& b, const Vec<T>& at_b,
                               Contacts<T>& contacts) {
  Vec<T> normal = at_b - at_a;
  const T gap = length(normal);
  if (!normalize(normal)) {
    normal = cross(a.rot.z, b.rot.z);
    if (!normalize(normal)) normal = {T(1), T(0), T(0)};
  }
  contacts.add_sphere(at_a, a.size.x, normal, gap - b.size.x);
}

// The place along a segment (half axis `half`, from -1 to 1) nearest to an offset from its middle.
template <class T>
CALM_DEVICE T nearest_on_segment(const Vec<T>& half, const Vec<T>& offset) {
  const T squared = dot(half, half);
  return squared > T(0) ? clamp(dot(half, offset) / squared, T(-1), T(1)) : T(0);
}

template <class T>
CALM_DEVICE void sphere_capsule(const ConvexShape<T>& a, const ConvexShape<T>& b, Contacts<T>& contacts) {
  const Vec<T> half = b.size.y * b.rot.z;
  sphere_sphere(a, a.pos, b, b.pos + nearest_on_segment(half, a.pos - b.pos) * half, contacts);
}

template <class T>
CALM_DEVICE void capsule_capsule(const ConvexShape<T>& a, const ConvexShape<T>& b, Contacts<T>& contacts) {
  const Vec<T> half_a = a.size.y * a.rot.z, half_b = b.size.y * b.rot.z, offset = b.pos - a.pos;
  const T aa = dot(half_a, half_a), ab = dot(half_a, half_b), bb = dot(half_b, half_b);
  const T determinant = dot(cross(half_a, half_b), cross(half_a, half_b));  // aa bb - ab², unrounded
  if (determinant > T(0.1) * kTight<T> * aa * bb) {
    const T on_a = dot(half_a, offset), on_b = dot(half_b, offset);
    T s = clamp((bb * on_a - ab * on_b) / determinant, T(-1), T(1));
    const T t = clamp((s * ab - on_b) / bb, T(-1), T(1));
    s = clamp((t * ab + on_a) / aa, T(-1), T(1));
    sphere_sphere(a, a.pos + s * half_a, b, b.pos + t * half_b, contacts);
    return;
  }
  // parallel: from each end to the other segment, until there are two
  for (int end = 0; end < 4 && contacts.count < 2; ++end) {
    const T side = end % 2 == 0 ? T(1) : T(-1);
    if (end < 2) {
      const Vec<T> p = a.pos + side * half_a;
      sphere_sphere(a, p, b, b.pos + nearest_on_segment(half_b, p - b.pos) * half_b, contacts);
    } else {
      const Vec<T> p = b.pos + side * half_b;
      sphere_sphere(a, a.pos + nearest_on_segment(half_a, p - a.pos) * half_a, b, p, contacts);
    }
  }
}

template <class T>
CALM_DEVICE void sphere_cylinder(const ConvexShape<T>& a, const ConvexShape<T>& b, Contacts<T>& contacts) {
  using std::fabs;
  const Vec<T> p = a.pos - b.pos;
  const T height = dot(p, b.rot.z), side = with_sign(T(1), height), above = fabs(height) - b.size.y;
  Vec<T> out = p - height * b.rot.z;
  const T beyond = length(out) - b.size.x;
  if (!normalize(out)) out = b.rot.x;
  if (above > T(0) && beyond > T(0)) {
    Vec<T> normal = T(-1) * (beyond * out + (above * side) * b.rot.z);
    const T gap = length(normal);
    if (normalize(normal)) return contacts.add_sphere(a.pos, a.size.x, normal, gap);
  }
  if (above > beyond) return contacts.add_sphere(a.pos, a.size.x, -side * b.rot.z, above);
  contacts.add_sphere(a.pos, a.size.x, T(-1) * out, beyond);
}

template <class T>
CALM_DEVICE void sphere_box(const Vec<T>& centre, T radius, const ConvexShape<T>& box, Contacts<T>& contacts) {
  using std::fabs;
  const Vec<T> p = transposed_times(box.rot, centre - box.pos);
  Vec<T> to;  // from the centre to the box
  int face = 0;
  for (int i = 0; i < 3; ++i) {
    at(to, i) = clamp(at(p, i), -at(box.size, i), at(box.size, i)) - at(p, i);
    if (at(box.size, i) - fabs(at(p, i)) < at(box.size, face) - fabs(at(p, face))) face = i;
  }
  const T gap = length(to);
  if (normalize(to)) return contacts.add_sphere(centre, radius, box.rot * to, gap);
  // inside: out of the nearest face
  contacts.add_sphere(centre, radius, with_sign(T(-1), at(p, face)) * axis(box.rot, face),
                      fabs(at(p, face)) - at(box.size, face));
}

// --- least overlap along an axis

// The unit vector across the axis of s nearest to n: built from components, so that rounding does not tilt it.
template <class T>
CALM_DEVICE Vec<T> outward(const ConvexShape<T>& s, const Vec<T>& n) {
  Vec<T> out = {dot(n, s.rot.x), dot(n, s.rot.y), T(0)};
  if (length(out) <= T(0.1) * kTight<T> || !normalize(out)) return s.rot.x;
  return out.x * s.rot.x + out.y * s.rot.y;
}

// From the centre to the point farthest along the unit vector n; every shape is its own mirror image at its centre.
template <class T>
CALM_DEVICE Vec<T> farthest(const ConvexShape<T>& s, const Vec<T>& n) {
  if (s.kind == ConvexKind::kSphere) return s.size.x * n;
  const T along = dot(n, s.rot.z);
  if (s.kind == ConvexKind::kBox)
    return with_sign(s.size.x, dot(n, s.rot.x)) * s.rot.x + with_sign(s.size.y, dot(n, s.rot.y)) * s.rot.y +
           with_sign(s.size.z, along) * s.rot.z;
  const Vec<T> end = with_sign(s.size.y, along) * s.rot.z;
  if (s.kind == ConvexKind::kCapsule) return s.size.x * n + end;
  return s.size.x * outward(s, n) + end;
}

template <class T>
struct Overlap {
  const ConvexShape<T>*a, *b;
  Vec<T> delta, normal;  // from a to b
  T depth, size, tolerance;
  bool apart = false;

  CALM_DEVICE Overlap(const ConvexShape<T>& first, const ConvexShape<T>& second)
      : a(&first), b(&second), delta(second.pos - first.pos) {
    size = first.size.x + first.size.y + first.size.z + second.size.x + second.size.y + second.size.z;
    depth = T(4) * size + length(delta), tolerance = kTight<T> * T(0.1) * size;
  }

  // Corner of a - b, in whose inside the origin lies where the shapes touch.
  CALM_DEVICE Vec<T> corner(const Vec<T>& n) const { return farthest(*a, n) + farthest(*b, n) - delta; }

  // Keeps the unit vector n if its overlap is less by more than `margin`, a part of it. False once the shapes are
  // found apart.
  CALM_DEVICE bool offer(const Vec<T>& n, T margin = T(0)) {
    const T side = with_sign(T(1), dot(n, delta));
    const T overlap = side * dot(n, corner(side * n));
    if (overlap < T(0)) apart = true;
    if (overlap < depth * (T(1) - margin)) depth = overlap, normal = side * n;
    return !apart;
  }

  // Faces first: an edge must do better by more than rounding.
  CALM_DEVICE bool offer_axes() {
    const int axes_a = a->kind == ConvexKind::kBox ? 3 : 1, axes_b = b->kind == ConvexKind::kBox ? 3 : 1;
    for (int i = 0; i < axes_a; ++i)
      if (!offer(axis(a->rot, 2 - i))) return false;
    for (int j = 0; j < axes_b; ++j)
      if (!offer(axis(b->rot, 2 - j))) return false;
    for (int i = 0; i < axes_a; ++i)
      for (int j = 0; j < axes_b; ++j) {
        Vec<T> n = cross(axis(a->rot, 2 - i), axis(b->rot, 2 - j));
        if (length(n) > T(10) * kTight<T> && normalize(n) && !offer(n, T(10) * kTight<T>)) return false;
      }
    return true;
  }

  // Offers the normals met on the way to where the ray from the origin along the unit vector d leaves a - b. All
  // tests of inside are flat, seen along d, so the origin may lie on the surface.
  CALM_DEVICE void shoot(const Vec<T>& d) {
    if (!offer(d)) return;
    Vec<T> v[3] = {corner(d), {}, {}};
    Vec<T> q = dot(v[0], d) * d - v[0];
    if (length(q) <= tolerance || !normalize(q) || !offer(q)) return;
    v[1] = corner(q);
    if (dot(d, cross(v[0], v[1])) < T(0)) q = v[0], v[0] = v[1], v[1] = q;

    // a triangle around the origin: always a corner left of the edge that has the origin at its left
    for (int step = 0;; ++step) {
      q = cross(d, v[1] - v[0]);
      if (step == 24 || !normalize(q) || !offer(q)) return;
      v[2] = corner(q);
      if (dot(v[2] - v[0], q) <= T(0)) return;
      if (dot(d, cross(v[1], v[2])) < T(0))
        v[0] = v[2];
      else if (dot(d, cross(v[2], v[0])) < T(0))
        v[1] = v[2];
      else
        break;
    }
    // push the triangle out
    for (int step = 0; step < 48; ++step) {
      q = cross(v[1] - v[0], v[2] - v[0]);
      if (!normalize(q) || !offer(q)) return;
      const Vec<T> w = corner(q);
      if (dot(w - v[0], q) <= tolerance) return;
      const T side[3] = {dot(d, cross(w, v[0])), dot(d, cross(w, v[1])), dot(d, cross(w, v[2]))};
      v[side[0] >= T(0) && side[1] <= T(0) ? 2 : side[1] >= T(0) && side[2] <= T(0) ? 0 : 1] = w;
    }
  }

  // Shoots along the least overlap so far, until that stays.
  CALM_DEVICE void settle() {
    for (int round = 0; round < 8 && !apart; ++round) {
      const T before = depth;
      shoot(Vec<T>(normal));
      if (depth > before - tolerance) break;
    }
  }

  // A ray along the line of centres tells whether the shapes touch. Deep inside there are several local minima: down
  // from there, and from the best axis.
  CALM_DEVICE bool descend() {
    Overlap other(*a, *b);
    Vec<T> d = delta;
    if (normalize(d)) other.shoot(d), other.settle();
    apart = other.apart;
    if (depth <= other.depth || other.depth > T(0.01) * size) settle();
    if (other.depth < depth) depth = other.depth, normal = other.normal;
    return !apart;
  }
};

// --- clipping of what faces each other

// The part of a shape that faces along n: a point, a line, a rectangle or a disc.
template <class T>
struct Feature {
  Vec<T> centre, p[2];  // p: unit axes; of a line the second is across it
  T half[2] = {T(0), T(0)};
  int axes = 0;
  bool disc = false;
};

// flat: cosine to n below which an axis counts.
template <class T>
CALM_DEVICE Feature<T> facing(const ConvexShape<T>& s, const Vec<T>& n, T flat) {
  using std::fabs;
  Feature<T> f;
  f.centre = s.pos + farthest(s, n);
  if (s.kind == ConvexKind::kBox) {
    for (int i = 0; i < 3; ++i) {
      const T along = dot(n, axis(s.rot, i)), half = at(s.size, i);
      if (fabs(along) >= flat) continue;
      f.centre = f.centre - with_sign(half, along) * axis(s.rot, i);
      f.p[f.axes] = axis(s.rot, i), f.half[f.axes++] = half;
    }
  } else if (s.kind != ConvexKind::kSphere) {
    const T along = dot(n, s.rot.z);
    const Vec<T> out = outward(s, n);
    if (fabs(along) < flat) {
      f.centre = f.centre - with_sign(s.size.y, along) * s.rot.z;
      f.p[0] = s.rot.z, f.half[0] = s.size.y, f.axes = 1;
    } else if (s.kind == ConvexKind::kCylinder && dot(out, n) < flat) {
      f.centre = s.pos + with_sign(s.size.y, along) * s.rot.z;
      f.p[0] = out, f.p[1] = cross(s.rot.z, out), f.half[0] = f.half[1] = s.size.x, f.axes = 2, f.disc = true;
    }
  }
  if (f.axes == 1) f.p[1] = cross(n, f.p[0]);
  return f;
}

template <class T>
struct Polygon {
  static constexpr int kMax = 12;
  Vec<T> v[kMax];
  int count = 0;

  CALM_DEVICE void add(const Vec<T>& point) {
    if (count < kMax) v[count++] = point;
  }
  // Keeps what has |w · (v - centre)| <= half.
  CALM_DEVICE void clip(const Vec<T>& centre, const Vec<T>& w, T half) {
    for (int side = -1; side <= 1; side += 2) {
      Polygon cut;
      for (int i = 0; i < count; ++i) {
        const Vec<T>&from = v[i], &to = v[(i + 1) % count];
        const T d0 = T(side) * dot(w, from - centre) - half, d1 = T(side) * dot(w, to - centre) - half;
        if (d0 <= T(0)) cut.add(from);
        if ((d0 < T(0) && d1 > T(0)) || (d0 > T(0) && d1 < T(0))) cut.add(from + (d0 / (d0 - d1)) * (to - from));
      }
      *this = cut;
    }
  }
};

// Cuts `face` to what lies over `base`, seen along n. A disc is cut as the square in it that has its rim's lowest
// point; it cuts a line as it is, a polygon as the octagon in it.
template <class T>
CALM_DEVICE Polygon<T> clip(const Feature<T>& face, const Feature<T>& base, const Vec<T>& n) {
  using std::fabs, std::sqrt;
  const Vec<T> first = face.half[0] * face.p[0], second = face.half[1] * face.p[1];
  Polygon<T> polygon;
  if (face.axes == 1 && base.disc) {
    const Vec<T> up = cross(base.p[0], base.p[1]);
    const auto flatten = [&](const Vec<T>& v) { return v - (dot(up, v) / dot(up, n)) * n; };
    const Vec<T> start = flatten(face.centre - base.centre), step = flatten(first);
    const T a = dot(step, step), b = dot(start, step), c = dot(start, start) - base.half[0] * base.half[0];
    const T root = b * b - a * c;
    if (!(root >= T(0) && a > T(0))) return polygon;
    const T lower = (-b - sqrt(root)) / a, upper = (-b + sqrt(root)) / a;
    if (lower > T(1) || upper < T(-1)) return polygon;
    polygon.add(face.centre + clamp(lower, T(-1), T(1)) * first);
    polygon.add(face.centre + clamp(upper, T(-1), T(1)) * first);
    return polygon;
  }
  for (int i = 0; i < (face.axes == 1 ? 2 : 4); ++i) {
    if (face.axes == 1)
      polygon.add(face.centre + (i == 0 ? T(1) : T(-1)) * first);
    else if (face.disc)
      polygon.add(face.centre + (i < 2 ? T(1) : T(-1)) * (i % 2 == 0 ? first : second));
    else
      polygon.add(face.centre + (i == 0 || i == 3 ? T(1) : T(-1)) * first + (i < 2 ? T(1) : T(-1)) * second);
  }
  const T octagon = T(0.92387953251128676), diagonal = T(0.70710678118654752);  // cos(pi / 8), cos(pi / 4)
  for (int i = 0; i < (base.disc ? 4 : base.axes); ++i) {
    Vec<T> p = base.p[i % 2], q = base.p[(i + 1) % 2];
    if (i >= 2) {
      const Vec<T> sum = diagonal * (p + q), difference = diagonal * (p - q);
      p = i == 2 ? sum : difference, q = i == 2 ? difference : sum;
    }
    const Vec<T> w = cross(q, n);
    polygon.clip(base.centre, w, fabs(dot(w, p)) * base.half[i % 2] * (base.disc ? octagon : T(1)));
  }
  return polygon;
}

// The places where two lines cross, seen along n. False where they are parallel.
template <class T>
CALM_DEVICE bool cross_lines(const Feature<T>& f, const Feature<T>& g, const Vec<T>& n, Vec<T>& on_f, Vec<T>& on_g) {
  using std::fabs;
  const T area = dot(n, cross(f.p[0], g.p[0]));
  if (f.axes != 1 || g.axes != 1 || fabs(area) < T(0.03)) return false;
  const Vec<T> offset = g.centre - f.centre;
  const T s = dot(n, cross(offset, g.p[0])) / area, t = dot(n, cross(offset, f.p[0])) / area;
  on_f = f.centre + clamp(s, -f.half[0], f.half[0]) * f.p[0];
  on_g = g.centre + clamp(t, -g.half[0], g.half[0]) * g.p[0];
  return true;
}

// First where the shapes are deepest in each other: at a point of the one that has no line or face there, or where two
// lines cross. Then what else of their faces, not quite flat, overlaps.
template <class T>
CALM_DEVICE void clip_contacts(const Overlap<T>& overlap, Contacts<T>& contacts) {
  const ConvexShape<T>&a = *overlap.a, &b = *overlap.b;
  const Vec<T>& n = overlap.normal;
  const Vec<T> back = T(-1) * n, inset = (T(0.5) * overlap.depth) * n;
  constexpr T kExact = T(0.002), kNearly = T(0.5);  // the second as MuJoCo's
  const auto less = [](const Feature<T>& f, const Feature<T>& g) {
    return f.axes == g.axes ? f.half[0] + f.half[1] <= g.half[0] + g.half[1] : f.axes < g.axes;
  };
  Feature<T> of_a = facing(a, n, kExact), of_b = facing(b, back, kExact);
  Vec<T> on_a = of_a.centre, on_b = of_b.centre;
  const bool meet = cross_lines(of_a, of_b, n, on_a, on_b) || (of_a.axes == 0 && of_b.axes == 0);
  const Vec<T> middle = meet ? T(0.5) * (on_a + on_b) : less(of_b, of_a) ? on_b + inset : on_a - inset;
  if (meet || of_a.axes == 0 || of_b.axes == 0) contacts.add(middle, n, -overlap.depth);

  of_a = facing(a, n, kNearly), of_b = facing(b, back, kNearly);
  if (of_a.axes > 0 && of_b.axes > 0 && !cross_lines(of_a, of_b, n, on_a, on_b)) {
    const bool cut_b = less(of_b, of_a);
    const Feature<T>&face = cut_b ? of_b : of_a, &base = cut_b ? of_a : of_b;
    const Polygon<T> polygon = clip(face, base, n);
    const Vec<T> up = cross(base.p[0], base.p[1]);
    const T apart = face.disc || base.disc ? T(0.1) * minimum(a.size.x, b.size.x) : T(10) * overlap.tolerance;
    for (int i = 0; i < polygon.count; ++i) {
      const T height = dot(up, polygon.v[i] - base.centre) / dot(up, n);  // over the base
      const Vec<T> point = polygon.v[i] - (T(0.5) * height) * n;
      if (!contacts.has(point, apart)) contacts.add(point, n, -minimum(overlap.depth, cut_b ? -height : height));
    }
  }
  if (contacts.count == 0) contacts.add(middle, n, -overlap.depth);
}

// --- capsule on box

// Where along the segment p + t half, -1 <= t <= 1, a box around the origin is nearest; the first place of several. The
// slope of half the squared distance is piecewise linear and rises: its root lies between two of the places where the
// segment passes the planes of the faces.
template <class T>
CALM_DEVICE T nearest_to_box(const Vec<T>& p, const Vec<T>& half, const Vec<T>& size) {
  using std::fabs;
  const auto slope = [&](T t) {
    T sum = T(0);
    for (int i = 0; i < 3; ++i) {
      const T x = at(p, i) + t * at(half, i);
      sum += at(half, i) * (x - clamp(x, -at(size, i), at(size, i)));
    }
    return sum;
  };
  const T flat = T(-0.1) * kTight<T> * dot(half, half);
  T lower = T(-1), upper = T(1), lower_slope = slope(lower), upper_slope = slope(upper);
  if (lower_slope >= flat) return lower;
  if (upper_slope < flat) return upper;
  for (int i = 0; i < 6; ++i) {
    const T along = at(half, i / 2), plane = i % 2 == 0 ? at(size, i / 2) : -at(size, i / 2);
    if (fabs(along) < T(1e-12)) continue;
    const T t = (plane - at(p, i / 2)) / along;
    if (!(t > lower && t < upper)) continue;
    const T here = slope(t);
    if (here < flat)
      lower = t, lower_slope = here;
    else
      upper = t, upper_slope = here;
  }
  return upper_slope <= T(0) ? upper : lower - lower_slope * (upper - lower) / (upper_slope - lower_slope);
}

// How far from t, the nearest place, a second contact lies on the segment: toward where it still passes over the face
// that it is flattest on, by MuJoCo's rules. 0 where there is none.
template <class T>
CALM_DEVICE T second_on_box(const Vec<T>& p, const Vec<T>& half, const Vec<T>& size, T t) {
  using std::fabs;
  Vec<T> x = p + t * half;
  int outside = 0, beside[3] = {0, 1, 2};  // axes, those along which x is outside first
  for (int i = 0; i < 3; ++i)
    if (fabs(at(x, i)) > at(size, i)) {
      const int other = beside[outside];
      for (int k = outside; k < 3; ++k)
        if (beside[k] == i) beside[k] = other;
      beside[outside++] = i;
    }
  // steps along +t lead inward along axis i where positive
  const auto inward = [&](int i) { return with_sign(with_sign(T(1), at(half, i)), -at(x, i)); };
  const auto speed = [&](int i) { return fabs(at(half, i)) + T(1e-12); };
  const auto steeper = [&](int i, int k) { return fabs(at(half, i)) > fabs(at(half, k)) ? i : k; };
  T direction = t < T(1) ? T(1) : T(-1), reach = T(2);
  const auto leave = [&](int i) {  // from inside, where the segment comes out
    if (at(half, i) * at(half, i) <= kTight<T> * kTight<T> * dot(half, half)) return;
    reach = minimum(reach, (at(size, i) - with_sign(T(1), direction * at(half, i)) * at(x, i)) / speed(i));
  };
  const auto pass = [&](int i) { reach = minimum(reach, T(2) * at(size, i) / speed(i)); };

  if (outside == 1) {  // over a face
    leave(beside[1]), leave(beside[2]);
  } else if (outside == 2) {  // beside an edge
    const int across = steeper(beside[0], beside[1]);
    direction = inward(across);
    if (direction * t < T(0.999))
      pass(across);
    else if (at(half, beside[2]) * at(half, beside[2]) > T(0.9) * dot(half, half))
      direction = -direction;  // its end, but it lies along the edge
    leave(beside[2]);
  } else {  // beside a corner: along an edge or over a face
    const T in[3] = {inward(0), inward(1), inward(2)};
    const int odd = in[0] == in[1] ? (in[1] == in[2] ? steeper(0, steeper(1, 2)) : 2) : in[0] == in[2] ? 1 : 0;
    const bool along_edge = in[0] == in[1] && in[1] == in[2];
    direction = in[odd];
    if (along_edge || at(half, odd) * at(half, odd) > T(0.5) * dot(half, half)) {
      pass(odd);
    } else {
      direction = -direction;
      pass((odd + 1) % 3), pass((odd + 2) % 3);
    }
  }
  return direction * minimum(reach, T(1) - direction * t);
}

template <class T>
CALM_DEVICE void capsule_box(const ConvexShape<T>& a, const ConvexShape<T>& b, Contacts<T>& contacts) {
  const Vec<T> p = transposed_times(b.rot, a.pos - b.pos), half = a.size.y * transposed_times(b.rot, a.rot.z);
  const T t = nearest_to_box(p, half, b.size);
  Vec<T> gap = p + t * half;
  for (int i = 0; i < 3; ++i) at(gap, i) = at(gap, i) - clamp(at(gap, i), -at(b.size, i), at(b.size, i));
  if (length(gap) <= kTight<T> * (b.size.x + b.size.y + b.size.z)) {
    Overlap<T> overlap(a, b);
    if (overlap.offer_axes()) clip_contacts(overlap, contacts);
    return;
  }
  const T step = second_on_box(p, half, b.size, t);
  sphere_box(a.pos + (t * a.size.y) * a.rot.z, a.size.x, b, contacts);
  if (step * step * a.size.y > T(1e-6) * a.size.x)
    sphere_box(a.pos + ((t + step) * a.size.y) * a.rot.z, a.size.x, b, contacts);
}

}  // namespace narrow

// Contacts of a pair with a.kind <= b.kind; returns their number. Only what touches counts: distance <= 0.
template <class T>
CALM_DEVICE_CALL int collide(const ConvexShape<T>& a, const ConvexShape<T>& b,
                             PairContact<T> (&out)[kMaxPairContacts]) {
  narrow::Contacts<T> contacts{out};
  ConvexShape<T> near_a = a, near_b = b;
  near_a.pos = {T(0), T(0), T(0)}, near_b.pos = b.pos - a.pos;
  if (a.kind == ConvexKind::kSphere && b.kind == ConvexKind::kSphere) {
    narrow::sphere_sphere(near_a, near_a.pos, near_b, near_b.pos, contacts);
  } else if (a.kind == ConvexKind::kSphere && b.kind == ConvexKind::kCapsule) {
    narrow::sphere_capsule(near_a, near_b, contacts);
  } else if (a.kind == ConvexKind::kSphere && b.kind == ConvexKind::kCylinder) {
    narrow::sphere_cylinder(near_a, near_b, contacts);
  } else if (a.kind == ConvexKind::kSphere) {
    narrow::sphere_box(near_a.pos, a.size.x, near_b, contacts);
  } else if (b.kind == ConvexKind::kCapsule) {
    narrow::capsule_capsule(near_a, near_b, contacts);
  } else if (a.kind == ConvexKind::kCapsule && b.kind == ConvexKind::kBox) {
    narrow::capsule_box(near_a, near_b, contacts);
  } else {
    narrow::Overlap<T> overlap(near_a, near_b);
    if (overlap.offer_axes() && (a.kind == ConvexKind::kBox || overlap.descend()))
      narrow::clip_contacts(overlap, contacts);
  }
  for (int i = 0; i < contacts.count; ++i) out[i].point = a.pos + out[i].point;
  return contacts.count;
}

}  // namespace calm
