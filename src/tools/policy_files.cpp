#include "tools/policy_files.h"

#include "base/error.h"

namespace calm {

namespace fs = std::filesystem;

PolicyFiles open_policy(const fs::path& policy, const std::string& character) {
  PolicyFiles files;
  files.path = fs::is_directory(policy) ? policy / "policy.safetensors" : policy;
  files.policy = load_policy(files.path);
  fs::path mjcf = character;
  if (mjcf.empty()) {
    mjcf = files.policy.character_mjcf;
    for (const fs::path& root : {fs::path(), files.path.parent_path(), fs::path(CALM_SOURCE_DIR)})
      if (fs::exists(root / files.policy.character_mjcf)) {
        mjcf = root / files.policy.character_mjcf;
        break;
      }
  }
  files.character = load_character(mjcf);
  check_policy_fits(files.policy, files.character, files.path);
  return files;
}

std::string find_policy_motions(const PolicyFiles& files, const std::string& motions) {
  if (!motions.empty()) return motions;
  for (const char* name : {"motions.calmlib", "motions.yaml"}) {
    const auto beside = files.path.parent_path() / name;
    if (fs::exists(beside)) return beside.string();
  }
  fail("{}: no motions.calmlib or motions.yaml beside it; name the clips with --motions", files.path.string());
}

}  // namespace calm
