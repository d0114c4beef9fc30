// The checker on clips that are wrong in one known way each.
#include "motion/check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "motion/retarget.h"

namespace calm {
namespace {

using ::testing::HasSubstr;

const Character& human() {
  static const Character character =
      load_character(std::filesystem::path(CALM_SOURCE_DIR) / "assets/characters/human.xml");
  return character;
}

// Two seconds of standing still.
Clip standing() {
  const Character& c = human();
  Clip clip;
  clip.name = "standing";
  clip.fps = 30.0f;
  clip.num_frames = 61;
  const CharacterState state = default_state(c);
  for (int f = 0; f < clip.num_frames; ++f) {
    clip.root_pos.insert(clip.root_pos.end(), {0.0f, 0.0f, c.stand_height});
    for (int b = 0; b < c.num_bodies(); ++b) {
      Quat q = state.view().rot(b);
      if (b > 0) q = state.view().rot(c.bodies[b].parent).conjugate() * q;
      clip.body_rot.insert(clip.body_rot.end(), q.coeffs().data(), q.coeffs().data() + 4);
    }
  }
  compute_velocities(c, clip);
  return clip;
}

QuatMap rotation(Clip& clip, int frame, const char* body) {
  return QuatMap(clip.body_rot.data() + 4 * (human().num_bodies() * frame + human().body_index(body)));
}

Quat about(const Vec3& axis, float degrees) { return Quat(Eigen::AngleAxisf(degrees * kPi / 180.0f, axis)); }

Severity severity(const Clip& clip, const char* kind) {
  const ClipReport report = check_clip(human(), clip);
  const Finding* finding = report.find(kind);
  EXPECT_NE(finding, nullptr) << kind;
  return finding ? finding->severity : Severity::kOk;
}

TEST(Check, StandingStillIsFine) {
  const ClipReport report = check_clip(human(), standing());
  EXPECT_EQ(report.worst(), Severity::kOk);
  EXPECT_NEAR(report.seconds, 2.0f, 1e-5f);
  for (const Finding& f : report.findings) EXPECT_EQ(f.severity, Severity::kOk) << f.kind << ": " << f.text;
  for (const char* kind : {"foot_sliding", "penetration", "floating", "jump", "repeats", "limits", "hinges", "finite",
                           "quaternions", "length"})
    EXPECT_NE(report.find(kind), nullptr) << kind;
}

TEST(Check, FeetThatSlide) {
  Clip clip = standing();
  for (int f = 0; f < clip.num_frames; ++f) clip.root_pos[3 * f] = 0.5f * f / clip.fps;  // 0.5 m/s on stiff legs
  const ClipReport report = check_clip(human(), clip);
  EXPECT_EQ(report.find("foot_sliding")->severity, Severity::kWarn);
  EXPECT_NEAR(report.find("foot_sliding")->value, 0.5f, 0.01f);
  for (int f = 0; f < clip.num_frames; ++f)
    clip.root_pos[3 * f] = 3.0f * f / clip.fps;  // faster than any swing: skating
  EXPECT_EQ(severity(clip, "foot_sliding"), Severity::kError);
}

// A foot that swings low over the floor while the other stands does not slide.
TEST(Check, FeetThatSwingAreLeftAlone) {
  Clip clip = standing();
  const int thigh = human().body_index("left_thigh"), foot = human().body_index("left_foot");
  ASSERT_GE(thigh, 0);
  ASSERT_GE(foot, 0);
  for (int f = 30; f < 36; ++f) rotation(clip, f, "left_thigh") = about(Vec3::UnitY(), 3.0f * (f - 33));
  EXPECT_EQ(severity(clip, "foot_sliding"), Severity::kOk);
}

TEST(Check, PenetrationAndFloating) {
  Clip clip = standing();
  for (int f = 20; f < 30; ++f) clip.root_pos[3 * f + 2] -= 0.05f;
  ClipReport report = check_clip(human(), clip);
  EXPECT_EQ(report.find("penetration")->severity, Severity::kWarn);
  EXPECT_NEAR(report.find("penetration")->value, 0.05f, 1e-3f);
  EXPECT_NEAR(report.find("penetration")->time, 20 / 30.0f, 0.35f);

  clip = standing();
  for (int f = 15; f < 55; ++f) clip.root_pos[3 * f + 2] += 0.3f;
  report = check_clip(human(), clip);
  EXPECT_EQ(report.find("floating")->severity, Severity::kWarn);
  EXPECT_NEAR(report.find("floating")->value, 40 / 30.0f, 1e-3f);
  EXPECT_NEAR(report.find("floating")->time, 0.5f, 1e-3f);
}

TEST(Check, JumpsOfJointsAndRoot) {
  Clip clip = standing();
  for (int f = 40; f < clip.num_frames; ++f) rotation(clip, f, "head") = about(Vec3::UnitZ(), 40.0f);  // stays
  ClipReport report = check_clip(human(), clip);
  EXPECT_EQ(report.find("jump")->severity, Severity::kWarn);
  EXPECT_THAT(report.find("jump")->text, HasSubstr("head jumps by 40 degrees"));
  EXPECT_NEAR(report.find("jump")->time, 40 / 30.0f, 1e-3f);

  clip = standing();
  rotation(clip, 25, "left_upper_arm") = about(Vec3::UnitY(), -90.0f);  // one frame off
  EXPECT_EQ(severity(clip, "jump"), Severity::kError);

  clip = standing();
  for (int f = 0; f < 10; ++f)  // as fast, but as a motion: 270 degrees a second, rising and falling
    rotation(clip, 20 + f, "left_upper_arm") = about(Vec3::UnitY(), -45.0f * (1.0f - std::cos(kPi * f / 9.0f)));
  for (int f = 30; f < clip.num_frames; ++f) rotation(clip, f, "left_upper_arm") = about(Vec3::UnitY(), -90.0f);
  EXPECT_EQ(severity(clip, "jump"), Severity::kOk);

  clip = standing();
  for (int f = 30; f < clip.num_frames; ++f) clip.root_pos[3 * f + 1] += 0.1f;
  report = check_clip(human(), clip);
  EXPECT_EQ(report.find("jump")->severity, Severity::kWarn);
  EXPECT_THAT(report.find("jump")->text, HasSubstr("root jumps by 10.0 cm"));
}

TEST(Check, FramesThatRepeat) {
  Clip clip = standing();
  for (int f = 0; f < clip.num_frames; ++f) rotation(clip, f, "head") = about(Vec3::UnitZ(), 3.0f * (f / 2));
  const ClipReport report = check_clip(human(), clip);
  EXPECT_EQ(report.find("repeats")->severity, Severity::kWarn);
  EXPECT_NEAR(report.find("repeats")->value, 0.5f, 0.05f);
}

TEST(Check, LimitsNameJointAxisAndShare) {
  Clip clip = standing();
  for (int f = 0; f < clip.num_frames; ++f)
    if (f >= 31) rotation(clip, f, "head") = about(Vec3::UnitZ(), 70.0f + 20.0f * std::min(1.0f, (f - 30) / 20.0f));
  const ClipReport report = check_clip(human(), clip);
  const Finding* limits = report.find("limits");
  ASSERT_NE(limits, nullptr);
  EXPECT_EQ(limits->severity, Severity::kWarn);
  EXPECT_NEAR(limits->value, 20.0f, 0.1f);
  EXPECT_THAT(limits->text, HasSubstr("head (z axis) is 20 degrees beyond"));
  EXPECT_THAT(limits->text, HasSubstr("head 49 %"));
}

TEST(Check, HingesThatTurnAboutAnotherAxis) {
  Clip clip = standing();
  for (int f = 0; f < clip.num_frames; ++f) rotation(clip, f, "left_shin") = about(Vec3::UnitX(), 10.0f);
  const ClipReport report = check_clip(human(), clip);
  EXPECT_EQ(report.find("hinges")->severity, Severity::kWarn);
  EXPECT_NEAR(report.find("hinges")->value, 10.0f, 0.1f);
}

TEST(Check, NumbersThatAreNone) {
  Clip clip = standing();
  clip.root_pos[3 * 45 + 1] = std::numeric_limits<float>::quiet_NaN();
  const ClipReport report = check_clip(human(), clip);
  EXPECT_EQ(report.worst(), Severity::kError);
  EXPECT_EQ(report.find("finite")->severity, Severity::kError);
  EXPECT_NEAR(report.find("finite")->time, 1.5f, 1e-5f);
}

TEST(Check, RotationsOfOtherLength) {
  Clip clip = standing();
  rotation(clip, 3, "torso").coeffs() *= 1.05f;
  EXPECT_EQ(severity(clip, "quaternions"), Severity::kError);
}

TEST(Check, ShortAndMisshapenClips) {
  Clip clip = standing();
  clip.num_frames = 5;
  clip.root_pos.resize(3 * 5);
  clip.body_rot.resize(4 * 5 * human().num_bodies());
  compute_velocities(human(), clip);
  EXPECT_EQ(severity(clip, "length"), Severity::kWarn);
  clip.body_rot.pop_back();
  EXPECT_EQ(severity(clip, "length"), Severity::kError);
  clip.num_frames = 1;
  EXPECT_EQ(severity(clip, "length"), Severity::kError);
}

}  // namespace
}  // namespace calm
