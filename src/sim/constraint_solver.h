// The accelerations of characters with contacts and joint limits: MuJoCo's convex problem, an environment a lane.
//
//   minimise over a:  1/2 aᵀ M a - aᵀ f  +  sum over rows of 1/2 D min(J a - a_ref, 0)²
//
// where f are the forces that act without constraints, a limit gives one row, and a contact with friction mu the four
// edges (normal +- mu tangent) of its pyramid. D, a_ref from solref and solimp as in MuJoCo's computation chapter
// ("Solver parameters"), R of a pyramid's edges 2 mu² that of its normal. The problem is strictly convex, so that it
// has one answer whatever finds it: Newton with a line search, warm-started.
//
// No contact has a Jacobian in memory: J x is the contact point's motion under the links' motions, Jᵀ f a force on a
// link, M x the links' inertial forces, and the Hessian's part of all contacts with the floor is gathered link by link
// as a spatial stiffness, as composite inertias are (smooth_dynamics.h). A contact of two links couples velocities that
// the tree does not: its rows get the entries that the elimination of a sparse symmetric matrix fills in (George & Liu
// 1981, ch. 5).
//
// A lane's answer does not depend on its neighbours to the bit: what only they have adds zeros here, and every sum has
// an order that no pattern changes (rows from the leaves, columns from the root). A lane that has arrived keeps its
// answer.
#pragma once

#include <cstdint>

#include "sim/contacts.h"

namespace calm {

struct SolverSettings {
  int iterations = 20;
  double tolerance = 1e-6;  // of the residual below
};

template <class Real>
class ConstraintSolver {
 public:
  using S = ScalarOf<Real>;
  using Vec = Vec3Of<Real>;
  using Mask = MaskOf<Real>;
  using Spatial = SpatialVec<Real>;
  using Sides = ContactSides<S>;

  // All but `arena` must outlive this.
  CALM_DEVICE constexpr ConstraintSolver(const ModelView<S>& model, const Sizes& room,
                                         const SmoothDynamics<Real>& dynamics, ContactFinder<Real>& finder,
                                         Arena& arena);

  // Rows of hinges and ball joints beyond their limits.
  CALM_DEVICE void find_limits(const Real* positions);

  // velocities, forces (num_velocities): v and f. added: as for SmoothDynamics::assemble. acceleration: in, where to
  // start; out, the optimum. Works on the finder's contacts and the limits found.
  CALM_DEVICE void solve(const Real* velocities, const Real* forces, const Real* added, Real* acceleration,
                         const SolverSettings& settings);

  // Of the last solve, each lane's: the largest entry of the optimum's gradient over the largest of the forces, acting
  // and inertial, all by the root of their velocity's inertia, so that light limbs count too; 0 is exact. And the
  // iterations made.
  CALM_DEVICE const Real& residual() const { return residual_; }
  CALM_DEVICE const Real& iterations() const { return made_; }

  // Force on the second side of contact i, world, N; 0 where it is inactive.
  CALM_DEVICE Vec contact_force(int i) const;

 private:
  struct Limit {
    int velocity = 0, count = 1;
    Vec weights;  // the distance's rate per velocity
    Real distance, stiffness, at, along;
    Real held;  // stiffness that the Hessian has of it
    S inverse_weight;
  };
  // Symmetric: angular-angular, linear-linear, and what a linear motion gives of torque (columns).
  struct SpatialStiffness {
    Vec aa_diagonal, aa_off;  // xx yy zz; yz xz xy
    Vec ll_diagonal, ll_off;
    Mat3Of<Real> al;  // torque = al linear
  };

  CALM_DEVICE static Real regulariser(const Real& impedance, const Real& weight) {
    return (real<Real>(1) - impedance) / impedance * weight;
  }
  CALM_DEVICE static Real impedance_at(const Real& distance);
  // The floor's normal is z.
  CALM_INLINE static Vec in_frame(const Sides& s, const Contact<Real>& c, const Vec& v) {
    const Vec& t = c.tangent;
    if (s.link_a < 0) return {v.z, t.x * v.x + t.y * v.y, t.x * v.y - t.y * v.x};
    return {dot(c.normal, v), dot(t, v), dot(cross(c.normal, t), v)};
  }
  CALM_INLINE static Vec in_world(const Sides& s, const Contact<Real>& c, const Vec& v) {
    const Vec& t = c.tangent;
    if (s.link_a < 0) return {v.y * t.x - v.z * t.y, v.y * t.y + v.z * t.x, v.x};
    return v.x * c.normal + v.y * t + v.z * cross(c.normal, t);
  }
  CALM_INLINE Vec relative(int i, const Spatial* motions) const {
    const Contact<Real>& c = finder_->contacts[i];
    const Sides& s = finder_->sides[i];
    const Vec b = at_point(motions[s.link_b], c.point);
    return in_frame(s, c, s.link_a < 0 ? b : b - at_point(motions[s.link_a], c.point));
  }
  // The four edges' values where the contact's are `at`.
  CALM_INLINE static void edges(const Vec& at, const Real& friction, Real (&out)[4]) {
    const Real y = friction * at.y, z = friction * at.z;
    out[0] = at.x + y, out[1] = at.x - y, out[2] = at.x + z, out[3] = at.x - z;
  }
  CALM_DEVICE static Real times(const Limit& limit, const Real* x);
  CALM_DEVICE static Vec force_in_frame(const Sides& s, const Contact<Real>& c);

  CALM_DEVICE void prepare(const Real* velocities);
  CALM_DEVICE void place_edges(const Real* acceleration);
  CALM_DEVICE void find_gradient(const Real* forces, const Real* added, const Real* acceleration);
  CALM_DEVICE void find_pattern();
  CALM_DEVICE void start_hessian();
  CALM_DEVICE void update_hessian();
  CALM_DEVICE void add_floor_stiffness(const Sides& s, const Contact<Real>& c, const Vec& g_diagonal, const Vec& g_off);
  CALM_DEVICE void add_pair_stiffness(const Sides& s, const Contact<Real>& c, const Vec& g_diagonal, const Vec& g_off);
  CALM_DEVICE void spread_floor_stiffness();
  template <int Rows>
  CALM_DEVICE void eliminate(int top, Real* x);
  template <int Rows>
  CALM_DEVICE void substitute(int first, Real* x);
  CALM_DEVICE void factorise_and_solve(Real* x);
  CALM_DEVICE Real line_search(const Real& start, const Mask& working) const;
  CALM_INLINE static Vec times_symmetric(const Vec& diagonal, const Vec& off, const Vec& v) {
    return {diagonal.x * v.x + off.z * v.y + off.y * v.z, off.z * v.x + diagonal.y * v.y + off.x * v.z,
            off.y * v.x + off.x * v.y + diagonal.z * v.z};
  }
  CALM_DEVICE Real& hessian(int row, int column) { return hessian_[row * stride_ + column]; }

  const ModelView<S>& m_;
  const SmoothDynamics<Real>* dynamics_;
  ContactFinder<Real>* finder_;
  Limit* limits_;  // (joints) at most one each
  int num_limits_ = 0;
  Real *gradient_, *step_;       // (velocities)
  Spatial* moved_;               // (links) motions of the accelerations
  Real* hessian_;                // (velocities x velocities) lower triangle, entries of the pattern only
  Real* factor_;                 // the same, factorised
  Spatial* motions_;             // (links)
  Spatial* forces_;              // (links)
  SpatialStiffness* stiffness_;  // (links)
  bool* touched_;                // (links) has floor stiffness, its own or from below
  Vec* moves_;                   // (velocities) of a pair's relative point, in its chain's order
  int* chain_;                   // (velocities) that move one side of a pair and not the other
  int stride_;                   // between rows of hessian_, factor_ and columns_
  int num_words_;                // of a row's bits
  std::uint64_t* tree_bits_;     // (velocities x words) columns of the tree's pattern, diagonal included
  std::uint64_t* bits_;          // the same with what pairs fill in
  int* tree_start_;              // (velocities + 1) the model's row_start
  std::uint16_t* tree_columns_;  // (nonzeros) of the mass matrix' entries
  std::uint16_t* columns_;       // (velocities x velocities) of each row below its diagonal, falling
  int* num_columns_;             // (velocities)
  bool tree_only_ = false;       // columns_ hold the tree's pattern
  Real residual_{}, made_{};
};

template <class Real>
CALM_DEVICE constexpr ConstraintSolver<Real>::ConstraintSolver(const ModelView<S>& model, const Sizes& room,
                                                               const SmoothDynamics<Real>& dynamics,
                                                               ContactFinder<Real>& finder, Arena& arena)
    : m_(model),
      dynamics_(&dynamics),
      finder_(&finder),
      limits_(arena.take<Limit>(room.joints)),
      gradient_(arena.take<Real>(room.velocities)),
      step_(arena.take<Real>(room.velocities)),
      moved_(arena.take<Spatial>(room.links)),
      hessian_(arena.take<Real>(room.velocities * room.velocities)),
      factor_(arena.take<Real>(room.velocities * room.velocities)),
      motions_(arena.take<Spatial>(room.links)),
      forces_(arena.take<Spatial>(room.links)),
      stiffness_(arena.take<SpatialStiffness>(room.links)),
      touched_(arena.take<bool>(room.links)),
      moves_(arena.take<Vec>(room.velocities)),
      chain_(arena.take_common<int>(room.velocities)),
      stride_(room.velocities),
      num_words_((room.velocities + 63) / 64),
      tree_bits_(arena.take_common<std::uint64_t>(room.velocities * num_words_)),
      bits_(arena.take_common<std::uint64_t>(room.velocities * num_words_)),
      tree_start_(arena.take_common<int>(room.velocities + 1)),
      tree_columns_(arena.take_common<std::uint16_t>(room.nonzeros)),
      columns_(arena.take_common<std::uint16_t>(room.velocities * room.velocities)),
      num_columns_(arena.take_common<int>(room.velocities)) {
  if (arena.dry()) return;
  for (int i = 0; i <= m_.num_velocities; ++i) tree_start_[i] = m_.row_start[i];
  for (int i = 0; i < m_.num_velocities; ++i) {
    int entry = m_.row_start[i];
    for (int e = i; e >= 0; e = m_.parent_velocity[e]) tree_columns_[entry++] = static_cast<std::uint16_t>(e);
    for (int w = 0; w < num_words_; ++w) tree_bits_[i * num_words_ + w] = 0;
    for (int e = i; e >= 0; e = m_.parent_velocity[e])
      tree_bits_[i * num_words_ + e / 64] |= std::uint64_t{1} << e % 64;
  }
}

// From the least at the surface to the greatest at `width` inside, along two parabolas that meet in the middle.
template <class Real>
CALM_DEVICE Real ConstraintSolver<Real>::impedance_at(const Real& distance) {
  using C = ConstraintStiffness;
  const Real one = real<Real>(1), two = real<Real>(2);
  const Real x = smaller(magnitude(distance) * real<Real>(1.0 / C::kWidth), one), rest = one - x;
  const Real y = select(x <= real<Real>(0.5), two * x * x, one - two * rest * rest);
  return real<Real>(C::kImpedanceMin) + y * real<Real>(C::kImpedanceMax - C::kImpedanceMin);
}

template <class Real>
CALM_DEVICE void ConstraintSolver<Real>::find_limits(const Real* positions) {
  num_limits_ = 0;
  const Real zero = real<Real>(0), one = real<Real>(1);
  for (int j = 0; j < m_.num_joints; ++j) {
    const JointRow<S>& joint = m_.joints[j];
    if (!joint.limited) continue;
    const Real* q = positions + joint.position;
    Limit limit;
    if (!joint.ball) {
      const Real above = q[0] - Real(joint.lower), below = Real(joint.upper) - q[0];
      limit.distance = smaller(above, below);
      if (!any(limit.distance < zero)) continue;
      limit.count = 1;
      limit.weights = {select(above < below, one, -one), zero, zero};
    } else {
      // the distance falls as the rotation's angle grows, about the rotation's axis
      const Vec v = {q[1], q[2], q[3]};
      const Real s = square_root(dot(v, v)), w = magnitude(q[0]);
      limit.distance = Real(joint.upper) - real<Real>(2) * angle_of(s, w);
      if (!any(limit.distance < zero)) continue;
      limit.count = 3;
      const Real turn = select(q[0] < zero, one, -one) / select(s > real<Real>(1e-9), s, one);
      limit.weights = turn * v;
    }
    limit.velocity = joint.velocity, limit.inverse_weight = joint.inverse_weight;
    limits_[num_limits_++] = limit;
  }
}

template <class Real>
CALM_DEVICE Real ConstraintSolver<Real>::times(const Limit& limit, const Real* x) {
  x += limit.velocity;
  if (limit.count == 1) return limit.weights.x * x[0];
  return limit.weights.x * x[0] + limit.weights.y * x[1] + limit.weights.z * x[2];
}

// Springs, and minus the reference accelerations in `at`.
template <class Real>
CALM_DEVICE void ConstraintSolver<Real>::prepare(const Real* velocities) {
  const Real zero = real<Real>(0), one = real<Real>(1);
  const Real k = Real(m_.reference_stiffness), b = Real(m_.reference_damping);
  for (int i = 0; i < num_limits_; ++i) {
    Limit& limit = limits_[i];
    const Real impedance = impedance_at(limit.distance);
    limit.stiffness = select(limit.distance < zero, one / regulariser(impedance, Real(limit.inverse_weight)), zero);
    limit.along = b * times(limit, velocities) + k * impedance * limit.distance;
  }
  for (int i = 0; i < finder_->num_contacts; ++i) {
    Contact<Real>& c = finder_->contacts[i];
    const Real impedance = impedance_at(c.distance);
    const Sides& s = finder_->sides[i];
    const S weight = s.inverse_weight * (1 + s.friction * s.friction) * 2 * s.friction * s.friction;
    c.stiffness = select(c.active, one / regulariser(impedance, Real(weight)), zero);
    const Vec v = relative(i, dynamics_->velocity);
    c.along = {b * v.x + select(c.active, k * impedance * c.distance, zero), b * v.y, b * v.z};
  }
}

// Where the accelerations put the edges; `along` holds minus the reference.
template <class Real>
CALM_DEVICE void ConstraintSolver<Real>::place_edges(const Real* acceleration) {
  for (int i = 0; i < num_limits_; ++i) limits_[i].at = times(limits_[i], acceleration) + limits_[i].along;
  Contact<Real>* contacts = finder_->contacts;
  in_groups<2>(
      0, finder_->num_contacts, [&](int i) { return relative(i, moved_) + contacts[i].along; },
      [&](int i, const Vec& at) { contacts[i].at = at; });
}

// Forces of the four edges, gathered in the contact's frame.
template <class Real>
CALM_DEVICE auto ConstraintSolver<Real>::force_in_frame(const Sides& s, const Contact<Real>& c) -> Vec {
  const Real zero = real<Real>(0), m = Real(s.friction);
  Real f[4];
  edges(c.at, m, f);
  for (Real& v : f) v = -c.stiffness * smaller(v, zero);
  return {f[0] + f[1] + f[2] + f[3], m * (f[0] - f[1]), m * (f[2] - f[3])};
}

// M a - f - Jᵀ (constraint forces), and the residual that it means.
template <class Real>
CALM_DEVICE void ConstraintSolver<Real>::find_gradient(const Real* forces, const Real* added,
                                                       const Real* acceleration) {
  const Real zero = real<Real>(0), one = real<Real>(1);
  in_groups<2>(
      0, m_.num_links, [&](int i) { return dynamics_->inertia[i] * moved_[i]; },
      [&](int i, const Spatial& force) { forces_[i] = force; });
  in_groups<4>(
      0, m_.num_velocities, [&](int i) { return (Real(m_.armature[i]) + added[i]) * acceleration[i] - forces[i]; },
      [&](int i, const Real& value) { gradient_[i] = value; });
  for (int i = 0; i < num_limits_; ++i) {
    const Limit& limit = limits_[i];
    const Real force = limit.stiffness * smaller(limit.at, zero);  // minus the limit's
    Real* out = gradient_ + limit.velocity;
    out[0] = out[0] + force * limit.weights.x;
    if (limit.count == 3) out[1] = out[1] + force * limit.weights.y, out[2] = out[2] + force * limit.weights.z;
  }
  in_groups<2>(
      0, finder_->num_contacts,
      [&](int i) {
        const Contact<Real>& c = finder_->contacts[i];
        const Sides& s = finder_->sides[i];
        const Vec force = in_world(s, c, force_in_frame(s, c));
        return Spatial{cross(c.point, force), force};
      },
      [&](int i, const Spatial& wrench) {
        const Sides& s = finder_->sides[i];
        forces_[s.link_b] = forces_[s.link_b] - wrench;
        if (s.link_a >= 0) forces_[s.link_a] = forces_[s.link_a] + wrench;
      });
  dynamics_->add_generalised(forces_, gradient_);
  Real largest = zero, strongest = zero;
  for (int i = 0; i < m_.num_velocities; ++i) {
    const Real scale = Real(m_.force_scale[i]);
    largest = larger(largest, scale * magnitude(gradient_[i]));
    strongest = larger(strongest, larger(scale * magnitude(forces[i]), magnitude(acceleration[i]) / scale));
  }
  residual_ = largest / select(strongest > real<Real>(1e-6), strongest, one);
}

// Columns of the Hessian's rows: the tree's, and where two links touch, what their coupling and elimination fill in.
template <class Real>
CALM_DEVICE void ConstraintSolver<Real>::find_pattern() {
  bool coupled = false;
  for (int i = 0; i < finder_->num_contacts; ++i) coupled = coupled || finder_->sides[i].link_a >= 0;
  if (!coupled && tree_only_) return;
  meet_lanes();
  const int n = m_.num_velocities;
  for (int i = 0; i < n * num_words_; ++i) bits_[i] = tree_bits_[i];
  meet_lanes();
  int done_a = -1, done_b = -1;
  for (int c = 0; c < finder_->num_contacts; ++c) {
    const int a = finder_->sides[c].link_a, b = finder_->sides[c].link_b;
    if (a < 0 || (a == done_a && b == done_b)) continue;
    done_a = a, done_b = b;
    // velocities that move one and not the other
    const std::uint64_t* chain_a = tree_bits_ + m_.links[a].last_velocity * num_words_;
    const std::uint64_t* chain_b = tree_bits_ + m_.links[b].last_velocity * num_words_;
    const int leaves[2] = {m_.links[a].last_velocity, m_.links[b].last_velocity};
    for (const int leaf : leaves)
      for (int e = leaf; e >= 0; e = m_.parent_velocity[e]) {
        if ((chain_a[e / 64] & chain_b[e / 64]) >> e % 64 & 1) break;
        for (int w = 0; w <= e / 64; ++w) {
          const std::uint64_t below = w < e / 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << e % 64) - 1;
          bits_[e * num_words_ + w] |= (chain_a[w] ^ chain_b[w]) & below;
        }
      }
  }
  // from the leaves: a row passes its columns on to the first of them
  for (int i = n; i-- > 0;) {
    int first = -1, count = 0;
    std::uint16_t* columns = columns_ + i * stride_;
    for (int j = i - 1; j >= 0; --j)
      if (bits_[i * num_words_ + j / 64] >> j % 64 & 1) columns[count++] = static_cast<std::uint16_t>(j);
    num_columns_[i] = count;
    if (count > 0) first = columns[0];
    for (int k = 1; k < count; ++k) bits_[first * num_words_ + columns[k] / 64] |= std::uint64_t{1} << columns[k] % 64;
  }
  tree_only_ = !coupled;
  meet_lanes();
}

// A contact's world stiffness G (at its point) as its link's spatial stiffness: with p the cross product by the point,
// torque = p G (v - p w), force = G (v - p w).
template <class Real>
CALM_DEVICE void ConstraintSolver<Real>::add_floor_stiffness(const Sides& s, const Contact<Real>& c,
                                                             const Vec& g_diagonal, const Vec& g_off) {
  SpatialStiffness& k = stiffness_[s.link_b];
  const Vec& p = c.point;
  const Mat3Of<Real> al = {cross(p, {g_diagonal.x, g_off.z, g_off.y}), cross(p, {g_off.z, g_diagonal.y, g_off.x}),
                           cross(p, {g_off.y, g_off.x, g_diagonal.z})};
  // aa = al pᵀ: row i is p x (row i of al)
  const Vec row_x = {al.x.x, al.y.x, al.z.x}, row_y = {al.x.y, al.y.y, al.z.y}, row_z = {al.x.z, al.y.z, al.z.z};
  const Vec aa_x = cross(p, row_x);
  const Real aa_yy = p.z * row_y.x - p.x * row_y.z, aa_yz = p.x * row_y.y - p.y * row_y.x;
  const Real aa_zz = p.x * row_z.y - p.y * row_z.x;
  k.aa_diagonal = k.aa_diagonal + Vec{aa_x.x, aa_yy, aa_zz};
  k.aa_off = k.aa_off + Vec{aa_yz, aa_x.z, aa_x.y};
  k.ll_diagonal = k.ll_diagonal + g_diagonal, k.ll_off = k.ll_off + g_off;
  k.al = {k.al.x + al.x, k.al.y + al.y, k.al.z + al.z};
}

template <class Real>
CALM_DEVICE void ConstraintSolver<Real>::spread_floor_stiffness() {
  for (int i = m_.num_links; i-- > 0;) {
    if (!touched_[i]) continue;
    const LinkRow<S>& link = m_.links[i];
    const SpatialStiffness& k = stiffness_[i];
    dynamics_->for_rows(
        i,
        [&](const Spatial& axis) {
          return Spatial{times_symmetric(k.aa_diagonal, k.aa_off, axis.angular) + k.al * axis.linear,
                         transposed_times(k.al, axis.angular) + times_symmetric(k.ll_diagonal, k.ll_off, axis.linear)};
        },
        [&](int d, int, int e, const Real& value) {
          Real& entry = hessian_[d * stride_ + e];
          entry = entry + value;
        });
    if (link.parent < 0) continue;
    SpatialStiffness& up = stiffness_[link.parent];
    up.aa_diagonal = up.aa_diagonal + k.aa_diagonal, up.aa_off = up.aa_off + k.aa_off;
    up.ll_diagonal = up.ll_diagonal + k.ll_diagonal, up.ll_off = up.ll_off + k.ll_off;
    up.al = {up.al.x + k.al.x, up.al.y + k.al.y, up.al.z + k.al.z};
  }
}

// Velocities that move both sides alike have no part in it.
template <class Real>
CALM_DEVICE void ConstraintSolver<Real>::add_pair_stiffness(const Sides& s, const Contact<Real>& c,
                                                            const Vec& g_diagonal, const Vec& g_off) {
  const int leaf_a = m_.links[s.link_a].last_velocity, leaf_b = m_.links[s.link_b].last_velocity;
  const std::uint64_t *chain_a = tree_bits_ + leaf_a * num_words_, *chain_b = tree_bits_ + leaf_b * num_words_;
  const auto shared = [&](int e) { return (chain_a[e / 64] & chain_b[e / 64]) >> e % 64 & 1; };
  int count = 0, count_a = 0;
  for (int e = leaf_a; e >= 0 && !shared(e); e = m_.parent_velocity[e]) {
    chain_[count] = e;
    moves_[count++] = real<Real>(-1) * at_point(dynamics_->axes[e], c.point);
  }
  count_a = count;
  for (int e = leaf_b; e >= 0 && !shared(e); e = m_.parent_velocity[e]) {
    chain_[count] = e;
    moves_[count++] = at_point(dynamics_->axes[e], c.point);
  }
  for (int k = 0; k < count; ++k) {
    const Vec force = times_symmetric(g_diagonal, g_off, moves_[k]);
    const int d = chain_[k];
    // each side falls toward the root; between the sides either may be the later
    const auto entry = [&](int l) -> Real& {
      const int e = chain_[l];
      return k < count_a && l >= count_a && e > d ? hessian(e, d) : hessian(d, e);
    };
    in_groups<4>(
        k, count, [&](int l) { return entry(l) + dot(moves_[l], force); },
        [&](int l, const Real& value) { entry(l) = value; });
  }
}

// M, and no constraint's part yet.
template <class Real>
CALM_DEVICE void ConstraintSolver<Real>::start_hessian() {
  const Real zero = real<Real>(0);
  const int n = m_.num_velocities;
  for (int i = 0; i < n; ++i) {
    Real* row = hessian_ + i * stride_;
    const std::uint16_t* columns = columns_ + i * stride_;
    if (!tree_only_)
      for (int k = 0; k < num_columns_[i]; ++k) row[columns[k]] = zero;
    const int first = tree_start_[i];
    const Real* entries = dynamics_->mass + first;
    in_groups<4>(
        0, tree_start_[i + 1] - first, [&](int k) { return entries[k]; },
        [&](int k, const Real& value) { row[tree_columns_[first + k]] = value; });
  }
  for (int i = 0; i < num_limits_; ++i) limits_[i].held = zero;
  for (int i = 0; i < finder_->num_contacts; ++i)
    for (Real& held : finder_->contacts[i].held) held = zero;
}

// Adds Jᵀ D J over the edges that have come to press since the last time, and takes out those that no longer do: after
// the first round few change.
template <class Real>
CALM_DEVICE void ConstraintSolver<Real>::update_hessian() {
  const Real zero = real<Real>(0);
  for (int i = 0; i < num_limits_; ++i) {
    Limit& limit = limits_[i];
    const Real now = select(limit.at < zero, limit.stiffness, zero), change = now - limit.held;
    limit.held = now;
    const Real w[3] = {limit.weights.x, limit.weights.y, limit.weights.z};
    for (int k = 0; k < limit.count; ++k)
      for (int l = 0; l <= k; ++l) {
        Real& entry = hessian(limit.velocity + k, limit.velocity + l);
        entry = entry + change * w[k] * w[l];
      }
  }

  for (int i = 0; i < m_.num_links; ++i) touched_[i] = false;
  bool floor = false;
  for (int i = 0; i < finder_->num_contacts; ++i) {
    Contact<Real>& c = finder_->contacts[i];
    const Sides& sides = finder_->sides[i];
    const Real m = Real(sides.friction);
    Real d[4];
    edges(c.at, m, d);
    Mask changed = zero > zero;
    for (int e = 0; e < 4; ++e) {
      const Real now = select(d[e] < zero, c.stiffness, zero);
      changed = changed || (now != c.held[e]);
      d[e] = now - c.held[e];
      c.held[e] = now;
    }
    if (!any(changed)) continue;
    // the four edges' stiffness in the contact's frame, then G in world
    const Real nn = d[0] + d[1] + d[2] + d[3], nt = m * (d[0] - d[1]), ns = m * (d[2] - d[3]);
    const Real tt = m * m * (d[0] + d[1]), ss = m * m * (d[2] + d[3]);
    const Vec &n_axis = c.normal, &t_axis = c.tangent;
    if (sides.link_a < 0) {
      for (int l = sides.link_b; l >= 0 && !touched_[l]; l = m_.links[l].parent) {
        touched_[l] = true;
        stiffness_[l] = {};
      }
      const Real xx = t_axis.x * t_axis.x, yy = t_axis.y * t_axis.y, xy = t_axis.x * t_axis.y;
      const Vec diagonal = {tt * xx + ss * yy, tt * yy + ss * xx, nn};
      add_floor_stiffness(sides, c, diagonal,
                          {nt * t_axis.y + ns * t_axis.x, nt * t_axis.x - ns * t_axis.y, (tt - ss) * xy});
      floor = true;
      continue;
    }
    const Vec s_axis = cross(n_axis, t_axis);
    const Vec a = nn * n_axis + nt * t_axis + ns * s_axis, t = nt * n_axis + tt * t_axis, s = ns * n_axis + ss * s_axis;
    const Vec diagonal = {a.x * n_axis.x + t.x * t_axis.x + s.x * s_axis.x,
                          a.y * n_axis.y + t.y * t_axis.y + s.y * s_axis.y,
                          a.z * n_axis.z + t.z * t_axis.z + s.z * s_axis.z};
    add_pair_stiffness(
        sides, c, diagonal,
        {a.y * n_axis.z + t.y * t_axis.z + s.y * s_axis.z, a.x * n_axis.z + t.x * t_axis.z + s.x * s_axis.z,
         a.x * n_axis.y + t.x * t_axis.y + s.x * s_axis.y});
  }
  if (floor) spread_floor_stiffness();
}

// Takes `Rows` finished rows from `top` down, nested in their columns, out of the rows of those columns, two at a time:
// what is loaded of the finished rows then serves twice.
template <class Real>
template <int Rows>
CALM_DEVICE void ConstraintSolver<Real>::eliminate(int top, Real* x) {
  Real* rows[Rows];
  Real inverse[Rows];
  CALM_UNROLL
  for (int a = 0; a < Rows; ++a) rows[a] = factor_ + (top - a) * stride_;

  // among themselves
  CALM_UNROLL
  for (int a = 0; a < Rows; ++a) {
    inverse[a] = real<Real>(1) / rows[a][top - a];
    const std::uint16_t* columns = columns_ + (top - a) * stride_;
    CALM_UNROLL
    for (int b = a + 1; b < Rows; ++b) {
      const Real ratio = rows[a][top - b] * inverse[a];
      rows[b][top - b] = rows[b][top - b] - ratio * rows[a][top - b];
      Real *to = rows[b], *from = rows[a];
      in_groups<4>(
          b - a, num_columns_[top - a], [&](int l) { return to[columns[l]] - ratio * from[columns[l]]; },
          [&](int l, const Real& value) { to[columns[l]] = value; });
      rows[a][top - b] = ratio;
      x[top - b] = x[top - b] - ratio * x[top - a];
    }
    rows[a][top - a] = inverse[a];
  }

  const std::uint16_t* columns = columns_ + (top - Rows + 1) * stride_;
  const int count = num_columns_[top - Rows + 1];
  Real first[Rows], second[Rows];
  for (int k = 0; k < count; k += 2) {
    const int j = columns[k], j2 = k + 1 < count ? columns[k + 1] : j;
    Real *other = factor_ + j * stride_, *other2 = factor_ + j2 * stride_;
    Real diagonal = other[j], right = x[j], right2 = x[j2];
    for (int a = 0; a < Rows; ++a) {
      first[a] = rows[a][j] * inverse[a], second[a] = rows[a][j2] * inverse[a];
      diagonal = diagonal - first[a] * rows[a][j];
      right = right - first[a] * x[top - a], right2 = right2 - second[a] * x[top - a];
    }
    other[j] = diagonal, x[j] = right;
    if (k + 1 < count) {
      x[j2] = right2;
      struct Two {
        Real one, two;
      };
      in_groups<4>(
          k + 1, count,
          [&](int l) {
            const int c = columns[l];
            Two sum = {other[c], other2[c]};
            CALM_UNROLL
            for (int a = 0; a < Rows; ++a) {
              const Real value = rows[a][c];
              sum.one = sum.one - first[a] * value, sum.two = sum.two - second[a] * value;
            }
            return sum;
          },
          [&](int l, const Two& sum) { other[columns[l]] = sum.one, other2[columns[l]] = sum.two; });
    }
    for (int a = 0; a < Rows; ++a) rows[a][j] = first[a], rows[a][j2] = k + 1 < count ? second[a] : first[a];
  }
}

// LᵀDL over the pattern, from the leaves, by rows that share their columns; x becomes H⁻¹ x.
template <class Real>
CALM_DEVICE void ConstraintSolver<Real>::factorise_and_solve(Real* x) {
  const int n = m_.num_velocities;
  for (int i = 0; i < n; ++i) {
    const Real* from = hessian_ + i * stride_;
    Real* to = factor_ + i * stride_;
    const std::uint16_t* columns = columns_ + i * stride_;
    to[i] = from[i];
    in_groups<8>(
        0, num_columns_[i], [&](int k) { return from[columns[k]]; },
        [&](int k, const Real& value) { to[columns[k]] = value; });
  }
  for (int i = n - 1; i >= 0;) {
    int rows = 1;
    while (rows < 4 && rows <= i && num_columns_[i - rows] + 1 == num_columns_[i - rows + 1] &&
           columns_[(i - rows + 1) * stride_] == i - rows)
      ++rows;
    switch (rows) {
      case 1:
        eliminate<1>(i, x);
        break;
      case 2:
        eliminate<2>(i, x);
        break;
      case 3:
        eliminate<3>(i, x);
        break;
      default:
        eliminate<4>(i, x);
        break;
    }
    i -= rows;
  }
  for (int i = 0; i < n;) {
    int rows = 1;
    while (rows < 4 && i + rows < n && columns_[(i + rows) * stride_] == i + rows - 1 &&
           num_columns_[i + rows] == num_columns_[i + rows - 1] + 1)
      ++rows;
    switch (rows) {
      case 1:
        substitute<1>(i, x);
        break;
      case 2:
        substitute<2>(i, x);
        break;
      case 3:
        substitute<3>(i, x);
        break;
      default:
        substitute<4>(i, x);
        break;
    }
    i += rows;
  }
}

// The way back, from the root: x of `Rows` rows from `first` up that share their columns.
template <class Real>
template <int Rows>
CALM_DEVICE void ConstraintSolver<Real>::substitute(int first, Real* x) {
  const std::uint16_t* columns = columns_ + first * stride_;
  const Real* rows[Rows];
  Real sum[Rows];
  for (int a = 0; a < Rows; ++a) {
    rows[a] = factor_ + (first + a) * stride_;
    sum[a] = x[first + a] * rows[a][first + a];
  }
  for (int k = num_columns_[first]; k-- > 0;) {
    const int c = columns[k];
    const Real value = x[c];
    for (int a = 0; a < Rows; ++a) sum[a] = sum[a] - rows[a][c] * value;
  }
  for (int a = 0; a < Rows; ++a) {
    for (int b = 0; b < a; ++b) sum[a] = sum[a] - rows[a][first + b] * sum[b];
    x[first + a] = sum[a];
  }
}

// Where the cost along the step is least, nearly: its derivative is piecewise linear and rises, so Newton's steps
// inside a bracket find its zero; from 1, which is the answer where no edge turns. start: the derivative at 0, where
// the second one is -start, for the step is Newton's; less the edges' part, that leaves the inertial one's.
template <class Real>
CALM_DEVICE Real ConstraintSolver<Real>::line_search(const Real& start, const Mask& working) const {
  const Real zero = real<Real>(0), one = real<Real>(1);
  // first and second derivative of the edges' cost
  const auto of_edges = [&](const Real& at, Real& first, Real& second) {
    first = second = zero;
    for (int i = 0; i < num_limits_; ++i) {
      const Limit& limit = limits_[i];
      const Real value = limit.at + at * limit.along;
      const Real k = select(value < zero, limit.stiffness * limit.along, zero);
      first = first + k * value, second = second + k * limit.along;
    }
    for (int i = 0; i < finder_->num_contacts; ++i) {
      const Contact<Real>& c = finder_->contacts[i];
      const Vec now = c.at + at * c.along;
      Real value[4], along[4], sum = zero, sum_second = zero;
      const Real friction = Real(finder_->sides[i].friction);
      edges(now, friction, value), edges(c.along, friction, along);
      for (int e = 0; e < 4; ++e) {
        const Real k = select(value[e] < zero, along[e], zero);
        sum = sum + k * value[e], sum_second = sum_second + k * along[e];
      }
      first = first + c.stiffness * sum, second = second + c.stiffness * sum_second;
    }
  };
  Real first, second;
  of_edges(zero, first, second);
  const Real slope = start - first, curvature = larger(-start - second, zero);
  const Real enough = real<Real>(1e-2) * magnitude(start);
  Real at = one, low = zero, high = real<Real>(1e6);
  Mask searching = working;
  for (int i = 0; i < 12; ++i) {
    of_edges(at, first, second);
    first = first + slope + at * curvature, second = second + curvature;
    searching = searching && (magnitude(first) > enough);
    if (!any(searching)) break;
    low = select(first < zero, at, low), high = select(first > zero, at, high);
    const Real newton = at - first / select(second > zero, second, one);
    const Mask inside = (newton > low) && (newton < high);
    at = select(searching, select(inside, newton, real<Real>(0.5) * (low + high)), at);
  }
  return at;
}

template <class Real>
CALM_DEVICE void ConstraintSolver<Real>::solve(const Real* velocities, const Real* forces, const Real* added,
                                               Real* acceleration, const SolverSettings& settings) {
  const Real zero = real<Real>(0), one = real<Real>(1);
  const int n = m_.num_velocities;
  made_ = zero;
  prepare(velocities);
  dynamics_->motions(acceleration, moved_);
  place_edges(acceleration);
  find_pattern();
  start_hessian();
  Mask working = one > zero;
  for (int iteration = 0;; ++iteration) {
    find_gradient(forces, added, acceleration);
    working = working && (residual_ > real<Real>(settings.tolerance));
    if (iteration == settings.iterations || !any(working)) break;
    update_hessian();
    for (int i = 0; i < n; ++i) step_[i] = -gradient_[i];
    factorise_and_solve(step_);
    dynamics_->motions(step_, motions_);
    Real start = zero;
    for (int i = 0; i < n; ++i) start = start + step_[i] * gradient_[i];
    for (int i = 0; i < num_limits_; ++i) limits_[i].along = times(limits_[i], step_);
    Contact<Real>* contacts = finder_->contacts;
    in_groups<2>(
        0, finder_->num_contacts, [&](int i) { return relative(i, motions_); },
        [&](int i, const Vec& along) { contacts[i].along = along; });
    // lanes that have arrived move by nothing
    const Real length = line_search(start, working);
    in_groups<4>(
        0, n, [&](int i) { return select(working, acceleration[i] + length * step_[i], acceleration[i]); },
        [&](int i, const Real& value) { acceleration[i] = value; });
    in_groups<2>(
        0, m_.num_links,
        [&](int i) {
          const Spatial &now = moved_[i], &way = motions_[i];
          return Spatial{select<Real>(working, now.angular + length * way.angular, now.angular),
                         select<Real>(working, now.linear + length * way.linear, now.linear)};
        },
        [&](int i, const Spatial& value) { moved_[i] = value; });
    for (int i = 0; i < num_limits_; ++i) {
      Limit& limit = limits_[i];
      limit.at = select(working, limit.at + length * limit.along, limit.at);
    }
    in_groups<2>(
        0, finder_->num_contacts,
        [&](int i) {
          const Contact<Real>& c = contacts[i];
          return select<Real>(working, c.at + length * c.along, c.at);
        },
        [&](int i, const Vec& at) { contacts[i].at = at; });
    made_ = made_ + select(working, one, zero);
  }
}

template <class Real>
CALM_DEVICE auto ConstraintSolver<Real>::contact_force(int i) const -> Vec {
  const Contact<Real>& c = finder_->contacts[i];
  const Sides& s = finder_->sides[i];
  return in_world(s, c, force_in_frame(s, c));
}

}  // namespace calm
