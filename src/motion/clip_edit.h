// Clips from clips: a part of one, its mirror image, another frame rate, a bent path. Pure functions; the input stays
// as it is.
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

// The same motion along a path that turns by `rate` more, rad/s, to the left where positive; the whole body leans into
// the bend as a runner does, by atan(speed rate / g) about where its weight stands, the speed smoothed over a step.
// A foot that stands keeps its place and its direction on the floor, and turns to the path's while it swings; hips turn
// by half a radian at most for it. Velocities are computed anew.
Clip bend(const Character& character, const Clip& clip, float rate);

}  // namespace calm
