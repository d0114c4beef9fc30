// Damaged files of every kind that is read: clips, joint maps, motion libraries, policies, characters.
#include "fuzz/fuzz.h"

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <boost/crc.hpp>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "direct/machine_file.h"
#include "fuzz/seeds.h"
#include "motion/bvh.h"
#include "motion/check.h"
#include "motion/library.h"
#include "motion/npy.h"
#include "motion/retarget.h"
#include "play/test_policy.h"
#include "runtime/high_level_policy.h"
#include "runtime/policy.h"

namespace calm::fuzz {

namespace {

namespace fs = std::filesystem;

const fs::path kSource = CALM_SOURCE_DIR;

const Character& human() {
  static const Character character = load_character(kSource / "assets/characters/human.xml");
  return character;
}

// Files of a folder, if it is there: the smallest `count` with that extension.
std::vector<std::string> files_of(const fs::path& folder, const std::string& extension, size_t count) {
  std::vector<std::pair<uintmax_t, fs::path>> found;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(folder, ec))
    if (entry.path().extension() == extension) found.emplace_back(entry.file_size(), entry.path());
  std::ranges::sort(found);
  std::vector<std::string> out;
  for (size_t i = 0; i < std::min(count, found.size()); ++i) out.push_back(read_file(found[i].second));
  return out;
}

fs::path motions_dir() {
  const char* dir = std::getenv("MOTIONS_DIR");
  return dir ? fs::path(dir) : kSource / "../shared/motions";
}

void append(std::vector<std::string>& to, std::vector<std::string> more) {
  for (std::string& s : more) to.push_back(std::move(s));
}

// Hands the bytes over as a file, for readers that take no text.
class AsFile {
 public:
  explicit AsFile(const std::string& name)
      : path_(fs::temp_directory_path() / fmt::format("calm-fuzz-{}-{}", ::getpid(), name)) {}
  ~AsFile() { fs::remove(path_); }
  const fs::path& path() const { return path_; }
  const fs::path& write(const std::string& bytes) const {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
    return path_;
  }

 private:
  fs::path path_;
};

// A clip that was accepted must be fit for use.
void use_clip(const Character& character, const Clip& clip) {
  check_clip(character, clip);
  const MotionLibrary library(character, {clip});
  std::vector<float> features(2 * static_cast<size_t>(character.motion_feature_size()));
  library.window_features({0, 0.5f * clip.length()}, 2, 1.0f / 30.0f, features.data());
}

class Fuzz : public ::testing::Test {
 protected:
  void SetUp() override { spdlog::set_level(spdlog::level::off); }
  void TearDown() override { spdlog::set_level(spdlog::level::info); }
};

}  // namespace

TEST_F(Fuzz, NpyClips) {
  FuzzInput input{.name = "npy",
                  .seeds = {npy_seed(human(), 3, false), npy_seed(human(), 2, true)},
                  .words = {},
                  .read = {},
                  .max_seconds = 0};
  append(input.seeds, files_of(motions_dir() / "isaacgymenvs", ".npy", 1));
  input.words = {"f4", "f8", "i8", "O8", "rotation", "arr", "numpy", "dtype", "_reconstruct", "scalar", "OrderedDict"};
  input.read = [](const std::string& bytes) { use_clip(human(), parse_npy(human(), bytes, "damaged.npy", nullptr)); };
  run_fuzz(input);
}

TEST_F(Fuzz, BvhClips) {
  FuzzInput input{.name = "bvh", .seeds = {bvh_seed(human(), 4)}, .words = {}, .read = {}, .max_seconds = 0};
  input.words = {"ROOT",        "JOINT",     "End Site",  "OFFSET",    "CHANNELS",  "MOTION", "Frames:",
                 "Frame Time:", "HIERARCHY", "Xposition", "Yrotation", "Zrotation", "{",      "}"};
  const RetargetMap map = parse_retarget_map(bvh_seed_map(human()), "seed map");
  input.read = [&](const std::string& bytes) {
    const BvhMotion motion = parse_bvh(bytes, "damaged.bvh");
    guess_bvh(motion);
    use_clip(human(), retarget(human(), motion, map, "damaged", nullptr));
  };
  run_fuzz(input);
}

TEST_F(Fuzz, BvhClipsOfOthers) {
  FuzzInput input{.name = "bvh-cmu",
                  .seeds = files_of(motions_dir() / "cmu", ".bvh", 2),
                  .words = {},
                  .read = {},
                  .max_seconds = 0};
  if (input.seeds.empty()) GTEST_SKIP() << motions_dir() << " holds no clips";
  const RetargetMap map = load_retarget_map(default_retarget_map_path());
  input.read = [&](const std::string& bytes) {
    retarget(human(), parse_bvh(bytes, "damaged.bvh"), map, "damaged", nullptr);
  };
  run_fuzz(input);
}

TEST_F(Fuzz, JointMaps) {
  FuzzInput input{.name = "joint-map",
                  .seeds = files_of(kSource / "configs/retarget", ".yaml", 2),
                  .words = {},
                  .read = {},
                  .max_seconds = 0};
  input.words = {"up", "auto", "- [", "&a", "*a", "<<", "{", "}", "joints", "from", "rotation", "!!binary", "? "};
  input.read = [](const std::string& bytes) { parse_retarget_map(bytes, "damaged.yaml"); };
  run_fuzz(input);
}

TEST_F(Fuzz, MotionLibraries) {
  const AsFile file("library.calmlib");
  save_library(MotionLibrary(human(), {clip_seed(human(), "one", 3), clip_seed(human(), "two", 2)}), file.path());
  FuzzInput input{.name = "library", .seeds = {read_file(file.path())}, .words = {}, .read = {}, .max_seconds = 0};
  const auto read = [&](const std::string& bytes) {
    for (const Clip& clip : load_library_clips(human(), file.write(bytes))) use_clip(human(), clip);
  };
  input.read = [&](std::string bytes) {
    // the checksum refuses nearly everything, so it and the length are put right for half of the inputs
    if (bytes.size() > 24 && bytes.size() % 2 == 0) {
      boost::crc_32_type crc;
      crc.process_bytes(bytes.data() + 24, bytes.size() - 24);
      const uint32_t checksum = crc.checksum();
      const uint64_t size = bytes.size() - 24;
      std::memcpy(bytes.data() + 12, &checksum, 4);
      std::memcpy(bytes.data() + 16, &size, 8);
    }
    read(bytes);
  };
  run_fuzz(input);
}

TEST_F(Fuzz, Policies) {
  const AsFile file("policy.safetensors");
  FuzzInput input{.name = "policy", .seeds = {}, .words = {}, .read = {}, .max_seconds = 0};
  input.seeds.push_back(serialise_safetensors(make_test_policy(human(), "assets/characters/human.xml")));
  input.words = {"F32", "F16", "dtype", "shape", "data_offsets", "__metadata__", "actor", "latents", "[[[[", "{", "}"};
  input.read = [&](const std::string& bytes) {
    const Policy policy = load_policy(file.write(bytes));
    const Eigen::VectorXf obs = Eigen::VectorXf::Zero(policy.obs_mean.size());
    for (const NamedLatent& latent : policy.latents)
      if (!(policy.act(obs, latent.z).array().abs() <= 1.0f).all()) throw std::logic_error("actions beyond 1");
  };
  run_fuzz(input);
}

TEST_F(Fuzz, HighLevelPolicies) {
  const Policy low =
      parse_policy(serialise_safetensors(make_test_policy(human(), "assets/characters/human.xml")), "test policy");
  FuzzInput input{.name = "high-level", .seeds = {}, .words = {}, .read = {}, .max_seconds = 0};
  input.seeds.push_back(serialise_safetensors(make_test_high_level_policy(low)));
  input.words = {"F32",   "dtype",  "shape", "data_offsets", "__metadata__", "actor",
                 "clips", "latent", "reach", "[[[[",         "1e9"};
  input.read = [&](const std::string& bytes) {
    const HighLevelPolicy high = parse_high_level_policy(bytes, "damaged", low);
    const RowMatrix z = high.latents(RowMatrix::Zero(2, high.input_mean.size()));
    if (!z.allFinite()) throw std::logic_error("latents that are not finite");
  };
  run_fuzz(input);
}

TEST_F(Fuzz, StateMachines) {
  const AsFile file("machine.yaml");
  Policy policy;
  for (const char* name :
       {"stand", "walk", "kick_right", "raise_arms", "sneak", "turn_around_left", "turn_around_right"})
    policy.latents.push_back({name, {}, {}, 2.0f});
  FuzzInput input{.name = "machine",
                  .seeds = {read_file(kSource / "configs/state_machines/classic.yaml"),
                            read_file(kSource / "configs/state_machines/patrol.yaml")},
                  .words = {},
                  .read = {},
                  .max_seconds = 0};
  input.words = {"machine", "until", "when", "go", "final: true", "target", "&a",
                 "*a",      "<<",    "- [",  "{",  "}",           "m/s",    "1e99"};
  input.read = [&](const std::string& bytes) {
    const Machine machine = load_machine(file.write(bytes), policy);
    to_dot(machine, policy);
    MachinePlace place = begin(machine);
    Senses senses;
    senses.has_target = true, senses.target = Vec2(1.0f, 2.0f);
    for (int i = 0; i < 50; ++i) {
      senses.time += 0.2f, senses.fallen = i == 20;
      place = tick(machine, place, senses).place;
      if (place.state < 0 || place.state >= static_cast<int>(machine.states.size()))
        throw std::logic_error("no such state");
    }
  };
  run_fuzz(input);
}

TEST_F(Fuzz, Characters) {
  FuzzInput input{.name = "mjcf",
                  .seeds = files_of(kSource / "assets/characters", ".xml", 9),
                  .words = {},
                  .read = {},
                  .max_seconds = 0};
  input.seeds.push_back(
      "<mujoco><worldbody><body name='a' pos='0 0 1'><freejoint/><geom size='.1'/><body name='b'>"
      "<joint name='x' axis='1 0 0'/><joint name='y' axis='0 1 0'/><joint name='z' axis='0 0 1'/>"
      "<geom type='capsule' size='.05' fromto='0 0 0 0 0 -.3'/></body></body></worldbody></mujoco>");
  append(input.seeds, files_of(motions_dir() / "noncommercial/mjcf", ".xml", 1));
  input.words = {"ball",  "hinge",   "slide", "free",  "mesh",      "capsule", "box",       "class",     "default",
                 "range", "fromto",  "mass",  "body",  "inertial",  "include", "compiler",  "euler",     "quat",
                 "size",  "density", "plane", "joint", "worldbody", "frame",   "composite", "replicate", "file"};
  input.read = [](const std::string& bytes) {
    const Character character = parse_character(bytes, "", "damaged.xml");
    const CharacterState state = default_state(character);
    if (!std::isfinite(state.body_pos.front())) throw std::logic_error("the standing pose is not finite");
  };
  run_fuzz(input);
}

TEST_F(Fuzz, CharacterSettings) {
  const std::string mjcf = read_file(kSource / "assets/characters/human.xml");
  FuzzInput input{.name = "character-settings",
                  .seeds = files_of(kSource / "assets/characters", ".yaml", 1),
                  .words = {},
                  .read = {}};
  input.words = {"key_bodies", "feet", "fall_height", "default_pose", "&a", "*a", "<<", "- [", "head", "pelvis"};
  input.read = [&](const std::string& bytes) { parse_character(mjcf, bytes, "damaged.yaml"); };
  run_fuzz(input);
}

// The fuzzer itself must see what it is there for.
namespace {
std::string verdict_on(const std::function<void(const std::string&)>& read) {
  return find_fault({.name = "self", .seeds = {"seed 1"}, .words = {}, .read = read, .max_seconds = 0}, 0.1);
}
}  // namespace

TEST_F(Fuzz, SeesWhatGoesWrong) {
  const auto wrong_when_damaged = [](auto action) {
    return [action](const std::string& bytes) {
      if (bytes != "seed 1") action();
    };
  };
  EXPECT_NE(verdict_on([](const std::string&) { fail("no"); }).find("refused undamaged"), std::string::npos);
  EXPECT_NE(verdict_on(wrong_when_damaged([] { ::_exit(1); })).find("exit code 1"), std::string::npos);
  EXPECT_NE(verdict_on(wrong_when_damaged([] { throw std::runtime_error("x"); })).find("something else"),
            std::string::npos);
  EXPECT_NE(verdict_on(wrong_when_damaged([] { ::raise(SIGKILL); })).find("signal 9"), std::string::npos);
  EXPECT_NE(verdict_on(wrong_when_damaged([] { std::vector<char> large(size_t{200} << 20); })).find("at once"),
            std::string::npos);
  EXPECT_NE(verdict_on(wrong_when_damaged([] { Eigen::VectorXf::Zero(60 << 20).eval(); })).find("at once"),
            std::string::npos);
  EXPECT_NE(verdict_on([](const std::string&) {}).find("no damaged input was refused"), std::string::npos);
}

TEST_F(Fuzz, SeesWhatTakesTooLong) {
  const auto forever = [](const std::string& bytes) {
    volatile bool waiting = bytes != "seed 1";
    while (waiting) {
    }
  };
  const FuzzInput input{.name = "self", .seeds = {"seed 1"}, .words = {}, .read = forever, .max_seconds = 1};
  EXPECT_NE(find_fault(input, 0.1).find("takes too long"), std::string::npos);
}

TEST_F(Fuzz, DamageIsTheSameEveryTime) {
  const FuzzInput input{
      .name = "self", .seeds = {"HIERARCHY 1 2 3 words and more words"}, .words = {"x"}, .read = {}, .max_seconds = 0};
  int changed = 0;
  for (uint64_t i = 0; i < 100; ++i) {
    EXPECT_EQ(damaged_input(input, i), damaged_input(input, i));
    changed += damaged_input(input, i) != input.seeds[0];
  }
  EXPECT_GT(changed, 80);
}

}  // namespace calm::fuzz
