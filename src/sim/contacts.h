// Finds where shapes touch the floor (z = 0) and each other, an environment a lane: MuJoCo's contact points.
//
// Candidates are static (a capsule's ends, a box's corners, pairs of shapes), so that lanes share them: one that
// touches in some lane is a contact of all, inactive in the others. Spheres and capsules are met in lanes; pairs with
// a box or cylinder, and parallel capsules, lane by lane by narrow_phase.h, after a test of bounding spheres in lanes.
// There is room for every candidate on a processor, so that none is ever left out; a GPU thread has `capacity`.
#pragma once

#include "sim/smooth_dynamics.h"

namespace calm {

// What touches, the same in all lanes.
template <class S>
struct ContactSides {
  int shape_a = -1, shape_b = 0;  // -1: the floor
  int link_a = -1, link_b = 0;
  S friction{}, inverse_weight{};  // inverse_weight: sum of both sides' body_invweight0
};

template <class Real>
struct Contact {
  using Vec = Vec3Of<Real>;
  Vec point;            // from the root's position, half way between the surfaces
  Vec normal, tangent;  // unit, from a to b; the second tangent is normal x tangent
  Real distance;        // m, negative inside
  MaskOf<Real> active;

  // the constraint solver's: spring, where the relative acceleration is from its reference, how far a step moves it
  // (normal, tangents)
  Real stiffness;
  Real held[4];  // of its edges in the Hessian
  Vec at, along;
};

template <class Real>
class ContactFinder {
 public:
  using S = ScalarOf<Real>;
  using Vec = Vec3Of<Real>;
  using Mask = MaskOf<Real>;

  // `model` and `dynamics` must outlive this.
  CALM_DEVICE constexpr ContactFinder(const ModelView<S>& model, const Sizes& room,
                                      const SmoothDynamics<Real>& dynamics, Arena& arena)
      : contacts(arena.take<Contact<Real>>(room.contacts)),
        sides(arena.take_common<ContactSides<S>>(room.contacts)),
        capacity_(room.contacts),
        m_(model),
        dynamics_(&dynamics),
        centres_(arena.take<Vec>(room.shapes)),
        points_(arena.take<Vec>(kMaxPairContacts)),
        normals_(arena.take<Vec>(kMaxPairContacts)),
        distances_(arena.take<Real>(kMaxPairContacts)) {}

  // All candidates of `model`, in room for which nothing can overflow.
  static int room_for_all(const ModelView<S>& model);

  // Fills `contacts` for the links' poses in `dynamics`: with the floor in the order of shapes and of MuJoCo's own
  // within one, then pairs in theirs.
  CALM_DEVICE void find();

  Contact<Real>* contacts;
  ContactSides<S>* sides;  // of each
  int num_contacts = 0;
  int num_left_out = 0;  // since construction, for want of room

 private:
  CALM_DEVICE Contact<Real>* take(const Mask& active, const ContactSides<S>& of);
  CALM_DEVICE void add_floor(const ShapeRow<S>& shape, int index, const Vec& surface, const Real& distance,
                             const Mask& active, const Vec& tangent);
  CALM_DEVICE void add_floor_sphere(const ShapeRow<S>& shape, int index, const Vec& centre, const Vec& tangent);
  CALM_DEVICE void add_floor_box(const ShapeRow<S>& shape, int index, const Mat3Of<Real>& rot);
  CALM_DEVICE void add_floor_cylinder(const ShapeRow<S>& shape, int index, const Mat3Of<Real>& rot);
  CALM_DEVICE void meet_floor(int index);
  CALM_DEVICE void meet(const PairRow<S>& pair);
  CALM_DEVICE void add_pair(const PairRow<S>& pair, const Vec& point, const Vec& normal, const Real& distance,
                            const Mask& active);
  CALM_DEVICE void meet_round(const PairRow<S>& pair, const Mask& near);
  CALM_DEVICE Mask overlaps_box(int shape, int box, const Mask& near) const;
  CALM_DEVICE void meet_lane_by_lane(const PairRow<S>& pair, const Mask& near);
  CALM_DEVICE Vec axis_of(int shape) const {
    const ShapeRow<S>& s = m_.shapes[shape];
    return dynamics_->rot[s.link] * wide<Real>(s.rot.z);
  }
  CALM_DEVICE Mat3Of<Real> rot_of(int shape) const {
    const ShapeRow<S>& s = m_.shapes[shape];
    return s.turned ? dynamics_->rot[s.link] * wide<Real>(s.rot) : dynamics_->rot[s.link];
  }

  int capacity_;
  const ModelView<S>& m_;
  const SmoothDynamics<Real>* dynamics_;
  Vec* centres_;            // (shapes) from the root's position
  Vec *points_, *normals_;  // (kMaxPairContacts) of a pair met lane by lane
  Real* distances_;
};

template <class Real>
int ContactFinder<Real>::room_for_all(const ModelView<S>& model) {
  int room = 0;
  for (int i = 0; i < model.num_shapes; ++i) {
    const ConvexKind kind = model.shapes[i].kind;
    room += kind == ConvexKind::kSphere ? 1 : kind == ConvexKind::kCapsule ? 2 : kind == ConvexKind::kBox ? 8 : 4;
  }
  for (int p = 0; p < model.num_pairs; ++p) {
    const bool round = model.shapes[model.pairs[p].b].kind <= ConvexKind::kCapsule;
    room += round ? 2 : kMaxPairContacts;
  }
  return room;
}

template <class Real>
CALM_DEVICE Contact<Real>* ContactFinder<Real>::take(const Mask& active, const ContactSides<S>& of) {
  if (!any(active)) return nullptr;
  if (num_contacts == capacity_) {
    for (int l = 0; l < LanesOf<Real>::kCount; ++l) num_left_out += lane(active, l);
    return nullptr;
  }
  sides[num_contacts] = of;
  return &contacts[num_contacts++];
}

// ---- the floor ----

// surface: the shape's lowest point there.
template <class Real>
CALM_DEVICE void ContactFinder<Real>::add_floor(const ShapeRow<S>& shape, int index, const Vec& surface,
                                                const Real& distance, const Mask& active, const Vec& tangent) {
  Contact<Real>* contact = take(active, {-1, index, -1, shape.link, shape.floor_friction, shape.inverse_weight});
  if (contact == nullptr) return;
  const Real zero = real<Real>(0), one = real<Real>(1);
  const Real squared = tangent.x * tangent.x + tangent.y * tangent.y;
  const Mask upright = squared < real<Real>(1e-20);
  const Real inverse = one / square_root(select(upright, one, squared));
  contact->point = {surface.x, surface.y, surface.z - real<Real>(0.5) * distance};
  contact->normal = {zero, zero, one};
  contact->tangent = {select(upright, one, tangent.x * inverse), select(upright, zero, tangent.y * inverse), zero};
  contact->distance = distance, contact->active = active;
}

template <class Real>
CALM_DEVICE void ContactFinder<Real>::add_floor_sphere(const ShapeRow<S>& shape, int index, const Vec& centre,
                                                       const Vec& tangent) {
  const Real radius = Real(shape.size.x), distance = dynamics_->root_pos.z + centre.z - radius;
  add_floor(shape, index, {centre.x, centre.y, centre.z - radius}, distance, distance <= real<Real>(0), tangent);
}

template <class Real>
CALM_DEVICE void ContactFinder<Real>::add_floor_box(const ShapeRow<S>& shape, int index, const Mat3Of<Real>& rot) {
  const Real zero = real<Real>(0), one = real<Real>(1);
  const Vec x = Real(shape.size.x) * rot.x, y = Real(shape.size.y) * rot.y, z = Real(shape.size.z) * rot.z;
  Real count = zero;
  for (int corner = 0; corner < 8; ++corner) {
    Vec arm = corner & 1 ? x : real<Real>(-1) * x;
    arm = corner & 2 ? arm + y : arm - y;
    arm = corner & 4 ? arm + z : arm - z;
    const Vec at = centres_[index] + arm;
    const Real distance = dynamics_->root_pos.z + at.z;
    const Mask touches = (distance <= zero) && (arm.z <= zero) && (count < real<Real>(4));
    count = count + select(touches, one, zero);
    add_floor(shape, index, at, distance, touches, {zero, one, zero});
  }
}

// Two points where the rim's lowest generator meets the ends, two more that make a triangle on the lower end.
template <class Real>
CALM_DEVICE void ContactFinder<Real>::add_floor_cylinder(const ShapeRow<S>& shape, int index, const Mat3Of<Real>& rot) {
  const Real zero = real<Real>(0), one = real<Real>(1), radius = Real(shape.size.x), half = Real(shape.size.y);
  const Vec& centre = centres_[index];
  const Real down = select(rot.z.z > zero, -one, one);
  const Vec axis = down * rot.z;  // toward the floor
  // down, less what is along the axis; z is axis.z² - 1, which would cancel near upright
  Vec out = {axis.z * axis.x, axis.z * axis.y, -(axis.x * axis.x + axis.y * axis.y)};
  const Real length = square_root(dot(out, out));
  const Mask upright = length < real<Real>(1e-7);
  const Real scale = radius / select(upright, one, length);
  out = select<Real>(upright, radius * rot.x, scale * out);
  const Vec end = half * axis, y = {zero, one, zero};
  const Real height = dynamics_->root_pos.z + centre.z;

  const Real first = height + end.z + out.z;
  const Mask touches = first <= zero;
  add_floor(shape, index, centre + out + end, first, touches, y);
  const Real second = height - end.z + out.z;
  add_floor(shape, index, centre + out - end, second, touches && (second <= zero), y);
  const Real third = height + end.z - real<Real>(0.5) * out.z;
  const Vec side = cross(out, end);
  const Real reach = radius * real<Real>(0.8660254037844386) / square_root(dot(side, side));
  const Vec middle = centre + end - real<Real>(0.5) * out;
  add_floor(shape, index, middle + reach * side, third, touches && (third <= zero), y);
  add_floor(shape, index, middle - reach * side, third, touches && (third <= zero), y);
}

template <class Real>
CALM_DEVICE void ContactFinder<Real>::meet_floor(int index) {
  const ShapeRow<S>& shape = m_.shapes[index];
  const Vec& centre = centres_[index];
  if (!any(dynamics_->root_pos.z + centre.z <= Real(shape.radius))) return;
  const Vec y = {real<Real>(0), real<Real>(1), real<Real>(0)};
  switch (shape.kind) {
    case ConvexKind::kSphere:
      add_floor_sphere(shape, index, centre, y);
      break;
    case ConvexKind::kCapsule: {
      const Vec axis = axis_of(index), half = Real(shape.size.y) * axis;
      add_floor_sphere(shape, index, centre + half, axis);
      add_floor_sphere(shape, index, centre - half, axis);
      break;
    }
    case ConvexKind::kBox:
      add_floor_box(shape, index, rot_of(index));
      break;
    case ConvexKind::kCylinder:
      add_floor_cylinder(shape, index, rot_of(index));
      break;
  }
}

// ---- pairs ----

template <class Real>
CALM_DEVICE void ContactFinder<Real>::add_pair(const PairRow<S>& pair, const Vec& point, const Vec& normal,
                                               const Real& distance, const Mask& active) {
  Contact<Real>* contact = take(
      active, {pair.a, pair.b, m_.shapes[pair.a].link, m_.shapes[pair.b].link, pair.friction, pair.inverse_weight});
  if (contact == nullptr) return;
  const Real zero = real<Real>(0), one = real<Real>(1);
  contact->point = point, contact->distance = distance, contact->active = active;
  // inactive lanes may hold anything: what they add must stay finite
  contact->normal = select<Real>(active, normal, Vec{zero, zero, one});
  const Vec& n = contact->normal;
  const Mask along_y = (n.y > real<Real>(0.5)) || (n.y < real<Real>(-0.5));
  Vec t = select<Real>(along_y, Vec{zero, zero, one} - n.z * n, Vec{zero, one, zero} - n.y * n);
  contact->tangent = (one / square_root(dot(t, t))) * t;
}

// Spheres and capsules: the nearest points of their axes, then two spheres.
template <class Real>
CALM_DEVICE void ContactFinder<Real>::meet_round(const PairRow<S>& pair, const Mask& near) {
  const ShapeRow<S>&a = m_.shapes[pair.a], &b = m_.shapes[pair.b];
  const Real zero = real<Real>(0), one = real<Real>(1);
  Vec on_a = centres_[pair.a], on_b = centres_[pair.b];
  Mask parallel = near && (one < zero);
  if (a.kind == ConvexKind::kCapsule) {
    const Vec along_a = Real(a.size.y) * axis_of(pair.a), along_b = Real(b.size.y) * axis_of(pair.b);
    const Vec between = on_a - on_b;
    const Real aa = dot(along_a, along_a), bb = dot(along_b, along_b), ab = -dot(along_a, along_b);
    const Real u = -dot(along_a, between), v = dot(along_b, between), determinant = aa * bb - ab * ab;
    parallel = near && (determinant < real<Real>(sizeof(S) == 4 ? 1e-6 : 1e-12) * aa * bb);
    const Real inverse = one / select(parallel, one, determinant);
    Real x = (bb * u - ab * v) * inverse, y = (aa * v - ab * u) * inverse;
    y = select(x > one, (v - ab) / bb, select(x < -one, (v + ab) / bb, y));
    x = select(y > one, (u - ab) / aa, select(y < -one, (u + ab) / aa, x));
    x = smaller(larger(x, -one), one), y = smaller(larger(y, -one), one);
    on_a = on_a + x * along_a, on_b = on_b + y * along_b;
  } else if (b.kind == ConvexKind::kCapsule) {
    const Vec axis = axis_of(pair.b);
    const Real half = Real(b.size.y), x = smaller(larger(dot(axis, on_a - on_b), -half), half);
    on_b = on_b + x * axis;
  }
  const Vec between = on_b - on_a;
  const Real squared = dot(between, between), ra = Real(a.size.x), reach = ra + Real(b.size.x);
  const Mask touches = near && !parallel && (squared <= reach * reach);
  if (any(touches)) {
    const Mask apart = squared > real<Real>(1e-20);
    const Real length = square_root(select(apart, squared, one));
    const Vec normal = select<Real>(apart, (one / length) * between, Vec{one, zero, zero});
    const Real distance = select(apart, length, zero) - reach;
    add_pair(pair, on_a + (ra + real<Real>(0.5) * distance) * normal, normal, distance, touches);
  }
  if (any(parallel)) meet_lane_by_lane(pair, parallel);
}

// Lanes where none of the box's faces, or of the box around a cylinder, separates it from the other: how far each
// reaches along the face's normal.
template <class Real>
CALM_DEVICE auto ContactFinder<Real>::overlaps_box(int shape, int box, const Mask& near) const -> Mask {
  const ShapeRow<S>&a = m_.shapes[shape], &b = m_.shapes[box];
  const Mat3Of<Real> rot_b = rot_of(box), rot_a = rot_of(shape);
  const Vec apart = transposed_times(rot_b, centres_[shape] - centres_[box]);
  Vec reach;
  if (a.kind == ConvexKind::kBox) {
    const Vec x = transposed_times(rot_b, rot_a.x), y = transposed_times(rot_b, rot_a.y);
    const Vec z = transposed_times(rot_b, rot_a.z);
    const Real sx = Real(a.size.x), sy = Real(a.size.y), sz = Real(a.size.z);
    reach = {sx * magnitude(x.x) + sy * magnitude(y.x) + sz * magnitude(z.x),
             sx * magnitude(x.y) + sy * magnitude(y.y) + sz * magnitude(z.y),
             sx * magnitude(x.z) + sy * magnitude(y.z) + sz * magnitude(z.z)};
  } else {
    const Vec z = transposed_times(rot_b, rot_a.z);
    const Real half = Real(a.kind == ConvexKind::kSphere ? S{0} : a.size.y), radius = Real(a.size.x);
    reach = {radius + half * magnitude(z.x), radius + half * magnitude(z.y), radius + half * magnitude(z.z)};
  }
  const bool round = b.kind == ConvexKind::kCylinder;
  const Real y = Real(round ? b.size.x : b.size.y), z = Real(round ? b.size.y : b.size.z);
  return near && (magnitude(apart.x) <= reach.x + Real(b.size.x)) && (magnitude(apart.y) <= reach.y + y) &&
         (magnitude(apart.z) <= reach.z + z);
}

template <class Real>
CALM_DEVICE void ContactFinder<Real>::meet_lane_by_lane(const PairRow<S>& pair, const Mask& near) {
  const ShapeRow<S>&a = m_.shapes[pair.a], &b = m_.shapes[pair.b];
  const Mat3Of<Real> rot_a = rot_of(pair.a), rot_b = rot_of(pair.b);
  const auto lane_of = [](const Vec& v, int l) { return Vec3Of<S>{lane(v.x, l), lane(v.y, l), lane(v.z, l)}; };
  const Real zero = real<Real>(0), one = real<Real>(1);
  int count = 0;
  const auto widen = [&](int to) {
    for (; count < to; ++count) {
      points_[count] = normals_[count] = {zero, zero, zero};
      distances_[count] = one;  // no contact
    }
  };
  for (int l = 0; l < LanesOf<Real>::kCount; ++l) {
    if (!lane(near, l)) continue;
    const ConvexShape<S> shape_a = {
        a.kind, a.size, lane_of(centres_[pair.a], l), {lane_of(rot_a.x, l), lane_of(rot_a.y, l), lane_of(rot_a.z, l)}};
    const ConvexShape<S> shape_b = {
        b.kind, b.size, lane_of(centres_[pair.b], l), {lane_of(rot_b.x, l), lane_of(rot_b.y, l), lane_of(rot_b.z, l)}};
    PairContact<S> found[kMaxPairContacts];
    const int here = collide(shape_a, shape_b, found);
    widen(here);
    for (int k = 0; k < here; ++k) {
      set_lane(points_[k].x, l, found[k].point.x), set_lane(points_[k].y, l, found[k].point.y);
      set_lane(points_[k].z, l, found[k].point.z), set_lane(normals_[k].x, l, found[k].normal.x);
      set_lane(normals_[k].y, l, found[k].normal.y), set_lane(normals_[k].z, l, found[k].normal.z);
      set_lane(distances_[k], l, found[k].distance);
    }
  }
  widen(most(count));
  for (int k = 0; k < count; ++k) add_pair(pair, points_[k], normals_[k], distances_[k], distances_[k] <= zero);
}

template <class Real>
CALM_DEVICE void ContactFinder<Real>::find() {
  num_contacts = 0;
  for (int i = 0; i < m_.num_shapes; ++i) {
    const ShapeRow<S>& shape = m_.shapes[i];
    centres_[i] = dynamics_->pos[shape.link] + dynamics_->rot[shape.link] * wide<Real>(shape.pos);
  }
  for (int i = 0; i < m_.num_shapes; ++i) meet_floor(i);
  for (int p = 0; p < m_.num_pairs; ++p) {
    const PairRow<S>& pair = m_.pairs[p];
    const Vec between = centres_[pair.b] - centres_[pair.a];
    Mask near = dot(between, between) <= Real(pair.reach);
    if (!any(near)) continue;
    if (m_.shapes[pair.b].kind <= ConvexKind::kCapsule) {
      meet_round(pair, near);
      continue;
    }
    near = overlaps_box(pair.a, pair.b, near);
    if (m_.shapes[pair.a].kind > ConvexKind::kCapsule) near = overlaps_box(pair.b, pair.a, near);
    if (any(near)) meet_lane_by_lane(pair, near);
  }
}

}  // namespace calm
