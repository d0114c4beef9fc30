#include "fuzz/seeds.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "character/state.h"

namespace calm::fuzz {

namespace {

// Writes the opcodes of pickle protocol 3 that poselib's files consist of.
class Pickle {
 public:
  std::string bytes = "\x80\x03";

  Pickle& op(const char* text) { return bytes += text, *this; }
  Pickle& global(const std::string& module, const std::string& name) {
    bytes += "c" + module + "\n" + name + "\n";
    return *this;
  }
  Pickle& text(const std::string& s) {
    return bytes += 'X', number(static_cast<uint32_t>(s.size())), bytes += s, *this;
  }
  Pickle& data(const std::string& s) {
    return bytes += 'B', number(static_cast<uint32_t>(s.size())), bytes += s, *this;
  }
  Pickle& integer(int32_t n) {
    if (n >= 0 && n < 256)
      bytes += 'K', number(static_cast<uint8_t>(n));
    else if (n >= 0 && n < 65536)
      bytes += 'M', number(static_cast<uint16_t>(n));
    else
      bytes += 'J', number(n);
    return *this;
  }

  // numpy.dtype(name) with its state
  Pickle& dtype(const std::string& name) {
    global("numpy", "dtype").text(name).integer(0).integer(1).op("\x87R(").integer(3);
    text(name[0] == 'O' ? "|" : "<").op("NNN").integer(-1).integer(-1).integer(name[0] == 'O' ? 63 : 0);
    return op("tb");
  }
  // the empty array, to which BUILD then gives shape, type and content
  Pickle& begin_array() {
    global("numpy.core.multiarray", "_reconstruct").global("numpy", "ndarray").integer(0).op("\x85");
    bytes += "C";
    number(uint8_t{1});
    return op("b\x87R(").integer(1);
  }
  Pickle& array(const std::vector<int>& shape, const std::string& type, const std::string& content) {
    begin_array().op("(");
    for (const int n : shape) integer(n);
    return op("t").dtype(type).op("\x89").data(content).op("tb");
  }
  Pickle& scalar(const std::string& type, const std::string& content) {
    return global("numpy.core.multiarray", "scalar").dtype(type).data(content).op("\x86R");
  }

 private:
  template <class T>
  void number(T n) {
    bytes.append(reinterpret_cast<const char*>(&n), sizeof(n));
  }
};

template <class T>
std::string raw(const std::vector<double>& numbers) {
  std::string out;
  for (const double x : numbers) {
    const T n = static_cast<T>(x);
    out.append(reinterpret_cast<const char*>(&n), sizeof(n));
  }
  return out;
}

// A small angle that differs from place to place, radians.
double wobble(int frame, int body) { return 0.05 * std::sin(0.7 * frame + body); }

}  // namespace

std::string npy_seed(const Character& character, int frames, bool wide) {
  const int bodies = character.num_bodies();
  std::vector<double> rotation, translation, velocity(static_cast<size_t>(3 * frames * bodies), 0.1), parents, offsets;
  for (int f = 0; f < frames; ++f) {
    for (int b = 0; b < bodies; ++b) {
      const double half = 0.5 * wobble(f, b);  // about y, the axis of the hinges
      for (const double x : {0.0, std::sin(half), 0.0, std::cos(half)}) rotation.push_back(x);
    }
    for (const double x : {0.01 * f, 0.0, static_cast<double>(character.stand_height)}) translation.push_back(x);
  }
  for (const Body& body : character.bodies) {
    parents.push_back(body.parent);
    for (int axis = 0; axis < 3; ++axis) offsets.push_back(body.pos[axis]);
  }

  const std::string type = wide ? "f8" : "f4";
  Pickle p;
  const auto array = [&](const char* key, const std::vector<int>& shape, const std::vector<double>& values) {
    p.text(key).global("collections", "OrderedDict").op(")R(").text("arr");
    p.array(shape, type, wide ? raw<double>(values) : raw<float>(values));
    p.text("context").op("}").text("dtype").text(wide ? "float64" : "float32").op("su");
  };
  p.begin_array().op(")").dtype("O8").op("\x89]").global("collections", "OrderedDict").op(")R(");
  array("rotation", {frames, bodies, 4}, rotation);
  array("root_translation", {frames, 3}, translation);
  array("global_velocity", {frames, bodies, 3}, velocity);
  array("global_angular_velocity", {frames, bodies, 3}, velocity);
  p.text("skeleton_tree").global("collections", "OrderedDict").op(")R(").text("node_names").op("](");
  for (const Body& body : character.bodies) p.text(body.name);
  p.op("e").text("parent_indices").global("collections", "OrderedDict").op(")R").text("arr");
  p.array({bodies}, "i8", raw<int64_t>(parents)).op("s");
  array("local_translation", {bodies, 3}, offsets);
  p.op("u").text("is_local").op("\x88").text("fps");
  if (wide)
    p.scalar("f8", raw<double>({29.97}));
  else
    p.integer(30);
  p.text("__name__").text("SkeletonMotion").op("uatb.");

  std::string header = "{'descr': '|O', 'fortran_order': False, 'shape': (), }";
  header.resize(117, ' ');
  header += '\n';
  return std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(header.size()) + '\0' + header + p.bytes;
}

std::string bvh_seed(const Character& character, int frames) {
  std::string text = "HIERARCHY\n";
  std::vector<int> order;  // bodies as they are written
  const auto write = [&](const auto& self, int index) -> void {
    const Body& body = character.bodies[index];
    order.push_back(index);
    text += fmt::format("{} {}\n{{\nOFFSET {} {} {}\n", index == 0 ? "ROOT" : "JOINT", body.name, body.pos.x(),
                        body.pos.y(), body.pos.z());
    text += index == 0 ? "CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation\n"
                       : "CHANNELS 3 Zrotation Yrotation Xrotation\n";
    bool leaf = true;
    for (int child = index + 1; child < character.num_bodies(); ++child)
      if (character.bodies[child].parent == index) self(self, child), leaf = false;
    if (leaf) text += "End Site\n{\nOFFSET 0.1 0 0\n}\n";
    text += "}\n";
  };
  write(write, 0);
  text += fmt::format("MOTION\nFrames: {}\nFrame Time: 0.0333333\n", frames);
  for (int f = 0; f < frames; ++f) {
    text += fmt::format("{} 0 {}", 0.01 * f, character.stand_height);
    for (const int body : order) text += fmt::format(" 0 {:.3f} 0", 57.3 * wobble(f, body));
    text += '\n';
  }
  return text;
}

std::string bvh_seed_map(const Character& character) {
  std::string yaml = "up: z\nforward: x\nscale: 1\njoints:\n";
  for (const Body& body : character.bodies) yaml += fmt::format("  {}: {}\n", body.name, body.name);
  return yaml;
}

Clip clip_seed(const Character& character, const std::string& name, int frames) {
  const CharacterState standing = default_state(character);
  Clip clip;
  clip.name = name;
  clip.tags = {"seed", "stand"};
  clip.source = "made by a test";
  clip.num_frames = frames;
  for (int f = 0; f < frames; ++f) {
    const Vec3 pos = standing.root().pos;
    clip.root_pos.insert(clip.root_pos.end(), pos.data(), pos.data() + 3);
    for (const Body& body : character.bodies) {
      Quat rot = &body == character.bodies.data() ? standing.root().rot : body.rot;
      for (int j = body.first_joint; j < body.first_joint + body.num_joints; ++j)
        rot = rot * joint_rotation(character.joints[j], standing.dof_pos.data());
      clip.body_rot.insert(clip.body_rot.end(), rot.coeffs().data(), rot.coeffs().data() + 4);
    }
  }
  compute_velocities(character, clip);
  return clip;
}

}  // namespace calm::fuzz
