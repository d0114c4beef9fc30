// A session of the repository's `human` with the policy of test_policy.h.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "play/session.h"
#include "play/test_policy.h"

namespace calm {

// A folder that is gone after the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "calm-play-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

class PlayTest : public testing::Test {
 protected:
  PlayTest() : character(load_character(mjcf())) {
    const auto path = folder.path() / "policy.safetensors";
    write_file_atomic(path, serialise_safetensors(make_test_policy(character, mjcf())));
    policy = load_policy(path);
    high = parse_high_level_policy(serialise_safetensors(make_test_high_level_policy(policy)), "test", policy);
    // acts, and is done; the other one waits for its pillar to fall
    Machine act;
    act.name = "act";
    act.states.resize(2);
    act.states[0].name = "begin", act.states[0].clip = 1, act.states[0].seconds = 1.0f;
    act.states[0].transitions = {{{{Condition::What::kTime, true, 0.2f, {}}}, 1, "time > 0.2 s"}};
    act.states[1].name = "done", act.states[1].final = true;
    Machine strike = act;
    strike.name = "strike";
    strike.states[0].transitions = {{{{Condition::What::kTargetDown, false, 0.0f, {}}}, 1, "target down"}};
    machines = {act, strike};
  }
  static std::string mjcf() { return CALM_SOURCE_DIR "/assets/characters/human.xml"; }

  std::unique_ptr<Session> make_session(SessionSettings settings = {}) {
    return std::make_unique<Session>(character, policy, settings, pool);
  }
  std::unique_ptr<Session> make_directed_session(SessionSettings settings = {}) {
    return std::make_unique<Session>(character, policy, settings, pool, &high, machines);
  }

  TemporaryFolder folder;
  Character character;
  Policy policy;
  HighLevelPolicy high;
  std::vector<Machine> machines;
  ThreadPool pool{1};
};

}  // namespace calm
