// Clips from clips: a part of one, its mirror image, another frame rate. Pure functions; the input stays as it is.
#pragma once

#include "motion/clip.h"

namespace calm {

// The frames whose times lie in [start, end] seconds; an end of 0 or beyond the clip is the clip's. Velocities are
// kept. Throws Error if fewer than 2 frames remain.
Clip cut(const Clip& clip, float start, float end);

// Left and right changed over: bodies right_* and left_* (a body that has no counterpart, and all that hangs below it,
// keeps its place), everything reflected in the plane y = 0. Throws Error where a pair differs in joints.
Clip mirror(const Character& character, const Clip& clip);

// The same motion at `fps`: positions linear, rotations by slerp, velocities computed anew. The last frame lies at the
// last whole interval within the clip.
Clip resample(const Character& character, const Clip& clip, float fps);

}  // namespace calm
