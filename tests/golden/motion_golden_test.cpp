// Holds the motion library and the motion features against recorded numbers of real clips.
#include "golden/golden_file.h"

#include "features/features.h"
#include "motion/library.h"
#include "motion/npy.h"

namespace calm {
namespace {

namespace fs = std::filesystem;

fs::path motions_folder() {
  const char* set = std::getenv("MOTIONS_DIR");
  return set && *set ? fs::path(set) : fs::path(CALM_SOURCE_DIR) / "../shared/motions";
}

// The clip's file, anywhere below `root`; empty if it is not there.
fs::path find_clip(const fs::path& root, const std::string& clip) {
  for (const auto& entry : fs::recursive_directory_iterator(root))
    if (entry.path().filename() == clip + ".npy") return entry.path();
  return {};
}

// Reason for a wider tolerance: the recorded numbers come from a slerp in float32 whose weights divide by
// sqrt(1 - c c), c the cosine of half the angle between two frames. Where a body hardly turns, c c is rounded near 1,
// the weights lose about eps / sin² of their relative accuracy, and the recorded quaternion is not of unit length by as
// much. Ours is. The slack follows from the clip alone: nothing where a body turns quickly.
struct Slack {
  float root = 0.0f;              // of numbers that the root's rotation goes into
  std::vector<float> dof, joint;  // of a joint's coordinates and of its rotation's six numbers
};

Slack slerp_slack(const Character& character, const Clip& clip, float time, const CharacterState& state) {
  const size_t bodies = character.bodies.size();
  const double at = std::clamp<double>(time / clip.length(), 0.0, 1.0) * (clip.num_frames - 1);
  const size_t frame = std::min<size_t>(static_cast<size_t>(at), clip.num_frames - 1);
  const size_t next = std::min<size_t>(frame + 1, clip.num_frames - 1);
  const auto body_slack = [&](size_t b) {
    const auto a = ConstQuatMap(clip.body_rot.data() + 4 * (frame * bodies + b)).cast<double>();
    const auto c = ConstQuatMap(clip.body_rot.data() + 4 * (next * bodies + b)).cast<double>();
    const double sine = (a.conjugate() * c).vec().norm();
    return sine < 0.0009 ? 0.0f : static_cast<float>(1.2e-7 / (sine * sine));
  };
  Slack slack;
  slack.root = 4.0f * body_slack(0);
  for (const Joint& joint : character.joints) {
    // the angle is the recorded one's arc cosine, which makes more of the error the smaller the angle is
    const float angle = Eigen::Map<const Eigen::VectorXf>(&state.dof_pos[joint.dof], joint.num_dofs).norm();
    const float error = 4.0f * body_slack(joint.body) / std::max(0.05f, std::sin(0.5f * angle));
    slack.dof.insert(slack.dof.end(), joint.num_dofs, error);
    slack.joint.insert(slack.joint.end(), 6, error);
  }
  return slack;
}

// expect_golden with a slack for each number; empty: none.
void expect_golden_slack(const std::string& name, std::vector<float> ours, const Json& golden,
                         const std::vector<float>& slack) {
  const auto expected = golden_floats(golden);
  ASSERT_EQ(ours.size(), expected.size()) << name;
  ASSERT_EQ(ours.size(), slack.size()) << name;
  // what lies within its slack counts as equal
  for (size_t i = 0; i < ours.size(); ++i)
    if (std::abs(ours[i] - expected[i]) <= slack[i]) ours[i] = expected[i];
  expect_golden(name, ours, golden);
}

TEST(MotionGolden, StatesFeaturesAndPosesOfClips) {
  CALM_GOLDEN_OR_SKIP(golden, "motion.json");
  const fs::path motions = motions_folder();
  if (!fs::exists(motions)) GTEST_SKIP() << "no folder " << motions << "; set MOTIONS_DIR";
  const Character character = load_character(fs::path(CALM_SOURCE_DIR) / "assets/characters/knight.xml");

  for (const Json& entry : golden_at(golden, "clips")) {
    const std::string name = golden_at(entry, "clip");
    SCOPED_TRACE(name);
    const fs::path path = find_clip(motions, name);
    ASSERT_FALSE(path.empty()) << name << ".npy is not below " << motions;
    const MotionLibrary library(character, {import_npy(character, path, nullptr)});

    // what the file says of the clip and the character
    EXPECT_EQ(library.clip(0).num_frames, golden_at(entry, "frames").get<int>());
    EXPECT_NEAR(library.clip(0).fps, golden_at(entry, "fps").get<double>(), 1e-4 * 30);
    EXPECT_NEAR(library.clip(0).length(), golden_at(entry, "seconds").get<double>(), 1e-4);
    std::vector<std::string> bodies;
    for (const Body& body : character.bodies) bodies.push_back(body.name);
    EXPECT_EQ(bodies, golden_at(entry, "bodies").get<std::vector<std::string>>());
    std::vector<int> dof_bodies, dof_offsets;
    for (const Joint& joint : character.joints) dof_bodies.push_back(joint.body), dof_offsets.push_back(joint.dof);
    dof_offsets.push_back(character.num_dofs);
    EXPECT_EQ(dof_bodies, golden_at(entry, "dof_bodies").get<std::vector<int>>());
    EXPECT_EQ(dof_offsets, golden_at(entry, "dof_offsets").get<std::vector<int>>());

    CharacterState state(character);
    for (const Json& sample : golden_at(entry, "samples")) {
      const float time = golden_at(sample, "time");
      SCOPED_TRACE("at " + std::to_string(time) + " s");
      library.state(0, time, state);
      expect_golden("root_pos", {state.body_pos.data(), 3}, golden_at(sample, "root_pos"));
      const Slack slack = slerp_slack(character, library.clip(0), time, state);
      expect_golden_slack("root_rot_xyzw", {state.body_rot.begin(), state.body_rot.begin() + 4},
                          golden_at(sample, "root_rot_xyzw"), std::vector<float>(4, slack.root));
      expect_golden("root_vel", {state.body_vel.data(), 3}, golden_at(sample, "root_vel"));
      expect_golden("root_ang_vel", {state.body_ang_vel.data(), 3}, golden_at(sample, "root_ang_vel"));
      expect_golden_slack("dof_pos", state.dof_pos, golden_at(sample, "dof_pos"), slack.dof);
      expect_golden("dof_vel", {state.dof_vel.data(), state.dof_vel.size()}, golden_at(sample, "dof_vel"));
      std::vector<float> key_pos;
      for (const int body : character.key_bodies)
        key_pos.insert(key_pos.end(), state.body_pos.data() + 3 * body, state.body_pos.data() + 3 * body + 3);
      expect_golden("key_pos", {key_pos.data(), key_pos.size()}, golden_at(sample, "key_pos"));
      std::vector<float> features(character.motion_feature_size());
      library.window_features({0, time}, 1, 1.0f / 30.0f, features.data());
      // height, root in its heading frame, joint rotations, joint velocities, key bodies in the heading frame
      std::vector<float> feature_slack(13, slack.root * std::max(1.0f, state.root().ang_vel.norm()));
      feature_slack[0] = 0.0f;
      feature_slack.insert(feature_slack.end(), slack.joint.begin(), slack.joint.end());
      feature_slack.insert(feature_slack.end(), character.num_dofs, 0.0f);
      feature_slack.insert(feature_slack.end(), 3 * character.key_bodies.size(), slack.root);
      expect_golden_slack("amp_obs", features, golden_at(sample, "amp_obs"), feature_slack);
    }

    // one frame's world pose; a quaternion and its negative are one rotation
    const Json& pose = golden_at(entry, "frame_pose");
    const int frame = golden_at(pose, "frame");
    const Clip& clip = library.clip(0);
    ASSERT_LT(frame, clip.num_frames);
    const float* local = clip.body_rot.data() + 4 * character.bodies.size() * static_cast<size_t>(frame);
    dof_pos_from_rotations(character, local, state.dof_pos.data());
    RootState root;
    root.pos = ConstVec3Map(clip.root_pos.data() + 3 * frame);
    root.rot = ConstQuatMap(local);
    forward_kinematics(character, root, state);
    expect_golden("frame_pose body_pos", {state.body_pos.data(), state.body_pos.size()}, golden_at(pose, "body_pos"));
    const std::vector<float> rotations = golden_at(pose, "body_rot_xyzw");
    for (int b = 0; b < character.num_bodies(); ++b)
      if (ConstQuatMap(state.body_rot.data() + 4 * b).dot(ConstQuatMap(rotations.data() + 4 * b)) < 0.0f)
        QuatMap(state.body_rot.data() + 4 * b).coeffs() *= -1.0f;
    expect_golden("frame_pose body_rot", {state.body_rot.data(), state.body_rot.size()},
                  golden_at(pose, "body_rot_xyzw"));
  }
}

}  // namespace
}  // namespace calm
