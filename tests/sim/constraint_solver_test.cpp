// Accelerations at the optimum against MuJoCo's, with contacts and limits that MuJoCo found.
#include "sim/constraint_solver.h"

#include <gtest/gtest.h>

#include <map>

#include "oracle.h"

namespace calm {
namespace {

template <class Real>
struct Solved {
  std::vector<Real> acceleration;
  Real residual;
  int iterations;
  std::vector<Vec3Of<Real>> forces;        // on the link at each contact, in its frame
  std::vector<const mjContact*> contacts;  // of the first lane; null where it has none
};

// Solves the oracles' states, one a lane; `set` puts a number into a lane.
template <class Real, class Set>
Solved<Real> solve(const Articulation& a, std::vector<std::unique_ptr<FloorOracle>>& oracles, Set set, int iterations,
                   double tolerance) {
  const int nv = a.num_velocities;
  std::vector<Real> positions(a.num_positions), velocities(nv), unconstrained(nv);
  for (size_t lane = 0; lane < oracles.size(); ++lane) {
    for (int i = 0; i < a.num_positions; ++i) set(positions[i], lane, oracles[lane]->data->qpos[i]);
    for (int i = 0; i < nv; ++i) {
      set(velocities[i], lane, oracles[lane]->data->qvel[i]);
      set(unconstrained[i], lane, oracles[lane]->data->qacc_smooth[i]);
    }
  }
  SmoothDynamics<Real> dynamics(a);
  dynamics.forward(positions, velocities, 9.81);
  dynamics.factorise({});
  ConstraintSolver<Real> solver(a, dynamics, 1.0 / 120.0);

  // contacts by body and order within it, a slot for all lanes that have one
  using Slot = std::map<size_t, const mjContact*>;
  std::map<std::pair<int, int>, Slot> contacts;
  std::map<int, std::map<size_t, int>> limits;  // joint and side: row of each lane
  for (size_t lane = 0; lane < oracles.size(); ++lane) {
    const mjModel& m = *oracles[lane]->model;
    const mjData& d = *oracles[lane]->data;
    std::map<int, int> count;
    for (int c = 0; c < d.ncon; ++c) {
      const int body = m.geom_bodyid[d.contact[c].geom2] - 1;
      contacts[{body, count[body]++}][lane] = &d.contact[c];
    }
    for (int row = 0; row < d.nefc; ++row)
      if (d.efc_type[row] == mjCNSTR_LIMIT_JOINT) {
        const int dof = m.jnt_dofadr[d.efc_id[row]];
        limits[2 * d.efc_id[row] + (d.efc_J[row * nv + dof] < 0.0)][lane] = row;
      }
  }
  const Real zero(0.0f);
  for (const auto& [key, slot] : contacts) {
    Vec3Of<Real> point{zero, zero, zero}, frame[3] = {point, point, point};
    Real distance = zero, active = zero;
    double friction = 0.0;
    for (const auto& [lane, contact] : slot) {
      const mjData& d = *oracles[lane]->data;
      Real* to[3] = {&point.x, &point.y, &point.z};
      for (int k = 0; k < 3; ++k) {
        set(*to[k], lane, contact->pos[k] - d.qpos[k]);
        Real* row[3] = {&frame[k].x, &frame[k].y, &frame[k].z};
        for (int l = 0; l < 3; ++l) set(*row[l], lane, contact->frame[3 * k + l]);
      }
      set(distance, lane, contact->dist), set(active, lane, 1.0);
      friction = contact->friction[0];
    }
    solver.add_floor_contact(a.link_velocity[a.body_link[key.first]], point, frame, distance, friction,
                             oracles[0]->model->body_invweight0[2 * (key.first + 1)], active > zero);
  }
  for (const auto& [key, rows] : limits) {
    const mjModel& m = *oracles[0]->model;
    const int joint = key / 2, dof = m.jnt_dofadr[joint], dofs = m.jnt_type[joint] == mjJNT_BALL ? 3 : 1;
    std::vector<Real> weights(dofs, zero);
    Real distance = zero, active = zero;
    for (const auto& [lane, row] : rows) {
      for (int k = 0; k < dofs; ++k) set(weights[k], lane, oracles[lane]->data->efc_J[row * nv + dof + k]);
      set(distance, lane, oracles[lane]->data->efc_pos[row]), set(active, lane, 1.0);
    }
    solver.add_limit(dof, weights, distance, m.dof_invweight0[dof], active > zero);
  }

  Solved<Real> out{unconstrained, zero, 0, {}, {}};
  out.iterations = solver.solve(velocities, unconstrained, out.acceleration, iterations, tolerance);
  out.residual = solver.residual();
  for (const auto& [key, slot] : contacts) {
    out.forces.push_back(solver.contact_force(static_cast<int>(out.forces.size())));
    out.contacts.push_back(slot.contains(0) ? slot.at(0) : nullptr);
  }
  return out;
}

class Constraints : public testing::TestWithParam<const char*> {};

TEST_P(Constraints, OptimumInDoubleIsMujocos) {
  const Character character = character_named(GetParam(), kOddities);
  const Articulation a = make_articulation(character);
  std::vector<std::unique_ptr<FloorOracle>> oracles;
  oracles.push_back(std::make_unique<FloorOracle>(character));
  Rng rng(23);
  int with_contacts = 0;
  double worst = 0.0;
  for (int trial = 0; trial < 100; ++trial) {
    oracles[0]->draw(rng, -1.0f);
    with_contacts += oracles[0]->data->ncon > 0;
    const auto set = [](double& to, size_t, double value) { to = value; };
    const auto solved = solve<double>(a, oracles, set, 100, 1e-13);
    RelativeError error;
    for (int i = 0; i < a.num_velocities; ++i) error.add(solved.acceleration[i], oracles[0]->data->qacc[i]);
    worst = std::max(worst, error.value());
    EXPECT_LT(solved.residual, 1e-9);
    RelativeError force_error;
    for (size_t c = 0; c < solved.contacts.size(); ++c) {
      mjtNum force[6];
      const auto index = static_cast<int>(solved.contacts[c] - oracles[0]->data->contact);
      mj_contactForce(oracles[0]->model.get(), oracles[0]->data.get(), index, force);
      force_error.add(solved.forces[c].x, force[0]);
      force_error.add(solved.forces[c].y, force[1]), force_error.add(solved.forces[c].z, force[2]);
    }
    if (force_error.size > 1.0) EXPECT_LT(force_error.value(), 1e-6) << "contact forces";
    EXPECT_LT(error.value(), 1e-7) << "trial " << trial << " with " << oracles[0]->data->ncon << " contacts, "
                                   << solved.iterations << " iterations";
  }
  EXPECT_GT(with_contacts, 20);
  RecordProperty("worst", std::to_string(worst));
}

TEST_P(Constraints, OptimumInEveryLaneIsMujocos) {
  const Character character = character_named(GetParam(), kOddities);
  const Articulation a = make_articulation(character);
  std::vector<std::unique_ptr<FloorOracle>> oracles;
  Rng rng(29);
  for (size_t lane = 0; lane < Lanes::size(); ++lane) oracles.push_back(std::make_unique<FloorOracle>(character));
  for (int trial = 0; trial < 10; ++trial) {
    for (auto& oracle : oracles) oracle->draw(rng, -1.0f);
    const auto set = [](Lanes& to, size_t lane, double value) { to[lane] = static_cast<float>(value); };
    const auto solved = solve<Lanes>(a, oracles, set, 50, 1e-6);
    for (size_t lane = 0; lane < oracles.size(); ++lane) {
      RelativeError error;
      for (int i = 0; i < a.num_velocities; ++i)
        error.add(static_cast<float>(solved.acceleration[i][lane]), oracles[lane]->data->qacc[i]);
      EXPECT_LT(error.value(), 1e-3) << "lane " << lane << " with " << oracles[lane]->data->ncon << " contacts";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, Constraints, testing::Values("knight", "human", "oddities"),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace calm
