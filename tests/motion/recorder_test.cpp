#include "motion/recorder.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "motion/dataset.h"
#include "motion/generator.h"
#include "motion/library.h"
#include "motion/motion_test_support.h"
#include "motion/retarget.h"

namespace calm {
namespace {

// A generated clip played into the recorder, away from the origin and turned.
Clip recorded(const char* name) {
  const MotionLibrary library(human(), load_motions(human(), "builtin:"));
  const int index = library.clip_index(name);
  ClipRecorder recorder(human(), 30.0f);
  CharacterState state(human());
  const Quat turn(Eigen::AngleAxisf(1.3f, Vec3::UnitZ()));
  for (int f = 0; f < library.clip(index).num_frames; ++f) {
    library.state(index, static_cast<float>(f) / 30.0f, state);
    RootState root = state.root();
    root.pos = turn * root.pos + Vec3(4.0f, -2.0f, 0.0f), root.rot = turn * root.rot;
    forward_kinematics(human(), root, state);
    recorder.add(state.view());
  }
  return recorder.clip("again", "test");
}

// Of all bodies in all frames, m.
float greatest_distance(const Clip& a, const Clip& b) {
  EXPECT_EQ(a.num_frames, b.num_frames);
  float greatest = 0.0f;
  CharacterState x(human()), y(human());
  for (int f = 0; f < std::min(a.num_frames, b.num_frames); ++f) {
    clip_pose(human(), a, f, x), clip_pose(human(), b, f, y);
    for (size_t i = 0; i < x.body_pos.size(); ++i)
      greatest = std::max(greatest, std::abs(x.body_pos[i] - y.body_pos[i]));
  }
  return greatest;
}

TEST(ClipRecorder, GivesBackTheClipOverTheOrigin) {
  const Clip clip = recorded("walk");
  const MotionLibrary library(human(), load_motions(human(), "builtin:"));
  const Clip& original = library.clip(library.clip_index("walk"));
  EXPECT_EQ(clip.name, "again");
  EXPECT_NEAR(clip.root_pos[0], 0.0f, 1e-6f);
  EXPECT_NEAR(clip.root_pos[1], 0.0f, 1e-6f);
  EXPECT_LT(greatest_distance(clip, original), 1e-3f);  // generated clips begin there too, nearly
  ClipRecorder empty(human(), 30.0f);
  EXPECT_THROW(empty.clip("none", ""), Error);
}

TEST(WriteBvh, ReadsBackAsTheSameMotion) {
  for (const char* name : {"walk", "raise_arms"}) {
    const Clip clip = recorded(name);
    const BvhMotion file = parse_bvh(write_bvh(human(), clip), "test.bvh");
    EXPECT_EQ(file.num_frames, clip.num_frames);
    EXPECT_NEAR(file.fps(), 30.0f, 1e-3f);
    EXPECT_EQ(file.joints.size(), human().bodies.size());
    const RetargetMap map = load_retarget_map(CALM_SOURCE_DIR "/configs/retarget/calm.yaml");
    EXPECT_TRUE(unmapped_joints(human(), file, map).empty());
    // the twist of a straight limb is not told by the directions that retargeting reads
    EXPECT_LT(greatest_distance(retarget(human(), file, map, "again", nullptr), clip), 0.02f) << name;
    // the file's own kinematics know no such limit: Y up, Z forward, X left, centimetres
    BvhPose pose = bvh_zero_pose(file);
    CharacterState state(human());
    for (const int f : {0, clip.num_frames / 2}) {
      bvh_local_pose(file, f, pose);
      bvh_forward_kinematics(file, pose);
      clip_pose(human(), clip, f, state);
      for (int b = 0; b < human().num_bodies(); ++b) {
        const Vec3 ours = state.view().pos(b), theirs = pose.pos[file.joint_index(human().bodies[b].name)];
        EXPECT_NEAR(theirs.z(), 100.0f * ours.x(), 0.02f) << name << " " << human().bodies[b].name;
        EXPECT_NEAR(theirs.x(), 100.0f * ours.y(), 0.02f);
        EXPECT_NEAR(theirs.y(), 100.0f * ours.z(), 0.02f);
      }
    }
  }
}

TEST(Dataset, TakesALibraryOfOneClip) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "recorder_test";
  std::filesystem::create_directories(folder);
  const Clip clip = recorded("walk");
  save_library(MotionLibrary(human(), {clip}), folder / "walk.calmlib");
  write_file_atomic(folder / "list.yaml", "motions:\n  - {file: walk.calmlib, name: first}\n");
  const auto clips = load_motions(human(), (folder / "list.yaml").string());
  ASSERT_EQ(clips.size(), 1u);
  EXPECT_EQ(clips[0].name, "first");
  EXPECT_EQ(clips[0].root_pos, clip.root_pos);
  save_library(MotionLibrary(human(), load_motions(human(), "builtin:")), folder / "walk.calmlib");
  EXPECT_THROW(load_motions(human(), (folder / "list.yaml").string()), Error);
}

}  // namespace
}  // namespace calm
