// Errors at files, network and command line: one line that says what is wrong, where, and what to do.
// Thrown while loading or talking to the outside; never from the hot path. main() prints what() and exits with 1.
#pragma once

#ifndef __CUDACC__  // nvcc does not take fmt
#include <fmt/format.h>
#endif

#include <stdexcept>
#include <string>

namespace calm {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

#ifndef __CUDACC__
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}
#endif

}  // namespace calm
