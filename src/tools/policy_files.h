// Opens a policy as commands name it, with the character and the clips that belong to it.
#pragma once

#include <filesystem>
#include <string>

#include "runtime/policy.h"

namespace calm {

struct PolicyFiles {
  std::filesystem::path path;  // of the safetensors file
  Policy policy;
  Character character;
};

// policy: a folder with policy.safetensors, or that file. The character is `character` if not empty, else the policy's:
// looked for as written, beside the policy, and in the source tree. Throws Error; checks that both fit.
PolicyFiles open_policy(const std::filesystem::path& policy, const std::string& character);

// `motions` if not empty, else motions.calmlib or motions.yaml beside the policy; Error if there is none.
std::string find_policy_motions(const PolicyFiles& files, const std::string& motions);

}  // namespace calm
