#include "motion/npy.h"

#include <cstring>

#include "base/file.h"
#include "motion/motion_test_support.h"

namespace calm {
namespace {

using testing::HasSubstr;

// Writes what a poselib clip contains, with just enough of pickle for it.
class PickleWriter {
 public:
  PickleWriter& raw(std::string_view text) { return out_ += text, *this; }
  template <class T>
  PickleWriter& number(T value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof(T));
    return *this;
  }
  PickleWriter& text(const std::string& t) { return raw("X").number(static_cast<uint32_t>(t.size())).raw(t); }
  PickleWriter& integer(int32_t i) { return raw("J").number(i); }
  PickleWriter& global(const std::string& module, const std::string& name) {
    return raw("c").raw(module).raw("\n").raw(name).raw("\n");
  }
  PickleWriter& dtype(const std::string& type) {
    global("numpy", "dtype").text(type).raw("\x89\x88\x87R(").integer(3).text(type == "O8" ? "|" : "<");
    return raw("NNN").integer(-1).integer(-1).integer(0).raw("tb");
  }
  PickleWriter& array_head(const std::vector<int>& shape, const std::string& type) {
    global("numpy.core.multiarray", "_reconstruct").global("numpy", "ndarray").integer(0).raw("\x85");
    raw(std::string_view("C\1b\x87R(", 6)).integer(1).raw("(");
    for (const int n : shape) integer(n);
    return raw("t").dtype(type).raw("\x89");
  }
  template <class T>
  PickleWriter& wrapped_array(const std::vector<int>& shape, const std::string& type, const std::vector<T>& values) {
    raw("}(").text("arr").array_head(shape, type);
    raw("B").number(static_cast<uint32_t>(values.size() * sizeof(T)));
    for (const T v : values) number(v);
    return raw("tb").text("context").raw("}").text("dtype").text("whatever").raw("su");
  }
  const std::string& bytes() const { return out_; }

 private:
  std::string out_;
};

std::string npy_header() {
  std::string text = "{'descr': '|O', 'fortran_order': False, 'shape': (), }";
  text.resize(117, ' ');
  return std::string("\x93NUMPY\x01\x00v\x00", 10) + text + "\n";
}

struct TinyClip {
  const Character* character = &human();
  int frames = 3;
  std::vector<std::string> names;
  std::vector<int64_t> parents;
  std::vector<float> offsets;
  std::vector<double> rotation;  // identity

  explicit TinyClip(const Character& c) : character(&c) {
    for (const Body& body : c.bodies) add(body.name, body.parent, body.pos);
  }
  void add(const std::string& name, int parent, const Vec3& pos) {
    names.push_back(name);
    parents.push_back(parent);
    offsets.insert(offsets.end(), {pos.x(), pos.y(), pos.z()});
  }

  std::string bytes() const {
    const int n = static_cast<int>(names.size());
    std::vector<double> rot = rotation;
    if (rot.empty())
      for (int i = 0; i < frames * n; ++i) rot.insert(rot.end(), {0.0, 0.0, 0.0, 1.0});
    std::vector<double> pos, vel(static_cast<size_t>(frames * n * 3), 0.25), ang_vel(vel.size(), 0.5);
    for (int f = 0; f < frames; ++f) pos.insert(pos.end(), {0.1 * f, 0.0, 0.9});
    PickleWriter p;
    p.raw("\x80\x03").array_head({}, "O8").raw("](").raw("");
    p.global("collections", "OrderedDict").raw(")R(");
    p.text("rotation").wrapped_array({frames, n, 4}, "f8", rot);
    p.text("root_translation").wrapped_array({frames, 3}, "f8", pos);
    p.text("global_velocity").wrapped_array({frames, n, 3}, "f8", vel);
    p.text("global_angular_velocity").wrapped_array({frames, n, 3}, "f8", ang_vel);
    p.text("skeleton_tree").global("collections", "OrderedDict").raw(")R(");
    p.text("node_names").raw("](");
    for (const auto& name : names) p.text(name);
    p.raw("e");
    p.text("parent_indices").wrapped_array({n}, "i8", parents);
    p.text("local_translation").wrapped_array({n, 3}, "f4", offsets);
    p.raw("u");
    p.text("is_local").raw("\x88").text("fps").raw("G");
    p.raw(std::string_view("\x40\x3e\0\0\0\0\0\0", 8));  // 30.0, highest byte first
    p.text("__name__").text("SkeletonMotion");
    p.raw("uetb.");
    return npy_header() + p.bytes();
  }
};

Clip parse(const TinyClip& tiny, std::vector<std::string>* warnings = nullptr) {
  return parse_npy(*tiny.character, tiny.bytes(), "folder/tiny.npy", warnings);
}

TEST(Npy, ReadsATinyClip) {
  std::vector<std::string> warnings;
  const Clip clip = parse(TinyClip(human()), &warnings);
  EXPECT_THAT(warnings, testing::IsEmpty());
  EXPECT_EQ(clip.name, "tiny");
  EXPECT_EQ(clip.num_frames, 3);
  EXPECT_EQ(clip.fps, 30.0f);
  EXPECT_FLOAT_EQ(clip.root_pos[6], 0.2f);
  EXPECT_FLOAT_EQ(clip.root_vel[0], 0.25f);
  EXPECT_FLOAT_EQ(clip.root_ang_vel[0], 0.5f);
  EXPECT_EQ(clip.body_rot.size(), 3 * 4 * human().bodies.size());
  EXPECT_EQ(clip.dof_vel.size(), 3u * human().num_dofs);
}

TEST(Npy, BodiesOfOneSideOnlyAreLeftOutWithAWarning) {
  // sword and shield onto bare hands, and bare hands onto the knight
  TinyClip armed(knight());
  armed.character = &human();
  std::vector<std::string> warnings;
  parse(armed, &warnings);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_THAT(warnings[0], testing::AllOf(HasSubstr("sword"), HasSubstr("shield"), HasSubstr("dropped")));
  TinyClip bare(human());
  bare.character = &knight();
  warnings.clear();
  parse(bare, &warnings);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_THAT(warnings[0], HasSubstr("has no sword, shield"));

  // a hand that turns where the character's does not
  armed.rotation.clear();
  for (int i = 0; i < armed.frames; ++i)
    for (const auto& name : armed.names)
      armed.rotation.insert(armed.rotation.end(),
                            {0.0, name == "right_hand" ? 0.6 : 0.0, 0.0, name == "right_hand" ? 0.8 : 1.0});
  warnings.clear();
  parse(armed, &warnings);
  ASSERT_EQ(warnings.size(), 2u);
  EXPECT_THAT(warnings[1], testing::AllOf(HasSubstr("right_hand"), HasSubstr("74 degrees")));
}

TEST(Npy, SaysWhatDoesNotFitTheCharacter) {
  TinyClip missing(human());
  missing.names[3] = "third_arm";
  EXPECT_THAT(error_of([&] { parse(missing); }), HasSubstr(human().bodies[3].name));
  TinyClip longer(human());
  longer.offsets[3 * 4 + 2] -= 0.03f;
  EXPECT_THAT(error_of([&] { parse(longer); }),
              testing::AllOf(HasSubstr(human().bodies[4].name), HasSubstr("retarget")));
  TinyClip elsewhere(human());
  elsewhere.parents[2] = 0;
  EXPECT_THAT(error_of([&] { parse(elsewhere); }), HasSubstr("hangs from `pelvis`"));
  TinyClip not_a_rotation(human());
  not_a_rotation.rotation.assign(static_cast<size_t>(not_a_rotation.frames) * human().bodies.size() * 4, 0.0);
  EXPECT_THAT(error_of([&] { parse(not_a_rotation); }), HasSubstr("is no rotation"));
  TinyClip not_finite(human());
  not_finite.rotation.assign(static_cast<size_t>(not_finite.frames) * human().bodies.size() * 4, NAN);
  EXPECT_THAT(error_of([&] { parse(not_finite); }), HasSubstr("not finite"));
}

TEST(Npy, RefusesEverythingElseByName) {
  const auto error = [](const std::string& pickle) {
    return error_of([&] { parse_npy(human(), npy_header() + pickle, "bad.npy", nullptr); });
  };
  // what a malicious file would do
  EXPECT_THAT(error("\x80\x03"
                    "cos\nsystem\nX\4\0\0\0true\x85R."),
              testing::AllOf(HasSubstr("os system"), HasSubstr("byte 130")));
  EXPECT_THAT(error("\x80\x03\x8c\2os\x93."), HasSubstr("SHORT_BINUNICODE"));
  EXPECT_THAT(error("\x80\x03)\x81."), HasSubstr("NEWOBJ"));
  EXPECT_THAT(error("\x80\x04."), HasSubstr("protocol 4"));
  EXPECT_THAT(error(std::string("\xff")), HasSubstr("0xff"));
  EXPECT_THAT(error("\x80\x03)."), HasSubstr("not a poselib"));
  EXPECT_THAT(error("\x80\x03h\5."), HasSubstr("BINGET"));
  EXPECT_THAT(error("\x80\x03t."), HasSubstr("no mark"));
  EXPECT_THAT(error("\x80\x03" + std::string(100000, '(')), HasSubstr("stack deeper"));
  std::string values = "\x80\x03]q";
  values += '\0';
  for (int i = 0; i < 300000; ++i) values += "Na";
  EXPECT_THAT(error(values), HasSubstr("more than"));
  // an array that is said to be larger than the file
  PickleWriter p;
  p.raw("\x80\x03").array_head({1 << 30, 1 << 30}, "f8").raw("B").number(uint32_t{8}).raw("01234567tb.");
  EXPECT_THAT(error(p.bytes()), HasSubstr("array larger"));
  PickleWriter q;
  q.raw("\x80\x03").array_head({-1}, "f8").raw("B").number(uint32_t{8}).raw("01234567tb.");
  EXPECT_THAT(error(q.bytes()), HasSubstr("shape"));
  EXPECT_THAT(error_of([] { parse_npy(human(), "not numpy", "bad.npy", nullptr); }), HasSubstr("not a NumPy file"));
  EXPECT_THROW(parse_npy(human(), "", "bad.npy", nullptr), Error);
}

TEST(Npy, EveryTruncationIsRefused) {
  const std::string bytes = TinyClip(human()).bytes();
  for (size_t n = 0; n < bytes.size(); n += n < 600 ? 1 : 13)
    EXPECT_THROW(parse_npy(human(), std::string_view(bytes).substr(0, n), "cut.npy", nullptr), Error) << n;
}

TEST(Npy, DamagedFilesAreRefusedOrReadButNeverCrash) {
  const std::string bytes = TinyClip(human()).bytes();
  Rng rng(11);
  int refused = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string damaged = bytes;
    for (int k = rng.below(4); k >= 0; --k) {
      const auto at = static_cast<size_t>(rng.below(static_cast<int>(damaged.size())));
      switch (rng.below(3)) {
        case 0:
          damaged[at] = static_cast<char>(rng.below(256));
          break;
        case 1:
          damaged.erase(at, static_cast<size_t>(rng.below(40)));
          break;
        default:
          damaged.insert(at, damaged.substr(static_cast<size_t>(rng.below(static_cast<int>(damaged.size()))),
                                            static_cast<size_t>(rng.below(40))));
      }
    }
    try {
      const Clip clip = parse_npy(human(), damaged, "damaged.npy", nullptr);
      EXPECT_EQ(clip.body_rot.size(), 4 * human().bodies.size() * static_cast<size_t>(clip.num_frames));
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
}

// Velocities that the recorded clips carry are what compute_velocities makes of their positions.
TEST(Npy, RecordedClipsAndTheirVelocities) {
  const auto folder = motions_folder();
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no folder " << folder << "; set MOTIONS_DIR";
  int clips = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().extension() != ".npy") continue;
    SCOPED_TRACE(entry.path().filename().string());
    std::vector<std::string> warnings;
    const bool bare = entry.path().filename().string().starts_with("amp_humanoid");
    const Character& character = bare ? human() : knight();
    const Clip clip = import_npy(character, entry.path(), &warnings);
    EXPECT_THAT(warnings, testing::IsEmpty());
    ++clips;
    if (bare) continue;  // made with another frame rate than the one they carry
    Clip again = clip;
    compute_velocities(character, again);
    EXPECT_EQ(again.dof_vel, clip.dof_vel);
    float worst = 0.0f, worst_turn = 0.0f;
    // the recorded angular velocity ends with a zero that was smoothed into the last frames
    for (size_t i = 0; i < clip.root_vel.size(); ++i)
      worst = std::max(worst, std::abs(again.root_vel[i] - clip.root_vel[i]));
    for (size_t i = 0; i + 27 < clip.root_vel.size(); ++i)
      worst_turn = std::max(worst_turn, std::abs(again.root_ang_vel[i] - clip.root_ang_vel[i]));
    EXPECT_LT(worst, 2e-3f);
    EXPECT_LT(worst_turn, 1e-2f);
  }
  if (clips == 0) GTEST_SKIP() << "no .npy clips below " << folder;
}

}  // namespace
}  // namespace calm
