// Simulated states become a clip, and a clip becomes a BVH file that animation programs open.
#pragma once

#include <string>

#include "motion/clip.h"

namespace calm {

// Collects states a fixed time apart. Holds a reference: the character must outlive it.
class ClipRecorder {
 public:
  // fps: of the states that add() gets.
  ClipRecorder(const Character& character, float fps);

  void add(const CharacterStateView& state);
  int num_frames() const { return clip_.num_frames; }

  // What was added since the start, moved over the origin and turned so that the first frame's heading is +x.
  // Velocities are those of the positions, as in every clip. Throws Error where there are fewer than 2 frames.
  Clip clip(const std::string& name, const std::string& source) const;

 private:
  const Character& character_;
  Clip clip_;
};

// The clip as a BVH file: centimetres, Y up, Z forward, a joint a body and named after it, the root with six channels.
// configs/retarget/calm.yaml reads it back. Throws Error where a joint does not turn about its body's origin, which the
// format cannot tell.
std::string write_bvh(const Character& character, const Clip& clip);

}  // namespace calm
