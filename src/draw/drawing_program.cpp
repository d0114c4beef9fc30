#include "draw/drawing_program.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "base/file.h"

extern char** environ;

namespace calm {

namespace fs = std::filesystem;

Scratch::Scratch() {
  std::string name = (fs::temp_directory_path() / "calm-draw-XXXXXX").string();
  if (!::mkdtemp(name.data())) fail("{}: cannot be made: {}", name, std::strerror(errno));
  path_ = name;
}

Scratch::~Scratch() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string run_drawing_program(
    const DrawingProgram& program,
    const std::function<std::vector<std::string>(const fs::path& script, const fs::path& picture)>& prepare) {
  const Scratch scratch;
  const fs::path picture = scratch.path() / "picture", log = scratch.path() / "log";
  std::vector<std::string> arguments = prepare(scratch.path() / "script", picture);
  arguments.insert(arguments.begin(), program.name);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);

  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, 1, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&files, 1, 2);
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, program.name.c_str(), &files, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  if (error == ENOENT)
    fail("{}, which draws the {}, is not installed; install the Debian package {}", program.name, program.draws,
         program.package);
  if (error) fail("{} cannot be started: {}", program.name, std::strerror(error));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0)
    if (errno != EINTR) fail("{} was lost: {}", program.name, std::strerror(errno));
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || !fs::exists(picture)) {
    std::string said = fs::exists(log) ? read_file(log, size_t{1} << 20) : std::string();
    std::replace(said.begin(), said.end(), '\n', ' ');
    fail("{} failed: {}", program.name, said.empty() ? "it said nothing" : said.substr(0, 400));
  }
  return read_file(picture, size_t{1} << 28);
}

}  // namespace calm
