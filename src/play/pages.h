// The page's files: a request target to the file's bytes, its type and how long a browser may keep it.
//
// Targets come from the network: percent escapes are decoded once, and nothing outside the folder is ever read,
// whether by `..`, by an absolute path or by a symbolic link.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace calm {

struct Page {
  int status = 200;   // 200, 400 or 404
  std::string type;   // Content-Type
  std::string cache;  // Cache-Control
  std::string body;
};

// `root`: the built page; if it holds no index.html, `/` answers with a page that says how to build it.
Page find_page(const std::filesystem::path& root, std::string_view target);

}  // namespace calm
