// What the tests of clips share: characters, a simple moving clip, folders, temporary files.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/error.h"
#include "base/rng.h"
#include "motion/clip.h"

namespace calm {

inline const Character& human() {
  static const Character character =
      load_character(std::filesystem::path(CALM_SOURCE_DIR) / "assets/characters/human.xml");
  return character;
}
inline const Character& knight() {
  static const Character character =
      load_character(std::filesystem::path(CALM_SOURCE_DIR) / "assets/characters/knight.xml");
  return character;
}

inline std::filesystem::path motions_folder() {
  const char* set = std::getenv("MOTIONS_DIR");
  return set && *set ? std::filesystem::path(set) : std::filesystem::path(CALM_SOURCE_DIR) / "../shared/motions";
}

// A folder of its own that goes away with the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "calm_motion_XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  std::filesystem::path write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

// The message of the Error that `call` throws; a failure if it throws none.
template <class Call>
std::string error_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no error was thrown";
  return {};
}

// The root glides along x at 1 m/s and turns left at 0.5 rad/s, every joint turns about its axis (a ball: about y) at
// `joint_rate` rad/s from zero.
inline Clip gliding_clip(const Character& character, int frames, float fps, float joint_rate = 0.4f,
                         const std::string& name = "glide") {
  Clip clip;
  clip.name = name;
  clip.fps = fps;
  clip.num_frames = frames;
  for (int f = 0; f < frames; ++f) {
    const float t = static_cast<float>(f) / fps;
    clip.root_pos.insert(clip.root_pos.end(), {t, 0.0f, 0.9f});
    for (size_t b = 0; b < character.bodies.size(); ++b) {
      Quat q = character.bodies[b].rot;
      if (b == 0)
        q = quat_about_z(0.5f * t);
      else if (character.bodies[b].num_joints > 0)
        q = q * Quat(Eigen::AngleAxisf(joint_rate * t, Vec3::UnitY()));
      clip.body_rot.insert(clip.body_rot.end(), {q.x(), q.y(), q.z(), q.w()});
    }
  }
  compute_velocities(character, clip);
  return clip;
}

}  // namespace calm
