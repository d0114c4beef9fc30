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
  }
  static std::string mjcf() { return CALM_SOURCE_DIR "/assets/characters/human.xml"; }

  std::unique_ptr<Session> make_session(SessionSettings settings = {}) {
    return std::make_unique<Session>(character, policy, settings, pool);
  }

  TemporaryFolder folder;
  Character character;
  Policy policy;
  ThreadPool pool{1};
};

}  // namespace calm
