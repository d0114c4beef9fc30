// Contacts with the floor against MuJoCo's list: the same number in the same order, the same places and frames.
#include "sim/floor_contacts.h"

#include <gtest/gtest.h>

#include "oracle.h"

namespace calm {
namespace {

class Floor : public testing::TestWithParam<const char*> {};

// Compares one lane; returns the number of contacts.
template <class Real, class Lane, class On>
int compare(const std::vector<FloorContact<Real>>& found, const std::vector<LinkShape>& shapes,
            const FloorOracle& oracle, Lane lane, On on, double bound) {
  const mjModel& m = *oracle.model;
  const mjData& d = *oracle.data;
  for (int s = 0; s < static_cast<int>(shapes.size()); ++s) {
    const std::string& name = oracle.character.shapes[shapes[s].shape].name;
    const int geom = mj_name2id(&m, mjOBJ_GEOM, name.c_str());
    std::vector<const mjContact*> expected;
    for (int c = 0; c < d.ncon; ++c)
      if (d.contact[c].geom2 == geom) expected.push_back(&d.contact[c]);
    std::vector<const FloorContact<Real>*> got;
    for (const auto& contact : found)
      if (contact.shape == s && on(contact.active)) got.push_back(&contact);
    EXPECT_EQ(got.size(), expected.size()) << name;
    for (size_t c = 0; c < std::min(got.size(), expected.size()); ++c) {
      EXPECT_NEAR(lane(got[c]->distance), expected[c]->dist, bound) << name;
      const Vec3Of<Real>* rows[4] = {&got[c]->point, &got[c]->frame[0], &got[c]->frame[1], &got[c]->frame[2]};
      for (int row = 0; row < 4; ++row) {
        const double numbers[3] = {lane(rows[row]->x), lane(rows[row]->y), lane(rows[row]->z)};
        for (int k = 0; k < 3; ++k)
          EXPECT_NEAR(numbers[k], row == 0 ? expected[c]->pos[k] - d.qpos[k] : expected[c]->frame[3 * (row - 1) + k],
                      bound)
              << name << " row " << row;
      }
    }
  }
  return d.ncon;
}

TEST_P(Floor, TouchesWhereMujocoTouches) {
  const Character character = character_named(GetParam(), kOddities);
  const Articulation a = make_articulation(character);
  const auto shapes = colliding_shapes(character, a);
  FloorOracle oracle(character);
  SmoothDynamics<double> dynamics(a);
  FloorContacts<double> floor(shapes, dynamics);
  Rng rng(31);
  int contacts = 0;
  for (int trial = 0; trial < 200; ++trial) {
    oracle.draw(rng, -1.5f);
    dynamics.forward({oracle.data->qpos, static_cast<size_t>(a.num_positions)},
                     {oracle.data->qvel, static_cast<size_t>(a.num_velocities)}, 9.81);
    contacts += compare<double>(
        floor.find(), shapes, oracle, [](double v) { return v; }, [](bool on) { return on; }, 1e-6);
  }
  EXPECT_GT(contacts, 200);
}

TEST_P(Floor, EveryLaneTouchesWhereMujocoTouches) {
  const Character character = character_named(GetParam(), kOddities);
  const Articulation a = make_articulation(character);
  const auto shapes = colliding_shapes(character, a);
  std::vector<std::unique_ptr<FloorOracle>> oracles;
  std::vector<Lanes> positions(a.num_positions), velocities(a.num_velocities);
  Rng rng(37);
  for (size_t lane = 0; lane < Lanes::size(); ++lane) {
    FloorOracle& oracle = *oracles.emplace_back(std::make_unique<FloorOracle>(character));
    oracle.draw(rng, -1.5f);
    for (int i = 0; i < a.num_positions; ++i) positions[i][lane] = static_cast<float>(oracle.data->qpos[i]);
    for (int i = 0; i < a.num_velocities; ++i) velocities[i][lane] = static_cast<float>(oracle.data->qvel[i]);
  }
  SmoothDynamics<Lanes> dynamics(a);
  FloorContacts<Lanes> floor(shapes, dynamics);
  dynamics.forward(positions, velocities, 9.81);
  const auto& found = floor.find();
  for (size_t lane = 0; lane < Lanes::size(); ++lane)
    compare<Lanes>(
        found, shapes, *oracles[lane], [lane](const Lanes& v) { return static_cast<float>(v[lane]); },
        [lane](const Lanes::mask_type& on) { return static_cast<bool>(on[lane]); }, 1e-4);
}

INSTANTIATE_TEST_SUITE_P(, Floor, testing::Values("knight", "human", "oddities"),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace calm
