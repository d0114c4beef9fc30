// Errors at files, network and command line: one line that says what is wrong, where, and what to do.
// Thrown while loading or talking to the outside; never from the hot path. main() prints what() and exits with 1.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace calm {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace calm
