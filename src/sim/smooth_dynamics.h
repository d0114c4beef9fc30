// Smooth dynamics of many characters at once: kinematics, mass matrix, bias forces and its sparse factorisation.
//
// Real is a number of one environment (double, float) or of several, an environment a lane (lanes.h): one algorithm
// source for all. All environments share the tables, so no lane ever takes another way.
//
// Spatial vectors are angular, then linear, in world axes about the root's position: near the character, so that single
// precision does not suffer from where it stands. Algorithms: recursive Newton-Euler and composite rigid bodies
// (Featherstone 2008, ch. 5.3 and 6.2), LᵀDL in the tree's pattern without fill (6.5).
#pragma once

#include "sim/arena.h"
#include "sim/model.h"

namespace calm {

template <class Real>
struct SpatialVec {
  Vec3Of<Real> angular, linear;
  CALM_INLINE friend SpatialVec operator+(const SpatialVec& a, const SpatialVec& b) {
    return {a.angular + b.angular, a.linear + b.linear};
  }
  CALM_INLINE friend SpatialVec operator-(const SpatialVec& a, const SpatialVec& b) {
    return {a.angular - b.angular, a.linear - b.linear};
  }
  CALM_INLINE friend SpatialVec operator*(const Real& s, const SpatialVec& a) { return {s * a.angular, s * a.linear}; }
};

template <class Real>
CALM_INLINE Real dot(const SpatialVec<Real>& motion, const SpatialVec<Real>& force) {
  return dot(motion.angular, force.angular) + dot(motion.linear, force.linear);
}

// Rate of a motion vector m that is fixed in something moving with v.
template <class Real>
CALM_INLINE SpatialVec<Real> cross_motion(const SpatialVec<Real>& v, const SpatialVec<Real>& m) {
  return {cross(v.angular, m.angular), cross(v.angular, m.linear) + cross(v.linear, m.angular)};
}

// The same of a force vector.
template <class Real>
CALM_INLINE SpatialVec<Real> cross_force(const SpatialVec<Real>& v, const SpatialVec<Real>& f) {
  return {cross(v.angular, f.angular) + cross(v.linear, f.linear), cross(v.angular, f.linear)};
}

// The velocity at a point of what moves with m.
template <class Real>
CALM_INLINE Vec3Of<Real> at_point(const SpatialVec<Real>& m, const Vec3Of<Real>& point) {
  return m.linear + cross(m.angular, point);
}

// Mass, first moment and second moments about the origin.
template <class Real>
struct SpatialInertia {
  Real mass{};
  Vec3Of<Real> moment;                      // mass times centre of mass
  Real xx{}, yy{}, zz{}, xy{}, xz{}, yz{};  // kg m²
  CALM_INLINE friend SpatialInertia operator+(const SpatialInertia& a, const SpatialInertia& b) {
    return {a.mass + b.mass, a.moment + b.moment, a.xx + b.xx, a.yy + b.yy,
            a.zz + b.zz,     a.xy + b.xy,         a.xz + b.xz, a.yz + b.yz};
  }
  CALM_INLINE friend SpatialVec<Real> operator*(const SpatialInertia& i, const SpatialVec<Real>& v) {
    const Vec3Of<Real>& w = v.angular;
    const Vec3Of<Real> turned = {i.xx * w.x + i.xy * w.y + i.xz * w.z, i.xy * w.x + i.yy * w.y + i.yz * w.z,
                                 i.xz * w.x + i.yz * w.y + i.zz * w.z};
    return {turned + cross(i.moment, v.linear), i.mass * v.linear - cross(i.moment, w)};
  }
};

template <class Real>
class SmoothDynamics {
 public:
  using S = ScalarOf<Real>;
  using Vec = Vec3Of<Real>;
  using Mat = Mat3Of<Real>;
  using Spatial = SpatialVec<Real>;

  // `model` must outlive this; room: at least the model's sizes.
  CALM_DEVICE constexpr SmoothDynamics(const ModelView<S>& model, const Sizes& room, Arena& arena)
      : rot(arena.take<Mat>(room.links)),
        pos(arena.take<Vec>(room.links)),
        axes(arena.take<Spatial>(room.velocities)),
        velocity(arena.take<Spatial>(room.links)),
        inertia(arena.take<SpatialInertia<Real>>(room.links)),
        mass(arena.take<Real>(room.nonzeros)),
        factor(arena.take<Real>(room.nonzeros)),
        bias(arena.take<Real>(room.velocities)),
        m_(model),
        acceleration_(arena.take<Spatial>(room.links)),
        force_(arena.take<Spatial>(room.links)),
        composite_(arena.take<SpatialInertia<Real>>(room.links)) {}

  // Poses, motion axes, velocities and inertias of all links, and the bias forces: Coriolis, centrifugal and gravity's.
  // positions (num_positions), quaternions of unit length; velocities (num_velocities).
  CALM_DEVICE void forward(const Real* positions, const Real* velocities);

  // Mass matrix with `added` (velocities) on its diagonal beside the armature (drives; null: none).
  CALM_DEVICE void assemble(const Real* added);

  // The mass matrix' factors.
  CALM_DEVICE void factorise();

  // x becomes M⁻¹ x.
  CALM_DEVICE void solve(Real* x) const;

  // The motions (links) that generalised velocities or accelerations x give, bias accelerations left out.
  CALM_DEVICE void motions(const Real* x, Spatial* out) const;

  // out[i] (velocities) += axes[i] · the sum of `forces` (links) on the links that i moves. Spoils `forces`.
  CALM_DEVICE void add_generalised(Spatial* forces, Real* out) const;

  // Rows of a matrix AᵀKA of the tree's pattern that belong to link i, K the sum over its subtree: transform(axis) is
  // K axis, put(row, k, column, value) takes the row's entry of its k-th ancestor.
  template <class Transform, class Put>
  CALM_INLINE void for_rows(int i, Transform transform, Put put) const;

  // results, in the order they are computed
  Vec root_pos;                   // world
  Mat* rot;                       // (links) in world
  Vec* pos;                       // (links) from the root's position
  Spatial* axes;                  // (velocities) motion per unit of velocity
  Spatial* velocity;              // (links)
  SpatialInertia<Real>* inertia;  // (links)
  Real *mass, *factor;            // (nonzeros) rows from the diagonal toward the root; L below, D's inverse on it
  Real* bias;                     // (velocities)

 private:
  CALM_DEVICE SpatialInertia<Real> inertia_of(int link) const;

  const ModelView<S>& m_;
  Spatial *acceleration_, *force_;
  SpatialInertia<Real>* composite_;
};

template <class Real>
CALM_DEVICE SpatialInertia<Real> SmoothDynamics<Real>::inertia_of(int link) const {
  const LinkRow<S>& l = m_.links[link];
  const Mat& r = rot[link];
  const Real mass_of = Real(l.mass);
  const Vec c = pos[link] + r * wide<Real>(l.com);
  // R I Rᵀ, then the parallel axes
  Mat turned = {Real(l.xx) * r.x, Real(l.yy) * r.y, Real(l.zz) * r.z};
  if (l.skewed) {
    turned.x = turned.x + Real(l.xy) * r.y + Real(l.xz) * r.z;
    turned.y = turned.y + Real(l.xy) * r.x + Real(l.yz) * r.z;
    turned.z = turned.z + Real(l.xz) * r.x + Real(l.yz) * r.y;
  }
  const Vec moment = mass_of * c;
  const Real xx = turned.x.x * r.x.x + turned.y.x * r.y.x + turned.z.x * r.z.x;
  const Real yy = turned.x.y * r.x.y + turned.y.y * r.y.y + turned.z.y * r.z.y;
  const Real zz = turned.x.z * r.x.z + turned.y.z * r.y.z + turned.z.z * r.z.z;
  const Real xy = turned.x.x * r.x.y + turned.y.x * r.y.y + turned.z.x * r.z.y;
  const Real xz = turned.x.x * r.x.z + turned.y.x * r.y.z + turned.z.x * r.z.z;
  const Real yz = turned.x.y * r.x.z + turned.y.y * r.y.z + turned.z.y * r.z.z;
  const Real cx = moment.x * c.x, cy = moment.y * c.y, cz = moment.z * c.z;
  return {mass_of,
          moment,
          xx + (cy + cz),
          yy + (cx + cz),
          zz + (cx + cy),
          xy - moment.x * c.y,
          xz - moment.x * c.z,
          yz - moment.y * c.z};
}

template <class Real>
CALM_DEVICE void SmoothDynamics<Real>::forward(const Real* q, const Real* v) {
  const Real zero = real<Real>(0), one = real<Real>(1);
  root_pos = {q[0], q[1], q[2]};

  for (int i = 0; i < m_.num_links; ++i) {
    const LinkRow<S>& link = m_.links[i];
    if (link.parent < 0) {
      // floating: three linear velocities in world, three angular in its own axes
      const int d = link.first_velocity, o = link.first_position;
      const Mat r = rotation(QuatOf<Real>{q[o + 3], q[o + 4], q[o + 5], q[o + 6]});
      const Vec p = Vec{q[o], q[o + 1], q[o + 2]} - root_pos;
      axes[d] = {{zero, zero, zero}, {one, zero, zero}};
      axes[d + 1] = {{zero, zero, zero}, {zero, one, zero}};
      axes[d + 2] = {{zero, zero, zero}, {zero, zero, one}};
      axes[d + 3] = {r.x, cross(p, r.x)};
      axes[d + 4] = {r.y, cross(p, r.y)};
      axes[d + 5] = {r.z, cross(p, r.z)};
      const Vec linear = {v[d], v[d + 1], v[d + 2]}, angular = r * Vec{v[d + 3], v[d + 4], v[d + 5]};
      rot[i] = r, pos[i] = p;
      velocity[i] = {angular, linear + cross(p, angular)};
      // the centre of its rotation moves; gravity as an acceleration of the frame
      acceleration_[i] = {{zero, zero, zero}, cross(linear, angular) + Vec{zero, zero, Real(m_.gravity)}};
      continue;
    }
    const Mat& parent_rot = rot[link.parent];
    Mat r = link.turned ? parent_rot * wide<Real>(link.rot) : parent_rot;
    Vec p = pos[link.parent] + parent_rot * wide<Real>(link.pos);
    Spatial moving = velocity[link.parent], acceleration = acceleration_[link.parent];
    for (int j = link.first_joint; j < link.first_joint + link.num_joints; ++j) {
      const JointRow<S>& joint = m_.joints[j];
      const Vec centre = joint.anchored ? p + r * wide<Real>(joint.anchor) : p;
      const int d = joint.velocity, o = joint.position;
      if (!joint.ball) {
        const Vec own = wide<Real>(joint.axis), axis = r * own;
        axes[d] = {axis, cross(centre, axis)};
        const Spatial turning = v[d] * axes[d];
        acceleration = acceleration + cross_motion(moving, turning);
        moving = moving + turning;
        // Rodrigues: two columns of the turn suffice, the third is their cross product
        Real s, c;
        sine_cosine(q[o], s, c);
        const Vec k = (one - c) * own, sa = s * own;
        r = r * Mat{{c + k.x * own.x, k.x * own.y + sa.z, k.x * own.z - sa.y},
                    {k.x * own.y - sa.z, c + k.y * own.y, k.y * own.z + sa.x},
                    {k.x * own.z + sa.y, k.y * own.z - sa.x, c + k.z * own.z}};
      } else {
        r = r * rotation(QuatOf<Real>{q[o], q[o + 1], q[o + 2], q[o + 3]});
        axes[d] = {r.x, cross(centre, r.x)};
        axes[d + 1] = {r.y, cross(centre, r.y)};
        axes[d + 2] = {r.z, cross(centre, r.z)};
        const Vec angular = v[d] * r.x + v[d + 1] * r.y + v[d + 2] * r.z;
        const Spatial turning = {angular, cross(centre, angular)};
        acceleration = acceleration + cross_motion(moving, turning);
        moving = moving + turning;
      }
      p = joint.anchored ? centre - r * wide<Real>(joint.anchor) : centre;
    }
    rot[i] = r, pos[i] = p, velocity[i] = moving, acceleration_[i] = acceleration;
  }

  // forces that the motion needs, summed toward the root
  for (int i = 0; i < m_.num_links; ++i) {
    inertia[i] = inertia_of(i);
    force_[i] = inertia[i] * acceleration_[i] + cross_force(velocity[i], inertia[i] * velocity[i]);
  }
  for (int d = 0; d < m_.num_velocities; ++d) bias[d] = zero;
  add_generalised(force_, bias);
}

template <class Real>
CALM_DEVICE void SmoothDynamics<Real>::add_generalised(Spatial* forces, Real* out) const {
  for (int i = m_.num_links; i-- > 0;) {
    const LinkRow<S>& link = m_.links[i];
    const Spatial force = forces[i];
    in_groups<3>(
        link.first_velocity, link.first_velocity + link.num_velocities,
        [&](int d) { return out[d] + dot(axes[d], force); }, [&](int d, const Real& sum) { out[d] = sum; });
    if (link.parent >= 0) forces[link.parent] = forces[link.parent] + force;
  }
}

template <class Real>
CALM_DEVICE void SmoothDynamics<Real>::motions(const Real* x, Spatial* out) const {
  const Real zero = real<Real>(0);
  for (int i = 0; i < m_.num_links; ++i) {
    const LinkRow<S>& link = m_.links[i];
    Spatial sum = {{zero, zero, zero}, {zero, zero, zero}};
    if (link.parent >= 0) sum = out[link.parent];
    for (int d = link.first_velocity; d < link.first_velocity + link.num_velocities; ++d) sum = sum + x[d] * axes[d];
    out[i] = sum;
  }
}

// Up to three rows at a time: what is loaded of an ancestor's axis then serves all of them. The first link's own axes
// are known: units, and rotations about the origin.
template <class Real>
template <class Transform, class Put>
CALM_INLINE void SmoothDynamics<Real>::for_rows(int i, Transform transform, Put put) const {
  const LinkRow<S>& link = m_.links[i];
  const int end = link.first_velocity + link.num_velocities;
  for (int d = link.first_velocity; d < end;) {
    const int rows = end - d < 3 ? end - d : 3;
    const Spatial f0 = transform(axes[d]), f1 = rows > 1 ? transform(axes[d + 1]) : f0;
    const Spatial f2 = rows > 2 ? transform(axes[d + 2]) : f0;
    const auto put_all = [&](int e, int k, const Real& v0, const Real& v1, const Real& v2) {
      put(d, k, e, v0);
      if (rows > 1) put(d + 1, k + 1, e, v1);
      if (rows > 2) put(d + 2, k + 2, e, v2);
    };
    if (rows > 1) put(d + 1, 0, d + 1, dot(axes[d + 1], f1));
    if (rows > 2) put(d + 2, 0, d + 2, dot(axes[d + 2], f2)), put(d + 2, 1, d + 1, dot(axes[d + 1], f2));
    int e = d, k = 0;
    for (; e > 5; e = m_.parent_velocity[e], ++k) put_all(e, k, dot(axes[e], f0), dot(axes[e], f1), dot(axes[e], f2));
    for (; e > 2; --e, ++k) {
      const Vec& w = axes[e].angular;
      put_all(e, k, dot(w, f0.angular), dot(w, f1.angular), dot(w, f2.angular));
    }
    if (e == 2) put_all(2, k++, f0.linear.z, f1.linear.z, f2.linear.z), --e;
    if (e == 1) put_all(1, k++, f0.linear.y, f1.linear.y, f2.linear.y), --e;
    if (e == 0) put_all(0, k, f0.linear.x, f1.linear.x, f2.linear.x);
    d += rows;
  }
}

template <class Real>
CALM_DEVICE void SmoothDynamics<Real>::assemble(const Real* added) {
  // composite rigid bodies, from the leaves; a link's rows are filled when all of its subtree has been added to it
  for (int i = 0; i < m_.num_links; ++i) composite_[i] = inertia[i];
  for (int i = m_.num_links; i-- > 0;) {
    const LinkRow<S>& link = m_.links[i];
    for_rows(
        i, [&](const Spatial& axis) { return composite_[i] * axis; },
        [&](int d, int k, int, const Real& value) { mass[m_.row_start[d] + k] = value; });
    for (int d = link.first_velocity; d < link.first_velocity + link.num_velocities; ++d) {
      Real& diagonal = mass[m_.row_start[d]];
      diagonal = diagonal + Real(m_.armature[d]);
      if (added != nullptr) diagonal = diagonal + added[d];
    }
    if (link.parent >= 0) composite_[link.parent] = composite_[link.parent] + composite_[i];
  }
}

// From the leaves: a row's ancestors lose what the row takes with it.
template <class Real>
CALM_DEVICE void SmoothDynamics<Real>::factorise() {
  for (int i = 0; i < m_.num_nonzeros; ++i) factor[i] = mass[i];
  for (int i = m_.num_velocities; i-- > 0;) {
    Real* row = factor + m_.row_start[i];
    const Real inverse = real<Real>(1) / row[0];
    row[0] = inverse;
    ++row;
    for (int j = m_.parent_velocity[i]; j >= 0; j = m_.parent_velocity[j], ++row) {
      const Real ratio = row[0] * inverse;
      const int left = m_.row_start[j + 1] - m_.row_start[j];
      Real* other = factor + m_.row_start[j];
      for (int k = 0; k < left; ++k) other[k] = other[k] - ratio * row[k];
      row[0] = ratio;
    }
  }
}

template <class Real>
CALM_DEVICE void SmoothDynamics<Real>::solve(Real* x) const {
  for (int i = m_.num_velocities; i-- > 0;) {
    const Real* entry = factor + m_.row_start[i] + 1;
    const Real own = x[i];
    for (int j = m_.parent_velocity[i]; j >= 0; j = m_.parent_velocity[j], ++entry) x[j] = x[j] - *entry * own;
  }
  for (int i = 0; i < m_.num_velocities; ++i) {
    const Real* entry = factor + m_.row_start[i];
    Real sum = x[i] * *entry++;
    for (int j = m_.parent_velocity[i]; j >= 0; j = m_.parent_velocity[j], ++entry) sum = sum - *entry * x[j];
    x[i] = sum;
  }
}

}  // namespace calm
