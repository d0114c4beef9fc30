#include "character/mujoco_model.h"

#include <spdlog/spdlog.h>

#include <array>
#include <cstring>
#include <mutex>
#include <regex>

#include "base/error.h"

namespace calm {

namespace {

// Left alone, MuJoCo exits the process on an error. The exception passes through its frames, which Debian and the
// official builds compile with unwind tables; a test holds that.
void on_error(const char* message) { throw Error(fmt::format("MuJoCo: {}", message)); }

void on_warning(const char* message) { spdlog::debug("MuJoCo: {}", message); }

// "XML Error: what\nElement 'joint', line 12, column 3" -> "name:12: what, element 'joint'".
std::string one_line(const std::string& message, const std::string& name) {
  std::string text = std::regex_replace(message, std::regex("^(XML (parse )?)?Error: *"), "");
  std::string where = name;
  std::smatch match;
  if (std::regex_search(text, match, std::regex("line =? ?(\\d+)")) && match[1] != "0" && match[1] != "-1")
    where += ":" + match[1].str();
  text = std::regex_replace(text, std::regex("\nObject name = [^\n]*?, id = -?\\d+"), "");
  text = std::regex_replace(text, std::regex(",? *line =? ?-?\\d+(, column =? ?-?\\d+)?"), "");
  text = std::regex_replace(text, std::regex("\\s*\n+\\s*"), ", ");
  while (!text.empty() && (text.back() == ' ' || text.back() == ',')) text.pop_back();
  return where + ": " + text;
}

struct VfsDeleter {
  void operator()(mjVFS* vfs) const {
    mj_deleteVFS(vfs);
    delete vfs;
  }
};

}  // namespace

MujocoModel compile_mjcf(const std::string& mjcf, const std::string& name) {
  // MuJoCo's parser keeps the last model in a global
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  mju_user_error = on_error;
  mju_user_warning = on_warning;

  // a mjVFS can be megabytes: not for the stack
  const std::unique_ptr<mjVFS, VfsDeleter> vfs(new mjVFS);
  mj_defaultVFS(vfs.get());
  const char* file = "character.xml";
#if mjVERSION_HEADER >= 320
  if (mj_addBufferVFS(vfs.get(), file, mjcf.data(), static_cast<int>(mjcf.size())) != 0)
    fail("{}: MuJoCo takes no text of {} bytes", name, mjcf.size());
#else
  if (mj_makeEmptyFileVFS(vfs.get(), file, static_cast<int>(mjcf.size())) != 0)
    fail("{}: MuJoCo takes no text of {} bytes", name, mjcf.size());
  std::memcpy(vfs->filedata[mj_findFileVFS(vfs.get(), file)], mjcf.data(), mjcf.size());
#endif

  std::array<char, 1024> error{};
  try {
    MujocoModel model(mj_loadXML(file, vfs.get(), error.data(), static_cast<int>(error.size())));
    if (!model) throw Error(one_line(error.data(), name));
    return model;
  } catch (const Error& e) {
    const std::string text = e.what();
    if (text.starts_with(name)) throw;
    throw Error(name + ": " + text);
  }
}

}  // namespace calm
