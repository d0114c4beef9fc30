// The command line on bad input: an exit code that is not 0, and one line on stderr that says what is wrong and where.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "command/program.h"

namespace calm {

namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const std::string kHuman = CALM_SOURCE_DIR "/assets/characters/human.xml";
const std::string kKnight = CALM_SOURCE_DIR "/assets/characters/knight.xml";

class Command : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "calm-command-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string file(const std::string& name, const std::string& content) const {
    write_file_atomic(folder_ / name, content);
    return path(name);
  }

  // Refused, in one line that names what it is about.
  static void expect_refused(const std::vector<std::string>& arguments, const std::vector<std::string>& words) {
    SCOPED_TRACE("calm " + ::testing::PrintToString(arguments));
    const ProgramRun run = run_program(arguments);
    EXPECT_NE(run.exit_code, 0);
    EXPECT_LT(run.exit_code, 126) << "it crashed or hung";
    EXPECT_EQ(run.err_lines().size(), 1u) << run.err;
    for (const std::string& word : words) EXPECT_THAT(run.err, HasSubstr(word));
    EXPECT_THAT(run.err, ::testing::StartsWith("calm: "));
    EXPECT_EQ(run.err.find("unexpected error"), std::string::npos) << run.err;
    EXPECT_EQ(run.out, "");
  }

  static bool has_verb(const std::string& verb) {
    const auto verbs = verbs_of({});
    return std::ranges::find(verbs, verb) != verbs.end();
  }

  fs::path folder_;
};

#define SKIP_WITHOUT(verb) \
  if (!has_verb(verb)) GTEST_SKIP() << "this build has no `calm " verb "`"

TEST_F(Command, HelpOfEveryVerb) {
  const auto verbs = verbs_of({});
  ASSERT_THAT(verbs, ::testing::IsSupersetOf({"character", "motion"}));
  int inner = 0;
  for (const std::string& verb : verbs) {
    std::vector<std::vector<std::string>> commands = {{verb}};
    for (const std::string& sub : verbs_of({verb})) commands.push_back({verb, sub}), ++inner;
    for (std::vector<std::string> command : commands) {
      command.push_back("--help");
      const ProgramRun run = run_program(command);
      EXPECT_EQ(run.exit_code, 0) << ::testing::PrintToString(command);
      EXPECT_EQ(run.err, "");
      EXPECT_THAT(run.out, HasSubstr("Usage"));
      // every option and argument says what it is for
      EXPECT_GT(run.out.size(), 100u) << run.out;
    }
  }
  EXPECT_GE(inner, 5);
  const ProgramRun version = run_program({"--version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_THAT(version.out, HasSubstr("calm "));
}

TEST_F(Command, NoVerbOrAWrongOne) {
  expect_refused({}, {"verb is missing", "motion", "--help"});
  expect_refused({"motoin"}, {"motoin", "did you mean `motion`"});
  expect_refused({"motion"}, {"verb is missing", "check"});
  expect_refused({"motion", "chekc"}, {"did you mean `check`"});
}

TEST_F(Command, WrongOptions) {
  expect_refused({"character", "info", kHuman, "--jsno"}, {"--jsno", "did you mean `--json`"});
  expect_refused({"character", "info"}, {"file"});
  expect_refused({"character", "info", kHuman, kHuman}, {"too many"});
  expect_refused({"motion", "draw", "builtin:", "--out", path("a.png"), "--frames", "0"}, {"--frames"});
  expect_refused({"motion", "draw", "builtin:", "--out", path("a.png"), "--frames", "many"}, {"--frames", "many"});
  expect_refused({"motion", "draw", "builtin:"}, {"--out"});
}

TEST_F(Command, MissingFiles) {
  const std::string nowhere = path("nowhere.npy");
  expect_refused({"character", "info", path("nowhere.xml")}, {"nowhere.xml", "no such file"});
  expect_refused({"motion", "info", nowhere}, {nowhere});
  expect_refused({"motion", "import", nowhere, "--out", path("a.calmlib")}, {nowhere});
  expect_refused({"motion", "draw", nowhere, "--out", path("a.png")}, {nowhere});
  EXPECT_FALSE(fs::exists(path("a.calmlib")));
}

TEST_F(Command, FoldersEmptyAndWrongFiles) {
  expect_refused({"character", "info", folder_.string()}, {folder_.string(), "not a regular file"});
  expect_refused({"character", "info", file("empty.xml", "")}, {"empty.xml"});
  expect_refused({"character", "info", file("text.xml", "no XML at all")}, {"text.xml"});
  expect_refused({"character", "info", file("html.xml", "<html><body/></html>")}, {"html.xml", "mujoco"});
  for (const char* name : {"empty.npy", "empty.bvh", "empty.yaml", "empty.calmlib"})
    expect_refused({"motion", "import", file(name, ""), "--out", path("a.calmlib")}, {name});
  for (const char* name : {"text.npy", "text.bvh", "text.yaml", "text.calmlib"})
    expect_refused({"motion", "import", file(name, "hello: ["), "--out", path("a.calmlib")}, {name});
  expect_refused({"motion", "info", file("clip.mp3", "ID3")}, {"clip.mp3"});
  expect_refused({"motion", "info", file("noise.npy", std::string(1000, '\xff'))}, {"noise.npy"});
  EXPECT_FALSE(fs::exists(path("a.calmlib")));
}

// A check is a report on all it is given: what cannot be read is a line of it.
TEST_F(Command, CheckReportsFilesThatCannotBeRead) {
  const ProgramRun run = run_program({"motion", "check", "builtin:stand", path("nowhere.npy"), file("empty.bvh", "")});
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_THAT(run.out, HasSubstr("stand"));
  EXPECT_THAT(run.out, HasSubstr("nowhere.npy: no such file"));
  EXPECT_THAT(run.out, HasSubstr("empty.bvh"));
  EXPECT_EQ(run.err, "");
}

TEST_F(Command, WrongCharacter) {
  const std::string library = path("knight.calmlib");
  ASSERT_EQ(run_program({"motion", "generate", "--character", kKnight, "--out", library}).exit_code, 0);
  expect_refused({"motion", "info", library, "--character", kHuman}, {"knight.calmlib", "character"});
  expect_refused({"motion", "info", library, "--character", path("nobody.xml")}, {"nobody.xml"});
}

TEST_F(Command, UnknownKeys) {
  const std::string character = file("mine.xml", read_file(kHuman));
  file("mine.yaml", "key_bodies: [head]\nfeed: [left_foot]\n");
  expect_refused({"character", "info", character}, {"mine.yaml", "line 2", "`feed`", "did you mean `feet`"});
  const std::string clip = file("clip.bvh",
                                "HIERARCHY\nROOT Hips\n{\nOFFSET 0 0 0\nCHANNELS 3 Zrotation Yrotation Xrotation\n"
                                "End Site\n{\nOFFSET 0 1 0\n}\n}\nMOTION\nFrames: 1\nFrame Time: 0.03\n0 0 0\n");
  const std::string map = file("map.yaml", "scael: 1\njoints: {pelvis: Hips}\n");
  expect_refused({"motion", "import", clip, "--map", map, "--out", path("a.calmlib")},
                 {"map.yaml:1", "`scael`", "did you mean `scale`"});
}

TEST_F(Command, UnknownKeysOfATraining) {
  SKIP_WITHOUT("train");
  const std::string run = path("run");
  const auto refuse = [&](const std::string& config, const std::vector<std::string>& words) {
    expect_refused({"train", "low-level", "--config", config, "--motions", "builtin:", "--out", run}, words);
  };
  refuse(file("outer.yaml", "characterr: a.xml\n"),
         {"outer.yaml", "line 1", "`characterr`", "did you mean `character`"});
  refuse(file("inner.yaml", "seed: 1\nupdate:\n  learning_rat: 1\n"),
         {"inner.yaml", "update", "line 3", "`learning_rat`", "did you mean `learning_rate`"});
  refuse(file("value.yaml", "num_envs: many\n"), {"value.yaml", "`num_envs`", "many"});
  refuse(file("syntax.yaml", "num_envs: [1\n"), {"syntax.yaml"});
  refuse(path("none.yaml"), {"none.yaml"});
  EXPECT_FALSE(fs::exists(run)) << "a refused training leaves nothing behind";
}

TEST_F(Command, PlacesThatCannotBeWritten) {
  // a file where a folder is needed refuses everyone, root included
  const std::string blocked = file("blocked", "a file") + "/below";
  expect_refused({"motion", "generate", "--out", blocked + "/clips.calmlib"}, {"blocked"});
  const ProgramRun drawn = run_program({"motion", "draw", "builtin:stand", "--out", path("clip.png"), "--frames", "1"});
  if (drawn.exit_code == 0)  // a build without pictures says so, whatever the place
    expect_refused({"motion", "draw", "builtin:stand", "--out", blocked + "/clip.png"}, {"blocked"});
  else
    EXPECT_THAT(drawn.err, HasSubstr("CALM_RENDER"));
  if (has_verb("train"))
    expect_refused({"train", "low-level", "--config", CALM_SOURCE_DIR "/configs/low_level/tiny.yaml", "--motions",
                    "builtin:", "--out", blocked},
                   {"blocked"});
}

TEST_F(Command, BadPolicies) {
  for (const std::string verb : {"play", "eval"}) {
    if (!has_verb(verb)) continue;
    std::vector<std::string> command =
        verb == "play" ? std::vector<std::string>{"play"} : std::vector<std::string>{"eval", "low-level"};
    const auto with = [&](const std::string& policy) {
      auto arguments = command;
      arguments.push_back(policy);
      return arguments;
    };
    expect_refused(with(path("none.safetensors")), {"none.safetensors"});
    expect_refused(with(folder_.string()), {folder_.string()});
    expect_refused(with(file("empty.safetensors", "")), {"empty.safetensors"});
    expect_refused(with(file("text.safetensors", "this is not a policy")), {"text.safetensors"});
    expect_refused(with(kHuman), {"human.xml"});
  }
}

TEST_F(Command, PlaysOfAPolicyThatIsThere) {
  SKIP_WITHOUT("play");
  const fs::path policy = CALM_SOURCE_DIR "/assets/policies/human";
  if (!fs::exists(policy)) GTEST_SKIP() << policy << " is not there";
  expect_refused({"play", policy.string(), "--character", kKnight, "--seconds", "1"}, {"knight"});
  expect_refused({"play", policy.string(), "--clip", "no such clip", "--seconds", "1"}, {"no such clip"});
  expect_refused({"play", policy.string(), "--port", "70000", "--seconds", "1"}, {"70000"});

  // a port that is taken
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const std::string port = std::to_string(ntohs(address.sin_port));
  expect_refused({"play", policy.string(), "--port", port, "--seconds", "1", "--headless"}, {port, "--port"});
  ::close(listener);
}

TEST_F(Command, LatentsOfAPolicyThatIsThere) {
  SKIP_WITHOUT("latent");
  const fs::path policy = CALM_SOURCE_DIR "/assets/policies/human/policy.safetensors";
  if (!fs::exists(policy)) GTEST_SKIP() << policy << " is not there";
  // alone, without encoder or clips
  fs::copy_file(policy, folder_ / "policy.safetensors");
  const auto listed = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "latent");
    arguments.push_back("--json");
    const ProgramRun run = run_program(arguments);
    EXPECT_EQ(run.exit_code, 0) << run.err;
    return nlohmann::json::parse(run.out, nullptr, false);
  };
  const auto near = listed({"near", folder_.string(), "walk", "--top", "3"});
  ASSERT_EQ(near.size(), 3u);
  EXPECT_GE(near[0]["cosine"].get<float>(), near[1]["cosine"].get<float>());
  EXPECT_NE(near[0]["name"], "walk");
  EXPECT_EQ(listed({"near", folder_.string(), "walk:sneak:0"})[0]["name"], "walk");
  EXPECT_EQ(listed({"near", folder_.string(), "walk:sneak:1"}).size(), 5u);
  const auto way = listed({"path", folder_.string(), "walk", "sneak", "--steps", "3"});
  ASSERT_EQ(way.size(), 3u);
  EXPECT_EQ(way[0]["near"][0]["name"], "walk");
  EXPECT_EQ(way[2]["near"][0]["name"], "sneak");
  expect_refused({"latent", "near", folder_.string(), "wlak"}, {"`wlak`", "walk"});
  expect_refused({"latent", "near", folder_.string(), "walk:sneak:2"}, {"walk:sneak:2", "0 to 1"});
  expect_refused({"latent", "near", folder_.string(), "walk:sneak:"}, {"walk:sneak:", "0 to 1"});

  const ProgramRun map = run_program({"latent", "map", folder_.string(), "--csv", path("map.csv")});
  EXPECT_EQ(map.exit_code, 0);
  EXPECT_THAT(map.err, HasSubstr("latents only"));
  EXPECT_THAT(map.out, HasSubstr("stress"));
  EXPECT_THAT(read_file(path("map.csv")), HasSubstr("\nwalk,"));
  expect_refused({"latent", "map", folder_.string(), "--motions", "builtin:"}, {"encoder.safetensors"});
}

// Presets and characters of the project are found from any folder: what is refused is the place, not the preset.
TEST_F(Command, FindsItsOwnFilesFromAnyFolder) {
  SKIP_WITHOUT("train");
  const fs::path before = fs::current_path();
  fs::current_path(folder_);
  const std::string blocked = file("blocked", "a file") + "/below";
  expect_refused({"train", "low-level", "--config", "configs/low_level/tiny.yaml", "--out", blocked}, {"blocked"});
  fs::current_path(before);
}

TEST_F(Command, JsonIsAllOfStdout) {
  const ProgramRun info = run_program({"character", "info", kHuman, "--json"});
  ASSERT_EQ(info.exit_code, 0) << info.err;
  EXPECT_TRUE(nlohmann::json::accept(info.out)) << info.out;
  const ProgramRun check = run_program({"motion", "check", "builtin:", "--json"});
  EXPECT_TRUE(nlohmann::json::accept(check.out)) << check.out;
}

TEST_F(Command, VerifySim) {
  const std::string one_leg = file("one_leg.xml", R"(<mujoco><worldbody><body name="torso"><freejoint/>
    <geom type="sphere" size=".2"/><body name="leg" pos="0 0 -.2">
    <joint name="hip" axis="0 1 0" range="-60 60" stiffness="50" damping="4"/>
    <geom type="capsule" size=".05" fromto="0 0 0 0 0 -.5"/></body></body></worldbody></mujoco>)");
  const ProgramRun run = run_program({"verify", "sim", "--character", one_leg, "--json"}, 120.0);
  ASSERT_TRUE(nlohmann::json::accept(run.out)) << run.out << run.err;
  const auto out = nlohmann::json::parse(run.out);
  EXPECT_EQ(run.exit_code, out["ok"].get<bool>() ? 0 : 1);
  EXPECT_EQ(out["backend"], "simd");
  EXPECT_EQ(out["character"], one_leg);
  std::vector<std::string> names;
  bool ok = true;
  for (const auto& check : out["checks"]) {
    names.push_back(check["name"]);
    EXPECT_EQ(check["ok"].get<bool>(), check["error"].get<double>() <= check["tolerance"].get<double>()) << check;
    ok = ok && check["ok"].get<bool>();
  }
  EXPECT_EQ(out["ok"].get<bool>(), ok) << run.err;
  EXPECT_TRUE(ok) << run.err;
  EXPECT_THAT(names,
              ::testing::IsSupersetOf({"mass_matrix", "bias_forces", "unconstrained_acceleration", "contact_list",
                                       "acceleration_at_optimum", "independence", "save_and_restore"}));

  expect_refused({"verify", "sim"}, {"--character"});
  expect_refused({"verify", "sim", "--character", path("nowhere.xml")}, {"nowhere.xml", "no such file"});
  expect_refused({"verify", "sim", "--character", one_leg, "--backend", "physx"}, {"physx", "mujoco"});
}

TEST_F(Command, BenchSim) {
  for (const std::string& character : {kHuman, kKnight}) {
    const ProgramRun run = run_program({"bench", "sim", "--character", character, "--envs", "16", "--backend",
                                        "simd,mujoco", "--steps", "8", "--threads", "1", "--json"},
                                       180.0);
    ASSERT_EQ(run.exit_code, 0) << run.err;
    ASSERT_TRUE(nlohmann::json::accept(run.out)) << run.out;
    const auto out = nlohmann::json::parse(run.out);
    EXPECT_EQ(out["envs"], 16);
    EXPECT_EQ(out["threads"], 1);
    EXPECT_EQ(out["states"], character == kHuman ? "policy" : "standing");
    EXPECT_TRUE(out["machine"].is_object());
    EXPECT_GT(out["ratio"].get<double>(), 0.0);
    for (const char* kind : {"policy_states", "random_actions"}) {
      EXPECT_GT(out[kind]["mean_contacts"].get<double>(), 0.0);
      for (const char* backend : {"simd", "mujoco"}) {
        EXPECT_GT(out[kind]["control_steps_per_s"][backend].get<double>(), 0.0);
        EXPECT_LT(out[kind]["solver_residual"][backend]["mean"].get<double>(), 1e-4);
        EXPECT_LT(out[kind]["iterations"][backend].get<double>(), 20.0);
      }
    }
  }
  expect_refused({"bench", "sim", "--character", path("nowhere.xml")}, {"nowhere.xml", "no such file"});
  expect_refused({"bench", "sim", "--character", kKnight, "--envs", "8", "--backend", "simd,physx"}, {"physx"});
  expect_refused({"bench", "sim", "--character", kKnight, "--backend", ","}, {"--backend"});
  expect_refused({"bench", "sim", "--character", kKnight, "--policy", CALM_SOURCE_DIR "/assets/policies/human"},
                 {"policy"});
  expect_refused({"bench", "sim", "--character", kKnight, "--envs", "0"}, {"--envs"});
}

}  // namespace

}  // namespace calm
