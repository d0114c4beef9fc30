#include "motion/recorder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/error.h"

namespace calm {

ClipRecorder::ClipRecorder(const Character& character, float fps) : character_(character) { clip_.fps = fps; }

void ClipRecorder::add(const CharacterStateView& state) {
  ++clip_.num_frames;
  clip_.root_pos.insert(clip_.root_pos.end(), state.body_pos, state.body_pos + 3);
  for (int b = 0; b < character_.num_bodies(); ++b) {
    const int parent = character_.bodies[b].parent;
    Quat local = state.rot(b);
    if (parent >= 0) local = (Quat(state.rot(parent)).conjugate() * local).normalized();
    clip_.body_rot.insert(clip_.body_rot.end(), {local.x(), local.y(), local.z(), local.w()});
  }
}

Clip ClipRecorder::clip(const std::string& name, const std::string& source) const {
  if (clip_.num_frames < 2) fail("recording `{}`: {} frames are no motion", name, clip_.num_frames);
  Clip clip = clip_;
  clip.name = name, clip.source = source;
  const ConstQuatMap first(clip_.body_rot.data());
  const Vec3 forward = first * Vec3::UnitX();
  const Quat turn(Eigen::AngleAxisf(-std::atan2(forward.y(), forward.x()), Vec3::UnitZ()));
  const Vec3 start(clip_.root_pos[0], clip_.root_pos[1], 0.0f);
  for (int f = 0; f < clip.num_frames; ++f) {
    Vec3Map pos(clip.root_pos.data() + 3 * f);
    pos = turn * Vec3(pos - start);
    QuatMap rot(clip.body_rot.data() + 4 * character_.bodies.size() * static_cast<size_t>(f));
    rot = (turn * Quat(rot)).normalized();
  }
  compute_velocities(character_, clip);
  return clip;
}

namespace {

constexpr float kCentimetres = 100.0f;
constexpr float kDegrees = 57.2957795f;

// x forward, y left, z up in ours; in the file Z forward, X left, Y up.
Vec3 to_file(const Vec3& v) { return {v.y(), v.z(), v.x()}; }
Quat to_file(const Quat& q) { return {q.w(), q.y(), q.z(), q.x()}; }

// Angles about Z, X, Y, in this order, degrees.
Vec3 euler_zxy(const Quat& q) {
  const Eigen::Matrix3f m = q.toRotationMatrix();
  const float x = std::asin(std::clamp(m(2, 1), -1.0f, 1.0f));
  // looking straight along Y: only the sum of the other two is told
  if (std::abs(m(2, 1)) > 0.99999f) return kDegrees * Vec3(std::atan2(m(1, 0), m(0, 0)), x, 0.0f);
  return kDegrees * Vec3(std::atan2(-m(0, 1), m(1, 1)), x, std::atan2(-m(2, 0), m(2, 2)));
}

// Where the bone of a body without children ends: the far side of its shapes.
Vec3 bone_end(const Character& character, int body) {
  Vec3 end(0.0f, 0.0f, 0.0f);
  for (const Shape& shape : character.shapes) {
    if (shape.body != body) continue;
    const Vec3 axis = shape.rot * Vec3::UnitZ();
    const float half = shape.kind == ShapeKind::kSphere ? 0.0f
                       : shape.kind == ShapeKind::kBox  ? shape.size.z()
                                                        : shape.size.y();
    for (const float side : {-half, half})
      if (const Vec3 tip = shape.pos + side * axis; tip.norm() > end.norm()) end = tip;
  }
  return end.norm() > 1e-3f ? end : Vec3(0.0f, 0.0f, 0.05f);
}

// Writes a body and all below it; `order` becomes the bodies in the order of their channels.
void write_joint(const Character& character, int body, const std::string& indent, std::string& text,
                 std::vector<int>& order) {
  const auto out = std::back_inserter(text);
  order.push_back(body);
  const Body& b = character.bodies[body];
  const bool is_root = b.parent < 0;
  const Vec3 offset = kCentimetres * to_file(is_root ? Vec3(Vec3::Zero()) : b.pos);
  fmt::format_to(out, "{0}{1} {2}\n{0}{{\n{0}\tOFFSET {3:.5f} {4:.5f} {5:.5f}\n", indent, is_root ? "ROOT" : "JOINT",
                 b.name, offset.x(), offset.y(), offset.z());
  fmt::format_to(out, "{}\tCHANNELS {} Zrotation Xrotation Yrotation\n", indent,
                 is_root ? "6 Xposition Yposition Zposition" : "3");
  bool has_child = false;
  for (int child = body + 1; child < character.num_bodies(); ++child)
    if (character.bodies[child].parent == body) {
      write_joint(character, child, indent + '\t', text, order);
      has_child = true;
    }
  if (!has_child) {
    const Vec3 end = kCentimetres * to_file(bone_end(character, body));
    fmt::format_to(out, "{0}\tEnd Site\n{0}\t{{\n{0}\t\tOFFSET {1:.5f} {2:.5f} {3:.5f}\n{0}\t}}\n", indent, end.x(),
                   end.y(), end.z());
  }
  text += indent + "}\n";
}

}  // namespace

std::string write_bvh(const Character& character, const Clip& clip) {
  for (const Joint& joint : character.joints)
    if (joint.anchor.norm() > 1e-5f)
      fail("clip `{}`: joint `{}` does not turn about the origin of its body, which BVH cannot tell; save a .calmlib",
           clip.name, joint.name);
  std::string text = "HIERARCHY\n";
  std::vector<int> order;
  write_joint(character, 0, "", text, order);
  const auto out = std::back_inserter(text);
  fmt::format_to(out, "MOTION\nFrames: {}\nFrame Time: {:.7f}\n", clip.num_frames, 1.0f / clip.fps);
  for (int f = 0; f < clip.num_frames; ++f) {
    const Vec3 pos = kCentimetres * to_file(Vec3(ConstVec3Map(clip.root_pos.data() + 3 * f)));
    fmt::format_to(out, "{:.4f} {:.4f} {:.4f}", pos.x(), pos.y(), pos.z());
    for (const int body : order) {
      const size_t at = 4 * (static_cast<size_t>(f) * character.bodies.size() + static_cast<size_t>(body));
      const Vec3 angles = euler_zxy(to_file(Quat(ConstQuatMap(clip.body_rot.data() + at))));
      fmt::format_to(out, " {:.4f} {:.4f} {:.4f}", angles.x(), angles.y(), angles.z());
    }
    text += '\n';
  }
  return text;
}

}  // namespace calm
