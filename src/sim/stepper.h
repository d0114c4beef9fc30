// One control step of the environments in the lanes of a Real, as a list of stages.
#pragma once

#include "sim/constraint_solver.h"
#include "sim/engine.h"

namespace calm {

template <class Real>
class Stepper {
 public:
  using S = ScalarOf<Real>;
  using Vec = Vec3Of<Real>;
  using Quat4 = QuatOf<Real>;
  using Mask = MaskOf<Real>;
  using Spatial = SpatialVec<Real>;
  static constexpr int kLanes = LanesOf<Real>::kCount;
  static constexpr double kMaxSpeed = 1e3;  // rad/s or m/s; faster is an explosion
  // of the solver's residual: single precision goes no lower for certain
  static constexpr double kSingleTolerance = 2e-6, kDoubleTolerance = 1e-10;

  // All but `arena` must outlive this. room: at least the model's sizes.
  CALM_DEVICE constexpr Stepper(const ModelView<S>& model, const Sizes& room, SmoothDynamics<Real>& with_dynamics,
                                ContactFinder<Real>& with_finder, ConstraintSolver<Real>& with_solver, Arena& arena)
      : dynamics(with_dynamics),
        finder(with_finder),
        solver(with_solver),
        positions(arena.take<Real>(room.positions)),
        velocities(arena.take<Real>(room.velocities)),
        accelerations(arena.take<Real>(room.velocities)),
        forces(arena.take<Real>(room.velocities)),
        m_(model),
        targets_(arena.take<Real>(room.dofs)),
        dof_pos_(arena.take<Real>(room.dofs)),
        added_(arena.take<Real>(room.velocities)),
        quats_(arena.take<Quat4>(room.links)),
        forces_(arena.take<Vec>(room.bodies)) {}

  CALM_DEVICE void load(const LaneRows<S>& rows);
  CALM_DEVICE void store(const LaneRows<S>& rows) const;

  // One control step from what is loaded.
  CALM_DEVICE void step();
  // The stages of a substep up to the accelerations.
  CALM_DEVICE void accelerate();
  CALM_DEVICE void report(const LaneReport<S>& out);

  SmoothDynamics<Real>& dynamics;
  ContactFinder<Real>& finder;
  ConstraintSolver<Real>& solver;
  Real *positions, *velocities, *accelerations, *forces;

 private:
  CALM_DEVICE static void load(const S* from, int count, Real* to) {
    for (int i = 0; i < count; ++i)
      for (int l = 0; l < kLanes; ++l) set_lane(to[i], l, from[i * kLanes + l]);
  }
  CALM_DEVICE static void put(const Real& value, S* to, int i) {
    for (int l = 0; l < kLanes; ++l) to[i * kLanes + l] = lane(value, l);
  }
  CALM_DEVICE static void put(const Vec& value, S* to, int i) {
    put(value.x, to, 3 * i), put(value.y, to, 3 * i + 1), put(value.z, to, 3 * i + 2);
  }
  CALM_DEVICE void read_dof_pos();
  CALM_DEVICE void drive();
  CALM_DEVICE void integrate();
  CALM_DEVICE void limit_speed(Real* v, int count) const;
  CALM_DEVICE void turn(Real* quat, const Real* angular);
  CALM_DEVICE void watch();

  const ModelView<S>& m_;
  Real *targets_, *dof_pos_, *added_;
  Quat4* quats_;  // (links) world
  Vec* forces_;   // (bodies + props)
  Mask broken_{};
  Real worst_residual_{}, iterations_{};
};

template <class Real>
CALM_DEVICE void Stepper<Real>::load(const LaneRows<S>& rows) {
  load(rows.positions, m_.num_positions, positions);
  load(rows.velocities, m_.num_velocities, velocities);
  load(rows.accelerations, m_.num_velocities, accelerations);
  load(rows.targets, m_.num_dofs, targets_);
}

template <class Real>
CALM_DEVICE void Stepper<Real>::store(const LaneRows<S>& rows) const {
  for (int i = 0; i < m_.num_positions; ++i) put(positions[i], rows.positions, i);
  for (int i = 0; i < m_.num_velocities; ++i) put(velocities[i], rows.velocities, i);
  for (int i = 0; i < m_.num_velocities; ++i) put(accelerations[i], rows.accelerations, i);
}

// Exponential maps of the balls, the shorter way round, and the hinges' angles.
template <class Real>
CALM_DEVICE void Stepper<Real>::read_dof_pos() {
  const Real zero = real<Real>(0), two = real<Real>(2);
  for (int j = 0; j < m_.num_joints; ++j) {
    const JointRow<S>& joint = m_.joints[j];
    const Real* q = positions + joint.position;
    Real* out = dof_pos_ + joint.dof;
    if (!joint.ball) {
      out[0] = q[0];
      continue;
    }
    const Real squared = q[1] * q[1] + q[2] * q[2] + q[3] * q[3], w = magnitude(q[0]);
    const Mask turned = squared > real<Real>(1e-18);
    const Real s = square_root(select(turned, squared, real<Real>(1)));
    const Real half = select(turned, angle_of(s, w) / s, real<Real>(1));
    const Real scale = select(q[0] < zero, -two, two) * half;
    for (int k = 0; k < 3; ++k) out[k] = scale * q[1 + k];
  }
}

// PD drives, integrated implicitly: h kd + h² kp on the mass matrix' diagonal, kp (target - q) - (kd + h kp) v as
// force; beyond a per-axis limit of a ball joint a spring and damper join likewise. Leaves what adds to the diagonal in
// `added_`, the forces in `forces`.
template <class Real>
CALM_DEVICE void Stepper<Real>::drive() {
  const Real zero = real<Real>(0), h = Real(m_.timestep);
  read_dof_pos();
  for (int d = 0; d < m_.num_velocities; ++d) added_[d] = forces[d] = zero;
  for (int j = 0; j < m_.num_joints; ++j) {
    const JointRow<S>& joint = m_.joints[j];
    for (int k = 0; k < (joint.ball ? 3 : 1); ++k) {
      const DriveRow<S>& drive = m_.drives[joint.dof + k];
      const Real q = dof_pos_[joint.dof + k], v = velocities[joint.velocity + k];
      Real stiffness = Real(drive.kp), damping = Real(drive.kd);
      Real pull = stiffness * (targets_[joint.dof + k] - q);
      if (joint.ball) {
        const Real above = q - Real(drive.upper), below = q - Real(drive.lower);
        const Real excess = larger(above, zero) + smaller(below, zero);
        const Mask beyond = (above > zero) || (below < zero);
        stiffness = stiffness + select(beyond, Real(drive.limit_stiffness), zero);
        damping = damping + select(beyond, Real(drive.limit_damping), zero);
        pull = pull - Real(drive.limit_stiffness) * excess;
      }
      added_[joint.velocity + k] = h * (damping + h * stiffness);
      forces[joint.velocity + k] = pull - (damping + h * stiffness) * v;
    }
  }
}

template <class Real>
CALM_DEVICE void Stepper<Real>::accelerate() {
  drive();
  dynamics.forward(positions, velocities);
  dynamics.assemble(added_);
  for (int i = 0; i < m_.num_velocities; ++i) forces[i] = forces[i] - dynamics.bias[i];
  finder.find();
  solver.find_limits(positions);
  solver.solve(velocities, forces, added_, accelerations,
               {m_.solver_iterations, sizeof(S) == 8 ? kDoubleTolerance : kSingleTolerance});
}

// Coriolis forces are integrated explicitly: at 120 Hz they feed on themselves from about 60 rad/s on, which targets
// far beyond a ball joint's half turn do reach by driving it round and round.
template <class Real>
CALM_DEVICE void Stepper<Real>::limit_speed(Real* v, int count) const {
  Real squared = real<Real>(0);
  for (int k = 0; k < count; ++k) squared = squared + v[k] * v[k];
  const Real most = Real(m_.max_ang_vel);
  const Mask fast = squared > most * most;
  if (!any(fast)) return;
  const Real scale = most / square_root(select(fast, squared, real<Real>(1)));
  for (int k = 0; k < count; ++k) v[k] = select(fast, scale * v[k], v[k]);
}

// quat becomes quat exp(h angular), of unit length.
template <class Real>
CALM_DEVICE void Stepper<Real>::turn(Real* quat, const Real* angular) {
  const Real one = real<Real>(1), half = real<Real>(0.5) * Real(m_.timestep);
  const Vec a = {half * angular[0], half * angular[1], half * angular[2]};
  const Real squared = dot(a, a);
  const Mask turns = squared > real<Real>(1e-20);
  const Real angle = square_root(select(turns, squared, one));
  Real s, c;
  sine_cosine(angle, s, c);
  const Real w = select(turns, c, one), scale = select(turns, s / angle, one);
  Quat4 q = Quat4{quat[0], quat[1], quat[2], quat[3]} * Quat4{w, scale * a.x, scale * a.y, scale * a.z};
  const Real inverse = one / square_root(q.w * q.w + q.x * q.x + q.y * q.y + q.z * q.z);
  quat[0] = inverse * q.w, quat[1] = inverse * q.x, quat[2] = inverse * q.y, quat[3] = inverse * q.z;
}

// Semi-implicit Euler: velocities first, positions with the new ones.
template <class Real>
CALM_DEVICE void Stepper<Real>::integrate() {
  const Real h = Real(m_.timestep);
  for (int i = 0; i < m_.num_velocities; ++i) velocities[i] = velocities[i] + h * accelerations[i];
  watch();
  for (int i = 0; i < m_.num_links; ++i) {
    const LinkRow<S>& link = m_.links[i];
    if (link.parent >= 0) continue;
    Real *q = positions + link.first_position, *v = velocities + link.first_velocity;
    for (int k = 0; k < 3; ++k) q[k] = q[k] + h * v[k];
    turn(q + 3, v + 3);
    limit_speed(v + 3, 3);
  }
  for (int j = 0; j < m_.num_joints; ++j) {
    const JointRow<S>& joint = m_.joints[j];
    Real *q = positions + joint.position, *v = velocities + joint.velocity;
    if (joint.ball)
      turn(q, v);
    else
      q[0] = q[0] + h * v[0];
    limit_speed(v, joint.ball ? 3 : 1);
  }
}

// A lane that is not finite or has exploded is marked, and set where it costs its neighbours no time: at rest.
template <class Real>
CALM_DEVICE void Stepper<Real>::watch() {
  const Real zero = real<Real>(0), most = real<Real>(kMaxSpeed);
  Mask fine = most > zero;
  for (int i = 0; i < m_.num_velocities; ++i) fine = fine && (magnitude(velocities[i]) <= most);  // false for NaN
  for (int i = 0; i < m_.num_positions; ++i) fine = fine && (magnitude(positions[i]) <= real<Real>(1e6));
  broken_ = broken_ || !fine;
  if (!any(broken_)) return;
  for (int i = 0; i < m_.num_velocities; ++i) {
    velocities[i] = select(broken_, zero, velocities[i]);
    accelerations[i] = select(broken_, zero, accelerations[i]);
  }
  for (int i = 0; i < m_.num_positions; ++i) positions[i] = select(broken_, zero, positions[i]);
  const auto stand = [&](Real* quat) { quat[0] = select(broken_, real<Real>(1), quat[0]); };
  for (int i = 0; i < m_.num_links; ++i) {
    const LinkRow<S>& link = m_.links[i];
    if (link.parent >= 0) continue;
    stand(positions + link.first_position + 3);
    Real& height = positions[link.first_position + 2];  // above all contacts
    height = select(broken_, real<Real>(1e3), height);
  }
  for (int j = 0; j < m_.num_joints; ++j)
    if (m_.joints[j].ball) stand(positions + m_.joints[j].position);
}

template <class Real>
CALM_DEVICE void Stepper<Real>::step() {
  const Real zero = real<Real>(0);
  broken_ = zero > zero;
  for (int i = 0; i < m_.num_dofs; ++i) broken_ = broken_ || !(magnitude(targets_[i]) <= real<Real>(1e6));
  for (int i = 0; i < m_.num_dofs; ++i) targets_[i] = select(broken_, zero, targets_[i]);
  worst_residual_ = iterations_ = zero;
  for (int substep = 0; substep < m_.substeps; ++substep) {
    accelerate();
    integrate();
    worst_residual_ = larger(worst_residual_, solver.residual());
    iterations_ = iterations_ + solver.iterations();
  }
}

template <class Real>
CALM_DEVICE void Stepper<Real>::report(const LaneReport<S>& out) {
  const Real zero = real<Real>(0), half = real<Real>(0.5), one = real<Real>(1);

  // forces of the last substep's contacts, as they were
  const int bodies = m_.num_bodies + m_.num_props;
  for (int b = 0; b < bodies; ++b) forces_[b] = {zero, zero, zero};
  Real count = zero;
  for (int i = 0; i < finder.num_contacts; ++i) {
    const Contact<Real>& c = finder.contacts[i];
    const Vec force = solver.contact_force(i);
    const ContactSides<S>& sides = finder.sides[i];
    Vec& b = forces_[m_.shapes[sides.shape_b].body];
    b = b + force;
    if (sides.shape_a >= 0) {
      Vec& a = forces_[m_.shapes[sides.shape_a].body];
      a = a - force;
    }
    count = count + select(c.active, one, zero);
  }
  for (int b = 0; b < bodies; ++b) put(forces_[b], out.contact_force, b);
  put(select(broken_, one, zero), out.broken, 0);
  put(count, out.contacts, 0);
  put(worst_residual_, out.residual, 0), put(iterations_, out.iterations, 0);

  read_dof_pos();
  for (int d = 0; d < m_.num_dofs; ++d) put(dof_pos_[d], out.dof_pos, d);

  // poses and velocities of all links where the step has left them, then of the bodies on them
  dynamics.root_pos = {positions[0], positions[1], positions[2]};
  for (int i = 0; i < m_.num_links; ++i) {
    const LinkRow<S>& link = m_.links[i];
    if (link.parent < 0) {
      const Real *q = positions + link.first_position, *v = velocities + link.first_velocity;
      quats_[i] = {q[3], q[4], q[5], q[6]};
      dynamics.pos[i] = Vec{q[0], q[1], q[2]} - dynamics.root_pos;
      const Vec angular = rotate(quats_[i], Vec{v[3], v[4], v[5]});
      dynamics.velocity[i] = {angular, Vec{v[0], v[1], v[2]}};
      continue;
    }
    const Quat4& parent = quats_[link.parent];
    const Vec arm = rotate(parent, wide<Real>(link.pos));
    Vec p = dynamics.pos[link.parent] + arm, w = dynamics.velocity[link.parent].angular;
    Vec v = dynamics.velocity[link.parent].linear + cross(w, arm);
    Quat4 r = link.turned ? parent * wide<Real>(link.quat) : parent;
    for (int j = link.first_joint; j < link.first_joint + link.num_joints; ++j) {
      const JointRow<S>& joint = m_.joints[j];
      const Real *q = positions + joint.position, *rate = velocities + joint.velocity;
      const Vec anchor = wide<Real>(joint.anchor);
      if (joint.anchored) {
        const Vec before = rotate(r, anchor);
        p = p + before, v = v + cross(w, before);
      }
      if (joint.ball) {
        r = r * Quat4{q[0], q[1], q[2], q[3]};
        w = w + rotate(r, Vec{rate[0], rate[1], rate[2]});
      } else {
        Real s, c;
        sine_cosine(half * q[0], s, c);
        const Vec axis = wide<Real>(joint.axis);
        r = r * Quat4{c, s * axis.x, s * axis.y, s * axis.z};
        w = w + rate[0] * rotate(r, axis);
      }
      if (joint.anchored) {
        const Vec after = rotate(r, anchor);
        p = p - after, v = v - cross(w, after);
      }
    }
    quats_[i] = r, dynamics.pos[i] = p, dynamics.velocity[i] = {w, v};
  }
  for (int b = 0; b < bodies; ++b) {
    const BodyRow<S>& body = m_.bodies[b];
    const Spatial& moving = dynamics.velocity[body.link];
    Vec p = dynamics.pos[body.link], v = moving.linear;
    Quat4 r = quats_[body.link];
    if (body.fixed) {
      const Vec arm = rotate(r, wide<Real>(body.pos));
      p = p + arm, v = v + cross(moving.angular, arm);
      r = r * wide<Real>(body.quat);
    }
    put(p + dynamics.root_pos, out.body_pos, b), put(v, out.body_vel, b), put(moving.angular, out.body_ang_vel, b);
    put(r.x, out.body_rot, 4 * b), put(r.y, out.body_rot, 4 * b + 1);
    put(r.z, out.body_rot, 4 * b + 2), put(r.w, out.body_rot, 4 * b + 3);
  }
}

// A Stepper and the stages that it goes through. A GPU has them as variables of their own instead: as parts of one
// object that point at each other they would have to lie in memory.
template <class Real>
struct Stages {
  using S = ScalarOf<Real>;

  CALM_DEVICE constexpr Stages(const ModelView<S>& model, const Sizes& room, Arena& arena)
      : dynamics(model, room, arena),
        finder(model, room, dynamics, arena),
        solver(model, room, dynamics, finder, arena),
        stepper(model, room, dynamics, finder, solver, arena) {}
  Stages(const Stages&) = delete;
  Stages& operator=(const Stages&) = delete;

  SmoothDynamics<Real> dynamics;
  ContactFinder<Real> finder;
  ConstraintSolver<Real> solver;
  Stepper<Real> stepper;
};

}  // namespace calm
