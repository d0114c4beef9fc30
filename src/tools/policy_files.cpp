#include "tools/policy_files.h"

#include "base/error.h"
#include "tools/paths.h"

namespace calm {

namespace fs = std::filesystem;

PolicyFiles open_policy(const fs::path& policy, const std::string& character) {
  PolicyFiles files;
  files.path = fs::is_directory(policy) ? policy / "policy.safetensors" : policy;
  files.policy = load_policy(files.path);
  fs::path mjcf = character;
  for (const fs::path& root : {fs::path(), files.path.parent_path(), fs::path(CALM_SOURCE_DIR)})
    if (mjcf.empty() && fs::is_regular_file(root / files.policy.character_mjcf))
      mjcf = root / files.policy.character_mjcf;
  if (mjcf.empty())
    fail("{}: its character `{}` lies neither beside it nor in {}; put it there, or give its MJCF with --character",
         files.path.string(), files.policy.character_mjcf, CALM_SOURCE_DIR);
  files.character = load_character(mjcf);
  check_policy_fits(files.policy, files.character, files.path);
  return files;
}

std::optional<HighLevelPolicy> open_high_level(const PolicyFiles& files, const std::string& high) {
  const fs::path folder = files.path.parent_path();
  if (!high.empty()) return load_high_level_policy(own_or_given(high), files.policy);
  if (!fs::exists(folder / "high_level.safetensors")) return std::nullopt;
  return load_high_level_policy(folder, files.policy);
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
