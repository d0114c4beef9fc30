#include "motion/clip_edit.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace calm {

namespace {

std::vector<float> rows(const std::vector<float>& values, size_t width, int first, int count) {
  const auto begin = values.begin() + static_cast<std::ptrdiff_t>(width * static_cast<size_t>(first));
  return {begin, begin + static_cast<std::ptrdiff_t>(width * static_cast<size_t>(count))};
}

// For each body the one on the other side, itself in the middle.
std::vector<int> counterparts(const Character& character) {
  std::vector<int> other(character.bodies.size());
  for (int b = 0; b < character.num_bodies(); ++b) {
    const std::string& name = character.bodies[b].name;
    std::string twin = name;
    if (name.starts_with("right_"))
      twin = "left_" + name.substr(6);
    else if (name.starts_with("left_"))
      twin = "right_" + name.substr(5);
    const int found = character.body_index(twin);
    other[b] = found < 0 ? b : found;
  }
  return other;
}

// Reflection in y = 0: of a rotation the axis is reflected and turned round, of a vector y changes sign.
Quat reflect(const Quat& q) { return Quat(q.w(), -q.x(), q.y(), -q.z()); }
Vec3 reflect_vector(const Vec3& v) { return {v.x(), -v.y(), v.z()}; }
Vec3 reflect_turn(const Vec3& v) { return {-v.x(), v.y(), -v.z()}; }

}  // namespace

Clip cut(const Clip& clip, float start, float end) {
  const float slack = 1e-3f;  // of a frame: times in lists are rounded
  const int first = std::max(0, static_cast<int>(std::ceil(start * clip.fps - slack)));
  int last = clip.num_frames - 1;
  if (end > 0.0f) last = std::min(last, static_cast<int>(std::floor(end * clip.fps + slack)));
  if (!(start >= 0.0f) || !(end >= 0.0f) || last - first < 1)
    fail("clip `{}` lasts {:.3f} s; nothing lies between {} and {} s", clip.name, clip.length(), start, end);

  const size_t frames = static_cast<size_t>(clip.num_frames);
  const auto part = [&](const std::vector<float>& v) { return rows(v, v.size() / frames, first, last - first + 1); };
  Clip out = clip;
  out.num_frames = last - first + 1;
  out.root_pos = part(clip.root_pos);
  out.body_rot = part(clip.body_rot);
  out.root_vel = part(clip.root_vel);
  out.root_ang_vel = part(clip.root_ang_vel);
  out.dof_vel = part(clip.dof_vel);
  return out;
}

Clip mirror(const Character& character, const Clip& clip) {
  const std::vector<int> other = counterparts(character);
  const size_t bodies = character.bodies.size();
  for (size_t b = 0; b < bodies; ++b) {
    const Body &body = character.bodies[b], &twin = character.bodies[other[b]];
    if (body.num_joints != twin.num_joints ||
        (body.num_joints > 0 && character.joints[body.first_joint].kind != character.joints[twin.first_joint].kind))
      fail("character {} cannot be mirrored: `{}` and `{}` have different joints (a hand fixed on one side only, say)",
           character.name, body.name, twin.name);
  }

  Clip out = clip;
  for (int f = 0; f < clip.num_frames; ++f) {
    const size_t row = 3 * static_cast<size_t>(f);
    const auto vec = [&](const std::vector<float>& v) { return Vec3(ConstVec3Map(v.data() + row)); };
    Vec3Map(out.root_pos.data() + row) = reflect_vector(vec(clip.root_pos));
    Vec3Map(out.root_vel.data() + row) = reflect_vector(vec(clip.root_vel));
    Vec3Map(out.root_ang_vel.data() + row) = reflect_turn(vec(clip.root_ang_vel));
    for (size_t b = 0; b < bodies; ++b) {
      const size_t frame = 4 * static_cast<size_t>(f) * bodies;
      QuatMap(out.body_rot.data() + frame + 4 * b) =
          reflect(ConstQuatMap(clip.body_rot.data() + frame + 4 * static_cast<size_t>(other[b])));
    }
  }
  compute_dof_velocities(character, out);
  return out;
}

Clip resample(const Character& character, const Clip& clip, float fps) {
  if (!(fps >= 1.0f && fps <= 1000.0f)) fail("clip `{}`: {} frames per second; 1 to 1000 are accepted", clip.name, fps);
  const size_t bodies = character.bodies.size();
  Clip out = clip;
  out.fps = fps;
  out.num_frames = static_cast<int>(std::floor(clip.length() * fps + 1e-3f)) + 1;
  const size_t frames = static_cast<size_t>(out.num_frames);
  out.root_pos.resize(3 * frames);
  out.body_rot.resize(4 * bodies * frames);
  for (size_t f = 0; f < frames; ++f) {
    const float at = std::min(static_cast<float>(f) / fps * clip.fps, static_cast<float>(clip.num_frames - 1));
    const size_t first = static_cast<size_t>(at);
    const size_t next = std::min(first + 1, static_cast<size_t>(clip.num_frames - 1));
    const float blend = at - static_cast<float>(first);
    Vec3Map(out.root_pos.data() + 3 * f) = (1.0f - blend) * ConstVec3Map(clip.root_pos.data() + 3 * first) +
                                           blend * ConstVec3Map(clip.root_pos.data() + 3 * next);
    for (size_t b = 0; b < bodies; ++b)
      QuatMap(out.body_rot.data() + 4 * (f * bodies + b)) =
          slerp(ConstQuatMap(clip.body_rot.data() + 4 * (first * bodies + b)),
                ConstQuatMap(clip.body_rot.data() + 4 * (next * bodies + b)), blend);
  }
  compute_velocities(character, out);
  return out;
}

Clip bend(const Character& character, const Clip& clip, float rate) {
  if (!(std::abs(rate) <= 4.0f)) fail("clip `{}`: bend {} rad/s; -4 to 4 are accepted", clip.name, rate);
  const size_t bodies = character.bodies.size();
  const auto pos_of = [](const std::vector<float>& v, int f) {
    return ConstVec3Map(v.data() + 3 * static_cast<size_t>(f));
  };
  constexpr float kGravity = 9.81f, kStep = 0.5f;  // m/s², s
  const int half = std::max(1, static_cast<int>(0.5f * kStep * clip.fps));
  Clip out = clip;
  Vec3 at = pos_of(clip.root_pos, 0);
  for (int f = 0; f < clip.num_frames; ++f) {
    const float time = static_cast<float>(f) / clip.fps;
    if (f > 0) {
      const Quat turn = quat_about_z(rate * (time - 0.5f / clip.fps));
      at += turn * Vec3(pos_of(clip.root_pos, f) - pos_of(clip.root_pos, f - 1));
    }
    const int before = std::max(0, f - half), after = std::min(clip.num_frames - 1, f + half);
    const Vec3 way = pos_of(clip.root_pos, after) - pos_of(clip.root_pos, before);
    const float speed = way.head<2>().norm() * clip.fps / static_cast<float>(std::max(after - before, 1));
    const Vec3 forward = quat_about_z(rate * time) * Vec3(way.x(), way.y(), 0.0f);
    const Quat lean = speed > 0.05f ? Quat(Eigen::AngleAxisf(-std::atan(speed * rate / kGravity), forward.normalized()))
                                    : Quat::Identity();
    const size_t row = 3 * static_cast<size_t>(f), root = 4 * static_cast<size_t>(f) * bodies;
    const Vec3 below(at.x(), at.y(), 0.0f);
    Vec3Map(out.root_pos.data() + row) = below + lean * Vec3(0.0f, 0.0f, at.z());
    QuatMap(out.body_rot.data() + root) =
        lean * (quat_about_z(rate * time) * Quat(ConstQuatMap(clip.body_rot.data() + root)));
  }
  compute_velocities(character, out);
  return out;
}

}  // namespace calm
