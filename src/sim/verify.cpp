// Tolerances. Where MuJoCo is the oracle both sides solve one problem with one answer, so only rounding and the
// solver's last step stand between them: 1e-7 in double precision; in single precision 1e-4 for sums of products (mass
// matrix, bias forces) and 1e-3 for what a linear system is solved for. A wrong sign, factor, axis or a forgotten term
// is off by far more in some of the random states. Where a law is the measure, the tolerance is what the time step's
// first order or the soft contacts leave, and each check says so.
//
// Motion with contacts is chaotic: two exact simulators part in a second. So it is compared a substep at a time, MuJoCo
// set to the backend's saved state before each.
#include "sim/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>

#include "base/error.h"
#include "base/rng.h"
#include "sim/lane_simulator.h"
#include "sim/mujoco_oracle.h"

namespace calm {

namespace {

constexpr double kGravity = 9.81;  // m/s²
constexpr int kFreeDofs = 6;
constexpr int kSampleEnvs = 16, kSampleRounds = 12;

struct Tolerances {
  double sums;      // mass matrix, bias forces
  double solved;    // accelerations, motions
  double rounding;  // a length over the character's that a contact may be off by and still have the same depth
};
// MuJoCo as a backend stops at its own tolerance of 1e-6, of the cost's improvement: a residual of 1e-4.
constexpr Tolerances kDouble = {1e-7, 1e-7, 1e-9}, kSingle = {1e-4, 1e-3, 1e-5}, kMujoco = {1e-7, 1e-3, 1e-9};

// Largest difference over largest size.
struct RelativeError {
  double difference = 0.0, size = 0.0;
  void add(double got, double expected) {
    const double off = std::abs(got - expected);
    difference = off <= difference ? difference : off;  // takes NaN
    size = std::max(size, std::abs(expected));
  }
  double value() const { return difference / std::max(size, std::numeric_limits<double>::min()); }
};

double larger(double a, double b) { return b <= a ? a : b; }  // NaN stays

// A state as a simulator is set to it.
struct Pose {
  RootState root;
  std::vector<float> dof_pos, dof_vel;
};

// What the backend computed in a random state; its contacts in the oracle's terms.
struct Sample {
  std::vector<double> saved;
  std::vector<float> targets;
  Inspection inspection;
  std::vector<OracleContact> contacts;
};

// How two contact lists of one state differ.
struct ContactDifference {
  int contacts = 0, missing = 0;     // of pairs that both sides solve exactly; in one list only
  double point = 0.0, normal = 0.0;  // m; -
  int loose = 0, loose_apart = 0;    // pairs that MuJoCo searches for; that only one side has touching
  std::vector<double> loose_depths;  // deepest, ours over MuJoCo's
  bool same = true;                  // as lists: MuJoCo's own may stand for the backend's
};

class Verifier {
 public:
  Verifier(const Character& character, const std::string& backend, uint64_t seed, ThreadPool& pool)
      : character_(character),
        backend_(backend),
        seed_(seed),
        pool_(pool),
        length_(std::max(character.stand_height, 0.05f)),
        tolerances_(backend == "scalar"   ? kDouble
                    : backend == "mujoco" ? kMujoco
                                          : kSingle) {
    physics_.solver_iterations = 100;  // to the end, as the oracle's
  }

  std::vector<Check> run() {
    take_samples();
    if (!samples_.empty()) {
      mass_matrix();
      bias_forces();
      unconstrained_acceleration();
      contacts();
      acceleration_at_optimum();
    }
    trajectory_in_the_air();
    trajectory_with_limits();
    trajectory_on_the_floor();
    drives();
    weight_on_the_floor();
    passive_in_the_air();
    sliding();
    stacked();
    struck();
    independence();
    save_and_restore();
    return checks_;
  }

 private:
  void add(const std::string& name, double error, double tolerance, const std::string& note) {
    const bool ok = error <= tolerance;
    if (!std::isfinite(error)) error = 1e30;  // JSON has no infinity
    checks_.push_back({name, error, tolerance, ok, note});
  }

  Rng rng(uint64_t stream) const { return Rng(seed_, stream); }

  std::unique_ptr<Simulator> make(const Character& character, const PhysicsSettings& physics, int envs,
                                  const std::vector<Prop>& props = {}) const {
    return make_simulator(backend_, character, physics, envs, pool_, props);
  }
  // A substep is a control step.
  PhysicsSettings by_substeps() const {
    PhysicsSettings physics = physics_;
    physics.control_rate *= static_cast<float>(physics.substeps), physics.substeps = 1;
    return physics;
  }
  std::vector<float> default_targets(int envs) const {
    std::vector<float> targets;
    for (int e = 0; e < envs; ++e)
      targets.insert(targets.end(), character_.default_dof_pos.begin(), character_.default_dof_pos.end());
    return targets;
  }
  RootState standing_at(float x, float height) const {
    RootState root = default_state(character_).root();
    root.pos = {x, 0.0f, height};
    return root;
  }

  // Joints anywhere in their range, and `beyond` outside of it; nothing further than two radians.
  std::pair<float, float> range(int dof, float beyond) const {
    const float lower = std::clamp(character_.limit_lower[dof], -2.0f, 2.0f) - beyond;
    const float upper = std::clamp(character_.limit_upper[dof], -2.0f, 2.0f) + beyond;
    const float middle = 0.5f * (lower + upper);
    return {std::min(lower, middle), std::max(upper, middle)};
  }
  Pose random_pose(Rng& r, float lowest, float highest, float beyond, float speed) const {
    Pose pose;
    for (int k = 0; k < 3; ++k) {
      pose.root.pos[k] = length_ * r.uniform(-1.0f, 1.0f);
      pose.root.vel[k] = speed * r.uniform(-3.0f, 3.0f), pose.root.ang_vel[k] = speed * r.uniform(-5.0f, 5.0f);
    }
    pose.root.pos.z() = length_ * r.uniform(lowest, highest);
    pose.root.rot = Quat(r.normal(), r.normal(), r.normal(), r.normal()).normalized();
    for (int d = 0; d < character_.num_dofs; ++d) {
      const auto [lower, upper] = range(d, beyond);
      pose.dof_pos.push_back(r.uniform(lower, upper));
      pose.dof_vel.push_back(speed * r.uniform(-5.0f, 5.0f));
    }
    return pose;
  }
  std::vector<float> random_targets(Rng& r, float beyond) const {
    std::vector<float> targets;
    for (int d = 0; d < character_.num_dofs; ++d) {
      const auto [lower, upper] = range(d, beyond);
      targets.push_back(r.uniform(lower, upper));
    }
    return targets;
  }

  std::optional<Inspection> inspect(Simulator& simulator, int env, std::span<const float> targets) const;
  std::vector<OracleContact> in_oracle_terms(const Inspection& inspection, const Simulator& simulator,
                                             const MujocoOracle& oracle) const;
  bool is_loose(const MujocoOracle& oracle, int first, int second) const;
  ContactDifference compare(const MujocoOracle& oracle, const std::vector<OracleContact>& ours,
                            const std::vector<OracleContact>& theirs) const;
  double follow(Simulator& simulator, MujocoOracle& oracle, std::span<const float> targets, int env, int steps,
                bool again_and_again, RelativeError* forces);

  void take_samples();
  void mass_matrix();
  void bias_forces();
  void unconstrained_acceleration();
  void contacts();
  void acceleration_at_optimum();
  void trajectory_in_the_air();
  void trajectory_with_limits();
  void trajectory_on_the_floor();
  void drives();
  void weight_on_the_floor();
  void passive_in_the_air();
  void sliding();
  void stacked();
  void struck();
  void independence();
  void save_and_restore();

  const Character& character_;
  std::string backend_;
  uint64_t seed_;
  ThreadPool& pool_;
  float length_;  // m, of the character
  Tolerances tolerances_;
  PhysicsSettings physics_;
  std::vector<Check> checks_;
  std::vector<Prop> sample_props_;
  std::unique_ptr<MujocoOracle> sample_oracle_;
  std::vector<Sample> samples_;  // empty where the backend does not show its quantities
};

// ---- what the backend computes in random states ----

std::optional<Inspection> Verifier::inspect(Simulator& simulator, int env, std::span<const float> targets) const {
  if (auto* lanes = dynamic_cast<LaneSimulator<float>*>(&simulator)) return lanes->inspect(env, targets);
  if (auto* lanes = dynamic_cast<LaneSimulator<double>*>(&simulator)) return lanes->inspect(env, targets);
  return std::nullopt;
}

std::vector<OracleContact> Verifier::in_oracle_terms(const Inspection& inspection, const Simulator& simulator,
                                                     const MujocoOracle& oracle) const {
  const auto geom = [&](int row) {
    if (row < 0) return 0;
    if (const auto* lanes = dynamic_cast<const LaneSimulator<float>*>(&simulator))
      return oracle.geom_of(lanes->model().shapes[row].shape);
    return oracle.geom_of(dynamic_cast<const LaneSimulator<double>&>(simulator).model().shapes[row].shape);
  };
  std::vector<OracleContact> out;
  for (const Inspection::Contact& c : inspection.contacts) {
    OracleContact contact;
    contact.first = geom(c.shape_a), contact.second = geom(c.shape_b), contact.distance = c.distance;
    contact.point = Eigen::Map<const Eigen::Vector3d>(c.point);
    contact.normal = Eigen::Map<const Eigen::Vector3d>(c.normal).normalized();
    contact.tangent = Eigen::Map<const Eigen::Vector3d>(c.tangent).normalized();
    if (contact.first > contact.second) std::swap(contact.first, contact.second), contact.normal *= -1.0;
    out.push_back(contact);
  }
  return out;
}

// Near and on the floor, folded up, beyond limits, with a ball and a capsule in the way.
void Verifier::take_samples() {
  sample_props_ = {{.name = "calm verify ball", .kind = ShapeKind::kSphere, .size = Vec3(0.2f * length_, 0, 0)},
                   {.name = "calm verify rod",
                    .kind = ShapeKind::kCapsule,
                    .size = Vec3(0.1f * length_, 0.3f * length_, 0),
                    .mass = 0.3f,
                    .friction = 0.5f}};
  const auto simulator = make(character_, physics_, kSampleEnvs, sample_props_);
  sample_oracle_ = std::make_unique<MujocoOracle>(character_, sample_props_, physics_);
  Rng r = rng(1);
  for (int round = 0; round < kSampleRounds; ++round)
    for (int e = 0; e < kSampleEnvs; ++e) {
      const Pose pose = random_pose(r, 0.1f, 1.2f, 0.3f, 1.0f);
      simulator->set_state(e, pose.root, pose.dof_pos, pose.dof_vel);
      for (int p = 0; p < 2; ++p) {
        RootState prop = random_pose(r, 0.1f, 1.2f, 0.0f, 1.0f).root;
        prop.pos.head<2>() = pose.root.pos.head<2>() + 0.5f * prop.pos.head<2>();
        simulator->set_prop(e, p, prop);
      }
      Sample sample{.saved = simulator->save(e), .targets = random_targets(r, 0.5f), .inspection = {}, .contacts = {}};
      auto inspection = inspect(*simulator, e, sample.targets);
      if (!inspection) return;
      sample.contacts = in_oracle_terms(*inspection, *simulator, *sample_oracle_);
      sample.inspection = std::move(*inspection);
      samples_.push_back(std::move(sample));
    }
}

void Verifier::mass_matrix() {
  RelativeError error;
  for (const Sample& s : samples_) {
    sample_oracle_->set(s.saved);
    sample_oracle_->forward(s.targets);
    const Eigen::MatrixXd mass = sample_oracle_->mass_matrix();
    for (Eigen::Index i = 0; i < mass.size(); ++i) error.add(s.inspection.mass[i], mass.data()[i]);
  }
  add("mass_matrix", error.value(), tolerances_.sums,
      fmt::format("{} random states, drives included; largest entry", samples_.size()));
}

void Verifier::bias_forces() {
  double worst = 0.0;
  for (const Sample& s : samples_) {
    sample_oracle_->set(s.saved);
    sample_oracle_->forward(s.targets);
    RelativeError error;
    for (int i = 0; i < sample_oracle_->nv(); ++i) error.add(s.inspection.bias[i], sample_oracle_->data().qfrc_bias[i]);
    worst = larger(worst, error.value());
  }
  add("bias_forces", worst, tolerances_.sums, "gravity, Coriolis and centrifugal forces in the same states");
}

void Verifier::unconstrained_acceleration() {
  double worst = 0.0;
  for (const Sample& s : samples_) {
    sample_oracle_->set(s.saved);
    sample_oracle_->forward(s.targets);
    RelativeError error;
    for (int i = 0; i < sample_oracle_->nv(); ++i)
      error.add(s.inspection.unconstrained[i], sample_oracle_->data().qacc_smooth[i]);
    worst = larger(worst, error.value());
  }
  add("unconstrained_acceleration", worst, tolerances_.solved, "without contacts and limits, under random targets");
}

// Pairs that have no one agreed answer. MuJoCo finds what a cylinder touches, the floor excepted, by an iterative
// search for a portal, whose normal and depth depend on where it starts and whose points are of its own choice; between
// boxes, and between a capsule and a box, its closed forms choose points and, at faces, depths that are a convention.
// Of the rest, a sphere whose centre is in a box, and capsules so nearly parallel that their nearest points hang on the
// last digit.
bool Verifier::is_loose(const MujocoOracle& oracle, int first, int second) const {
  const mjModel& m = oracle.model();
  const mjData& d = oracle.data();
  int a = m.geom_type[first], b = m.geom_type[second];
  if (a == mjGEOM_PLANE) return false;
  if (a == mjGEOM_CYLINDER || b == mjGEOM_CYLINDER) return true;
  if (a > b) std::swap(a, b), std::swap(first, second);
  const auto pos = [&](int g) { return Eigen::Map<const Eigen::Vector3d>(d.geom_xpos + 3 * g); };
  const auto rot = [&](int g) {
    return Eigen::Map<const Eigen::Matrix<double, 3, 3, Eigen::RowMajor>>(d.geom_xmat + 9 * g);
  };
  if (b == mjGEOM_BOX) {
    if (a != mjGEOM_SPHERE) return true;
    const Eigen::Vector3d local = rot(second).transpose() * (pos(first) - pos(second));
    const Eigen::Map<const Eigen::Vector3d> half(m.geom_size + 3 * second);
    return ((half - local.cwiseAbs()).array() > -1e-3 * length_).all();
  }
  if (a == mjGEOM_CAPSULE && b == mjGEOM_CAPSULE)
    return rot(first).col(2).cross(rot(second).col(2)).squaredNorm() < 1e-3;
  return false;
}

ContactDifference Verifier::compare(const MujocoOracle& oracle, const std::vector<OracleContact>& ours,
                                    const std::vector<OracleContact>& theirs) const {
  using Pair = std::pair<int, int>;
  std::map<Pair, std::pair<std::vector<OracleContact>, std::vector<OracleContact>>> pairs;
  for (const OracleContact& c : ours) pairs[{c.first, c.second}].first.push_back(c);
  for (const OracleContact& c : theirs) pairs[{c.first, c.second}].second.push_back(c);

  ContactDifference out;
  const double barely = tolerances_.rounding * length_;
  for (auto& [pair, lists] : pairs) {
    auto& [mine, other] = lists;
    if (is_loose(oracle, pair.first, pair.second)) {
      const auto deepest = [](const std::vector<OracleContact>& list) {
        double depth = 0.0;
        for (const OracleContact& c : list) depth = std::max(depth, -c.distance);
        return depth;
      };
      const double depth = deepest(mine), reference = deepest(other), slack = 0.01 * length_;
      ++out.loose;
      if ((mine.empty() && reference > slack) || (other.empty() && depth > slack)) ++out.loose_apart;
      // deep inside a box MuJoCo's depth is a shape's radius: only shallow ones can be compared
      if (!mine.empty() && !other.empty() && depth < 0.03 * length_)
        out.loose_depths.push_back((depth + slack) / (reference + slack));
      out.same = out.same && mine.size() == other.size() && std::ranges::all_of(mine, [&](const OracleContact& c) {
                   return std::ranges::any_of(other, [&](const OracleContact& o) {
                     return (o.point - c.point).norm() < barely && (o.normal - c.normal).norm() < 1e-6 &&
                            std::abs(o.distance - c.distance) < barely;
                   });
                 });
      continue;
    }
    // where an upright cylinder stands on its rim hangs on the last digit; that it stands, and how deep, does not
    const mjtNum* axes = oracle.data().geom_xmat + 9 * pair.second;
    const bool any_rim_point = pair.first == 0 && oracle.model().geom_type[pair.second] == mjGEOM_CYLINDER &&
                               std::hypot(axes[2], axes[5]) < 1e-3;
    // each of ours takes the nearest of MuJoCo's that is left
    out.contacts += static_cast<int>(std::max(mine.size(), other.size()));
    for (const OracleContact& c : mine) {
      const auto nearest = std::ranges::min_element(
          other, {}, [&](const OracleContact& o) { return (o.point - c.point).squaredNorm(); });
      if (nearest == other.end()) {
        if (c.distance < -barely) ++out.missing;
        out.same = false;
        continue;
      }
      out.point = larger(out.point, std::abs(nearest->distance - c.distance));
      if (!any_rim_point) out.point = larger(out.point, (nearest->point - c.point).norm());
      out.normal = larger(out.normal, (nearest->normal - c.normal).norm());
      other.erase(nearest);
    }
    for (const OracleContact& o : other) {
      if (o.distance < -barely) ++out.missing;
      out.same = false;
    }
  }
  return out;
}

void Verifier::contacts() {
  int total = 0, missing = 0, loose = 0, apart = 0, differing = 0;
  double point = 0.0, normal = 0.0;
  std::vector<double> depths;
  for (const Sample& s : samples_) {
    sample_oracle_->set(s.saved);
    sample_oracle_->forward(s.targets);
    const ContactDifference d = compare(*sample_oracle_, s.contacts, sample_oracle_->contacts());
    total += d.contacts, missing += d.missing, loose += d.loose, apart += d.loose_apart, differing += !d.same;
    point = larger(point, d.point), normal = larger(normal, d.normal);
    depths.insert(depths.end(), d.loose_depths.begin(), d.loose_depths.end());
  }
  // not one may be missing: what rounding may hide is left out already
  add("contact_list", total > 0 ? static_cast<double>(missing) / total : 1.0, 0.0,
      fmt::format("share of {} contacts that one side lacks; lists differ in {} of {} states", total, differing,
                  samples_.size()));
  // lengths over the character's. A normal is a difference of points over their distance, which can be small: the
  // square root of what the points may be off by
  add("contact_points", point / length_, tolerances_.solved, "positions and depths, of the character's height");
  add("contact_normals", normal, std::sqrt(tolerances_.sums), "angle, rad");
  if (loose == 0) return;
  // see is_loose: touching must agree but for grazing pairs, of which MuJoCo's search misses some
  add("contact_touching", static_cast<double>(apart) / loose, 0.05,
      fmt::format("share of {} pairs that MuJoCo searches for (cylinders, boxes) where only one side finds a contact "
                  "deeper than a hundredth of the character",
                  loose));
  // the median must be near; MuJoCo's half depths at faces and its search's are within a factor of two
  if (depths.empty()) return;
  std::ranges::nth_element(depths, depths.begin() + static_cast<long>(depths.size() / 2));
  add("contact_depth", std::abs(std::log2(depths[depths.size() / 2])), 1.0,
      "median deepest depth of such pairs over MuJoCo's, in powers of two");
}

// In every state: under MuJoCo's own contacts where the lists are the same to rounding, else under the backend's, so
// that pairs without an agreed answer are solved for too.
void Verifier::acceleration_at_optimum() {
  double worst = 0.0;
  int own = 0, contacts = 0;
  for (const Sample& s : samples_) {
    sample_oracle_->set(s.saved);
    sample_oracle_->forward(s.targets);
    if (compare(*sample_oracle_, s.contacts, sample_oracle_->contacts()).same)
      ++own;
    else
      sample_oracle_->forward(s.targets, &s.contacts);
    contacts += sample_oracle_->data().ncon;
    RelativeError error;
    for (int i = 0; i < sample_oracle_->nv(); ++i)
      error.add(s.inspection.acceleration[i], sample_oracle_->data().qacc[i]);
    worst = larger(worst, error.value());
  }
  add("acceleration_at_optimum", worst, tolerances_.solved,
      fmt::format("{:.1f} contacts a state; in {} of {} states MuJoCo found them itself",
                  static_cast<double>(contacts) / static_cast<double>(samples_.size()), own, samples_.size()));
}

// ---- motion beside MuJoCo's ----

// Steps both. again_and_again: MuJoCo starts each substep from the backend's state, and what is compared is the change
// of velocities; else it goes its own way from the first, and positions and velocities are. Returns the worst error.
double Verifier::follow(Simulator& simulator, MujocoOracle& oracle, std::span<const float> targets, int env, int steps,
                        bool again_and_again, RelativeError* forces) {
  const int nq = oracle.nq(), nv = oracle.nv(), dofs = character_.num_dofs;
  const auto own = targets.subspan(static_cast<size_t>(env) * dofs, dofs);
  const double h = oracle.model().opt.timestep;
  double worst = 0.0;
  oracle.set(simulator.save(env));
  for (int step = 0; step < steps; ++step) {
    const std::vector<double> before = simulator.save(env);
    if (again_and_again) oracle.set(before);
    oracle.forward(own);
    // at rest contacts are less deep than the millimetre over which they stiffen, so that single precision in a depth
    // shows in the acceleration: where the lists are the same to rounding, both are given the backend's
    if (const auto inspection = again_and_again ? inspect(simulator, env, own) : std::nullopt) {
      const auto contacts = in_oracle_terms(*inspection, simulator, oracle);
      const ContactDifference off = compare(oracle, contacts, oracle.contacts());
      worst = larger(larger(worst, off.point / length_), off.missing);
      oracle.forward(own, &contacts);
    }
    const std::vector<double> expected_force = oracle.contact_forces();
    oracle.integrate();
    simulator.step(targets);

    const std::vector<double> after = simulator.save(env);
    RelativeError velocity, position;
    if (again_and_again) {
      // a body at rest hardly changes: measured by what contacts and limits hold back
      velocity.size = kGravity * h;
      for (int i = 0; i < nv; ++i) velocity.size = std::max(velocity.size, h * std::abs(oracle.data().qacc_smooth[i]));
      for (int i = 0; i < nv; ++i) velocity.add(after[nq + i] - before[nq + i], oracle.data().qvel[i] - before[nq + i]);
    } else {
      velocity.size = 1.0;
      for (int i = 0; i < nv; ++i) velocity.add(after[nq + i], oracle.data().qvel[i]);
    }
    position.size = 1.0;
    for (int i = 0; i < nq; ++i) position.add(after[i], oracle.data().qpos[i]);
    worst = larger(larger(worst, velocity.value()), position.value());
    if (forces == nullptr) continue;
    for (int b = 0; b < character_.num_bodies(); ++b)
      for (int k = 0; k < 3; ++k)
        forces->add(simulator.state().contact_force[(static_cast<size_t>(env) * character_.num_bodies() + b) * 3 + k],
                    expected_force[3 * b + k]);
  }
  return worst;
}

// A second from random states far from the floor, bodies that do not touch each other, each side on its own.
void Verifier::trajectory_in_the_air() {
  PhysicsSettings physics = by_substeps();
  physics.self_collision = false;
  const int steps = static_cast<int>(std::lround(physics.control_rate));
  double worst = 0.0;
  Rng r = rng(2);
  for (int run = 0; run < 3; ++run) {
    const auto simulator = make(character_, physics, 1);
    MujocoOracle oracle(character_, {}, physics);
    const Pose pose = random_pose(r, 20.0f, 21.0f, -0.2f, 0.3f);
    RootState root = pose.root;
    root.pos.z() += 10.0f;
    simulator->set_state(0, root, pose.dof_pos, pose.dof_vel);
    worst = larger(worst, follow(*simulator, oracle, random_targets(r, -0.3f), 0, steps, false, nullptr));
  }
  // errors of a substep feed on themselves for a second; ten times what one may have
  add("trajectory_in_the_air", worst, 10.0 * tolerances_.solved, "positions and velocities over a second, 3 runs");
}

// Driven a radian beyond every limit.
void Verifier::trajectory_with_limits() {
  PhysicsSettings physics = by_substeps();
  physics.self_collision = false;
  const int steps = static_cast<int>(std::lround(physics.control_rate));
  const auto simulator = make(character_, physics, 1);
  MujocoOracle oracle(character_, {}, physics);
  double worst = 0.0;
  for (const bool high : {false, true}) {
    const std::vector<float>& limits = high ? character_.limit_upper : character_.limit_lower;
    std::vector<float> targets(character_.num_dofs);
    for (int d = 0; d < character_.num_dofs; ++d)
      targets[d] = std::clamp(limits[d], -2.0f, 2.0f) + (high ? 1.0f : -1.0f);
    RootState root = standing_at(0.0f, 20.0f + 20.0f * length_);
    root.ang_vel = {0.3f, 0.2f, -0.1f};
    const CharacterState pose = default_state(character_);
    simulator->set_state(0, root, pose.dof_pos, pose.dof_vel);
    worst = larger(worst, follow(*simulator, oracle, targets, 0, steps, true, nullptr));
  }
  add("trajectory_with_limits", worst, tolerances_.solved,
      "change of velocity in each substep of a second, driven into lower and upper limits");
}

// From a random fall to lying, its bodies in each other's way.
void Verifier::trajectory_on_the_floor() {
  const PhysicsSettings physics = by_substeps();
  const int steps = static_cast<int>(std::lround(physics.control_rate));
  double worst = 0.0;
  RelativeError forces;
  Rng r = rng(4);
  for (int run = 0; run < 3; ++run) {
    const auto simulator = make(character_, physics, 1);
    MujocoOracle oracle(character_, {}, physics);
    Pose pose = random_pose(r, 1.0f, 1.2f, -0.1f, 0.2f);
    if (run == 0) pose.root = standing_at(0.0f, length_), pose.dof_pos = character_.default_dof_pos;
    simulator->set_state(0, pose.root, pose.dof_pos, pose.dof_vel);
    worst = larger(worst, follow(*simulator, oracle, run == 0 ? character_.default_dof_pos : random_targets(r, -0.1f),
                                 0, steps, true, &forces));
  }
  add("trajectory_on_the_floor", worst, tolerances_.solved,
      "change of velocity in each substep of a second, upright once and falling twice");
  // the views are single precision
  add("contact_forces", forces.value(), std::max(tolerances_.solved, 1e-6), "on each body in those substeps");
}

// ---- laws ----

// One substep in the air, inside the limits, against the drives' definition solved densely:
// (M + h kd + h² kp) (v' - v) = h (kp (target - q) - (kd + h kp) v - bias).
void Verifier::drives() {
  PhysicsSettings physics = by_substeps();
  physics.self_collision = false, physics.max_ang_vel = 1e5f;
  const auto simulator = make(character_, physics, kSampleEnvs);
  MujocoOracle oracle(character_, {}, physics);
  const double h = oracle.model().opt.timestep;
  Rng r = rng(5);
  std::vector<float> targets;
  std::vector<std::vector<double>> before;
  for (int e = 0; e < kSampleEnvs; ++e) {
    Pose pose = random_pose(r, 20.0f, 21.0f, -0.05f, 0.5f);
    // a cone bounds a ball joint's whole turn
    for (const Joint& joint : character_.joints)
      if (joint.kind == JointKind::kBall && joint.cone_limit > 0.0f) {
        Vec3Map map(&pose.dof_pos[joint.dof]);
        map *= std::min(1.0f, 0.9f * joint.cone_limit / std::max(map.norm(), 1e-6f));
      }
    pose.root.pos.z() += 10.0f;
    simulator->set_state(e, pose.root, pose.dof_pos, pose.dof_vel);
    const auto own = random_targets(r, 0.5f);
    targets.insert(targets.end(), own.begin(), own.end());
    before.push_back(simulator->save(e));
  }
  simulator->step(targets);

  double worst = 0.0;
  for (int e = 0; e < kSampleEnvs; ++e) {
    oracle.set(before[e]);
    const std::vector<double> q = oracle.dof_pos();
    auto [mass, force] = [&] {
      const MujocoOracle::Plain plain = oracle.plain();
      return std::pair(plain.mass, Eigen::VectorXd(-plain.bias));
    }();
    for (int d = 0; d < character_.num_dofs; ++d) {
      const double kp = character_.kp[d], kd = character_.kd[d], v = oracle.data().qvel[kFreeDofs + d];
      mass(kFreeDofs + d, kFreeDofs + d) += h * kd + h * h * kp;
      force[kFreeDofs + d] +=
          kp * (targets[static_cast<size_t>(e) * character_.num_dofs + d] - q[d]) - (kd + h * kp) * v;
    }
    Eigen::VectorXd change = h * force;
    mju_cholFactor(mass.data(), oracle.nv(), 0.0);
    mju_cholSolve(change.data(), mass.data(), change.data(), oracle.nv());
    const std::vector<double> after = simulator->save(e);
    RelativeError error;
    error.size = kGravity * h;
    for (int i = 0; i < oracle.nv(); ++i) error.add(after[oracle.nq() + i] - before[e][oracle.nq() + i], change[i]);
    worst = larger(worst, error.value());
  }
  add("drives", worst, tolerances_.solved, "change of velocity in a substep against the implicit drives' definition");
}

// Dropped askew from standing height and left alone; what the floor bears, once all lies or stands still, is the
// weight. Askew, or a character might balance on end until rounding topples it while it is weighed.
void Verifier::weight_on_the_floor() {
  const PhysicsSettings physics = by_substeps();
  constexpr int kSettle = 6, kMost = 20, kMean = 2;  // s
  constexpr float kStill = 0.02f;                    // m/s
  // joints that nothing damps would swing on for minutes
  Character damped = character_;
  for (float& kd : damped.kd)
    kd = std::max(kd, static_cast<float>(0.02 * kGravity) * character_.total_mass() * length_);
  const auto simulator = make(damped, physics, 1);
  const CharacterState pose = default_state(character_);
  RootState root = standing_at(0.0f, 1.1f * length_);
  root.rot = quat_from_exp_map({0.2f, 0.3f, 0.0f}) * root.rot;
  simulator->set_state(0, root, pose.dof_pos, pose.dof_vel);
  const auto targets = default_targets(1);
  const int rate = static_cast<int>(std::lround(physics.control_rate));
  int settled = 0;
  const auto moves = [&] {
    const std::vector<float>& v = simulator->state().body_vel;
    return std::ranges::any_of(v, [](float x) { return std::abs(x) > kStill; });
  };
  for (; settled < kSettle * rate || (settled < kMost * rate && moves()); ++settled) simulator->step(targets);
  double sum = 0.0;
  for (int i = 0; i < kMean * rate; ++i) {
    simulator->step(targets);
    for (int b = 0; b < character_.num_bodies(); ++b) sum += simulator->state().contact_force[3 * b + 2];
  }
  const double weight = kGravity * character_.total_mass();
  add("weight_on_the_floor", std::abs(sum / (kMean * rate) - weight) / weight, 1e-3,
      fmt::format("mean of {} s, {} s after it was dropped, weight {:.1f} N", kMean, settled / rate, weight));
}

// No drives, no limits, no contact, ten seconds. Semi-implicit Euler keeps none of these exactly: its error is in
// proportion to the substep, here a sixth of a millisecond, and to how fast the joints turn (up to half a percent), and
// single precision adds what is left of the weight's torques when they cancel; a forgotten gyroscopic term costs tens
// of percent.
void Verifier::passive_in_the_air() {
  Character passive = character_;
  for (int d = 0; d < passive.num_dofs; ++d) {
    passive.kp[d] = passive.kd[d] = 0.0f;
    passive.limit_lower[d] = -1e3f, passive.limit_upper[d] = 1e3f;
  }
  for (Joint& joint : passive.joints) {
    joint.cone_limit = 0.0f;
    // the rotor of a ball joint keeps its energy only if it is the same about all axes
    if (joint.kind == JointKind::kBall)
      for (int k = 1; k < 3; ++k) passive.armature[joint.dof + k] = passive.armature[joint.dof];
  }
  PhysicsSettings physics = physics_;
  physics.self_collision = false, physics.substeps = 200, physics.max_ang_vel = 1e5f;
  constexpr int kSeconds = 10;
  const auto simulator = make(passive, physics, 1);
  MujocoOracle oracle(passive, {}, physics);
  Rng r = rng(6);
  Pose pose = random_pose(r, 20.0f, 21.0f, -0.2f, 0.2f);
  pose.root.pos.z() += 1000.0f;
  simulator->set_state(0, pose.root, pose.dof_pos, pose.dof_vel);

  const auto measure = [&] {
    oracle.set(simulator->save(0));
    return oracle.plain();
  };
  // of the motion about the centre of mass
  const auto inner = [](const MujocoOracle::Plain& p) {
    return p.kinetic - 0.5 * p.momentum.squaredNorm() / p.total_mass;
  };
  const MujocoOracle::Plain start = measure();
  const double mass = start.total_mass;
  const auto targets = default_targets(1);
  double momentum = 0.0, spin = 0.0, energy = 0.0;
  for (int second = 1; second <= kSeconds; ++second) {
    for (int i = 0; i < static_cast<int>(physics.control_rate); ++i) simulator->step(targets);
    const MujocoOracle::Plain now = measure();
    const Eigen::Vector3d fallen(0, 0, -kGravity * mass * second);
    momentum = larger(momentum, (now.momentum - start.momentum - fallen).norm() / (kGravity * mass * second));
    spin = larger(spin, (now.spin - start.spin).norm() / start.spin.norm());
    energy = larger(energy, std::abs(inner(now) - inner(start)) / inner(start));
  }
  const std::string note =
      fmt::format("passive, {} s in the air, substeps of {:.2f} ms", kSeconds, 1e3 * oracle.model().opt.timestep);
  add("momentum", momentum, 1e-3, note);
  add("angular_momentum", spin, 0.02, "about the centre of mass; " + note);
  add("energy", energy, 0.02, "of the motion about the centre of mass; " + note);
}

// A box on the floor beside the character, pushed: v² / (2 mu g). Along an axis of the friction pyramid, which is where
// a pyramid is as wide as the cone. 1 %: a soft contact creeps at the end, and a substep is 8 ms of the way.
void Verifier::sliding() {
  constexpr float kFriction = 0.3f, kSpeed = 2.5f, kHalf = 0.15f;
  PhysicsSettings physics = by_substeps();
  physics.floor_friction = kFriction;
  const float away = 3.0f + 5.0f * length_;
  const std::vector<Prop> props = {{.name = "calm verify box",
                                    .kind = ShapeKind::kBox,
                                    .size = Vec3(kHalf, kHalf, 0.2f * kHalf),
                                    .mass = 2.0f,
                                    .friction = kFriction,
                                    .pos = Vec3(away, 0, 0.2f * kHalf)}};
  const auto simulator = make(character_, physics, 1, props);
  const auto targets = default_targets(1);
  for (int i = 0; i < 60; ++i) simulator->step(targets);
  const BatchState& s = simulator->state();
  RootState box{.pos = ConstVec3Map(s.prop_pos.data()), .rot = Quat(ConstQuatMap(s.prop_rot.data()))};
  box.vel = {kSpeed, 0.0f, 0.0f};
  simulator->set_prop(0, 0, box);
  const double stop = kSpeed / (kFriction * kGravity);
  for (int i = 0; i < static_cast<int>(1.2 * stop * physics.control_rate); ++i) simulator->step(targets);
  // semi-implicit Euler: the first substep's way is of the velocity after it, half a substep of way less
  const double h = 1.0 / physics.control_rate;
  const double expected = 0.5 * kSpeed * kSpeed / (kFriction * kGravity) - 0.5 * h * kSpeed;
  const double way = s.prop_pos[0] - box.pos.x();
  add("sliding_distance", std::abs(way - expected) / expected, 0.01,
      fmt::format("box, friction {}, {} m/s: {:.4f} m, by the law {:.4f} m", kFriction, kSpeed, way, expected));
}

// A box on a box, three seconds to come to rest and one of rest: each bears what is above it, nothing moves.
void Verifier::stacked() {
  constexpr float kBelow = 0.2f, kAbove = 0.15f;
  constexpr double kMassBelow = 3.0, kMassAbove = 2.0;
  const PhysicsSettings physics = by_substeps();
  const float away = 3.0f + 5.0f * length_;
  const std::vector<Prop> props = {
      {.name = "calm verify lower", .size = Vec3::Constant(kBelow), .mass = kMassBelow, .pos = Vec3(away, 0, kBelow)},
      {.name = "calm verify upper",
       .size = Vec3::Constant(kAbove),
       .mass = kMassAbove,
       .pos = Vec3(away + 0.03f, 0.02f, 2 * kBelow + kAbove + 0.01f)}};
  const auto simulator = make(character_, physics, 1, props);
  const auto targets = default_targets(1);
  const int rate = static_cast<int>(physics.control_rate);
  for (int i = 0; i < 3 * rate; ++i) simulator->step(targets);
  const BatchState& s = simulator->state();
  const std::vector<float> rest = s.prop_pos;
  double sums[2] = {0.0, 0.0}, moved = 0.0;
  for (int i = 0; i < rate; ++i) {
    simulator->step(targets);
    for (int p = 0; p < 2; ++p) sums[p] += s.prop_force[3 * p + 2] / rate;
  }
  for (int i = 0; i < 6; ++i) moved = larger(moved, std::abs(s.prop_pos[i] - rest[i]));
  const double lower = std::abs(sums[0] / (kMassBelow * kGravity) - 1.0);
  const double upper = std::abs(sums[1] / (kMassAbove * kGravity) - 1.0);
  add("stacked_forces", larger(lower, upper), 1e-3, "mean force on each of two boxes over its weight");
  // contacts give: with standard solref and solimp a body at rest is a fraction of a millimetre deep
  const double height = std::abs(rest[5] - (2.0 * kBelow + kAbove));
  add("stacked_rest", larger(moved, height), 2e-3,
      "m; how far they move in a second of rest, and the upper one's height is off");
}

// A ball flies into the character, both in the air: what one loses the other gets, but for gravity.
void Verifier::struck() {
  // the heaviest body that has something to strike
  int target = -1;
  for (const Shape& shape : character_.shapes)
    if (shape.collides && (target < 0 || character_.bodies[shape.body].mass > character_.bodies[target].mass))
      target = shape.body;
  if (target < 0) return;
  const auto shape =
      std::ranges::find_if(character_.shapes, [&](const Shape& s) { return s.collides && s.body == target; });
  PhysicsSettings physics = by_substeps();
  physics.control_rate *= 8, physics.max_ang_vel = 1e5f;
  const std::vector<Prop> props = {{.name = "calm verify ball",
                                    .kind = ShapeKind::kSphere,
                                    .size = Vec3(0.15f * length_, 0, 0),
                                    .mass = 0.2f * character_.total_mass()}};
  const auto simulator = make(character_, physics, 1, props);
  MujocoOracle oracle(character_, props, physics);
  const CharacterState pose = default_state(character_);
  simulator->set_state(0, standing_at(0.0f, 30.0f + 10.0f * length_), pose.dof_pos, pose.dof_vel);
  const BatchState& s = simulator->state();
  const Vec3 at = ConstVec3Map(&s.body_pos[3 * target]) + Quat(ConstQuatMap(&s.body_rot[4 * target])) * shape->pos;
  RootState ball;
  ball.pos = at - Vec3(2.0f * length_, 0.0f, 0.0f);
  ball.vel = Vec3(5.0f * length_, 0.0f, 0.0f);
  simulator->set_prop(0, 0, ball);

  const auto measure = [&] {
    oracle.set(simulator->save(0));
    return oracle.plain();
  };
  const MujocoOracle::Plain start = measure();
  const auto targets = default_targets(1);
  const int steps = static_cast<int>(physics.control_rate);
  bool touched = false;
  for (int i = 0; i < steps; ++i) {
    simulator->step(targets);
    touched = touched || Vec3(ConstVec3Map(s.prop_force.data())).norm() > 0.0f;
  }
  const MujocoOracle::Plain end = measure();
  const double passed = props[0].mass * (Vec3(ConstVec3Map(s.prop_vel.data())).x() - ball.vel.x());
  const Eigen::Vector3d gained = end.momentum - start.momentum;
  // sideways, where gravity has no part. The joints' motion is of first order in the substep as in "momentum": a
  // hundredth of what was passed on. A force that acts on one side only would be all of it.
  const double error = touched ? gained.head<2>().norm() / std::max(std::abs(passed), 1e-9) : 1.0;
  const double pull = kGravity * start.total_mass;  // for a second
  const double down = std::abs(gained.z() + pull) / pull;
  add("struck", larger(error, down), 0.01,
      touched ? fmt::format("momentum of character and ball together; the ball passed on {:.2f} N s", -passed)
              : "the ball passed through");
}

// ---- the seam's promises, to the bit ----

// Environments among others, alone, and in the other order; one of them wild.
void Verifier::independence() {
  constexpr int kEnvs = 19, kSteps = 8, kAlone = 4;  // more than a vector's lanes, no multiple of them
  Rng r = rng(9);
  std::vector<Pose> poses;
  std::vector<std::vector<float>> targets;
  for (int e = 0; e < kEnvs; ++e) {
    poses.push_back(random_pose(r, 0.3f, 1.1f, 0.1f, e == 3 ? 4.0f : 1.0f));
    targets.push_back(random_targets(r, 0.2f));
  }
  const auto run = [&](const std::vector<int>& order) {
    const auto simulator = make(character_, physics_, static_cast<int>(order.size()));
    std::vector<float> all;
    for (size_t i = 0; i < order.size(); ++i) {
      const Pose& pose = poses[order[i]];
      simulator->set_state(static_cast<int>(i), pose.root, pose.dof_pos, pose.dof_vel);
      all.insert(all.end(), targets[order[i]].begin(), targets[order[i]].end());
    }
    for (int step = 0; step < kSteps; ++step) simulator->step(all);
    std::vector<std::vector<double>> saved(kEnvs);
    for (size_t i = 0; i < order.size(); ++i) saved[order[i]] = simulator->save(static_cast<int>(i));
    return saved;
  };
  std::vector<int> forward(kEnvs), backward(kEnvs);
  for (int e = 0; e < kEnvs; ++e) forward[e] = e, backward[e] = kEnvs - 1 - e;
  const auto together = run(forward), reversed = run(backward);
  int differing = 0;
  for (int e = 0; e < kEnvs; ++e) differing += together[e] != reversed[e];
  for (int e = 0; e < kAlone; ++e) differing += run({e})[e] != together[e];
  add("independence", differing, 0.0,
      fmt::format("environments of {} that differ in a bit when alone or in another order", kEnvs));
}

void Verifier::save_and_restore() {
  constexpr int kEnvs = 3, kSteps = 6;
  const auto simulator = make(character_, physics_, kEnvs);
  Rng r = rng(10);
  std::vector<float> targets;
  for (int e = 0; e < kEnvs; ++e) {
    const Pose pose = random_pose(r, 0.3f, 1.1f, 0.1f, 1.0f);
    simulator->set_state(e, pose.root, pose.dof_pos, pose.dof_vel);
    const auto own =
        e == 0 ? random_targets(r, 0.2f) : std::vector<float>(targets.begin(), targets.begin() + character_.num_dofs);
    targets.insert(targets.end(), own.begin(), own.end());
  }
  for (int i = 0; i < kSteps; ++i) simulator->step(targets);
  const std::vector<double> saved = simulator->save(0);
  for (int i = 0; i < kSteps; ++i) simulator->step(targets);
  const std::vector<double> then = simulator->save(0);
  simulator->restore(0, saved), simulator->restore(2, saved);
  for (int i = 0; i < kSteps; ++i) simulator->step(targets);
  const int differing = (simulator->save(0) != then) + (simulator->save(2) != then);
  add("save_and_restore", differing, 0.0, "restored environments, in their place and another, that differ in a bit");
}

}  // namespace

std::vector<Check> verify_simulator(const Character& character, const std::string& backend, uint64_t seed,
                                    ThreadPool& pool) {
  return Verifier(character, backend, seed, pool).run();
}

}  // namespace calm
