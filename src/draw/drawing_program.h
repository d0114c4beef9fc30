// Programs that draw: gnuplot and Graphviz. They run on a script in a folder of their own and not at the end of a pipe:
// a pipe to a program that is missing or ends early would raise SIGPIPE in a training.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace calm {

// A folder in the temporary directory, removed at the end.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

struct DrawingProgram {
  std::string name, draws, package;  // "gnuplot", "charts", the Debian package that has it
};

// `prepare` writes the script and returns the arguments; the program must write the picture. Returns the picture's
// bytes. Throws Error if it is not installed, or with what it said if it failed.
std::string run_drawing_program(
    const DrawingProgram& program,
    const std::function<std::vector<std::string>(const std::filesystem::path& script,
                                                 const std::filesystem::path& picture)>& prepare);

}  // namespace calm
