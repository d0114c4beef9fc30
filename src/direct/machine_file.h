// State machines from YAML files, checked in full: an unknown clip, a state without a way out, one that is never
// reached, a wrong unit and the like are errors that name file and line, and say what to write instead.
#pragma once

#include <filesystem>

#include "direct/machine.h"
#include "runtime/policy.h"

namespace calm {

// Clips are the policy's. Throws Error for the first mistake.
Machine load_machine(const std::filesystem::path& path, const Policy& policy);

// All mistakes, each "FILE:LINE: what; what to do"; empty if there is none.
std::vector<std::string> check_machine(const std::filesystem::path& path, const Policy& policy);

// In Graphviz's language; `current`: of the states, drawn bold; -1: none.
std::string to_dot(const Machine& machine, const Policy& policy, int current = -1);

}  // namespace calm
