// The motion library: the clips a policy is trained on, and everything that is sampled from them.
// Const after construction; all functions may be called from any thread.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "motion/clip.h"
#include "motion/clip_sampler.h"

namespace calm {

class MotionLibrary {
 public:
  // Throws Error if there is no clip, names repeat, or a clip's arrays do not fit the character.
  MotionLibrary(const Character& character, std::vector<Clip> clips);

  const Character& character() const { return *character_; }
  int num_clips() const { return static_cast<int>(clips_.size()); }
  const Clip& clip(int index) const { return clips_[index]; }
  int clip_index(const std::string& name) const;  // -1 if there is none
  float total_seconds() const;

  // Draws clips and windows; valid for the library's life.
  ClipSampler sampler() const { return {num_clips(), cumulative_weight_.data(), lengths_.data()}; }

  // State of a clip at `time` (clamped to [0, length]): positions of all bodies linear and local rotations by slerp
  // between the two frames; root and joint velocities those of the earlier frame, the other bodies' follow from them.
  void state(int clip, float time, CharacterState& out) const;

  // Motion features of `frames` consecutive moments dt apart, newest first, the newest at window.time; moments before
  // the clip's start repeat its first frame. out: (frames x motion_feature_size).
  void window_features(Window window, int frames, float dt, float* out) const;

 private:
  // The part of a state that motion features read: joints, body positions, the root.
  void feature_state(int clip, float time, CharacterState& out) const;

  const Character* character_;
  std::vector<Clip> clips_;
  std::vector<std::vector<float>> body_pos_;  // per clip: world positions (frames x bodies x 3)
  std::vector<double> cumulative_weight_;
  std::vector<float> lengths_;  // (clips) s
};

// Binary file, versioned (docs/formats.md); reading checks every size before memory is taken and the character's hash.
void save_library(const MotionLibrary& library, const std::filesystem::path& path);
std::vector<Clip> load_library_clips(const Character& character, const std::filesystem::path& path);

// What `--motions` takes: a data set list (.yaml), a binary library (.calmlib), one clip (.npy, .bvh), or
// `builtin:` for the generated clips. See motion/dataset.h.
std::vector<Clip> load_motions(const Character& character, const std::string& spec);

}  // namespace calm
