#include "motion/library.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>

#include "base/error.h"
#include "features/features.h"

namespace calm {

namespace {

void check_array(const Clip& clip, const char* name, const std::vector<float>& values, size_t per_frame) {
  const size_t expected = static_cast<size_t>(clip.num_frames) * per_frame;
  if (values.size() != expected)
    fail("clip `{}`: {} has {} numbers where {} frames of this character need {}; import it again for this character",
         clip.name, name, values.size(), clip.num_frames, expected);
  if (!std::ranges::all_of(values, [](float v) { return std::isfinite(v); }))
    fail("clip `{}`: {} holds a number that is not finite; repair or leave out the clip", clip.name, name);
}

void check_clip(const Character& character, const Clip& clip) {
  if (clip.name.empty()) fail("a clip of {} has no name; give it one", clip.source);
  if (clip.num_frames < 1) fail("clip `{}` has no frames", clip.name);
  if (!(clip.fps > 0.0f) || !std::isfinite(clip.fps)) fail("clip `{}`: {} frames per second", clip.name, clip.fps);
  if (!(clip.weight >= 0.0f) || !std::isfinite(clip.weight))
    fail("clip `{}`: weight {} is not a number of at least 0", clip.name, clip.weight);
  check_array(clip, "root_pos", clip.root_pos, 3);
  check_array(clip, "body_rot", clip.body_rot, 4 * character.bodies.size());
  check_array(clip, "root_vel", clip.root_vel, 3);
  check_array(clip, "root_ang_vel", clip.root_ang_vel, 3);
  check_array(clip, "dof_vel", clip.dof_vel, character.num_dofs);
}

// Slerp, except that of two rotations less than 0.002 rad apart the mean is taken at any time between them: the
// recorded numbers that the features are held against (tests/golden) are made so. It moves no body by a millimetre.
Quat interpolate(const Quat& a, const Quat& b, float t) {
  const float cosine = a.dot(b);
  const float sine_squared = 1.0f - cosine * cosine;
  if (sine_squared <= 0.0f) return a;
  if (std::sqrt(sine_squared) >= 0.001f) return slerp(a, b, t);
  return Quat(0.5f * (a.coeffs() + (cosine < 0.0f ? -1.0f : 1.0f) * b.coeffs())).normalized();
}

// World positions of all bodies in all frames.
std::vector<float> frame_positions(const Character& character, const Clip& clip) {
  const size_t bodies = character.bodies.size();
  std::vector<float> positions;
  positions.reserve(3 * bodies * static_cast<size_t>(clip.num_frames));
  CharacterState state(character);
  for (int frame = 0; frame < clip.num_frames; ++frame) {
    const float* rot = clip.body_rot.data() + 4 * bodies * static_cast<size_t>(frame);
    dof_pos_from_rotations(character, rot, state.dof_pos.data());
    RootState root;
    root.pos = ConstVec3Map(clip.root_pos.data() + 3 * frame);
    root.rot = ConstQuatMap(rot);
    forward_kinematics(character, root, state);
    positions.insert(positions.end(), state.body_pos.begin(), state.body_pos.end());
  }
  return positions;
}

// One thread's room for the state a feature row is computed from.
struct Scratch {
  explicit Scratch(const Character& c) : character(&c), hash(c.hash), state(c) {}
  const Character* character;
  uint64_t hash;
  CharacterState state;
};

Scratch& scratch_for(const Character& character) {
  thread_local std::unique_ptr<Scratch> scratch;
  if (!scratch || scratch->character != &character || scratch->hash != character.hash ||
      scratch->state.body_pos.size() != 3 * character.bodies.size() ||
      scratch->state.dof_pos.size() != static_cast<size_t>(character.num_dofs))
    scratch = std::make_unique<Scratch>(character);
  return *scratch;
}

}  // namespace

MotionLibrary::MotionLibrary(const Character& character, std::vector<Clip> clips)
    : character_(&character), clips_(std::move(clips)) {
  if (clips_.empty()) fail("a motion library needs at least one clip");
  std::set<std::string> names;
  double total = 0.0;
  for (const Clip& clip : clips_) {
    check_clip(character, clip);
    if (!names.insert(clip.name).second)
      fail("two clips are named `{}`; give one another name in the data set list", clip.name);
    cumulative_weight_.push_back(total += clip.weight);
    lengths_.push_back(clip.length());
    body_pos_.push_back(frame_positions(character, clip));
  }
  if (!(total > 0.0)) fail("all {} clips have weight 0; give at least one a positive weight", clips_.size());
}

int MotionLibrary::clip_index(const std::string& name) const {
  const auto found = std::ranges::find(clips_, name, &Clip::name);
  return found == clips_.end() ? -1 : static_cast<int>(found - clips_.begin());
}

float MotionLibrary::total_seconds() const {
  double seconds = 0.0;
  for (const Clip& clip : clips_) seconds += clip.length();
  return static_cast<float>(seconds);
}

void MotionLibrary::feature_state(int clip_index, float time, CharacterState& out) const {
  const Character& character = *character_;
  const Clip& clip = clips_[clip_index];
  const size_t bodies = character.bodies.size();

  // the two frames around `time`
  const float length = clip.length();
  const float phase = length > 0.0f ? std::clamp(time / length, 0.0f, 1.0f) : 0.0f;
  const float at = phase * static_cast<float>(clip.num_frames - 1);
  const size_t frame = static_cast<size_t>(std::min(static_cast<int>(at), clip.num_frames - 1));
  const size_t next = std::min(frame + 1, static_cast<size_t>(clip.num_frames - 1));
  const float blend = at - static_cast<float>(frame);

  // local rotations; body_rot is room for them until the kinematics fill it
  const float* rot = clip.body_rot.data() + 4 * frame * bodies;
  const float* next_rot = clip.body_rot.data() + 4 * next * bodies;
  for (size_t b = 0; b < bodies; ++b)
    QuatMap(&out.body_rot[4 * b]) = interpolate(ConstQuatMap(rot + 4 * b), ConstQuatMap(next_rot + 4 * b), blend);
  dof_pos_from_rotations(character, out.body_rot.data(), out.dof_pos.data());

  // positions
  const float* pos = body_pos_[clip_index].data() + 3 * frame * bodies;
  const float* next_pos = body_pos_[clip_index].data() + 3 * next * bodies;
  for (size_t i = 0; i < 3 * bodies; ++i) out.body_pos[i] = (1.0f - blend) * pos[i] + blend * next_pos[i];

  // velocities
  std::copy_n(clip.root_vel.data() + 3 * frame, 3, out.body_vel.data());
  std::copy_n(clip.root_ang_vel.data() + 3 * frame, 3, out.body_ang_vel.data());
  std::copy_n(clip.dof_vel.data() + frame * character.num_dofs, character.num_dofs, out.dof_vel.data());
}

void MotionLibrary::state(int clip, float time, CharacterState& out) const {
  feature_state(clip, time, out);
  // the kinematics give rotations and velocities of all bodies; their positions stay the interpolated ones
  thread_local std::vector<float> positions;
  positions.assign(out.body_pos.begin(), out.body_pos.end());
  forward_kinematics(*character_, out.root(), out);
  out.body_pos.assign(positions.begin(), positions.end());
}

void MotionLibrary::window_features(Window window, int frames, float dt, float* out) const {
  const int size = character_->motion_feature_size();
  CharacterState& moment = scratch_for(*character_).state;
  for (int i = 0; i < frames; ++i, out += size) {
    const float time = window.time - static_cast<float>(i) * dt;
    const float newer = time + dt;
    if (i > 0 && newer <= 0.0f) {  // both this moment and the newer one are the clip's first frame
      std::copy_n(out - size, size, out);
      continue;
    }
    feature_state(window.clip, time, moment);
    write_motion_features(*character_, moment.view(), out);
  }
}

}  // namespace calm
