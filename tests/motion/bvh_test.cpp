// The BVH reader on good and damaged text, and the importer on small skeletons whose right answer is known.
#include "motion/bvh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/rng.h"
#include "motion/check.h"
#include "motion/retarget.h"

namespace calm {
namespace {

using ::testing::HasSubstr;

// A person of 13 joints in plain Y-up metres, arms out, facing +z, as text with any names, axes, unit and channel
// order.
struct Style {
  std::string prefix;                                  // of joint names
  Eigen::Matrix3f axes = Eigen::Matrix3f::Identity();  // takes Y-up, Z-forward vectors to the file's
  float unit = 1.0f;                                   // file units per metre
  std::string order = "ZYX";                           // of rotation channels
  std::string newline = "\n", space = " ";
};

struct Bone {
  const char* name;
  int parent;
  Vec3 offset;
};
const std::vector<Bone> kPerson = {{"Hips", -1, {0, 0, 0}},
                                   {"Chest", 0, {0, 0.24f, 0}},
                                   {"Head", 1, {0, 0.24f, 0}},
                                   {"LeftArm", 1, {0.18f, 0.2f, 0}},
                                   {"LeftForeArm", 3, {0.28f, 0, 0}},
                                   {"LeftHand", 4, {0.25f, 0, 0}},
                                   {"RightArm", 1, {-0.18f, 0.2f, 0}},
                                   {"RightForeArm", 6, {-0.28f, 0, 0}},
                                   {"RightHand", 7, {-0.25f, 0, 0}},
                                   {"LeftUpLeg", 0, {0.1f, -0.05f, 0}},
                                   {"LeftLeg", 9, {0, -0.42f, 0}},
                                   {"LeftFoot", 10, {0, -0.41f, 0}},
                                   {"LeftToe", 11, {0, -0.04f, 0.14f}},
                                   {"RightUpLeg", 0, {-0.1f, -0.05f, 0}},
                                   {"RightLeg", 13, {0, -0.42f, 0}},
                                   {"RightFoot", 14, {0, -0.41f, 0}},
                                   {"RightToe", 15, {0, -0.04f, 0.14f}}};

// Local rotation of a bone at time t in the Y-up frame: arms hang and swing, elbows and knees bend as hinges.
Quat bone_rotation(const std::string& name, float t) {
  const auto about = [](const Vec3& axis, float degrees) {
    return Quat(Eigen::AngleAxisf(degrees * kPi / 180.0f, axis));
  };
  const float swing = std::sin(2.0f * kPi * t);
  const Vec3 x = Vec3::UnitX(), y = Vec3::UnitY(), z = Vec3::UnitZ();
  if (name == "Hips") return about(y, 30.0f) * about(x, 3.0f * swing);
  if (name == "Chest") return about(y, 10.0f * swing) * about(x, 5.0f);
  if (name == "Head") return about(y, -20.0f * swing);
  if (name == "LeftArm") return about(x, 25.0f * swing) * about(z, -80.0f);
  if (name == "RightArm") return about(x, -25.0f * swing) * about(z, 80.0f);
  if (name == "LeftForeArm") return about(y, -40.0f - 20.0f * swing);  // the palm faces down: forward is about y
  if (name == "RightForeArm") return about(y, 40.0f - 20.0f * swing);
  if (name == "LeftUpLeg") return about(x, -15.0f - 20.0f * swing);
  if (name == "RightUpLeg") return about(x, -15.0f + 20.0f * swing);
  if (name == "LeftLeg") return about(x, 30.0f + 15.0f * swing);
  if (name == "RightLeg") return about(x, 30.0f - 15.0f * swing);
  if (name == "LeftFoot" || name == "RightFoot") return about(x, -10.0f);
  return Quat::Identity();
}

std::string person_bvh(const Style& style, int frames = 61, float frame_time = 1.0f / 60.0f) {
  std::string out = "HIERARCHY" + style.newline;
  const auto line = [&](const std::string& text) { out += text + style.newline; };
  const auto vec = [&](const Vec3& v) {
    const Vec3 w = style.unit * (style.axes * v);
    return fmt::format("{:.6f}{}{:.6f}{}{:.6f}", w.x(), style.space, w.y(), style.space, w.z());
  };
  std::string rotations;
  for (const char c : style.order) rotations += fmt::format("{}{}rotation", style.space, c);
  std::vector<int> open;
  const auto close_to = [&](int parent) {
    while (!open.empty() && open.back() != parent) {
      line("}");
      open.pop_back();
    }
  };
  for (size_t i = 0; i < kPerson.size(); ++i) {
    const Bone& bone = kPerson[i];
    if (bone.parent >= 0) close_to(bone.parent);
    line((bone.parent < 0 ? "ROOT " : "JOINT ") + style.prefix + bone.name);
    line("{");
    open.push_back(static_cast<int>(i));
    line("OFFSET" + style.space + vec(bone.offset));
    if (bone.parent < 0)
      line("CHANNELS" + style.space + "6" + rotations + " Xposition Yposition Zposition");
    else
      line("CHANNELS" + style.space + "3" + rotations);
  }
  close_to(-1);
  line("MOTION");
  line(fmt::format("Frames:{}{}", style.space, frames));
  line(fmt::format("Frame Time:{}{:.7f}", style.space, frame_time));
  for (int f = 0; f < frames; ++f) {
    const float t = static_cast<float>(f) * frame_time;
    std::string row;
    for (const Bone& bone : kPerson) {
      const Eigen::Matrix3f r = style.axes * bone_rotation(bone.name, t).toRotationMatrix() * style.axes.transpose();
      const Vec3 angles = r.eulerAngles(style.order[0] - 'X', style.order[1] - 'X', style.order[2] - 'X');
      for (int k = 0; k < 3; ++k) row += fmt::format("{:.5f}{}", angles[k] * 180.0f / kPi, style.space);
      if (bone.parent < 0) row += vec(Vec3(0.5f * t + 1.0f, 0.9f, 1.2f * t - 2.0f)) + style.space;
    }
    line(row);
  }
  while (out.ends_with('\n') || out.ends_with('\r')) out.pop_back();  // no newline at the end of the file
  return out;
}

std::string person_map(const std::string& prefix) {
  std::string yaml = "joints:\n";
  const std::vector<std::pair<const char*, const char*>> names = {{"pelvis", "Hips"},
                                                                  {"torso", "Chest"},
                                                                  {"head", "Head"},
                                                                  {"left_upper_arm", "LeftArm"},
                                                                  {"left_lower_arm", "LeftForeArm"},
                                                                  {"left_hand", "LeftHand"},
                                                                  {"right_upper_arm", "RightArm"},
                                                                  {"right_lower_arm", "RightForeArm"},
                                                                  {"right_hand", "RightHand"},
                                                                  {"left_thigh", "LeftUpLeg"},
                                                                  {"left_shin", "LeftLeg"},
                                                                  {"left_foot", "LeftFoot"},
                                                                  {"right_thigh", "RightUpLeg"},
                                                                  {"right_shin", "RightLeg"},
                                                                  {"right_foot", "RightFoot"}};
  for (const auto& [ours, theirs] : names) yaml += fmt::format("  {}: \"{}{}\"\n", ours, prefix, theirs);
  return yaml;
}

const Character& human() {
  static const Character character =
      load_character(std::filesystem::path(CALM_SOURCE_DIR) / "assets/characters/human.xml");
  return character;
}

std::string error_of(const std::string& text) {
  try {
    parse_bvh(text, "clip.bvh");
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

const std::string kTiny =
    "HIERARCHY\nROOT a\n{\nOFFSET 1 2 3\nCHANNELS 6 Xposition Yposition Zposition Yrotation Xrotation Zrotation\n"
    "JOINT b c\n{\nOFFSET 0 1 0\nCHANNELS 4 Xrotation Yposition Zrotation Yrotation\nEnd Site\n{\nOFFSET 0 0.5 "
    "0\n}\n}\n}\n"
    "MOTION\nFrames: 2\nFrame Time: 0.5\n0 0 0 0 0 0 0 1 0 0\n1 2 3 90 0 0 0 7 0 90\n";

TEST(Bvh, ReadsJointsChannelsAndFrames) {
  const BvhMotion m = parse_bvh(kTiny, "clip.bvh");
  ASSERT_EQ(m.joints.size(), 2u);
  EXPECT_EQ(m.joints[1].name, "b c");
  EXPECT_EQ(m.joints[1].parent, 0);
  EXPECT_EQ(m.joints[1].first_channel, 6);
  EXPECT_EQ(m.joints[1].channels[1], BvhChannel::kYPosition);
  EXPECT_TRUE(m.joints[1].has_end);
  EXPECT_FLOAT_EQ(m.joints[1].end.y(), 0.5f);
  EXPECT_EQ(m.num_frames, 2);
  EXPECT_FLOAT_EQ(m.fps(), 2.0f);
  EXPECT_FLOAT_EQ(m.seconds(), 0.5f);

  // the second joint's Y position replaces its offset; its rotation is 90 degrees about y, in a root turned by 90 more
  BvhPose pose;
  bvh_local_pose(m, 1, pose);
  bvh_forward_kinematics(m, pose);
  EXPECT_LT((pose.pos[0] - Vec3(1, 2, 3)).norm(), 1e-6f);
  EXPECT_LT((pose.pos[1] - Vec3(1, 9, 3)).norm(), 1e-5f);
  EXPECT_LT((pose.rot[1] * Vec3::UnitX() - Vec3(-1, 0, 0)).norm(), 1e-5f);
}

TEST(Bvh, RotatesInTheOrderOfTheChannels) {
  const std::string text = replaced(kTiny, "1 2 3 90 0 0", "0 0 0 90 90 0");  // y, then x
  BvhPose pose;
  const BvhMotion m = parse_bvh(text, "clip.bvh");
  bvh_local_pose(m, 1, pose);
  EXPECT_LT((pose.local_rot[0] * Vec3::UnitY() - Vec3(1, 0, 0)).norm(), 1e-5f);  // Ry Rx y = Ry z = x
}

TEST(Bvh, TakesTabsCarriageReturnsAndAMissingLastNewline) {
  Style odd;
  odd.newline = "\r\n";
  odd.space = "\t";
  const BvhMotion a = parse_bvh(person_bvh({}), "a"), b = parse_bvh(person_bvh(odd), "b");
  EXPECT_EQ(a.values, b.values);
  EXPECT_EQ(a.joints.size(), b.joints.size());
}

TEST(Bvh, NamesTheLineOfWhatIsWrong) {
  EXPECT_THAT(error_of(replaced(kTiny, "0 0 0 0 0 0 0 1 0 0\n", "0 0 0 0 0 0 0 1 0\n")),
              HasSubstr("clip.bvh:19: frame 1 has 9 values, the channels need 10"));
  EXPECT_THAT(error_of(replaced(kTiny, "0 0 0 0 0 0 0 1 0 0\n", "0 0 0 0 0 0 0 1 0 0 5\n")),
              HasSubstr("more than the 10"));
  EXPECT_THAT(error_of(replaced(kTiny, "1 2 3 90", "1 2 nan 90")), HasSubstr("clip.bvh:20: expected a number"));
  EXPECT_THAT(error_of(replaced(kTiny, "1 2 3 90", "1 2 1e12 90")), HasSubstr("clip.bvh:20: 1000000000000 is larger"));
  EXPECT_THAT(error_of(replaced(kTiny, "OFFSET 1 2 3", "OFFSET 1 2 x")), HasSubstr("clip.bvh:4: expected a number"));
  EXPECT_THAT(error_of(replaced(kTiny, "Frames: 2", "Frames: 3")), HasSubstr("cut off"));
  EXPECT_THAT(error_of(replaced(kTiny, "Frames: 2", "Frames: 1")), HasSubstr("more lines than the 1"));
  EXPECT_THAT(error_of(replaced(kTiny, "Frames: 2", "Frames: 1e9")), HasSubstr("cannot stand in"));
  EXPECT_THAT(error_of(replaced(kTiny, "Frame Time: 0.5", "Frame Time: 0")), HasSubstr("frame time"));
  EXPECT_THAT(error_of(replaced(kTiny, "CHANNELS 6", "CHANNELS 7000000")), HasSubstr("0 to 6"));
  EXPECT_THAT(error_of(replaced(kTiny, "Yrotation Xrotation Zrotation\nJ", "Yrotation Yrotation Zrotation\nJ")),
              HasSubstr("twice"));
  EXPECT_THAT(error_of("garbage"), HasSubstr("clip.bvh:1: expected `HIERARCHY`"));
  EXPECT_THAT(error_of(""), HasSubstr("end of the file"));
  std::string deep = "HIERARCHY\nROOT a\n{\n";
  for (int i = 0; i < 300; ++i) deep += "JOINT a\n{\n";
  EXPECT_THAT(error_of(deep), HasSubstr("deeper than 200"));
  std::string wide = "HIERARCHY\nROOT a\n{\n";
  for (int i = 0; i < 1100; ++i) wide += "JOINT a\n{\n}\n";
  EXPECT_THAT(error_of(wide), HasSubstr("more than 1000"));
}

// Every prefix, and many random damages, give a motion or an Error and nothing else.
TEST(Bvh, SurvivesDamage) {
  for (size_t n = 0; n < kTiny.size(); ++n) error_of(kTiny.substr(0, n));
  const std::string person = person_bvh({}, 8);
  const std::string alphabet = std::string("0123456789.-+e{}: \t\n\0naCHJORE", 29);
  Rng rng(7);
  int read = 0;
  const RetargetMap map = parse_retarget_map(person_map(""), "map");
  for (int i = 0; i < 3000; ++i) {
    std::string text = person;
    for (int k = 1 + rng.below(4); k > 0; --k) {
      const auto at = static_cast<size_t>(rng.below(static_cast<int>(text.size())));
      const auto length = static_cast<size_t>(rng.below(30));
      switch (rng.below(3)) {
        case 0:
          text[at] = alphabet[static_cast<size_t>(rng.below(static_cast<int>(alphabet.size())))];
          break;
        case 1:
          text.erase(at, length);
          break;
        default:
          text.insert(at, text.substr(static_cast<size_t>(rng.below(static_cast<int>(text.size()))), length));
      }
      if (text.empty()) text = " ";
    }
    try {
      const BvhMotion m = parse_bvh(text, "clip.bvh");
      ASSERT_EQ(m.values.size(), static_cast<size_t>(m.num_frames) * static_cast<size_t>(m.num_channels));
      ++read;
      const Clip clip = retarget(human(), m, map, "clip", nullptr);
      for (const float v : clip.body_rot) ASSERT_TRUE(std::isfinite(v));
    } catch (const Error&) {
    }
  }
  EXPECT_GT(read, 100);  // some damage only changes a number
}

TEST(BvhGuess, FindsUpAxisAndUnit) {
  Style style;
  EXPECT_EQ(guess_bvh(parse_bvh(person_bvh(style), "y")).up_axis, "y");
  EXPECT_EQ(guess_bvh(parse_bvh(person_bvh(style), "y")).unit, "m");
  style.axes << 1, 0, 0, 0, 0, -1, 0, 1, 0;  // (x, y, z) -> (x, -z, y)
  style.unit = 100.0f;
  const BvhGuess guess = guess_bvh(parse_bvh(person_bvh(style), "z"));
  EXPECT_EQ(guess.up_axis, "z");
  EXPECT_EQ(guess.unit, "cm");
}

// Largest distance of any body between two clips, m.
float largest_distance(const Clip& a, const Clip& b) {
  EXPECT_EQ(a.num_frames, b.num_frames);
  CharacterState p(human()), q(human());
  float worst = 0.0f;
  for (int f = 0; f < std::min(a.num_frames, b.num_frames); ++f) {
    clip_pose(human(), a, f, p);
    clip_pose(human(), b, f, q);
    for (int i = 0; i < human().num_bodies(); ++i) worst = std::max(worst, (p.view().pos(i) - q.view().pos(i)).norm());
  }
  return worst;
}

Clip import_person(const Style& style, const std::string& options = "", std::vector<std::string>* warnings = nullptr) {
  return retarget(human(), parse_bvh(person_bvh(style), "person"),
                  parse_retarget_map(options + person_map(style.prefix), "map"), "person", warnings);
}

TEST(Retarget, AxesNamesUnitsAndChannelOrderDoNotMatter) {
  const Clip plain = import_person({});
  EXPECT_EQ(plain.num_frames, 31);
  EXPECT_FLOAT_EQ(plain.fps, 30.0f);

  Style other;
  other.prefix = "rig01:mix ";
  other.axes << 1, 0, 0, 0, 0, -1, 0, 1, 0;  // Z up, facing -y
  other.unit = 100.0f;
  other.order = "XYZ";
  EXPECT_LT(largest_distance(plain, import_person(other)), 2e-3f);
  EXPECT_LT(largest_distance(plain, import_person(other, "up: z\nforward: -y\n")), 2e-3f);
  other.axes << 0, 0, 1, 1, 0, 0, 0, 1, 0;  // Z up, facing +x
  other.unit = 1.0f / 0.0254f;
  other.order = "YXZ";
  EXPECT_LT(largest_distance(plain, import_person(other)), 2e-3f);
}

// Directions of limbs, hinges and the root against the formulas that made the file.
TEST(Retarget, LimbsPointWhereTheFilesDo) {
  const Clip clip = import_person({}, "fps: 0\nplace: keep\nkeep_feet: false\n");
  ASSERT_EQ(clip.num_frames, 61);
  EXPECT_NEAR(clip.fps, 60.0f, 0.01f);
  const Character& c = human();
  const auto ours = [](const Vec3& v) { return Vec3(v.z(), v.x(), v.y()); };  // Y up, Z forward -> Z up, X forward
  CharacterState state(c);
  for (int f = 0; f < clip.num_frames; f += 5) {
    clip_pose(c, clip, f, state);
    std::vector<Quat> rot;
    for (const Bone& bone : kPerson) {
      const Quat local = bone_rotation(bone.name, f / 60.0f);
      rot.push_back(bone.parent < 0 ? local : rot[bone.parent] * local);
    }
    const auto direction = [&](const char* from, const char* to) {
      return Vec3((state.view().pos(c.body_index(to)) - state.view().pos(c.body_index(from))).normalized());
    };
    EXPECT_LT((direction("left_upper_arm", "left_lower_arm") - ours(rot[3] * Vec3::UnitX())).norm(), 2e-3f);
    EXPECT_LT((direction("left_lower_arm", "left_hand") - ours(rot[4] * Vec3::UnitX())).norm(), 2e-3f);
    EXPECT_LT((direction("right_lower_arm", "right_hand") - ours(rot[7] * -Vec3::UnitX())).norm(), 2e-3f);
    EXPECT_LT((direction("left_thigh", "left_shin") - ours(rot[9] * -Vec3::UnitY())).norm(), 2e-3f);
    EXPECT_LT((direction("right_shin", "right_foot") - ours(rot[14] * -Vec3::UnitY())).norm(), 2e-3f);
    EXPECT_LT((state.view().rot(c.body_index("torso")) * Vec3::UnitX() - ours(rot[1] * Vec3::UnitZ())).norm(), 2e-3f);
    const float swing = std::sin(2.0f * kPi * f / 60.0f) * kPi / 180.0f;
    const float degree = kPi / 180.0f;
    const auto hinge = [&](const char* body) {
      return state.dof_pos[c.joints[c.bodies[c.body_index(body)].first_joint].dof];
    };
    EXPECT_NEAR(hinge("left_lower_arm"), -40 * degree - 20 * swing, 3e-3f);
    EXPECT_NEAR(hinge("right_lower_arm"), -40 * degree + 20 * swing, 3e-3f);
    EXPECT_NEAR(hinge("left_shin"), 30 * degree + 15 * swing, 3e-3f);
    EXPECT_NEAR(heading(state.view().rot(0)), 30 * degree, 0.01f);
  }
}

TEST(Retarget, StartsAtTheOriginFacingAhead) {
  const Clip clip = import_person({});
  EXPECT_NEAR(clip.root_pos[0], 0.0f, 1e-5f);
  EXPECT_NEAR(clip.root_pos[1], 0.0f, 1e-5f);
  EXPECT_NEAR(heading(ConstQuatMap(clip.body_rot.data())), 0.0f, 1e-4f);
  // 1.3 m of path in the second, times the legs' ratio
  const float scale = (0.421546f + 0.40987f) / 0.83f;
  const float* last = clip.root_pos.data() + 3 * (clip.num_frames - 1);
  EXPECT_NEAR(std::hypot(last[0], last[1]), 1.3f * scale, 0.03f);
}

TEST(Retarget, LeavesOutAnInsertedPose) {
  std::string text = person_bvh({}, 61);
  const auto at = text.find("Frame Time:");
  const auto end = text.find('\n', at) + 1;
  std::string zeros;
  for (size_t i = 0; i < 3 * kPerson.size() + 3; ++i) zeros += "0 ";
  text.insert(end, zeros + "\n");
  text = replaced(text, "Frames: 61", "Frames: 62");
  std::vector<std::string> warnings;
  const Clip clip =
      retarget(human(), parse_bvh(text, "person"), parse_retarget_map(person_map(""), "map"), "person", &warnings);
  EXPECT_EQ(clip.num_frames, 31);
  EXPECT_LT(largest_distance(clip, import_person({})), 1e-4f);
  ASSERT_FALSE(warnings.empty());
  EXPECT_THAT(warnings[0], HasSubstr("first frame"));
}

// A frame now and then is no motion, and would become many clip frames.
TEST(Retarget, RefusesSlowFiles) {
  const BvhMotion motion = parse_bvh(person_bvh({}, 20, 0.5f), "person");
  EXPECT_THROW(retarget(human(), motion, parse_retarget_map(person_map(""), "map"), "person", nullptr), Error);
}

TEST(Retarget, ClampsOnlyWhenAsked) {
  const std::string bend = "clamp: true\n";
  Style style;
  const auto excess = [&](const Clip& clip) { return check_clip(human(), clip).find("limits")->value; };
  RetargetMap map = parse_retarget_map(person_map(""), "map");
  map.joints["head"].rotation = Vec3(0, 0, 120);  // degrees: beyond any neck
  const BvhMotion motion = parse_bvh(person_bvh(style), "person");
  EXPECT_GT(excess(retarget(human(), motion, map, "a", nullptr)), 20.0f);
  map.clamp = true;
  std::vector<std::string> warnings;
  EXPECT_LT(excess(retarget(human(), motion, map, "a", &warnings)), 1.0f);
  EXPECT_THAT(warnings, ::testing::Contains(HasSubstr("clamped")));
}

TEST(RetargetMap, TellsWhatIsWrong) {
  const auto error = [](const std::string& yaml) -> std::string {
    try {
      parse_retarget_map(yaml, "m.yaml");
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_THAT(error("skale: 1\njoints: {pelvis: Hips}"),
              HasSubstr("m.yaml:1: unknown key `skale`; did you mean `scale`"));
  EXPECT_THAT(error("up: w\njoints: {pelvis: Hips}"), HasSubstr("`up` must be"));
  EXPECT_THAT(error("scale: -1\njoints: {pelvis: Hips}"), HasSubstr("`scale` must be"));
  EXPECT_THAT(error("up: y"), HasSubstr("no `joints:`"));
  EXPECT_THAT(error("joints: [a"), HasSubstr("m.yaml:"));
  EXPECT_EQ(error("joints: {pelvis: [A, B], head: {from: C, to: D, rotation: [1, 2, 3]}}"), "");
}

TEST(RetargetMap, NamesJointsThatAreMissing) {
  Style style;
  style.prefix = "other_";
  const BvhMotion motion = parse_bvh(person_bvh(style), "person");
  const RetargetMap map = parse_retarget_map(person_map(""), "m.yaml");
  EXPECT_EQ(unmapped_joints(human(), motion, map).size(), 13u);  // the hands are fixed to the arms
  try {
    retarget(human(), motion, map, "clip.bvh", nullptr);
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("`pelvis` (Hips)"));
    EXPECT_THAT(e.what(), HasSubstr("configs/retarget"));
  }
}

TEST(RetargetMap, ShippedMapsLoad) {
  for (const char* name : {"cmu.yaml", "mixamo.yaml"}) {
    const auto map = load_retarget_map(std::filesystem::path(CALM_SOURCE_DIR) / "configs/retarget" / name);
    for (const auto& [body, joint] : map.joints) EXPECT_GE(human().body_index(body), 0) << name << ": " << body;
  }
}

std::filesystem::path cmu_folder() {
  const char* motions = std::getenv("MOTIONS_DIR");
  return (motions ? std::filesystem::path(motions) : std::filesystem::path(CALM_SOURCE_DIR) / "../shared/motions") /
         "cmu";
}

// The clips that the project trains on: walking stays walking, planted feet stay planted.
TEST(Retarget, CmuClipsComeOutClean) {
  const auto folder = cmu_folder();
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there";
  const RetargetMap map = load_retarget_map(default_retarget_map_path());
  struct Expected {
    const char* file;
    float speed_low, speed_high;  // m/s over ground
  };
  for (const Expected e : {Expected{"02_01.bvh", 0.9f, 1.6f},
                           {"08_01.bvh", 1.0f, 2.2f},
                           {"16_35.bvh", 2.5f, 5.0f},
                           {"127_03.bvh", 1.5f, 5.0f},
                           {"14_37.bvh", 0.0f, 0.3f}}) {
    const Clip clip = import_bvh(human(), folder / e.file, map, nullptr);
    const ClipReport report = check_clip(human(), clip);
    EXPECT_NE(report.worst(), Severity::kError) << e.file;
    EXPECT_LT(report.find("foot_sliding")->value, 0.25f) << e.file;
    EXPECT_LT(report.find("penetration")->value, 0.005f) << e.file;
    float path = 0.0f;
    for (int f = 1; f < clip.num_frames; ++f)
      path += (ConstVec3Map(&clip.root_pos[3 * f]) - ConstVec3Map(&clip.root_pos[3 * f - 3])).head<2>().norm();
    EXPECT_GT(path / clip.length(), e.speed_low) << e.file;
    EXPECT_LT(path / clip.length(), e.speed_high) << e.file;
  }
}

}  // namespace
}  // namespace calm
