// MuJoCo's compiler behind our errors: MJCF text in, an owned mjModel out, and never an exit of the process.
//
// MuJoCo's global error handler is set here, once: an error inside MuJoCo becomes an Error, thrown; warnings go to the
// log at debug level instead of to MUJOCO_LOG.TXT. Threads: compiling takes turns.
#pragma once

#include <mujoco/mujoco.h>

#include <memory>
#include <string>

namespace calm {

struct MujocoDeleter {
  void operator()(mjModel* model) const { mj_deleteModel(model); }
  void operator()(mjData* data) const { mj_deleteData(data); }
};
using MujocoModel = std::unique_ptr<mjModel, MujocoDeleter>;
using MujocoData = std::unique_ptr<mjData, MujocoDeleter>;

// Compiles MJCF that may be trusted to load no files (ours, or one that parse_character has checked). `name` stands
// for the file in errors. Throws Error.
MujocoModel compile_mjcf(const std::string& mjcf, const std::string& name);

}  // namespace calm
