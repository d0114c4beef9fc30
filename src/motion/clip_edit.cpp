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

// World rotation and position of each body in a frame, from the root's.
struct BodyPoses {
  std::vector<Quat> rot;
  std::vector<Vec3> pos;
};
BodyPoses body_poses(const Character& character, const Vec3& root_pos, const float* local) {
  CharacterState state(character);
  RootState root;
  root.pos = root_pos, root.rot = Quat(ConstQuatMap(local));
  dof_pos_from_rotations(character, local, state.dof_pos.data());
  forward_kinematics(character, root, state);
  BodyPoses out;
  for (int b = 0; b < character.num_bodies(); ++b)
    out.rot.emplace_back(state.view().rot(b)), out.pos.emplace_back(state.view().pos(b));
  return out;
}

// A path that bends, and what stood on the straight one at a frame is to stand on it.
struct Bend {
  float rate, fps;
  std::vector<Vec3> straight, bent;  // (frames) of the root
  float turn(float frame) const { return rate * frame / fps; }
};

// How a foot is carried over from the straight path to the bent one: while it stands as a rigid body, turned by what
// the path has turned by in the middle of that time; in between from one such motion to the next.
class FootPath {
 public:
  // straight: (frames) where it was.
  FootPath(const Bend& bend, std::vector<Vec3> straight) : bend_(bend), straight_(std::move(straight)) {
    const int frames = static_cast<int>(straight_.size());
    const auto speed = [&](const std::vector<Vec3>& at, int f, bool flat) {
      const int from = std::max(0, f - 1), to = std::min(frames - 1, f + 1);
      Vec3 way = at[to] - at[from];
      if (flat) way.z() = 0.0f;
      return way.norm() * bend_.fps / static_cast<float>(std::max(to - from, 1));
    };
    // it stands while it is much slower than the root
    for (int f = 0; f < frames; ++f) {
      if (speed(straight_, f, false) > std::max(0.35f, 0.4f * speed(bend_.straight, f, true))) continue;
      if (stances_.empty() || stances_.back().last != f - 1) stances_.push_back({f, f});
      stances_.back().last = f;
    }
    // where it swings at an end, it goes with the path there
    if (stances_.empty() || stances_.front().first > 0) stances_.insert(stances_.begin(), {0, 0});
    if (stances_.back().last < frames - 1) stances_.push_back({frames - 1, frames - 1});
  }

  // By how much it has turned, and where it is.
  std::pair<float, Vec3> at(int f) const {
    size_t next = 0;
    while (stances_[next].last < f) ++next;
    const Stance& to = stances_[next];
    if (f >= to.first) return {turn_of(to), carried(to, f)};
    const Stance& from = stances_[next - 1];
    float t = static_cast<float>(f - from.last) / static_cast<float>(to.first - from.last);
    t = t * t * (3.0f - 2.0f * t);
    return {(1.0f - t) * turn_of(from) + t * turn_of(to), (1.0f - t) * carried(from, f) + t * carried(to, f)};
  }

 private:
  struct Stance {
    int first, last;
    int middle() const { return (first + last) / 2; }
  };
  float turn_of(const Stance& s) const { return bend_.turn(static_cast<float>(s.middle())); }
  Vec3 carried(const Stance& s, int f) const {
    const int m = s.middle();
    const Quat turn = quat_about_z(turn_of(s));
    return bend_.bent[m] + turn * Vec3(straight_[m] - bend_.straight[m]) + turn * Vec3(straight_[f] - straight_[m]);
  }

  const Bend& bend_;
  std::vector<Vec3> straight_;
  std::vector<Stance> stances_;
};

// Turns thigh, knee and ankle so that the foot is at `to` and points as `foot_rot` does, in the world; a leg that is
// too short points there. local: (bodies x 4) of the frame, in and out.
void place_foot(const Character& character, int foot, const Vec3& root_pos, float hip_turn, const Vec3& to,
                const Quat& foot_rot, float* local) {
  const int shin = character.bodies[foot].parent, thigh = character.bodies[shin].parent;
  const auto set = [&](int b, const Quat& world, const Quat& parent) {
    QuatMap(local + 4 * static_cast<size_t>(b)) = parent.conjugate() * world;
  };
  BodyPoses pose = body_poses(character, root_pos, local);
  // the knee points where the foot does
  pose.rot[thigh] = quat_about_z(hip_turn) * pose.rot[thigh];
  set(thigh, pose.rot[thigh], pose.rot[0]);
  pose = body_poses(character, root_pos, local);

  const Vec3 hip = pose.pos[thigh], upper = pose.pos[shin] - hip, lower = pose.pos[foot] - pose.pos[shin];
  const float a = upper.norm(), b = lower.norm();
  const float reach = std::clamp((to - hip).norm(), std::abs(a - b) + 1e-3f, 0.999f * (a + b));
  const auto angle_of = [](float cosine) { return std::acos(std::clamp(cosine, -1.0f, 1.0f)); };
  const float angle = angle_of(upper.dot(lower) / (a * b)),
              wanted = angle_of((reach * reach - a * a - b * b) / (2.0f * a * b));
  const Joint& knee = character.joints[character.bodies[shin].first_joint];
  Vec3 axis = pose.rot[shin] * knee.axis;
  if (upper.cross(lower).dot(axis) < 0.0f) axis = -axis;
  const Quat bent = Quat(Eigen::AngleAxisf(wanted - angle, axis)) * pose.rot[shin];
  set(shin, bent, pose.rot[thigh]);
  pose = body_poses(character, root_pos, local);

  const Quat swing = Quat::FromTwoVectors(pose.pos[foot] - hip, to - hip);
  set(thigh, swing * pose.rot[thigh], pose.rot[0]);
  set(foot, foot_rot, swing * pose.rot[shin]);
}

// Whether thigh, shin and foot hang from the root one below the other, by a ball, a hinge and a ball.
bool is_leg(const Character& character, int foot) {
  const JointKind kinds[] = {JointKind::kBall, JointKind::kHinge, JointKind::kBall};
  int b = foot;
  for (const JointKind kind : kinds) {
    const Body& body = character.bodies[b];
    if (b <= 0 || body.num_joints != 1 || character.joints[body.first_joint].kind != kind) return false;
    b = body.parent;
  }
  return b == 0;
}

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
  Bend path{rate, clip.fps, {}, {}};
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
    path.straight.emplace_back(pos_of(clip.root_pos, f)), path.bent.push_back(at);
  }

  // feet
  std::vector<BodyPoses> straight;
  for (int f = 0; f < clip.num_frames; ++f)
    straight.push_back(
        body_poses(character, pos_of(clip.root_pos, f), clip.body_rot.data() + 4 * static_cast<size_t>(f) * bodies));
  for (const int foot : character.feet) {
    if (!is_leg(character, foot)) continue;
    std::vector<Vec3> was;
    for (const BodyPoses& pose : straight) was.push_back(pose.pos[foot]);
    const FootPath foot_path(path, std::move(was));
    for (int f = 0; f < clip.num_frames; ++f) {
      const auto [turned, to] = foot_path.at(f);
      constexpr float kMost = 0.5f;  // rad that a hip turns
      const float hip_turn = std::clamp(turned - path.turn(static_cast<float>(f)), -kMost, kMost);
      place_foot(character, foot, pos_of(out.root_pos, f), hip_turn, to,
                 quat_about_z(path.turn(static_cast<float>(f)) + hip_turn) * straight[f].rot[foot],
                 out.body_rot.data() + 4 * static_cast<size_t>(f) * bodies);
    }
  }
  compute_velocities(character, out);
  return out;
}

}  // namespace calm
