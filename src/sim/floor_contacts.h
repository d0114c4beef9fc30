// Where shapes touch the floor (z = 0), an environment a lane: MuJoCo's contact points for spheres, capsules, boxes and
// cylinders on a plane. Candidates are static, so that lanes share them: one of a sphere, two of a capsule (its ends),
// eight of a box (its corners, of which the first four that touch count), four of a cylinder.
#pragma once

#include "sim/lanes.h"
#include "sim/smooth_dynamics.h"

namespace calm {

// A shape where the equations of motion see it.
struct LinkShape {
  ShapeKind kind = ShapeKind::kSphere;
  int link = 0, shape = 0;                        // index into Character::shapes
  Eigen::Vector3d pos = Eigen::Vector3d::Zero();  // in the link's frame
  Eigen::Matrix3d rot = Eigen::Matrix3d::Identity();
  Eigen::Vector3d size = Eigen::Vector3d::Zero();  // as Shape's
  double friction = 1.0;
};

// Those that collide, in the character's order.
std::vector<LinkShape> colliding_shapes(const Character& character, const Articulation& articulation);

template <class Real>
struct FloorContact {
  int shape = 0;          // index into colliding_shapes
  Vec3Of<Real> point;     // from the root's position, half way between shape and floor
  Vec3Of<Real> frame[3];  // normal out of the floor, two tangents
  Real distance{};        // m, negative inside
  MaskOf<Real> active{};
};

template <class Real>
class FloorContacts {
 public:
  using Vec = Vec3Of<Real>;

  // Both must outlive this.
  FloorContacts(const std::vector<LinkShape>& shapes, const SmoothDynamics<Real>& dynamics)
      : shapes_(&shapes), dynamics_(&dynamics) {}

  // Candidates that touch in some lane, in the order of shapes and of MuJoCo's own within one. Valid until the next
  // call.
  const std::vector<FloorContact<Real>>& find();

 private:
  void add(int shape, const Vec& surface, const Real& distance, const MaskOf<Real>& active, const Vec& tangent);
  void add_sphere(int shape, const Vec& centre, double radius, const Vec& tangent);
  void add_box(int shape, const Vec& centre, const Mat3Of<Real>& rot);
  void add_cylinder(int shape, const Vec& centre, const Mat3Of<Real>& rot);

  const std::vector<LinkShape>* shapes_;
  const SmoothDynamics<Real>* dynamics_;
  std::vector<FloorContact<Real>> contacts_;
};

// surface: the shape's lowest point there.
template <class Real>
void FloorContacts<Real>::add(int shape, const Vec& surface, const Real& distance, const MaskOf<Real>& active,
                              const Vec& tangent) {
  using std::sqrt;
  if (!any(active)) return;
  const Real zero = real<Real>(0), one = real<Real>(1);
  const Real squared = tangent.x * tangent.x + tangent.y * tangent.y;
  const auto upright = squared < real<Real>(1e-20);
  const Real inverse = one / sqrt(select(upright, one, squared));
  const Vec first = {select(upright, one, tangent.x * inverse), select(upright, zero, tangent.y * inverse), zero};
  FloorContact<Real>& contact = contacts_.emplace_back();
  contact.shape = shape, contact.distance = distance, contact.active = active;
  contact.point = {surface.x, surface.y, surface.z - real<Real>(0.5) * distance};
  contact.frame[0] = {zero, zero, one}, contact.frame[1] = first, contact.frame[2] = {-first.y, first.x, zero};
}

template <class Real>
void FloorContacts<Real>::add_sphere(int shape, const Vec& centre, double radius, const Vec& tangent) {
  const Real r = real<Real>(radius), distance = dynamics_->root_pos.z + centre.z - r;
  add(shape, {centre.x, centre.y, centre.z - r}, distance, distance <= real<Real>(0), tangent);
}

template <class Real>
void FloorContacts<Real>::add_box(int shape, const Vec& centre, const Mat3Of<Real>& rot) {
  const Eigen::Vector3d& size = (*shapes_)[shape].size;
  const Real zero = real<Real>(0), one = real<Real>(1);
  Real count = zero;
  for (int corner = 0; corner < 8; ++corner) {
    const Vec arm =
        rot * Vec{real<Real>(corner & 1 ? size.x() : -size.x()), real<Real>(corner & 2 ? size.y() : -size.y()),
                  real<Real>(corner & 4 ? size.z() : -size.z())};
    const Vec at = centre + arm;
    const Real distance = dynamics_->root_pos.z + at.z;
    const auto touches = (distance <= zero) && (arm.z <= zero) && (count < real<Real>(4));
    count += select(touches, one, zero);
    add(shape, at, distance, touches, {zero, one, zero});
  }
}

// Two points where the rim's lowest generator meets the ends, two more that make a triangle on the lower end.
template <class Real>
void FloorContacts<Real>::add_cylinder(int shape, const Vec& centre, const Mat3Of<Real>& rot) {
  using std::sqrt;
  const Eigen::Vector3d& size = (*shapes_)[shape].size;
  const Real zero = real<Real>(0), one = real<Real>(1), radius = real<Real>(size.x()), half = real<Real>(size.y());
  const Real down = select(rot.z.z > zero, -one, one);
  const Vec axis = down * rot.z;                                        // toward the floor
  Vec out = {axis.z * axis.x, axis.z * axis.y, axis.z * axis.z - one};  // down, less what is along the axis
  const Real length = sqrt(dot(out, out));
  const auto upright = length < real<Real>(1e-7);
  const Real scale = radius / select(upright, one, length);
  out = {select(upright, radius * rot.x.x, scale * out.x), select(upright, radius * rot.x.y, scale * out.y),
         select(upright, radius * rot.x.z, scale * out.z)};
  const Vec end = half * axis, y = {zero, one, zero};
  const Real height = dynamics_->root_pos.z + centre.z;

  const Real first = height + end.z + out.z;
  const auto touches = first <= zero;
  add(shape, centre + out + end, first, touches, y);
  const Real second = height - end.z + out.z;
  add(shape, centre + out - end, second, touches && (second <= zero), y);
  const Real third = height + end.z - real<Real>(0.5) * out.z;
  const Vec side = cross(out, end);
  const Real reach = real<Real>(size.x() * 0.8660254037844386) / sqrt(dot(side, side));
  const Vec middle = centre + end - real<Real>(0.5) * out;
  add(shape, middle + reach * side, third, touches && (third <= zero), y);
  add(shape, middle - reach * side, third, touches && (third <= zero), y);
}

template <class Real>
const std::vector<FloorContact<Real>>& FloorContacts<Real>::find() {
  contacts_.clear();
  const Vec y = {real<Real>(0), real<Real>(1), real<Real>(0)};
  for (int i = 0; i < static_cast<int>(shapes_->size()); ++i) {
    const LinkShape& shape = (*shapes_)[i];
    const Mat3Of<Real> rot = dynamics_->rot[shape.link] * mat3<Real>(shape.rot);
    const Vec centre = dynamics_->pos[shape.link] + dynamics_->rot[shape.link] * vec3<Real>(shape.pos);
    switch (shape.kind) {
      case ShapeKind::kSphere:
        add_sphere(i, centre, shape.size.x(), y);
        break;
      case ShapeKind::kCapsule:
        for (const double side : {1.0, -1.0})
          add_sphere(i, centre + real<Real>(side * shape.size.y()) * rot.z, shape.size.x(), rot.z);
        break;
      case ShapeKind::kBox:
        add_box(i, centre, rot);
        break;
      case ShapeKind::kCylinder:
        add_cylinder(i, centre, rot);
        break;
    }
  }
  return contacts_;
}

}  // namespace calm
