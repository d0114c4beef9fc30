// Mass matrix, bias forces, poses and solutions against MuJoCo's, one environment in double and several in float.
#include "sim/smooth_dynamics.h"

#include <gtest/gtest.h>

#include "oracle.h"

namespace calm {
namespace {

struct Errors {
  RelativeError mass, bias, solution, position, rotation;
};

// Adds the errors of one lane. `lane` takes a Real to its number in double.
template <class Real, class Lane>
void compare(const SmoothDynamics<Real>& dynamics, const Articulation& a, std::span<const Real> solution,
             Oracle& oracle, Lane lane, Errors& errors) {
  const int nv = a.num_velocities;
  for (int i = 0; i < nv; ++i) {
    std::vector<double> row(nv, 0.0);
    int entry = a.row_start[i];
    for (int j = i; j >= 0; j = a.parent_velocity[j]) row[j] = lane(dynamics.mass[entry++]);
    for (int j = 0; j <= i; ++j) errors.mass.add(row[j], oracle.full[static_cast<size_t>(i) * nv + j]);
    errors.bias.add(lane(dynamics.bias[i]), oracle.data->qfrc_bias[i]);
  }
  std::vector<mjtNum> expected(nv), right(nv);
  for (int i = 0; i < nv; ++i) right[i] = std::sin(1.0 + i);
  mj_solveM(oracle.model.get(), oracle.data.get(), expected.data(), right.data(), 1);
  for (int i = 0; i < nv; ++i) errors.solution.add(lane(solution[i]), expected[i]);

  for (int b = 0; b < oracle.character.num_bodies(); ++b) {
    const int link = a.body_link[b];
    Eigen::Matrix3d rot;
    for (int k = 0; k < 3; ++k) {
      const auto& column = k == 0 ? dynamics.rot[link].x : k == 1 ? dynamics.rot[link].y : dynamics.rot[link].z;
      rot.col(k) << lane(column.x), lane(column.y), lane(column.z);
    }
    const auto& p = dynamics.pos[link];
    const Eigen::Vector3d at = Eigen::Vector3d(lane(p.x), lane(p.y), lane(p.z)) + rot * a.body_pos[b];
    rot = (rot * a.body_rot[b]).eval();
    for (int k = 0; k < 3; ++k) {
      errors.position.add(at[k], oracle.data->xpos[3 * (b + 1) + k] - oracle.data->qpos[k]);
      for (int l = 0; l < 3; ++l) errors.rotation.add(rot(k, l), oracle.data->xmat[9 * (b + 1) + 3 * k + l]);
    }
  }
}

void expect_below(const Errors& errors, double bound) {
  EXPECT_LT(errors.mass.value(), bound) << "mass matrix";
  EXPECT_LT(errors.bias.value(), bound) << "bias forces";
  EXPECT_LT(errors.solution.value(), bound) << "solution";
  EXPECT_LT(errors.position.value(), bound) << "positions";
  EXPECT_LT(errors.rotation.value(), bound) << "rotations";
}

class Smooth : public testing::TestWithParam<const char*> {};

TEST_P(Smooth, OneEnvironmentInDoubleAgreesWithMujoco) {
  const Character character = character_named(GetParam(), kOddities);
  const Articulation a = make_articulation(character);
  Oracle oracle(character);
  ASSERT_EQ(a.num_velocities, oracle.model->nv);
  ASSERT_EQ(a.num_positions, oracle.model->nq);
  SmoothDynamics<double> dynamics(a);
  Rng rng(11);
  Errors errors;
  for (int trial = 0; trial < 50; ++trial) {
    oracle.draw(rng);
    dynamics.forward({oracle.data->qpos, static_cast<size_t>(a.num_positions)},
                     {oracle.data->qvel, static_cast<size_t>(a.num_velocities)}, -oracle.model->opt.gravity[2]);
    dynamics.factorise({});
    std::vector<double> x(a.num_velocities);
    for (int i = 0; i < a.num_velocities; ++i) x[i] = std::sin(1.0 + i);
    dynamics.solve(x);
    compare<double>(
        dynamics, a, x, oracle, [](double v) { return v; }, errors);
  }
  expect_below(errors, 1e-7);
}

TEST_P(Smooth, EveryLaneInFloatAgreesWithMujoco) {
  const Character character = character_named(GetParam(), kOddities);
  const Articulation a = make_articulation(character);
  std::vector<std::unique_ptr<Oracle>> oracles;
  std::vector<Lanes> positions(a.num_positions), velocities(a.num_velocities), x(a.num_velocities);
  Rng rng(13);
  for (size_t lane = 0; lane < Lanes::size(); ++lane) {
    Oracle& oracle = *oracles.emplace_back(std::make_unique<Oracle>(character));
    oracle.draw(rng);
    for (int i = 0; i < a.num_positions; ++i) positions[i][lane] = static_cast<float>(oracle.data->qpos[i]);
    for (int i = 0; i < a.num_velocities; ++i) velocities[i][lane] = static_cast<float>(oracle.data->qvel[i]);
  }
  SmoothDynamics<Lanes> dynamics(a);
  dynamics.forward(positions, velocities, -oracles[0]->model->opt.gravity[2]);
  dynamics.factorise({});
  for (int i = 0; i < a.num_velocities; ++i) x[i] = static_cast<float>(std::sin(1.0 + i));
  dynamics.solve(x);
  Errors errors;
  for (size_t lane = 0; lane < Lanes::size(); ++lane)
    compare<Lanes>(
        dynamics, a, x, *oracles[lane], [lane](const Lanes& v) { return static_cast<float>(v[lane]); }, errors);
  expect_below(errors, 1e-4);
}

INSTANTIATE_TEST_SUITE_P(, Smooth, testing::Values("knight", "human", "oddities"),
                         [](const auto& param) { return std::string(param.param); });

// What is added to the diagonal (implicit drives) is solved with.
TEST(SmoothDynamics, SolvesWithWhatIsAdded) {
  const Character character = character_named("human", kOddities);
  const Articulation a = make_articulation(character);
  Oracle oracle(character);
  Rng rng(17);
  oracle.draw(rng);
  SmoothDynamics<double> dynamics(a);
  dynamics.forward({oracle.data->qpos, static_cast<size_t>(a.num_positions)},
                   {oracle.data->qvel, static_cast<size_t>(a.num_velocities)}, 9.81);
  std::vector<double> added(a.num_velocities), x(a.num_velocities);
  for (int i = 0; i < a.num_velocities; ++i) added[i] = 0.1 * i, x[i] = std::cos(1.0 * i);
  dynamics.factorise(added);
  const std::vector<double> right = x;
  dynamics.solve(x);
  for (int i = 0; i < a.num_velocities; ++i) {
    double sum = 0.0;
    for (int j = 0; j < a.num_velocities; ++j) {
      const int row = std::max(i, j), column = std::min(i, j);
      sum += oracle.full[static_cast<size_t>(row) * a.num_velocities + column] * x[j];
    }
    EXPECT_NEAR(sum + added[i] * x[i], right[i], 1e-6);
  }
}

}  // namespace
}  // namespace calm
