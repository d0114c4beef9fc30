// Files of this project by their path in the source tree, wherever the program is called from.
#pragma once

#include <filesystem>

namespace calm {

// `path` as it is if there is such a file, else that of the source tree, if there is one; else `path`.
inline std::filesystem::path own_or_given(const std::filesystem::path& path) {
  const auto own = std::filesystem::path(CALM_SOURCE_DIR) / path;
  return !std::filesystem::exists(path) && std::filesystem::exists(own) ? own : path;
}

}  // namespace calm
