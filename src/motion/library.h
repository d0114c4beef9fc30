// The motion library: the clips a policy is trained on, and everything that is sampled from them.
// Const after construction; all functions may be called from any thread.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/rng.h"
#include "motion/clip.h"

namespace calm {

// A time span of a clip that ends at `time`: how encoder and discriminator windows are named and stored.
struct Window {
  int clip = 0;
  float time = 0.0f;  // newest frame, s
  bool operator==(const Window&) const = default;
};

class MotionLibrary {
 public:
  // Throws Error if there is no clip, names repeat, or a clip's arrays do not fit the character.
  MotionLibrary(const Character& character, std::vector<Clip> clips);

  const Character& character() const { return *character_; }
  int num_clips() const { return static_cast<int>(clips_.size()); }
  const Clip& clip(int index) const { return clips_[index]; }
  int clip_index(const std::string& name) const;  // -1 if there is none
  float total_seconds() const;

  // A clip by weight.
  int sample_clip(Rng& rng) const;

  // State of a clip at `time` (clamped to [0, length]): positions of all bodies linear and local rotations by slerp
  // between the two frames; root and joint velocities those of the earlier frame, the other bodies' follow from them.
  void state(int clip, float time, CharacterState& out) const;

  // Motion features of `frames` consecutive moments dt apart, newest first, the newest at window.time; moments before
  // the clip's start repeat its first frame. out: (frames x motion_feature_size).
  void window_features(Window window, int frames, float dt, float* out) const;

  // Newest time of an encoder window of `frames`: uniform in [min(length, (frames - 1) dt), length].
  Window sample_encoder_window(int clip, int frames, float dt, Rng& rng) const;

  // Newest time of a discriminator window of `frames` inside `encoder` window of `encoder_frames`: uniform over its
  // valid part (the part of the clip it covers).
  Window sample_discriminator_window(Window encoder, int encoder_frames, int frames, float dt, Rng& rng) const;

 private:
  // The part of a state that motion features read: joints, body positions, the root.
  void feature_state(int clip, float time, CharacterState& out) const;

  const Character* character_;
  std::vector<Clip> clips_;
  std::vector<std::vector<float>> body_pos_;  // per clip: world positions (frames x bodies x 3)
  std::vector<double> cumulative_weight_;
};

// Binary file, versioned (docs/formats.md); reading checks every size before memory is taken and the character's hash.
void save_library(const MotionLibrary& library, const std::filesystem::path& path);
std::vector<Clip> load_library_clips(const Character& character, const std::filesystem::path& path);

// What `--motions` takes: a data set list (.yaml), a binary library (.calmlib), one clip (.npy, .bvh), or
// `builtin:` for the generated clips. See motion/dataset.h.
std::vector<Clip> load_motions(const Character& character, const std::string& spec);

}  // namespace calm
