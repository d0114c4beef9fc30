// Smooth dynamics of many characters at once: kinematics, mass matrix, bias forces and its sparse factorisation.
//
// Real is a number of one environment (double) or of several, an environment a lane (std::experimental::simd): one
// algorithm source for all. All environments share the tables, so no lane ever takes another way.
//
// Spatial vectors are angular, then linear, in world axes about the root's position: near the character, so that single
// precision does not suffer from where it stands. Algorithms: recursive Newton-Euler and composite rigid bodies
// (Featherstone 2008, ch. 5.3 and 6.2), LᵀDL in the tree's pattern without fill (6.5).
#pragma once

#include <cmath>
#include <span>
#include <vector>

#include "sim/articulation.h"
#include "sim/lanes.h"

namespace calm {

template <class Real>
struct SpatialVec {
  Vec3Of<Real> angular, linear;
  friend SpatialVec operator+(const SpatialVec& a, const SpatialVec& b) {
    return {a.angular + b.angular, a.linear + b.linear};
  }
  friend SpatialVec operator*(const Real& s, const SpatialVec& a) { return {s * a.angular, s * a.linear}; }
};

template <class Real>
Real dot(const SpatialVec<Real>& motion, const SpatialVec<Real>& force) {
  return dot(motion.angular, force.angular) + dot(motion.linear, force.linear);
}

// Rate of a motion vector m that is fixed in something moving with v.
template <class Real>
SpatialVec<Real> cross_motion(const SpatialVec<Real>& v, const SpatialVec<Real>& m) {
  return {cross(v.angular, m.angular), cross(v.angular, m.linear) + cross(v.linear, m.angular)};
}

// The same of a force vector.
template <class Real>
SpatialVec<Real> cross_force(const SpatialVec<Real>& v, const SpatialVec<Real>& f) {
  return {cross(v.angular, f.angular) + cross(v.linear, f.linear), cross(v.angular, f.linear)};
}

// Mass, first moment and second moments about the origin.
template <class Real>
struct SpatialInertia {
  Real mass{};
  Vec3Of<Real> moment;                      // mass times centre of mass
  Real xx{}, yy{}, zz{}, xy{}, xz{}, yz{};  // kg m²
  friend SpatialInertia operator+(const SpatialInertia& a, const SpatialInertia& b) {
    return {a.mass + b.mass, a.moment + b.moment, a.xx + b.xx, a.yy + b.yy,
            a.zz + b.zz,     a.xy + b.xy,         a.xz + b.xz, a.yz + b.yz};
  }
  friend SpatialVec<Real> operator*(const SpatialInertia& i, const SpatialVec<Real>& v) {
    const Vec3Of<Real>& w = v.angular;
    const Vec3Of<Real> turned = {i.xx * w.x + i.xy * w.y + i.xz * w.z, i.xy * w.x + i.yy * w.y + i.yz * w.z,
                                 i.xz * w.x + i.yz * w.y + i.zz * w.z};
    return {turned + cross(i.moment, v.linear), i.mass * v.linear - cross(i.moment, w)};
  }
};

template <class Real>
class SmoothDynamics {
 public:
  // `articulation` must outlive this.
  explicit SmoothDynamics(const Articulation& articulation)
      : a_(&articulation),
        rot(articulation.links.size()),
        pos(articulation.links.size()),
        axes(articulation.num_velocities),
        velocity(articulation.links.size()),
        inertia(articulation.links.size()),
        mass(articulation.num_nonzeros()),
        factor(articulation.num_nonzeros()),
        bias(articulation.num_velocities),
        acceleration_(articulation.links.size()),
        force_(articulation.links.size()),
        composite_(articulation.links.size()) {}

  // Poses, motion axes, velocities and inertias of all links, and the bias forces: Coriolis, centrifugal and gravity's
  // (acceleration -gravity along z). positions (num_positions), quaternions of unit length; velocities
  // (num_velocities).
  void forward(std::span<const Real> positions, std::span<const Real> velocities, double gravity);

  // Mass matrix with `added` (velocities) on its diagonal beside the armature (drives; empty: none), and its factors.
  void factorise(std::span<const Real> added);

  // x becomes M⁻¹ x.
  void solve(std::span<Real> x) const;

 private:
  using Vec = Vec3Of<Real>;
  using Mat = Mat3Of<Real>;
  using Spatial = SpatialVec<Real>;

  static Vec constant(const Eigen::Vector3d& v) { return vec3<Real>(v); }
  static Mat constant(const Eigen::Matrix3d& m) { return mat3<Real>(m); }
  static Real scalar(double value) { return real<Real>(value); }
  static Mat rotation(const Real& w, const Real& x, const Real& y, const Real& z);
  static Mat rotation(const Vec& axis, const Real& angle);
  SpatialInertia<Real> inertia_of(int link) const;

  const Articulation* a_;

 public:                                      // results, in the order they are computed
  Vec root_pos;                               // world
  std::vector<Mat> rot;                       // (links) in world
  std::vector<Vec> pos;                       // (links) from the root's position
  std::vector<Spatial> axes;                  // (velocities) motion per unit of velocity
  std::vector<Spatial> velocity;              // (links)
  std::vector<SpatialInertia<Real>> inertia;  // (links)
  std::vector<Real> mass, factor;             // (nonzeros) rows from the diagonal toward the root; L below, D on it
  std::vector<Real> bias;                     // (velocities)

 private:
  std::vector<Spatial> acceleration_, force_;
  std::vector<SpatialInertia<Real>> composite_;
};

template <class Real>
auto SmoothDynamics<Real>::rotation(const Real& w, const Real& x, const Real& y, const Real& z) -> Mat {
  const Real one = scalar(1), two = scalar(2);
  return {{one - two * (y * y + z * z), two * (x * y + w * z), two * (x * z - w * y)},
          {two * (x * y - w * z), one - two * (x * x + z * z), two * (y * z + w * x)},
          {two * (x * z + w * y), two * (y * z - w * x), one - two * (x * x + y * y)}};
}

template <class Real>
auto SmoothDynamics<Real>::rotation(const Vec& axis, const Real& angle) -> Mat {
  using std::cos, std::sin;
  const Real half = scalar(0.5) * angle, s = sin(half);
  return rotation(cos(half), s * axis.x, s * axis.y, s * axis.z);
}

template <class Real>
SpatialInertia<Real> SmoothDynamics<Real>::inertia_of(int link) const {
  const Articulation::Link& l = a_->links[link];
  const Mat& r = rot[link];
  const Real m = scalar(l.mass);
  const Vec c = pos[link] + r * constant(l.com);
  // R I Rᵀ, then the parallel axes
  const Mat turned = r * constant(l.inertia);
  const Vec row_x = {r.x.x, r.y.x, r.z.x}, row_y = {r.x.y, r.y.y, r.z.y}, row_z = {r.x.z, r.y.z, r.z.z};
  const Vec turned_x = {turned.x.x, turned.y.x, turned.z.x}, turned_y = {turned.x.y, turned.y.y, turned.z.y},
            turned_z = {turned.x.z, turned.y.z, turned.z.z};
  return {m,
          m * c,
          dot(turned_x, row_x) + m * (c.y * c.y + c.z * c.z),
          dot(turned_y, row_y) + m * (c.x * c.x + c.z * c.z),
          dot(turned_z, row_z) + m * (c.x * c.x + c.y * c.y),
          dot(turned_x, row_y) - m * c.x * c.y,
          dot(turned_x, row_z) - m * c.x * c.z,
          dot(turned_y, row_z) - m * c.y * c.z};
}

template <class Real>
void SmoothDynamics<Real>::forward(std::span<const Real> q, std::span<const Real> v, double gravity) {
  const Real zero = scalar(0), one = scalar(1);

  // the root moves freely: three linear velocities in world, three angular in its own axes
  root_pos = {q[0], q[1], q[2]};
  rot[0] = rotation(q[3], q[4], q[5], q[6]);
  pos[0] = {zero, zero, zero};
  const Vec columns[3] = {rot[0].x, rot[0].y, rot[0].z},
            units[3] = {{one, zero, zero}, {zero, one, zero}, {zero, zero, one}};
  for (int k = 0; k < 3; ++k) {
    axes[k] = {{zero, zero, zero}, units[k]};
    axes[3 + k] = {columns[k], {zero, zero, zero}};
  }
  const Vec linear = {v[0], v[1], v[2]}, angular = rot[0] * Vec{v[3], v[4], v[5]};
  velocity[0] = {angular, linear};
  // the centre of the root's rotation moves; gravity as an acceleration of the frame
  acceleration_[0] = {{zero, zero, zero}, cross(linear, angular) + Vec{zero, zero, scalar(gravity)}};

  for (size_t i = 1; i < a_->links.size(); ++i) {
    const Articulation::Link& link = a_->links[i];
    Mat r = rot[link.parent] * constant(link.rot);
    Vec p = pos[link.parent] + rot[link.parent] * constant(link.pos);
    Spatial moving = velocity[link.parent], acceleration = acceleration_[link.parent];
    for (int j = link.first_joint; j < link.first_joint + link.num_joints; ++j) {
      const Articulation::LinkJoint& joint = a_->joints[j];
      const Vec anchor = constant(joint.anchor), centre = p + r * anchor;
      const int d = joint.velocity, o = joint.position;
      if (joint.kind == JointKind::kHinge) {
        const Vec axis = r * constant(joint.axis);
        axes[d] = {axis, cross(centre, axis)};
        const Spatial own = v[d] * axes[d];
        acceleration = acceleration + cross_motion(moving, own);
        moving = moving + own;
        r = r * rotation(constant(joint.axis), q[o]);
      } else {
        r = r * rotation(q[o], q[o + 1], q[o + 2], q[o + 3]);
        axes[d] = {r.x, cross(centre, r.x)};
        axes[d + 1] = {r.y, cross(centre, r.y)};
        axes[d + 2] = {r.z, cross(centre, r.z)};
        const Spatial own = v[d] * axes[d] + v[d + 1] * axes[d + 1] + v[d + 2] * axes[d + 2];
        acceleration = acceleration + cross_motion(moving, own);
        moving = moving + own;
      }
      p = centre - r * anchor;
    }
    rot[i] = r, pos[i] = p, velocity[i] = moving, acceleration_[i] = acceleration;
  }

  // forces that the motion needs, summed toward the root
  for (size_t i = 0; i < a_->links.size(); ++i) {
    inertia[i] = inertia_of(static_cast<int>(i));
    force_[i] = inertia[i] * acceleration_[i] + cross_force(velocity[i], inertia[i] * velocity[i]);
  }
  for (size_t i = a_->links.size(); i-- > 0;) {
    const Articulation::Link& link = a_->links[i];
    for (int j = link.first_joint; j < link.first_joint + link.num_joints; ++j) {
      const Articulation::LinkJoint& joint = a_->joints[j];
      const int dofs = joint.kind == JointKind::kBall ? 3 : 1;
      for (int d = joint.velocity; d < joint.velocity + dofs; ++d) bias[d] = dot(axes[d], force_[i]);
    }
    if (link.parent >= 0) force_[link.parent] = force_[link.parent] + force_[i];
  }
  for (int d = 0; d < 6; ++d) bias[d] = dot(axes[d], force_[0]);
}

template <class Real>
void SmoothDynamics<Real>::factorise(std::span<const Real> added) {
  // composite rigid bodies
  composite_ = inertia;
  for (size_t i = a_->links.size(); i-- > 1;) {
    const int parent = a_->links[i].parent;
    composite_[parent] = composite_[parent] + composite_[i];
  }
  const auto fill_row = [&](int d, const SpatialInertia<Real>& body) {
    const Spatial momentum = body * axes[d];
    int entry = a_->row_start[d];
    for (int e = d; e >= 0; e = a_->parent_velocity[e]) mass[entry++] = dot(axes[e], momentum);
    Real& diagonal = mass[a_->row_start[d]];
    diagonal = diagonal + scalar(a_->armature[d]);
    if (!added.empty()) diagonal = diagonal + added[d];
  };
  for (int d = 0; d < 6; ++d) fill_row(d, composite_[0]);
  for (size_t i = 0; i < a_->links.size(); ++i) {
    const Articulation::Link& link = a_->links[i];
    for (int j = link.first_joint; j < link.first_joint + link.num_joints; ++j) {
      const Articulation::LinkJoint& joint = a_->joints[j];
      const int dofs = joint.kind == JointKind::kBall ? 3 : 1;
      for (int d = joint.velocity; d < joint.velocity + dofs; ++d) fill_row(d, composite_[i]);
    }
  }

  // from the leaves: a row's ancestors lose what the row takes with it
  factor = mass;
  for (int i = a_->num_velocities; i-- > 0;) {
    const Real inverse = scalar(1) / factor[a_->row_start[i]];
    int entry = a_->row_start[i] + 1;
    for (int j = a_->parent_velocity[i]; j >= 0; j = a_->parent_velocity[j], ++entry) {
      const Real ratio = factor[entry] * inverse;
      const int left = a_->row_start[j + 1] - a_->row_start[j];
      for (int k = 0; k < left; ++k) factor[a_->row_start[j] + k] -= ratio * factor[entry + k];
      factor[entry] = ratio;
    }
  }
}

template <class Real>
void SmoothDynamics<Real>::solve(std::span<Real> x) const {
  for (int i = a_->num_velocities; i-- > 0;) {
    int entry = a_->row_start[i] + 1;
    for (int j = a_->parent_velocity[i]; j >= 0; j = a_->parent_velocity[j]) x[j] -= factor[entry++] * x[i];
  }
  for (int i = 0; i < a_->num_velocities; ++i) {
    x[i] = x[i] / factor[a_->row_start[i]];
    int entry = a_->row_start[i] + 1;
    for (int j = a_->parent_velocity[i]; j >= 0; j = a_->parent_velocity[j]) x[i] -= factor[entry++] * x[j];
  }
}

}  // namespace calm
