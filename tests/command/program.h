// Runs the `calm` program as a user would and keeps what it printed.
#pragma once

#include <string>
#include <vector>

namespace calm {

struct ProgramRun {
  int exit_code = -1;  // 128 + signal if it was killed by one
  std::string out, err;

  std::vector<std::string> err_lines() const;
};

// Waits for the program, at most `seconds`, after which it is killed.
ProgramRun run_program(const std::vector<std::string>& arguments, double seconds = 60.0);

// Names of the verbs in the help of `command` (none: of the program).
std::vector<std::string> verbs_of(const std::vector<std::string>& command);

}  // namespace calm
