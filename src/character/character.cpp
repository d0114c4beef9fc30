// MJCF to Character. The text is first reduced to what makes a character (bodies, joints, geoms, defaults, contact
// exclusions), which also keeps MuJoCo from opening other files and from taking memory at a stranger's word; then
// MuJoCo compiles it, and everything is read off the compiled model, so that defaults, classes, angles, frames and
// inertia inference are MuJoCo's own.
#include "character/character.h"

#include <spdlog/spdlog.h>
#include <tinyxml2.h>

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "base/file.h"
#include "base/markup.h"
#include "base/settings.h"
#include "character/mujoco_model.h"
#include "character/props.h"
#include "character/state.h"

namespace calm {

namespace {

using tinyxml2::XMLElement;

constexpr size_t kMaxBytes = size_t{4} << 20;
constexpr int kMaxBodies = 200, kMaxElements = 20000;
constexpr float kFeetBand = 0.05f;  // m above the lowest body: still a foot, where no settings name the feet

// The settings block beside the MJCF. Empty lists mean: take the default.
struct CharacterSettings {
  std::vector<std::string> key_bodies;                     // default: bodies without children
  std::vector<std::string> feet;                           // default: origins within 5 cm of the lowest body's
  std::map<std::string, float> fall_height;                // m, by body; `default` for all others
  std::map<std::string, std::vector<float>> default_pose;  // degrees by joint, three for a ball joint; default 0
  std::vector<std::vector<std::string>> excluded_pairs;    // beside those of the MJCF
};

template <class Visitor>
void visit(Visitor& v, CharacterSettings& s) {
  v("key_bodies", s.key_bodies);
  v("feet", s.feet);
  v("fall_height", s.fall_height);
  v("default_pose", s.default_pose);
  v("excluded_pairs", s.excluded_pairs);
}

// ---- reduction of the text ----

using NamePairs = std::vector<std::pair<std::string, std::string>>;

struct Reducer {
  const std::string& name;
  std::map<std::string, std::string> material_rgba = {};
  NamePairs excluded = {};
  int num_elements = 0, num_bodies = 0;

  [[noreturn]] void refuse(const XMLElement* e, const std::string& why) const {
    fail("{}:{}: <{}> {}", name, e->GetLineNum(), e->Name(), why);
  }

  void collect_materials(XMLElement* asset) {
    for (auto* e = asset->FirstChildElement(); e; e = e->NextSiblingElement()) {
      const std::string kind = e->Name();
      if (kind == "mesh" || kind == "hfield" || kind == "skin" || kind == "model")
        refuse(e, "is not supported; build the character from spheres, capsules, boxes and cylinders");
      if (kind == "material" && e->Attribute("name") && e->Attribute("rgba"))
        material_rgba[e->Attribute("name")] = e->Attribute("rgba");
    }
  }

  void reduce_geom(XMLElement* e) const {
    if (e->Attribute("mesh") || e->Attribute("hfield"))
      refuse(e, "with a mesh or height field is not supported; use spheres, capsules, boxes and cylinders");
    if (const char* material = e->Attribute("material")) {
      const auto found = material_rgba.find(material);
      if (found != material_rgba.end() && !e->Attribute("rgba")) e->SetAttribute("rgba", found->second.c_str());
      e->DeleteAttribute("material");
    }
  }

  void reduce_default(XMLElement* node) {
    for (auto* e = node->FirstChildElement(); e;) {
      auto* next = e->NextSiblingElement();
      const std::string kind = e->Name();
      if (kind == "default")
        reduce_default(e);
      else if (kind == "geom")
        reduce_geom(e);
      else if (kind == "include")
        refuse(e, "is not supported; put everything into one file");
      else if (kind != "joint")
        node->DeleteChild(e);
      e = next;
    }
  }

  void reduce_body(XMLElement* node) {
    for (auto* e = node->FirstChildElement(); e;) {
      auto* next = e->NextSiblingElement();
      const std::string kind = e->Name();
      if (++num_elements > kMaxElements) refuse(e, fmt::format("is one of more than {} elements", kMaxElements));
      if (kind == "body" || kind == "frame") {
        if (kind == "body" && ++num_bodies > kMaxBodies)
          refuse(e, fmt::format("is one of more than {} bodies", kMaxBodies));
        if (e->BoolAttribute("mocap")) refuse(e, "moved by motion capture is not supported");
        reduce_body(e);
      } else if (kind == "geom") {
        reduce_geom(e);
      } else if (kind == "site" || kind == "camera" || kind == "light") {
        node->DeleteChild(e);
      } else if (kind == "include") {
        refuse(e, "is not supported; put everything into one file");
      } else if (kind != "joint" && kind != "freejoint" && kind != "inertial") {
        refuse(e, "is not supported inside a body; write out bodies, joints and geoms");
      }
      e = next;
    }
  }

  void reduce(XMLElement* root) {
    if (std::string(root->Name()) != "mujoco")
      fail("{}:{}: the root element is <{}>; MJCF begins with <mujoco>", name, root->GetLineNum(), root->Name());
    for (auto* e = root->FirstChildElement("asset"); e; e = e->NextSiblingElement("asset")) collect_materials(e);
    // a joint with a range is limited: today's default, which MuJoCo 2.2 has to be told
    auto* compiler = root->FirstChildElement("compiler");
    if (!compiler) compiler = root->InsertNewChildElement("compiler");
    if (!compiler->Attribute("autolimits")) compiler->SetAttribute("autolimits", "true");
    for (auto* e = root->FirstChildElement(); e;) {
      auto* next = e->NextSiblingElement();
      const std::string kind = e->Name();
      if (kind == "worldbody") {
        reduce_body(e);
      } else if (kind == "default") {
        reduce_default(e);
      } else if (kind == "compiler") {
        // would melt fixed bodies, as a sword in the hand, into their parents, or drop what only draws
        for (const char* attribute : {"fusestatic", "discardvisual"}) e->DeleteAttribute(attribute);
      } else if (kind == "contact") {
        if (auto* pair = e->FirstChildElement("pair"))
          refuse(pair, "is not supported; geoms collide by themselves, <exclude> keeps bodies apart");
        for (auto* x = e->FirstChildElement("exclude"); x; x = x->NextSiblingElement("exclude"))
          if (x->Attribute("body1") && x->Attribute("body2"))
            excluded.emplace_back(x->Attribute("body1"), x->Attribute("body2"));
      } else if (kind == "include") {
        refuse(e, "is not supported; put everything into one file");
      } else if (kind == "equality" || kind == "tendon" || kind == "deformable" || kind == "extension") {
        if (e->FirstChildElement()) refuse(e, "is not supported; a character is a tree of bodies, joints and geoms");
        root->DeleteChild(e);
      } else {
        // how it looks, what it senses, how it is driven: not part of the character
        for (const char* known :
             {"option", "size", "visual", "statistic", "custom", "asset", "sensor", "actuator", "keyframe"})
          if (kind == known) {
            root->DeleteChild(e);
            break;
          }
      }
      e = next;
    }
  }
};

// Every element on the line where it was, so that MuJoCo's errors name the line of the user's file.
void write_element(const XMLElement* e, int& line, std::string& out) {
  for (; line < e->GetLineNum(); ++line) out += '\n';
  out += fmt::format("<{}", e->Name());
  for (auto* a = e->FirstAttribute(); a; a = a->Next()) {
    out += fmt::format(" {}=\"", a->Name());
    out += escape_markup(a->Value());
    out += '"';
  }
  out += '>';
  for (auto* child = e->FirstChildElement(); child; child = child->NextSiblingElement())
    write_element(child, line, out);
  out += fmt::format("</{}>", e->Name());
}

struct ReducedMjcf {
  std::string text;
  NamePairs excluded;
};

ReducedMjcf reduce_mjcf(const std::string& mjcf, const std::string& name) {
  if (mjcf.size() > kMaxBytes) fail("{}: larger than {} MiB; this is no character", name, kMaxBytes >> 20);
  tinyxml2::XMLDocument document;
  if (document.Parse(mjcf.data(), mjcf.size()) != tinyxml2::XML_SUCCESS || !document.RootElement())
    fail("{}:{}: not well-formed XML ({})", name, document.ErrorLineNum(), document.ErrorName());
  Reducer reducer{name};
  reducer.reduce(document.RootElement());
  ReducedMjcf reduced;
  int line = 1;
  write_element(document.RootElement(), line, reduced.text);
  reduced.excluded = std::move(reducer.excluded);
  return reduced;
}

// ---- reading of the compiled model ----

Vec3 vec3(const mjtNum* v) { return Eigen::Map<const Eigen::Vector3d>(v).cast<float>(); }
Quat quat(const mjtNum* q) { return Eigen::Quaterniond(q[0], q[1], q[2], q[3]).normalized().cast<float>(); }

std::string object_name(const mjModel& m, mjtObj kind, int id) {
  const char* text = mj_id2name(&m, kind, id);
  return text ? text : "";
}

std::string unique_name(std::string wanted, std::set<std::string>& taken) {
  std::string result = wanted;
  for (int i = 2; !taken.insert(result).second; ++i) result = fmt::format("{}_{}", wanted, i);
  return result;
}

class Builder {
 public:
  Builder(const mjModel& model, const NamePairs& excluded, const std::string& name)
      : m_(model), excluded_(excluded), name_(name) {}

  Character build() {
    check_tree();
    read_bodies();
    read_joints();
    read_shapes();
    read_exclusions();
    return std::move(c_);
  }

 private:
  // a single floating tree, and finite numbers
  void check_tree() const {
    if (m_.nbody < 2) fail("{}: has no body", name_);
    if (m_.body_jntnum[1] != 1 || m_.jnt_type[m_.body_jntadr[1]] != mjJNT_FREE)
      fail("{}: root body `{}` must float: give it a <freejoint/> and no other joint", name_, body_name(1));
    for (int b = 2; b < m_.nbody; ++b)
      if (m_.body_parentid[b] == 0)
        fail("{}: body `{}` is a second tree; a character is one tree", name_, body_name(b));
    for (int j = 0; j < m_.njnt; ++j) {
      const auto joint = joint_name(j);
      if (m_.jnt_type[j] == mjJNT_SLIDE)
        fail("{}: joint `{}` slides; only hinge and ball joints are supported", name_, joint);
      if (m_.jnt_type[j] == mjJNT_HINGE && m_.qpos0[m_.jnt_qposadr[j]] != 0.0)
        fail("{}: joint `{}` has `ref`, which is not supported; turn the body instead", name_, joint);
      if (m_.dof_frictionloss[m_.jnt_dofadr[j]] != 0.0)
        spdlog::warn("{}: friction of joint `{}` is ignored", name_, joint);
    }
    const auto finite = [](const mjtNum* v, int n) {
      return std::all_of(v, v + n, [](mjtNum x) { return std::abs(x) < 1e8; });  // false for NaN
    };
    if (!finite(m_.body_pos, 3 * m_.nbody) || !finite(m_.body_quat, 4 * m_.nbody) || !finite(m_.body_mass, m_.nbody) ||
        !finite(m_.body_inertia, 3 * m_.nbody) || !finite(m_.body_ipos, 3 * m_.nbody) ||
        !finite(m_.body_iquat, 4 * m_.nbody) || !finite(m_.geom_pos, 3 * m_.ngeom) ||
        !finite(m_.geom_quat, 4 * m_.ngeom) || !finite(m_.geom_size, 3 * m_.ngeom) ||
        !finite(m_.geom_friction, 3 * m_.ngeom) || !finite(m_.jnt_pos, 3 * m_.njnt) ||
        !finite(m_.jnt_axis, 3 * m_.njnt) || !finite(m_.jnt_range, 2 * m_.njnt) || !finite(m_.jnt_stiffness, m_.njnt) ||
        !finite(m_.dof_damping, m_.nv) || !finite(m_.dof_armature, m_.nv))
      fail("{}: holds numbers that are not finite or absurdly large", name_);
  }

  std::string body_name(int b) const {
    const auto text = object_name(m_, mjOBJ_BODY, b);
    return text.empty() ? fmt::format("body_{}", b - 1) : text;
  }
  std::string joint_name(int j) const {
    const auto text = object_name(m_, mjOBJ_JOINT, j);
    return text.empty() ? body_name(m_.jnt_bodyid[j]) : text;
  }

  void read_bodies() {
    std::set<std::string> taken;
    for (int b = 1; b < m_.nbody; ++b) {
      Body body;
      body.name = unique_name(body_name(b), taken);
      body.parent = m_.body_parentid[b] - 1;
      body.pos = vec3(&m_.body_pos[3 * b]);
      body.rot = quat(&m_.body_quat[4 * b]);
      body.mass = static_cast<float>(m_.body_mass[b]);
      body.com = vec3(&m_.body_ipos[3 * b]);
      body.inertia_rot = quat(&m_.body_iquat[4 * b]);
      body.inertia = vec3(&m_.body_inertia[3 * b]);
      c_.bodies.push_back(body);
    }
    // where the character stands in its file says nothing about it
    c_.bodies[0].pos.setZero();
  }

  // joints j, j+1, j+2 are hinges about x, y and z at one anchor
  bool is_ball_of_hinges(int j, int end) const {
    if (j + 3 > end) return false;
    for (int k = 0; k < 3; ++k) {
      if (m_.jnt_type[j + k] != mjJNT_HINGE) return false;
      if ((vec3(&m_.jnt_pos[3 * (j + k)]) - vec3(&m_.jnt_pos[3 * j])).norm() > 1e-5f) return false;
      if ((vec3(&m_.jnt_axis[3 * (j + k)]) - Vec3::Unit(k)).norm() > 1e-5f) return false;
    }
    return true;
  }

  void add_dof(int joint, int mujoco_joint, int mujoco_dof, float lower, float upper) {
    c_.dof_joint.push_back(joint);
    c_.limit_lower.push_back(lower);
    c_.limit_upper.push_back(upper);
    c_.kp.push_back(static_cast<float>(m_.jnt_stiffness[mujoco_joint]));
    c_.kd.push_back(static_cast<float>(m_.dof_damping[mujoco_dof]));
    c_.armature.push_back(static_cast<float>(m_.dof_armature[mujoco_dof]));
    c_.num_dofs = static_cast<int>(c_.dof_joint.size());
  }

  void add_hinge_dof(int joint, int j) {
    const bool limited = m_.jnt_limited[j];
    add_dof(joint, j, m_.jnt_dofadr[j], limited ? static_cast<float>(m_.jnt_range[2 * j]) : -kPi,
            limited ? static_cast<float>(m_.jnt_range[2 * j + 1]) : kPi);
  }

  // per-axis limits in `user`, degrees; else the cone bounds every axis; else nothing does
  void add_ball_dofs(int joint, int j) {
    const mjtNum cone = m_.jnt_limited[j] ? std::min<mjtNum>(m_.jnt_range[2 * j + 1], mjPI) : 0.0;
    c_.joints[joint].cone_limit = static_cast<float>(cone);
    const mjtNum* user = m_.nuser_jnt >= 6 ? m_.jnt_user + static_cast<size_t>(m_.nuser_jnt) * j : nullptr;
    if (user && std::all_of(user, user + 6, [](mjtNum x) { return x == 0.0; })) user = nullptr;
    for (int k = 0; k < 3; ++k) {
      mjtNum lower = cone > 0.0 ? -cone : -mjPI, upper = -lower;
      if (user) {
        if (!(user[2 * k] < user[2 * k + 1]) || std::abs(user[2 * k]) > 180.0 || std::abs(user[2 * k + 1]) > 180.0)
          fail("{}: joint `{}`: `user` must hold lower and upper limits for x, y and z in degrees", name_,
               joint_name(j));
        lower = user[2 * k] * mjPI / 180.0, upper = user[2 * k + 1] * mjPI / 180.0;
      }
      add_dof(joint, j, m_.jnt_dofadr[j] + k, static_cast<float>(lower), static_cast<float>(upper));
    }
  }

  void read_joints() {
    std::set<std::string> taken;
    for (int b = 1; b < m_.nbody; ++b) {
      Body& body = c_.bodies[b - 1];
      body.first_joint = c_.num_joints();
      const int end = m_.body_jntadr[b] + m_.body_jntnum[b];
      for (int j = m_.body_jntadr[b]; b > 1 && j < end;) {
        Joint joint;
        joint.body = b - 1;
        joint.anchor = vec3(&m_.jnt_pos[3 * j]);
        joint.dof = c_.num_dofs;
        std::string wanted = joint_name(j);
        const bool merged = is_ball_of_hinges(j, end);
        if (merged && wanted.ends_with("_x")) wanted.resize(wanted.size() - 2);
        joint.name = unique_name(wanted, taken);
        const int index = c_.num_joints();
        if (merged || m_.jnt_type[j] == mjJNT_BALL) {
          joint.kind = JointKind::kBall;
          joint.num_dofs = 3;
          c_.joints.push_back(joint);
          if (merged)
            for (int k = 0; k < 3; ++k) add_hinge_dof(index, j + k);
          else
            add_ball_dofs(index, j);
        } else {
          joint.kind = JointKind::kHinge;
          joint.axis = vec3(&m_.jnt_axis[3 * j]).normalized();
          c_.joints.push_back(joint);
          add_hinge_dof(index, j);
        }
        j += merged ? 3 : 1;
      }
      body.num_joints = c_.num_joints() - body.first_joint;
    }
    for (int d = 0; d < c_.num_dofs; ++d)
      if (!(c_.limit_lower[d] < c_.limit_upper[d]) || c_.kp[d] < 0.0f || c_.kd[d] < 0.0f || c_.armature[d] < 0.0f)
        fail("{}: joint `{}` has an empty range or a negative stiffness, damping or armature", name_,
             c_.joints[c_.dof_joint[d]].name);
  }

  void read_shapes() {
    std::set<std::string> taken{"floor"};  // to_mjcf's own
    for (int g = 0; g < m_.ngeom; ++g) {
      const int body = m_.geom_bodyid[g];
      const auto text = object_name(m_, mjOBJ_GEOM, g);
      if (body == 0) {
        if (m_.geom_type[g] != mjGEOM_PLANE)
          fail("{}: geom `{}` stands in the world; only a floor plane may, the rest belongs to bodies", name_, text);
        if (m_.geom_pos[3 * g + 2] != 0.0 || quat(&m_.geom_quat[4 * g]).toRotationMatrix()(2, 2) < 0.9999f)
          fail("{}: floor plane `{}` must be level at height 0", name_, text);
        continue;
      }
      Shape shape;
      switch (m_.geom_type[g]) {
        case mjGEOM_SPHERE:
          shape.kind = ShapeKind::kSphere;
          break;
        case mjGEOM_CAPSULE:
          shape.kind = ShapeKind::kCapsule;
          break;
        case mjGEOM_BOX:
          shape.kind = ShapeKind::kBox;
          break;
        case mjGEOM_CYLINDER:
          shape.kind = ShapeKind::kCylinder;
          break;
        default:
          fail("{}: geom `{}` of body `{}` is no sphere, capsule, box or cylinder", name_, text, body_name(body));
      }
      shape.name = unique_name(text.empty() ? c_.bodies[body - 1].name : text, taken);
      shape.body = body - 1;
      shape.pos = vec3(&m_.geom_pos[3 * g]);
      shape.rot = quat(&m_.geom_quat[4 * g]);
      shape.size = vec3(&m_.geom_size[3 * g]);
      shape.friction = vec3(&m_.geom_friction[3 * g]);
      shape.collides = m_.geom_contype[g] != 0 || m_.geom_conaffinity[g] != 0;
      shape.rgba = Eigen::Map<const Eigen::Vector4f>(&m_.geom_rgba[4 * g]);
      c_.shapes.push_back(shape);
    }
    if (c_.shapes.empty()) fail("{}: has no geoms, so it could touch nothing", name_);
  }

  // by name from the text: how MuJoCo packs a pair differs between its releases
  void read_exclusions() {
    for (const auto& [first, second] : excluded_) {
      const int a = c_.body_index(first), b = c_.body_index(second);
      if (a >= 0 && b >= 0) c_.excluded_pairs.emplace_back(std::minmax(a, b));
    }
  }

  const mjModel& m_;
  const NamePairs& excluded_;
  const std::string& name_;
  Character c_;
};

// ---- what follows from the character and its settings ----

float lowest_point(const Shape& shape, const Vec3& body_pos, const Quat& body_rot) {
  const float center = (body_pos + body_rot * shape.pos).z();
  const Vec3 up = (body_rot * shape.rot).toRotationMatrix().row(2).transpose();  // how far each axis rises
  const Vec3& size = shape.size;
  switch (shape.kind) {
    case ShapeKind::kSphere:
      return center - size.x();
    case ShapeKind::kCapsule:
      return center - size.x() - size.y() * std::abs(up.z());
    case ShapeKind::kBox:
      return center - up.cwiseAbs().dot(size);
    case ShapeKind::kCylinder:
      return center - size.y() * std::abs(up.z()) - size.x() * std::sqrt(std::max(0.0f, 1.0f - up.z() * up.z()));
  }
  return center;
}

class Settler {
 public:
  Settler(Character& character, const CharacterSettings& settings, const std::string& where)
      : c_(character), settings_(settings), where_(where) {}

  void settle() {
    action_range();
    default_pose();
    const CharacterState state = stand();
    named_bodies(state);
    fall_heights();
    exclusions();
  }

 private:
  int body(const std::string& wanted) const {
    const int index = c_.body_index(wanted);
    if (index < 0) unknown("body", wanted, c_.bodies);
    return index;
  }

  template <class T>
  [[noreturn]] void unknown(const char* what, const std::string& wanted, const std::vector<T>& items) const {
    std::vector<std::string> names;
    for (const auto& item : items) names.push_back(item.name);
    fail("{}: the character has no {} `{}`; did you mean `{}`?", where_, what, wanted, nearest_name(wanted, names));
  }

  void action_range() {
    for (const Joint& joint : c_.joints) {
      float largest = 0.0f;
      for (int d = joint.dof; d < joint.dof + joint.num_dofs; ++d)
        largest = std::max({largest, std::abs(c_.limit_lower[d]), std::abs(c_.limit_upper[d])});
      for (int d = joint.dof; d < joint.dof + joint.num_dofs; ++d) {
        const bool ball = joint.kind == JointKind::kBall;
        c_.action_offset.push_back(ball ? 0.0f : 0.5f * (c_.limit_lower[d] + c_.limit_upper[d]));
        c_.action_scale.push_back(ball ? std::min(1.2f * largest, kPi)
                                       : 0.7f * (c_.limit_upper[d] - c_.limit_lower[d]));
      }
    }
  }

  void default_pose() {
    c_.default_dof_pos.assign(c_.num_dofs, 0.0f);
    // zero unless it is out of reach
    for (int d = 0; d < c_.num_dofs; ++d)
      c_.default_dof_pos[d] = std::clamp(0.0f, c_.limit_lower[d], c_.limit_upper[d]);
    for (const auto& [name, degrees] : settings_.default_pose) {
      const auto joint = std::ranges::find(c_.joints, name, &Joint::name);
      if (joint == c_.joints.end()) unknown("joint", name, c_.joints);
      if (static_cast<int>(degrees.size()) != joint->num_dofs)
        fail("{}: default_pose: joint `{}` takes {} value(s) in degrees, not {}", where_, name, joint->num_dofs,
             degrees.size());
      for (int k = 0; k < joint->num_dofs; ++k) {
        const int d = joint->dof + k;
        const float value = degrees[k] * kPi / 180.0f;
        if (!(value >= c_.limit_lower[d] - 1e-4f && value <= c_.limit_upper[d] + 1e-4f))
          fail("{}: default_pose: joint `{}` is beyond its limits at {} degrees", where_, name, degrees[k]);
        c_.default_dof_pos[d] = value;
      }
    }
  }

  // the root as high as puts the lowest shape on the floor
  CharacterState stand() {
    c_.stand_height = 0.0f;
    const CharacterState at_zero = default_state(c_);
    const bool any_collides = std::ranges::any_of(c_.shapes, &Shape::collides);
    float lowest = std::numeric_limits<float>::max();
    for (const Shape& shape : c_.shapes)
      if (shape.collides || !any_collides)
        lowest = std::min(lowest, lowest_point(shape, at_zero.view().pos(shape.body), at_zero.view().rot(shape.body)));
    c_.stand_height = -lowest;
    return default_state(c_);
  }

  void named_bodies(const CharacterState& state) {
    for (const auto& name : settings_.key_bodies) c_.key_bodies.push_back(body(name));
    for (const auto& name : settings_.feet) c_.feet.push_back(body(name));

    if (c_.key_bodies.empty())
      for (int b = 0; b < c_.num_bodies(); ++b)
        if (std::ranges::find(c_.bodies, b, &Body::parent) == c_.bodies.end()) c_.key_bodies.push_back(b);
    if (c_.feet.empty()) {
      float lowest = std::numeric_limits<float>::max();
      for (int b = 0; b < c_.num_bodies(); ++b) lowest = std::min(lowest, state.view().pos(b).z());
      for (int b = 0; b < c_.num_bodies(); ++b)
        if (state.view().pos(b).z() < lowest + kFeetBand) c_.feet.push_back(b);
    }
  }

  void fall_heights() {
    const auto given = settings_.fall_height.find("default");
    c_.fall_height.assign(c_.bodies.size(), given == settings_.fall_height.end() ? 0.15f : given->second);
    for (const auto& [name, height] : settings_.fall_height) {
      if (!(std::abs(height) < 1e3f)) fail("{}: fall_height of `{}` is {}; it is in metres", where_, name, height);
      if (name != "default") c_.fall_height[body(name)] = height;
    }
  }

  void exclusions() {
    for (const auto& pair : settings_.excluded_pairs) {
      if (pair.size() != 2) fail("{}: excluded_pairs: a pair has two bodies, not {}", where_, pair.size());
      c_.excluded_pairs.emplace_back(std::minmax({body(pair[0]), body(pair[1])}));
    }
    std::ranges::sort(c_.excluded_pairs);
    const auto doubles = std::ranges::unique(c_.excluded_pairs);
    c_.excluded_pairs.erase(doubles.begin(), doubles.end());
  }

  Character& c_;
  const CharacterSettings& settings_;
  const std::string& where_;
};

// FNV-1a over what the physics and the features depend on; not over looks. Numbers count to a fixed fineness and
// rotations as what they do to the shape, so that another release of MuJoCo, which may round a last digit otherwise or
// choose other principal axes, gives the same hash.
class Hasher {
 public:
  void bytes(const void* data, size_t size) {
    for (size_t i = 0; i < size; ++i) value_ = (value_ ^ static_cast<const unsigned char*>(data)[i]) * 1099511628211ull;
  }
  void integer(int64_t x) {
    for (int i = 0; i < 8; ++i) {
      const auto byte = static_cast<unsigned char>(static_cast<uint64_t>(x) >> (8 * i));
      bytes(&byte, 1);
    }
  }
  void text(const std::string& s) {
    integer(static_cast<int64_t>(s.size()));
    bytes(s.data(), s.size());
  }
  // the odd offset keeps round numbers away from where rounding jumps
  void number(double x, double fineness = 1e-4) { integer(std::llround(x / fineness + 0.37)); }
  template <class Derived>
  void matrix(const Eigen::MatrixBase<Derived>& m, double fineness = 1e-4) {
    for (int i = 0; i < m.rows(); ++i)
      for (int j = 0; j < m.cols(); ++j) number(m(i, j), fineness);
  }
  void numbers(const std::vector<float>& v, double fineness = 1e-4) {
    integer(static_cast<int64_t>(v.size()));
    for (const float x : v) number(x, fineness);
  }
  void integers(const std::vector<int>& v) {
    integer(static_cast<int64_t>(v.size()));
    for (const int x : v) integer(x);
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 14695981039346656037ull;
};

uint64_t hash_of(const Character& c) {
  Hasher h;
  h.integer(c.num_bodies());
  for (const Body& body : c.bodies) {
    h.text(body.name);
    h.integer(body.parent);
    h.matrix(body.pos);
    h.matrix(body.rot.toRotationMatrix());
    h.number(body.mass);
    h.matrix(body.com);
    const Eigen::Matrix3f axes = body.inertia_rot.toRotationMatrix();
    h.matrix(Eigen::Matrix3f(axes * body.inertia.asDiagonal() * axes.transpose()), 1e-6);
    h.integer(body.num_joints);
  }
  h.integer(c.num_joints());
  for (const Joint& joint : c.joints) {
    h.text(joint.name);
    h.integer(static_cast<int>(joint.kind));
    h.matrix(joint.anchor);
    if (joint.kind == JointKind::kHinge) h.matrix(joint.axis);
    h.number(joint.cone_limit);
  }
  h.integer(static_cast<int64_t>(c.shapes.size()));
  for (const Shape& shape : c.shapes) {
    h.integer(static_cast<int>(shape.kind));
    h.integer(shape.body);
    h.matrix(shape.pos);
    const Eigen::Matrix3f axes = shape.rot.toRotationMatrix();
    if (shape.kind == ShapeKind::kBox) h.matrix(axes);
    if (shape.kind == ShapeKind::kCapsule || shape.kind == ShapeKind::kCylinder)
      h.matrix(Eigen::Matrix3f(axes.col(2) * axes.col(2).transpose()));
    h.matrix(shape.size);
    h.matrix(shape.friction, 1e-5);
    h.integer(shape.collides);
  }
  h.integer(static_cast<int64_t>(c.excluded_pairs.size()));
  for (const auto& [a, b] : c.excluded_pairs) h.integer(a), h.integer(b);
  h.numbers(c.limit_lower), h.numbers(c.limit_upper);
  h.numbers(c.kp), h.numbers(c.kd), h.numbers(c.armature, 1e-5);
  h.integers(c.key_bodies), h.integers(c.feet);
  h.numbers(c.fall_height), h.numbers(c.default_dof_pos);
  return h.value();
}

// ---- MJCF from the character ----

// All digits of the float as a double: MuJoCo's numbers are then ours exactly.
std::string num(float x) { return fmt::format("{:.17g}", x == 0.0f ? 0.0 : static_cast<double>(x)); }
std::string num(const Vec3& v) { return fmt::format("{} {} {}", num(v.x()), num(v.y()), num(v.z())); }
std::string num(const Quat& q) { return fmt::format("{} {} {} {}", num(q.w()), num(q.x()), num(q.y()), num(q.z())); }

class MjcfWriter {
 public:
  MjcfWriter(const Character& character, const std::vector<Prop>& props) : c_(character), props_(props) {}

  std::string write() {
    open("mujoco", {{"model", c_.name}});
    element("compiler", {{"angle", "radian"}, {"inertiafromgeom", "false"}});
    element("option", {{"timestep", fmt::format("{:.17g}", 1.0 / 120.0)},
                       {"integrator", "Euler"},
                       {"cone", "pyramidal"},
                       {"solver", "Newton"}});
    open("worldbody", {});
    element("geom", {{"name", "floor"}, {"type", "plane"}, {"size", "50 50 1"}, {"friction", "1 0.005 0.0001"}});
    body(0);
    for (const Prop& p : props_) prop(p);
    printer_.CloseElement();
    open("contact", {});
    for (const auto& [a, b] : c_.excluded_pairs)
      element("exclude", {{"body1", c_.bodies[a].name}, {"body2", c_.bodies[b].name}});
    printer_.CloseElement();
    printer_.CloseElement();
    return printer_.CStr();
  }

 private:
  using Attributes = std::vector<std::pair<const char*, std::string>>;

  void open(const char* name, const Attributes& attributes) {
    printer_.OpenElement(name);
    for (const auto& [key, value] : attributes) printer_.PushAttribute(key, value.c_str());
  }
  void element(const char* name, const Attributes& attributes) {
    open(name, attributes);
    printer_.CloseElement();
  }

  void body(int index) {
    const Body& b = c_.bodies[index];
    const Vec3 pos = index == 0 ? Vec3(0.0f, 0.0f, c_.stand_height) : b.pos;
    open("body", {{"name", b.name}, {"pos", num(pos)}, {"quat", num(b.rot)}});
    if (b.mass > 0.0f)
      element(
          "inertial",
          {{"pos", num(b.com)}, {"quat", num(b.inertia_rot)}, {"mass", num(b.mass)}, {"diaginertia", num(b.inertia)}});
    if (index == 0) element("freejoint", {});
    for (int j = b.first_joint; j < b.first_joint + b.num_joints; ++j) joint(c_.joints[j]);
    for (const Shape& s : c_.shapes)
      if (s.body == index) shape(s);
    for (int child = index + 1; child < c_.num_bodies(); ++child)
      if (c_.bodies[child].parent == index) body(child);
    printer_.CloseElement();
  }

  void prop(const Prop& p) {
    open("body", {{"name", p.name}, {"pos", num(p.pos)}, {"quat", num(p.rot)}});
    element("inertial", {{"pos", "0 0 0"}, {"mass", num(p.mass)}, {"diaginertia", num(prop_inertia(p))}});
    element("freejoint", {});
    Shape s;
    s.name = p.name, s.kind = p.kind, s.size = p.size, s.friction.x() = p.friction;
    shape(s);
    printer_.CloseElement();
  }

  void joint(const Joint& j) {
    Attributes attributes{{"name", j.name}, {"pos", num(j.anchor)}, {"armature", num(c_.armature[j.dof])}};
    if (j.kind == JointKind::kBall) {
      attributes.emplace_back("type", "ball");
      attributes.emplace_back("limited", j.cone_limit > 0.0f ? "true" : "false");
      if (j.cone_limit > 0.0f) attributes.emplace_back("range", "0 " + num(j.cone_limit));
    } else {
      const float lower = c_.limit_lower[j.dof], upper = c_.limit_upper[j.dof];
      const bool limited = lower > -kPi || upper < kPi;
      attributes.emplace_back("type", "hinge");
      attributes.emplace_back("axis", num(j.axis));
      attributes.emplace_back("limited", limited ? "true" : "false");
      if (limited) attributes.emplace_back("range", num(lower) + " " + num(upper));
    }
    element("joint", attributes);
  }

  void shape(const Shape& s) {
    const char* type = "";
    std::string size;
    switch (s.kind) {
      case ShapeKind::kSphere:
        type = "sphere", size = num(s.size.x());
        break;
      case ShapeKind::kCapsule:
        type = "capsule", size = num(s.size.x()) + " " + num(s.size.y());
        break;
      case ShapeKind::kBox:
        type = "box", size = num(s.size);
        break;
      case ShapeKind::kCylinder:
        type = "cylinder", size = num(s.size.x()) + " " + num(s.size.y());
        break;
    }
    const char* collides = s.collides ? "1" : "0";
    element("geom",
            {{"name", s.name},
             {"type", type},
             {"size", size},
             {"pos", num(s.pos)},
             {"quat", num(s.rot)},
             {"friction", num(s.friction)},
             {"contype", collides},
             {"conaffinity", collides},
             {"rgba", fmt::format("{} {} {} {}", num(s.rgba[0]), num(s.rgba[1]), num(s.rgba[2]), num(s.rgba[3]))}});
  }

  const Character& c_;
  const std::vector<Prop>& props_;
  tinyxml2::XMLPrinter printer_;
};

CharacterSettings parse_settings(const std::string& yaml, const std::string& where) {
  CharacterSettings settings;
  if (yaml.empty()) return settings;
  YAML::Node node;
  try {
    node = YAML::Load(yaml);
  } catch (const YAML::Exception& e) {
    fail("{}:{}: {}", where, e.mark.line + 1, e.msg);
  }
  read_settings(settings, node, where);
  return settings;
}

}  // namespace

int Character::body_index(const std::string& body) const {
  const auto found = std::ranges::find(bodies, body, &Body::name);
  return found == bodies.end() ? -1 : static_cast<int>(found - bodies.begin());
}

float Character::total_mass() const {
  return std::accumulate(bodies.begin(), bodies.end(), 0.0f, [](float sum, const Body& b) { return sum + b.mass; });
}

Character parse_character(const std::string& mjcf, const std::string& settings_yaml, const std::string& name) {
  const ReducedMjcf reduced = reduce_mjcf(mjcf, name);
  const MujocoModel model = compile_mjcf(reduced.text, name);
  Character character = Builder(*model, reduced.excluded, name).build();
  character.name = std::filesystem::path(name).stem().string();
  const std::string where = std::filesystem::path(name).replace_extension(".yaml").string();
  const CharacterSettings settings = parse_settings(settings_yaml, where);
  Settler(character, settings, where).settle();
  character.hash = hash_of(character);
  return character;
}

Character load_character(const std::filesystem::path& path) {
  const std::string mjcf = read_file(path, kMaxBytes);
  const std::filesystem::path beside = std::filesystem::path(path).replace_extension(".yaml");
  std::string settings;
  if (std::filesystem::exists(beside)) settings = read_file(beside, size_t{1} << 20);
  Character character = parse_character(mjcf, settings, path.string());
  character.path = path;
  return character;
}

std::string to_mjcf(const Character& character) { return to_mjcf(character, {}); }

std::string to_mjcf(const Character& character, const std::vector<Prop>& props) {
  for (const Prop& p : props) {
    const auto twice = std::ranges::count(props, p.name, &Prop::name) > 1;
    if (p.name.empty() || p.name == "floor" || twice || character.body_index(p.name) >= 0 ||
        std::ranges::find(character.shapes, p.name, &Shape::name) != character.shapes.end())
      fail("prop \"{}\": it needs a name of its own", p.name);
    const int sizes = p.kind == ShapeKind::kSphere ? 1 : p.kind == ShapeKind::kBox ? 3 : 2;
    if (!(p.mass > 0.0f) || !(p.size.head(sizes).minCoeff() > 0.0f) || !(p.friction >= 0.0f) || !p.pos.allFinite())
      fail("prop \"{}\": mass and sizes must be positive, friction not negative", p.name);
  }
  return MjcfWriter(character, props).write();
}

Vec3 prop_inertia(const Prop& prop) {
  const float m = prop.mass, r = prop.size.x(), h = prop.size.y();
  switch (prop.kind) {
    case ShapeKind::kSphere:
      return Vec3::Constant(0.4f * m * r * r);
    case ShapeKind::kCylinder:
      return Vec3(m * (r * r / 4 + h * h / 3), m * (r * r / 4 + h * h / 3), m * r * r / 2);
    case ShapeKind::kCapsule: {
      // a cylinder and two half spheres, whose centres are 3/8 r beyond its ends
      const float part = h / (h + 2.0f / 3.0f * r), tube = m * part, caps = m - tube;
      const float across = tube * (r * r / 4 + h * h / 3) + caps * (0.4f * r * r + h * h + 0.75f * h * r);
      return Vec3(across, across, tube * r * r / 2 + caps * 0.4f * r * r);
    }
    case ShapeKind::kBox:
      break;
  }
  const Vec3 squared = prop.size.cwiseAbs2();
  return m / 3 * Vec3(squared.y() + squared.z(), squared.x() + squared.z(), squared.x() + squared.y());
}

}  // namespace calm
