// The accelerations of characters with contacts and joint limits: MuJoCo's convex problem, an environment a lane.
//
//   minimise over a:  1/2 (a - a0)ᵀ M (a - a0)  +  sum over rows of 1/2 D min(J a - a_ref, 0)²
//
// where a0 is the acceleration without constraints, a limit gives one row, and a contact with friction mu the four
// edges (normal +- mu tangent) of its pyramid. D, a_ref from solref and solimp as in MuJoCo's computation chapter
// ("Solver parameters"), R of a pyramid's edges 2 mu² that of its normal. The problem is strictly convex, so that it
// has one answer whatever finds it: Newton with an exact line search, warm-started. Lanes that have arrived go on with
// steps of rounding size until all have.
#pragma once

#include "sim/lanes.h"
#include "sim/smooth_dynamics.h"

namespace calm {

// MuJoCo's solref and solimp in their standard form; defaults are MuJoCo's.
struct ConstraintStiffness {
  double time_constant = 0.02, damping_ratio = 1.0;                                            // s, -
  double impedance_min = 0.9, impedance_max = 0.95, width = 0.001, middle = 0.5, power = 2.0;  // width in m or rad
};

template <class Real>
class ConstraintSolver {
 public:
  using Vec = Vec3Of<Real>;
  using Mask = MaskOf<Real>;

  // Both must outlive this. timestep: s, below half of which no time constant goes.
  ConstraintSolver(const Articulation& articulation, const SmoothDynamics<Real>& dynamics, double timestep,
                   const ConstraintStiffness& stiffness = {});

  void clear() { rows_.clear(), contacts_.clear(); }

  // A limit: its distance (rad; negative beyond it) changes at `weights` times the velocities from `first` on.
  // inverse_weight: MuJoCo's dof_invweight0. Lanes where it is not `active` have no such row.
  void add_limit(int first, std::span<const Real> weights, const Real& distance, double inverse_weight, Mask active);

  // A contact at `point` (from the root's position) between the floor and the link that moves with velocity `leaf` and
  // those between it and the root. frame: normal out of the floor, two tangents, rows. inverse_weight: MuJoCo's
  // body_invweight0, translational.
  void add_floor_contact(int leaf, const Vec& point, const Vec (&frame)[3], const Real& distance, double friction,
                         double inverse_weight, Mask active);

  // velocities, unconstrained (num_velocities): v and a0. acceleration: in, where to start; out, the optimum.
  // Ends when no lane's step moves any acceleration by more than `tolerance` of the largest, or after `iterations`.
  // Returns the iterations made.
  int solve(std::span<const Real> velocities, std::span<const Real> unconstrained, std::span<Real> acceleration,
            int iterations, double tolerance);

  // Of the last solve: the optimum's gradient over the largest inertial force; 0 is exact.
  const Real& residual() const { return residual_; }

  // Force on the link at contact i in the order added, in its frame: normal, tangents, N.
  Vec contact_force(int i) const;

 private:
  // One one-sided spring.
  struct Edge {
    Real stiffness{};    // D, 0 in lanes without it
    Real reference{};    // a_ref
    Real along{}, at{};  // J s and J a - a_ref
  };
  struct Row {
    int first = 0;
    std::vector<Real> weights;
    Real distance{}, regulariser{}, impedance{};
    Mask active{};
    Edge edge;
  };
  struct Contact {
    std::vector<int> chain;     // velocities
    std::vector<Vec> jacobian;  // per velocity of the chain: normal, tangents
    Real distance{}, regulariser{}, impedance{}, friction{};
    Mask active{};
    Edge edges[4];
  };

  static Real scalar(double value) { return real<Real>(value); }
  Real impedance_at(const Real& distance) const;
  static Real edge_of(const Vec& v, const Real& friction, int edge) {
    const Real& tangent = edge < 2 ? v.y : v.z;
    return edge % 2 == 0 ? v.x + friction * tangent : v.x - friction * tangent;
  }
  Vec times(const Contact& c, std::span<const Real> x) const;
  Real times(const Row& r, std::span<const Real> x) const;
  void multiply_mass(std::span<const Real> x, std::span<Real> out) const;
  template <class Visit>
  void for_edges(Visit visit);
  void solve_hessian(std::span<Real> x);
  Real line_search(const Real& slope, const Real& curvature);

  const Articulation* a_;
  const SmoothDynamics<Real>* dynamics_;
  double reference_stiffness_, reference_damping_;  // K and B
  ConstraintStiffness stiffness_;
  std::vector<Row> rows_;
  std::vector<Contact> contacts_;
  std::vector<Real> hessian_;  // (velocities x velocities) lower triangle, then its Cholesky factor
  std::vector<Real> gradient_, step_, difference_, mass_step_;
  Real residual_{};
};

template <class Real>
ConstraintSolver<Real>::ConstraintSolver(const Articulation& articulation, const SmoothDynamics<Real>& dynamics,
                                         double timestep, const ConstraintStiffness& stiffness)
    : a_(&articulation),
      dynamics_(&dynamics),
      stiffness_(stiffness),
      hessian_(static_cast<size_t>(articulation.num_velocities) * articulation.num_velocities),
      gradient_(articulation.num_velocities),
      step_(articulation.num_velocities),
      difference_(articulation.num_velocities),
      mass_step_(articulation.num_velocities) {
  const double time = std::max(stiffness.time_constant, 2.0 * timestep), limit = stiffness.impedance_max;
  reference_stiffness_ = 1.0 / (limit * limit * time * time * stiffness.damping_ratio * stiffness.damping_ratio);
  reference_damping_ = 2.0 / (limit * time);
}

// From impedance_min at the surface to impedance_max at `width` inside, along two power curves that meet in the middle.
template <class Real>
Real ConstraintSolver<Real>::impedance_at(const Real& distance) const {
  using std::abs, std::pow;
  const ConstraintStiffness& s = stiffness_;
  const Real one = scalar(1), x = abs(distance) * scalar(1.0 / s.width), p = scalar(s.power);
  const Real lower = scalar(std::pow(s.middle, 1.0 - s.power)) * pow(x, p);
  const Real rest = select(x < one, one - x, scalar(0));
  const Real upper = one - scalar(std::pow(1.0 - s.middle, 1.0 - s.power)) * pow(rest, p);
  const Real y = select(x <= scalar(s.middle), lower, upper);
  return scalar(s.impedance_min) + y * scalar(s.impedance_max - s.impedance_min);
}

template <class Real>
void ConstraintSolver<Real>::add_limit(int first, std::span<const Real> weights, const Real& distance,
                                       double inverse_weight, Mask active) {
  if (!any(active)) return;
  Row& row = rows_.emplace_back();
  row.first = first, row.weights.assign(weights.begin(), weights.end()), row.distance = distance, row.active = active;
  row.impedance = impedance_at(distance);
  row.regulariser = (scalar(1) - row.impedance) / row.impedance * scalar(inverse_weight);
}

template <class Real>
void ConstraintSolver<Real>::add_floor_contact(int leaf, const Vec& point, const Vec (&frame)[3], const Real& distance,
                                               double friction, double inverse_weight, Mask active) {
  if (!any(active)) return;
  Contact& contact = contacts_.emplace_back();
  for (int e = leaf; e >= 0; e = a_->parent_velocity[e]) {
    const SpatialVec<Real>& axis = dynamics_->axes[e];
    const Vec moves = axis.linear + cross(axis.angular, point);
    contact.chain.push_back(e);
    contact.jacobian.push_back({dot(frame[0], moves), dot(frame[1], moves), dot(frame[2], moves)});
  }
  contact.distance = distance, contact.friction = scalar(friction), contact.active = active;
  contact.impedance = impedance_at(distance);
  const double weight = inverse_weight * (1.0 + friction * friction) * 2.0 * friction * friction;
  contact.regulariser = (scalar(1) - contact.impedance) / contact.impedance * scalar(weight);
}

template <class Real>
auto ConstraintSolver<Real>::times(const Contact& c, std::span<const Real> x) const -> Vec {
  Vec sum = {scalar(0), scalar(0), scalar(0)};
  for (size_t k = 0; k < c.chain.size(); ++k) sum = sum + x[c.chain[k]] * c.jacobian[k];
  return sum;
}

template <class Real>
Real ConstraintSolver<Real>::times(const Row& r, std::span<const Real> x) const {
  Real sum = scalar(0);
  for (size_t k = 0; k < r.weights.size(); ++k) sum += r.weights[k] * x[r.first + k];
  return sum;
}

template <class Real>
void ConstraintSolver<Real>::multiply_mass(std::span<const Real> x, std::span<Real> out) const {
  for (int i = 0; i < a_->num_velocities; ++i) {
    int entry = a_->row_start[i];
    out[i] = dynamics_->mass[entry++] * x[i];
    for (int j = a_->parent_velocity[i]; j >= 0; j = a_->parent_velocity[j], ++entry) {
      out[i] += dynamics_->mass[entry] * x[j];
      out[j] += dynamics_->mass[entry] * x[i];
    }
  }
}

template <class Real>
template <class Visit>
void ConstraintSolver<Real>::for_edges(Visit visit) {
  for (Row& row : rows_) visit(row.edge);
  for (Contact& contact : contacts_)
    for (Edge& edge : contact.edges) visit(edge);
}

// Dense Cholesky; for contacts with the floor alone the tree's pattern would do.
template <class Real>
void ConstraintSolver<Real>::solve_hessian(std::span<Real> x) {
  using std::sqrt;
  const int n = a_->num_velocities;
  for (int j = 0; j < n; ++j) {
    Real* row_j = &hessian_[static_cast<size_t>(j) * n];
    Real diagonal = row_j[j];
    for (int k = 0; k < j; ++k) diagonal -= row_j[k] * row_j[k];
    const Real inverse = scalar(1) / sqrt(diagonal);
    row_j[j] = inverse;  // of the factor's diagonal
    for (int i = j + 1; i < n; ++i) {
      Real* row_i = &hessian_[static_cast<size_t>(i) * n];
      Real sum = row_i[j];
      for (int k = 0; k < j; ++k) sum -= row_i[k] * row_j[k];
      row_i[j] = sum * inverse;
    }
  }
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < i; ++k) x[i] -= hessian_[static_cast<size_t>(i) * n + k] * x[k];
    x[i] *= hessian_[static_cast<size_t>(i) * n + i];
  }
  for (int i = n; i-- > 0;) {
    for (int k = i + 1; k < n; ++k) x[i] -= hessian_[static_cast<size_t>(k) * n + i] * x[k];
    x[i] *= hessian_[static_cast<size_t>(i) * n + i];
  }
}

// Where the cost along the step is least: its derivative is piecewise linear and rises, so Newton's steps inside a
// bracket find its zero. slope, curvature: of the inertial part at 0.
template <class Real>
Real ConstraintSolver<Real>::line_search(const Real& slope, const Real& curvature) {
  const Real zero = scalar(0);
  Real at = zero, low = zero, high = scalar(1e6);
  for (int i = 0; i < 16; ++i) {
    Real first = slope + at * curvature, second = curvature;
    for_edges([&](const Edge& edge) {
      const Real value = edge.at + at * edge.along;
      const Real stiffness = select(value < zero, edge.stiffness, zero);
      first += stiffness * value * edge.along;
      second += stiffness * edge.along * edge.along;
    });
    low = select(first < zero, at, low), high = select(first > zero, at, high);
    const Real newton = at - first / select(second > zero, second, scalar(1));
    const Real middle = scalar(0.5) * (low + high);
    const Real next = select((newton < low) || (newton > high), middle, newton);
    const bool moved = any((next - at > scalar(1e-7)) || (at - next > scalar(1e-7)));
    at = next;
    if (!moved) break;
  }
  return at;
}

template <class Real>
int ConstraintSolver<Real>::solve(std::span<const Real> velocities, std::span<const Real> unconstrained,
                                  std::span<Real> acceleration, int iterations, double tolerance) {
  using std::abs;
  const int n = a_->num_velocities;
  const Real zero = scalar(0), k = scalar(reference_stiffness_), b = scalar(reference_damping_);

  // reference accelerations and where the start leaves them
  for (Row& row : rows_) {
    row.edge.stiffness = select(row.active, scalar(1) / row.regulariser, zero);
    row.edge.reference = -b * times(row, velocities) - k * row.impedance * row.distance;
    row.edge.at = times(row, std::span<const Real>(acceleration)) - row.edge.reference;
  }
  for (Contact& c : contacts_) {
    const Vec v = times(c, velocities), now = times(c, std::span<const Real>(acceleration));
    for (int e = 0; e < 4; ++e) {
      c.edges[e].stiffness = select(c.active, scalar(1) / c.regulariser, zero);
      c.edges[e].reference = -b * edge_of(v, c.friction, e) - k * c.impedance * c.distance;
      c.edges[e].at = edge_of(now, c.friction, e) - c.edges[e].reference;
    }
  }

  int iteration = 0;
  for (;; ++iteration) {
    // gradient and, with the springs that press, Hessian
    for (int i = 0; i < n; ++i) difference_[i] = acceleration[i] - unconstrained[i];
    multiply_mass(difference_, gradient_);
    Real inertial = zero;
    for (int i = 0; i < n; ++i) inertial = select(abs(gradient_[i]) > inertial, abs(gradient_[i]), inertial);
    std::fill(hessian_.begin(), hessian_.end(), zero);
    for (int i = 0; i < n; ++i) {
      int entry = a_->row_start[i];
      for (int j = i; j >= 0; j = a_->parent_velocity[j])
        hessian_[static_cast<size_t>(i) * n + j] = dynamics_->mass[entry++];
    }
    for (const Row& row : rows_) {
      const Real stiffness = select(row.edge.at < zero, row.edge.stiffness, zero);
      for (size_t i = 0; i < row.weights.size(); ++i) {
        gradient_[row.first + i] += stiffness * row.edge.at * row.weights[i];
        for (size_t j = 0; j <= i; ++j)
          hessian_[(row.first + i) * n + row.first + j] += stiffness * row.weights[i] * row.weights[j];
      }
    }
    for (const Contact& c : contacts_) {
      Real d[4], g[4];
      for (int e = 0; e < 4; ++e) {
        d[e] = select(c.edges[e].at < zero, c.edges[e].stiffness, zero);
        g[e] = d[e] * c.edges[e].at;
      }
      // the four edges in the contact's frame: force g and weight W, symmetric
      const Real m = c.friction;
      const Vec force = {g[0] + g[1] + g[2] + g[3], m * (g[0] - g[1]), m * (g[2] - g[3])};
      const Vec w_x = {d[0] + d[1] + d[2] + d[3], m * (d[0] - d[1]), m * (d[2] - d[3])};
      const Vec w_y = {w_x.y, m * m * (d[0] + d[1]), zero}, w_z = {w_x.z, zero, m * m * (d[2] + d[3])};
      for (size_t i = 0; i < c.chain.size(); ++i) {
        const Vec& j_i = c.jacobian[i];
        gradient_[c.chain[i]] += dot(j_i, force);
        const Vec weighted = {dot(w_x, j_i), dot(w_y, j_i), dot(w_z, j_i)};
        for (size_t j = i; j < c.chain.size(); ++j)  // the chain falls toward the root
          hessian_[static_cast<size_t>(c.chain[i]) * n + c.chain[j]] += dot(weighted, c.jacobian[j]);
      }
    }
    Real largest = zero;
    for (int i = 0; i < n; ++i) largest = select(abs(gradient_[i]) > largest, abs(gradient_[i]), largest);
    residual_ = largest / select(inertial > scalar(1e-9), inertial, scalar(1));
    if (iteration >= iterations) break;

    // step
    for (int i = 0; i < n; ++i) step_[i] = -gradient_[i];
    solve_hessian(step_);
    multiply_mass(step_, mass_step_);
    Real slope = zero, curvature = zero;
    for (int i = 0; i < n; ++i) slope += difference_[i] * mass_step_[i], curvature += step_[i] * mass_step_[i];
    for (Row& row : rows_) row.edge.along = times(row, std::span<const Real>(step_));
    for (Contact& c : contacts_) {
      const Vec moves = times(c, std::span<const Real>(step_));
      for (int e = 0; e < 4; ++e) c.edges[e].along = edge_of(moves, c.friction, e);
    }
    const Real length = line_search(slope, curvature);
    Real moved = zero, size = scalar(1);
    for (int i = 0; i < n; ++i) {
      const Real change = length * step_[i];
      acceleration[i] += change;
      moved = select(abs(change) > moved, abs(change), moved);
      size = select(abs(acceleration[i]) > size, abs(acceleration[i]), size);
    }
    for_edges([&](Edge& edge) { edge.at += length * edge.along; });
    if (largest_lane(moved / size) <= tolerance) iterations = iteration + 1;  // once more for the residual
  }
  return iteration;
}

template <class Real>
auto ConstraintSolver<Real>::contact_force(int i) const -> Vec {
  const Contact& c = contacts_[i];
  const Real zero = scalar(0);
  Real f[4];
  for (int e = 0; e < 4; ++e) f[e] = select(c.edges[e].at < zero, -c.edges[e].stiffness * c.edges[e].at, zero);
  return {f[0] + f[1] + f[2] + f[3], c.friction * (f[0] - f[1]), c.friction * (f[2] - f[3])};
}

}  // namespace calm
