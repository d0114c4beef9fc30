// Opens a policy as commands name it, with the character and the clips that belong to it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "runtime/high_level_policy.h"

namespace calm {

struct PolicyFiles {
  std::filesystem::path path;  // of the safetensors file
  Policy policy;
  Character character;
};

// policy: a folder with policy.safetensors, or that file. The character is `character` if not empty, else the policy's:
// looked for as written, beside the policy, and in the source tree. Throws Error; checks that both fit.
PolicyFiles open_policy(const std::filesystem::path& policy, const std::string& character);

// `high` if not empty, else high_level.safetensors beside the policy, if there is one. Throws Error if it does not fit.
std::optional<HighLevelPolicy> open_high_level(const PolicyFiles& files, const std::string& high);

// `motions` if not empty, else motions.calmlib or motions.yaml beside the policy; Error if there is none.
std::string find_policy_motions(const PolicyFiles& files, const std::string& motions);

}  // namespace calm
