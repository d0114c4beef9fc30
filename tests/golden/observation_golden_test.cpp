// Policy observations against golden numbers: random body states, not possible poses; the functions are pure.
#include <gtest/gtest.h>

#include <vector>

#include "features/features.h"
#include "golden/golden_file.h"

namespace calm {
namespace {

TEST(ObservationGolden, LocalAndGlobalRoot) {
  CALM_GOLDEN_OR_SKIP(golden, "observation.json");
  const int n = golden_int(golden, "n");
  const int bodies = golden_int(golden, "bodies");
  const size_t rows = static_cast<size_t>(n) * bodies;
  const auto pos = golden_floats(golden, "body_pos", 3 * rows);
  const auto rot = golden_floats(golden, "body_rot_xyzw", 4 * rows);
  const auto vel = golden_floats(golden, "body_vel", 3 * rows);
  const auto ang_vel = golden_floats(golden, "body_ang_vel", 3 * rows);

  // observations ask of a character only how many bodies it has
  Character character;
  character.bodies.resize(bodies);
  const size_t size = character.observation_size();
  EXPECT_EQ(golden_int(golden, "dim"), static_cast<int>(size));

  std::vector<float> local_root(n * size), global_root(n * size);
  for (int i = 0; i < n; ++i) {
    const size_t row = static_cast<size_t>(i) * bodies;
    const CharacterStateView state = {
        pos.data() + 3 * row, rot.data() + 4 * row, vel.data() + 3 * row, ang_vel.data() + 3 * row, nullptr, nullptr};
    write_observation(character, state, local_root.data() + i * size);
    write_observation_global_root(character, state, global_root.data() + i * size);
  }
  expect_golden("obs_local_root", local_root, golden_at(golden, "obs_local_root"));
  expect_golden("obs_global_root", global_root, golden_at(golden, "obs_global_root"));
}

}  // namespace
}  // namespace calm
