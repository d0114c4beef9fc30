// The characters that the repository ships: what the specification says of them, and that they stand in peace.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <ostream>

#include "character/mujoco_model.h"
#include "character/state.h"
#include "mujoco_state.h"

namespace calm {
namespace {

const std::filesystem::path kAssets = std::filesystem::path(CALM_SOURCE_DIR) / "assets/characters";

struct Expected {
  const char* file;
  int bodies, dofs, observation, features;
  std::vector<const char*> body_order;
  std::vector<const char*> joint_order;
};

void PrintTo(const Expected& e, std::ostream* out) { *out << e.file; }

const Expected kKnight{
    "knight.xml",
    17,
    31,
    253,
    140,
    {"pelvis", "torso", "head", "right_upper_arm", "right_lower_arm", "right_hand", "sword", "left_upper_arm",
     "left_lower_arm", "shield", "left_hand", "right_thigh", "right_shin", "right_foot", "left_thigh", "left_shin",
     "left_foot"},
    {"torso", "head", "right_upper_arm", "right_lower_arm", "right_hand", "left_upper_arm", "left_lower_arm",
     "right_thigh", "right_shin", "right_foot", "left_thigh", "left_shin", "left_foot"}};
const Expected kHuman{
    "human.xml",
    15,
    28,
    223,
    125,
    {"pelvis", "torso", "head", "right_upper_arm", "right_lower_arm", "right_hand", "left_upper_arm", "left_lower_arm",
     "left_hand", "right_thigh", "right_shin", "right_foot", "left_thigh", "left_shin", "left_foot"},
    {"torso", "head", "right_upper_arm", "right_lower_arm", "left_upper_arm", "left_lower_arm", "right_thigh",
     "right_shin", "right_foot", "left_thigh", "left_shin", "left_foot"}};

class Assets : public testing::TestWithParam<Expected> {
 protected:
  Character character_ = load_character(kAssets / GetParam().file);
};

TEST_P(Assets, HasTheSpecifiedTree) {
  const Expected& want = GetParam();
  ASSERT_EQ(character_.num_bodies(), want.bodies);
  for (int b = 0; b < want.bodies; ++b) EXPECT_EQ(character_.bodies[b].name, want.body_order[b]);
  ASSERT_EQ(character_.joints.size(), want.joint_order.size());
  for (size_t j = 0; j < want.joint_order.size(); ++j)
    EXPECT_EQ(character_.bodies[character_.joints[j].body].name, want.joint_order[j]);
  EXPECT_EQ(character_.num_dofs, want.dofs);
  EXPECT_EQ(character_.observation_size(), want.observation);
  EXPECT_EQ(character_.motion_feature_size(), want.features);
}

TEST_P(Assets, HasTheSpecifiedGainsAndKinds) {
  const std::vector<std::tuple<std::string, float, float, JointKind>> table = {
      {"torso", 1000, 100, JointKind::kBall},   {"head", 100, 10, JointKind::kBall},
      {"upper_arm", 400, 40, JointKind::kBall}, {"lower_arm", 300, 30, JointKind::kHinge},
      {"hand", 100, 10, JointKind::kBall},      {"thigh", 500, 50, JointKind::kBall},
      {"shin", 500, 50, JointKind::kHinge},     {"foot", 400, 40, JointKind::kBall}};
  for (const Joint& joint : character_.joints) {
    const std::string& body = character_.bodies[joint.body].name;
    const auto row = std::ranges::find_if(table, [&](const auto& r) { return body.ends_with(std::get<0>(r)); });
    ASSERT_NE(row, table.end()) << body;
    EXPECT_EQ(joint.kind, std::get<3>(*row)) << body;
    if (joint.kind == JointKind::kHinge) {
      EXPECT_TRUE(joint.axis.isApprox(Vec3::UnitY())) << body;
    }
    for (int d = joint.dof; d < joint.dof + joint.num_dofs; ++d) {
      EXPECT_EQ(character_.kp[d], std::get<1>(*row)) << body;
      EXPECT_EQ(character_.kd[d], std::get<2>(*row)) << body;
      const bool hand = body.ends_with("hand");
      EXPECT_GE(character_.armature[d], hand ? 0.003f : 0.01f) << body;
      EXPECT_LE(character_.armature[d], hand ? 0.01f : 0.02f) << body;
      // standing straight is possible everywhere
      EXPECT_LE(character_.limit_lower[d], 0.0f) << body;
      EXPECT_GE(character_.limit_upper[d], 0.0f) << body;
    }
  }
}

// The offsets of the skeleton that the clips carry: clips need no retargeting.
TEST_P(Assets, HasTheOffsetsOfTheClipsSkeleton) {
  const auto offset = [&](const char* body) { return character_.bodies[character_.body_index(body)].pos; };
  EXPECT_TRUE(offset("torso").isApprox(Vec3(0, 0, 0.236151f), 1e-6f));
  EXPECT_TRUE(offset("head").isApprox(Vec3(0, 0, 0.223894f), 1e-6f));
  for (const float side : {-1.0f, 1.0f}) {
    const std::string name = side < 0 ? "right_" : "left_";
    EXPECT_TRUE(offset((name + "upper_arm").c_str()).isApprox(Vec3(-0.02405f, side * 0.18311f, 0.2435f), 1e-6f));
    EXPECT_TRUE(offset((name + "lower_arm").c_str()).isApprox(Vec3(0, 0, -0.274788f), 1e-6f));
    EXPECT_TRUE(offset((name + "hand").c_str()).isApprox(Vec3(0, 0, -0.258947f), 1e-6f));
    EXPECT_TRUE(offset((name + "thigh").c_str()).isApprox(Vec3(0, side * 0.084887f, 0), 1e-6f));
    EXPECT_TRUE(offset((name + "shin").c_str()).isApprox(Vec3(0, 0, -0.421546f), 1e-6f));
    EXPECT_TRUE(offset((name + "foot").c_str()).isApprox(Vec3(0, 0, -0.40987f), 1e-6f));
  }
  if (character_.body_index("sword") < 0) return;
  EXPECT_TRUE(offset("sword").isApprox(Vec3(0.74f, 0, 0), 1e-6f));
  EXPECT_TRUE(offset("shield").isApprox(Vec3(0, 0.07f, -0.12f), 1e-6f));
}

TEST_P(Assets, IsAnAdultAndSymmetric) {
  EXPECT_GT(character_.total_mass(), 50.0f);
  EXPECT_LT(character_.total_mass(), 75.0f);
  EXPECT_NEAR(character_.stand_height, 0.88f, 0.01f);
  for (const Joint& right : character_.joints) {
    if (!right.name.starts_with("right_") || right.name == "right_hand") continue;
    const auto left = std::ranges::find(character_.joints, "left_" + right.name.substr(6), &Joint::name);
    ASSERT_NE(left, character_.joints.end());
    EXPECT_EQ(character_.bodies[right.body].mass, character_.bodies[left->body].mass);
    for (int k = 0; k < right.num_dofs; ++k) {
      // a mirror in the xz plane turns rotations about x and z round, not those about y
      const bool flips = right.kind == JointKind::kBall && k != 1;
      const int r = right.dof + k, l = left->dof + k;
      EXPECT_EQ(character_.limit_lower[r], flips ? -character_.limit_upper[l] : character_.limit_lower[l]);
      EXPECT_EQ(character_.limit_upper[r], flips ? -character_.limit_lower[l] : character_.limit_upper[l]);
    }
  }
}

// Pairs of bodies in contact, the floor as "floor".
std::vector<std::string> touching(const Character& character, const CharacterState& state) {
  const MujocoModel model = compile_mjcf(to_mjcf(character), character.name);
  const MujocoData data(mj_makeData(model.get()));
  set_mujoco_state(character, state, data.get());
  mj_forward(model.get(), data.get());
  std::vector<std::string> pairs;
  for (int i = 0; i < data->ncon; ++i) {
    std::string names[2];
    const int geoms[2] = {data->contact[i].geom1, data->contact[i].geom2};
    for (int k = 0; k < 2; ++k) {
      const int body = model->geom_bodyid[geoms[k]];
      names[k] = body == 0 ? "floor" : character.bodies[body - 1].name;
    }
    pairs.push_back(names[0] + " " + names[1]);
  }
  std::ranges::sort(pairs);
  const auto doubles = std::ranges::unique(pairs);
  pairs.erase(doubles.begin(), doubles.end());
  return pairs;
}

TEST_P(Assets, StandsOnItsFeetAndTouchesNothingElse) {
  CharacterState state = default_state(character_);
  // a hair lower, so that the soles surely touch
  RootState root = state.root();
  root.pos.z() -= 1e-4f;
  forward_kinematics(character_, root, state);
  EXPECT_EQ(touching(character_, state), (std::vector<std::string>{"floor left_foot", "floor right_foot"}));
  root.pos.z() += 2e-4f;
  forward_kinematics(character_, root, state);
  EXPECT_EQ(touching(character_, state), std::vector<std::string>{});
}

TEST_P(Assets, WalksWithoutTouchingItself) {
  for (int i = 0; i < 24; ++i) {
    const float phase = 2.0f * kPi * static_cast<float>(i) / 24.0f;
    CharacterState state = default_state(character_);
    const auto set = [&](const char* name, int k, float degrees) {
      const auto joint = std::ranges::find(character_.joints, name, &Joint::name);
      state.dof_pos[joint->dof + k] = degrees * kPi / 180.0f;
    };
    const float swing = std::sin(phase);
    set("right_shoulder", 1, 30.0f * swing), set("left_shoulder", 1, -30.0f * swing);
    set("right_elbow", 0, -25.0f), set("left_elbow", 0, -25.0f);
    set("right_hip", 1, -30.0f * swing), set("left_hip", 1, 30.0f * swing);
    set("right_knee", 0, 30.0f + 30.0f * std::cos(phase)), set("left_knee", 0, 30.0f - 30.0f * std::cos(phase));
    set("torso", 2, 8.0f * swing);
    RootState root = state.root();
    root.pos.z() += 1.0f;  // clear of the floor: only the character itself counts here
    forward_kinematics(character_, root, state);
    EXPECT_EQ(touching(character_, state), std::vector<std::string>{}) << "phase " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(, Assets, testing::Values(kKnight, kHuman), [](const auto& param) {
  return std::string(param.param.file).substr(0, std::string(param.param.file).find('.'));
});

TEST(AssetSettings, NameKeyBodiesFeetAndFallHeights) {
  const Character knight = load_character(kAssets / "knight.xml");
  std::vector<std::string> key, feet;
  for (const int b : knight.key_bodies) key.push_back(knight.bodies[b].name);
  for (const int b : knight.feet) feet.push_back(knight.bodies[b].name);
  EXPECT_EQ(key, (std::vector<std::string>{"right_hand", "left_hand", "right_foot", "left_foot", "sword", "shield"}));
  EXPECT_EQ(feet, (std::vector<std::string>{"right_foot", "left_foot"}));
  EXPECT_FLOAT_EQ(knight.fall_height[knight.body_index("head")], 0.3f);
  EXPECT_FLOAT_EQ(knight.fall_height[knight.body_index("left_lower_arm")], 0.32f);
  EXPECT_FLOAT_EQ(knight.fall_height[knight.body_index("torso")], 0.15f);
  EXPECT_NE(knight.hash, load_character(kAssets / "human.xml").hash);
}

// Character files of others, whose ball joints are written as three hinges.
TEST(ForeignCharacters, Load) {
  const char* given = std::getenv("MOTIONS_DIR");
  const std::filesystem::path folder =
      (given ? std::filesystem::path(given) : std::filesystem::path(CALM_SOURCE_DIR) / "../shared/motions") /
      "noncommercial/mjcf";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no folder " << folder;

  const Character armed = load_character(folder / "amp_humanoid_sword_shield.xml");
  const Character bare = load_character(folder / "amp_humanoid.xml");
  EXPECT_EQ(armed.num_bodies(), 17);
  EXPECT_EQ(armed.num_joints(), 13);
  EXPECT_EQ(armed.num_dofs, 31);
  EXPECT_EQ(bare.num_bodies(), 15);
  EXPECT_EQ(bare.num_joints(), 12);
  EXPECT_EQ(bare.num_dofs, 28);

  // the same tree, kinds and gains as ours: clips and actions mean the same on both
  const Character knight = load_character(kAssets / "knight.xml");
  for (int b = 0; b < 17; ++b) {
    EXPECT_EQ(armed.bodies[b].name, knight.bodies[b].name);
    EXPECT_TRUE(armed.bodies[b].pos.isApprox(knight.bodies[b].pos, 1e-5f)) << knight.bodies[b].name;
  }
  for (int j = 0; j < 13; ++j) EXPECT_EQ(armed.joints[j].kind, knight.joints[j].kind);
  EXPECT_EQ(armed.kp, knight.kp);
  EXPECT_EQ(armed.kd, knight.kd);
  // armature differs within the hand: per degree of freedom
  EXPECT_FLOAT_EQ(armed.armature[10], 0.01f);
  EXPECT_FLOAT_EQ(armed.armature[11], 0.003f);
}

}  // namespace
}  // namespace calm
