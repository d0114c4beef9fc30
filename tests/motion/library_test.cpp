#include "motion/library.h"

#include "base/file.h"
#include "features/features.h"
#include "motion/motion_test_support.h"

namespace calm {
namespace {

constexpr float kDt = 1.0f / 30.0f;

std::vector<float> features_at(const MotionLibrary& library, int clip, float time) {
  CharacterState state(library.character());
  library.state(clip, time, state);
  std::vector<float> out(library.character().motion_feature_size());
  write_motion_features(library.character(), state.view(), out.data());
  return out;
}

TEST(MotionLibrary, StateLiesBetweenFrames) {
  const MotionLibrary library(human(), {gliding_clip(human(), 31, 30.0f)});
  CharacterState state(human());
  library.state(0, 0.515f, state);
  EXPECT_NEAR(state.body_pos[0], 0.515f, 1e-5f);
  EXPECT_NEAR(heading(state.view().rot(0)), 0.5f * 0.515f, 1e-5f);
  for (const Joint& joint : human().joints)
    EXPECT_NEAR(state.dof_pos[joint.dof + (joint.num_dofs == 3 ? 1 : 0)], 0.4f * 0.515f, 1e-4f) << joint.name;
  EXPECT_NEAR(state.body_vel[0], 1.0f, 1e-4f);
  // beyond the ends: the ends
  library.state(0, -5.0f, state);
  EXPECT_NEAR(state.body_pos[0], 0.0f, 1e-6f);
  library.state(0, 99.0f, state);
  EXPECT_NEAR(state.body_pos[0], 1.0f, 1e-5f);
}

TEST(MotionLibrary, VelocitiesAreThoseOfTheEarlierFrame) {
  Clip clip = gliding_clip(human(), 31, 30.0f);
  for (int f = 0; f < 31; ++f) {
    clip.root_vel[3 * f] = static_cast<float>(f);
    clip.dof_vel[static_cast<size_t>(f) * human().num_dofs] = static_cast<float>(2 * f);
  }
  const MotionLibrary library(human(), {clip});
  CharacterState state(human());
  library.state(0, 10.9f * kDt, state);
  EXPECT_FLOAT_EQ(state.body_vel[0], 10.0f);
  EXPECT_FLOAT_EQ(state.dof_vel[0], 20.0f);
}

TEST(MotionLibrary, WindowIsNewestFirstAndRepeatsTheFirstFrame) {
  const MotionLibrary library(human(), {gliding_clip(human(), 61, 30.0f)});
  const int size = human().motion_feature_size(), frames = 10;
  std::vector<float> window(static_cast<size_t>(frames * size));
  const float newest = 4.4f * kDt;
  library.window_features({0, newest}, frames, kDt, window.data());
  for (int i = 0; i < frames; ++i) {
    const auto expected = features_at(library, 0, std::max(0.0f, newest - static_cast<float>(i) * kDt));
    for (int k = 0; k < size; ++k)
      EXPECT_NEAR(window[i * size + k], expected[k], 1e-6f) << "moment " << i << " number " << k;
  }
}

TEST(MotionLibrary, SingleFrameClipIsAPose) {
  const MotionLibrary library(human(), {gliding_clip(human(), 1, 30.0f)});
  Rng rng(1);
  const Window window = library.sampler().sample_encoder_window(0, 60, kDt, rng);
  EXPECT_EQ(window.time, 0.0f);
  std::vector<float> out(static_cast<size_t>(3 * human().motion_feature_size()), NAN);
  library.window_features(window, 3, kDt, out.data());
  for (const float v : out) EXPECT_TRUE(std::isfinite(v));
}

TEST(MotionLibrary, EncoderWindowsCoverTheirRange) {
  const MotionLibrary library(
      human(), {gliding_clip(human(), 121, 30.0f, 0.4f, "long"), gliding_clip(human(), 31, 30.0f, 0.4f, "short")});
  Rng rng(2);
  float least = 99.0f, most = 0.0f;
  for (int i = 0; i < 3000; ++i) {
    const float time = library.sampler().sample_encoder_window(0, 60, kDt, rng).time;
    least = std::min(least, time), most = std::max(most, time);
    EXPECT_EQ(library.sampler().sample_encoder_window(1, 60, kDt, rng).time, 1.0f);
  }
  EXPECT_GE(least, 59 * kDt - 1e-6f);
  EXPECT_LE(most, 4.0f);
  EXPECT_NEAR(least, 59 * kDt, 0.01f);
  EXPECT_NEAR(most, 4.0f, 0.01f);
}

TEST(MotionLibrary, DiscriminatorWindowsLieInTheEncoderWindow) {
  const MotionLibrary library(
      human(), {gliding_clip(human(), 121, 30.0f, 0.4f, "long"), gliding_clip(human(), 31, 30.0f, 0.4f, "short"),
                gliding_clip(human(), 5, 30.0f, 0.4f, "shorter than a window")});
  Rng rng(4);
  // in the middle of a long clip: 10 frames anywhere in the 60
  float least = 99.0f, most = 0.0f;
  for (int i = 0; i < 3000; ++i) {
    const Window w = library.sampler().sample_discriminator_window({0, 3.0f}, 60, 10, kDt, rng);
    EXPECT_EQ(w.clip, 0);
    least = std::min(least, w.time), most = std::max(most, w.time);
  }
  EXPECT_NEAR(least, 3.0f - 50 * kDt, 0.01f);
  EXPECT_GE(least, 3.0f - 50 * kDt - 1e-5f);
  EXPECT_NEAR(most, 3.0f, 0.01f);
  EXPECT_LE(most, 3.0f);
  // a clip shorter than the encoder window: the part that the clip covers
  for (int i = 0; i < 300; ++i) {
    const float time = library.sampler().sample_discriminator_window({1, 1.0f}, 60, 10, kDt, rng).time;
    EXPECT_GE(time, 9 * kDt - 1e-6f);
    EXPECT_LE(time, 1.0f);
  }
  // shorter than the discriminator's window: all of it
  EXPECT_EQ(library.sampler().sample_discriminator_window({2, 4 * kDt}, 60, 10, kDt, rng).time, 4 * kDt);
}

TEST(MotionLibrary, ClipsAreSampledByWeight) {
  std::vector<Clip> clips;
  for (const float weight : {1.0f, 0.0f, 3.0f}) {
    clips.push_back(gliding_clip(human(), 3, 30.0f, 0.4f, fmt::format("clip {}", weight)));
    clips.back().weight = weight;
  }
  const MotionLibrary library(human(), clips);
  Rng rng(6);
  int counts[3] = {};
  for (int i = 0; i < 4000; ++i) ++counts[library.sampler().sample_clip(rng)];
  EXPECT_EQ(counts[1], 0);
  EXPECT_NEAR(counts[0] / 4000.0, 0.25, 0.03);
  EXPECT_EQ(library.clip_index("clip 3"), 2);
  EXPECT_EQ(library.clip_index("no such"), -1);
  EXPECT_NEAR(library.total_seconds(), 0.2f, 1e-5f);
}

TEST(MotionLibrary, RefusesWhatDoesNotFit) {
  const Clip good = gliding_clip(human(), 5, 30.0f);
  const auto error = [&](auto&& change) {
    Clip clip = good;
    change(clip);
    return error_of([&] { MotionLibrary(human(), {clip}); });
  };
  EXPECT_THAT(error_of([] { MotionLibrary(human(), {}); }), testing::HasSubstr("at least one clip"));
  EXPECT_THAT(error_of([&] {
                MotionLibrary(human(), {good, good});
              }),
              testing::HasSubstr("two clips are named `glide`"));
  EXPECT_THAT(error_of([&] { MotionLibrary(knight(), {good}); }), testing::HasSubstr("body_rot"));
  EXPECT_THAT(error([](Clip& c) { c.dof_vel.pop_back(); }), testing::HasSubstr("dof_vel"));
  EXPECT_THAT(error([](Clip& c) { c.root_pos[4] = NAN; }), testing::HasSubstr("not finite"));
  EXPECT_THAT(error([](Clip& c) { c.weight = -1.0f; }), testing::HasSubstr("weight"));
  EXPECT_THAT(error([](Clip& c) { c.weight = 0.0f; }), testing::HasSubstr("weight 0"));
  EXPECT_THAT(error([](Clip& c) { c.fps = 0.0f; }), testing::HasSubstr("frames per second"));
}

class LibraryFile : public testing::Test {
 protected:
  void SetUp() override {
    Clip first = gliding_clip(human(), 4, 30.0f, 0.4f, "first"),
         second = gliding_clip(human(), 1, 60.0f, 0.4f, "second");
    first.tags = {"walk", "slow"};
    first.source = "somewhere/first.bvh";
    first.weight = 2.5f;
    clips_ = {first, second};
    save_library(MotionLibrary(human(), clips_), path_);
  }
  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "test.calmlib";
  std::vector<Clip> clips_;
};

TEST_F(LibraryFile, RoundTripKeepsEverything) {
  const std::vector<Clip> read = load_motions(human(), path_.string());
  ASSERT_EQ(read.size(), clips_.size());
  for (size_t i = 0; i < read.size(); ++i) {
    EXPECT_EQ(read[i].name, clips_[i].name);
    EXPECT_EQ(read[i].tags, clips_[i].tags);
    EXPECT_EQ(read[i].source, clips_[i].source);
    EXPECT_EQ(read[i].weight, clips_[i].weight);
    EXPECT_EQ(read[i].fps, clips_[i].fps);
    EXPECT_EQ(read[i].num_frames, clips_[i].num_frames);
    EXPECT_EQ(read[i].root_pos, clips_[i].root_pos);
    EXPECT_EQ(read[i].body_rot, clips_[i].body_rot);
    EXPECT_EQ(read[i].root_vel, clips_[i].root_vel);
    EXPECT_EQ(read[i].root_ang_vel, clips_[i].root_ang_vel);
    EXPECT_EQ(read[i].dof_vel, clips_[i].dof_vel);
  }
}

TEST_F(LibraryFile, EveryTruncationAndExtensionIsRefused) {
  const std::string bytes = read_file(path_);
  for (size_t n = 0; n < bytes.size(); n += n < 64 ? 1 : 151) {
    const auto cut = folder_.write("cut.calmlib", bytes.substr(0, n));
    EXPECT_THROW(load_library_clips(human(), cut), Error) << n << " of " << bytes.size() << " bytes";
  }
  EXPECT_THROW(load_library_clips(human(), folder_.write("long.calmlib", bytes + "x")), Error);
}

TEST_F(LibraryFile, EveryChangedByteIsRefused) {
  const std::string bytes = read_file(path_);
  for (size_t n = 0; n < bytes.size(); n += n < 64 ? 1 : 151) {
    std::string changed = bytes;
    changed[n] = static_cast<char>(changed[n] ^ 0x5a);
    EXPECT_THROW(load_library_clips(human(), folder_.write("changed.calmlib", changed)), Error) << "byte " << n;
  }
}

TEST_F(LibraryFile, AnotherCharacterIsRefused) {
  EXPECT_THAT(error_of([&] { load_library_clips(knight(), path_); }), testing::HasSubstr("made for character `human`"));
}

}  // namespace
}  // namespace calm
