// A character: the immutable description that everything else is derived from.
//
// Input: an MJCF file and, beside it, an optional settings block (same name, .yaml). MuJoCo compiles the MJCF; this
// type then holds all of it that CALM and the simulators need, so that neither reads MJCF again.
// Ownership: plain values. Threads: const after load, shared freely. Errors: Error from load_character only.
//
// Order: bodies depth-first as in the file, the root first; joints and DoFs in body order.
// A body without joints is fixed to its parent. The root body floats (six velocities of its own, not counted as DoFs
// here). The world and the floor are not bodies.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "base/math.h"

namespace calm {

// Ball: position is the exponential map of the child's rotation in the parent's frame, velocity the angular velocity
// in the child's own frame, 3 DoFs. Hinge: angle and rate about `axis`, 1 DoF.
enum class JointKind { kHinge, kBall };

struct Joint {
  std::string name;
  JointKind kind = JointKind::kHinge;
  int body = 0;                // the child
  Vec3 anchor = Vec3::Zero();  // in the body's frame, m
  Vec3 axis = Vec3::UnitY();   // hinge: unit, in the body's frame
  int dof = 0;                 // first DoF
  int num_dofs = 1;
  float cone_limit = 0.0f;  // ball: greatest rotation angle, rad (MuJoCo's `range`); 0 is no limit
};

enum class ShapeKind { kSphere, kCapsule, kBox, kCylinder };

struct Shape {
  std::string name;
  ShapeKind kind = ShapeKind::kSphere;
  int body = 0;
  Vec3 pos = Vec3::Zero();               // in the body's frame, m
  Quat rot = Quat::Identity();           // capsules and cylinders lie along their z
  Vec3 size = Vec3::Zero();              // MuJoCo's: radius | radius, half length | half extents
  Vec3 friction{1.0f, 0.005f, 0.0001f};  // sliding, torsional, rolling
  bool collides = true;
  Eigen::Vector4f rgba{0.5f, 0.5f, 0.5f, 1.0f};
};

struct Body {
  std::string name;
  int parent = -1;          // index; -1 for the root
  Vec3 pos = Vec3::Zero();  // in the parent's frame, at zero joint positions, m
  Quat rot = Quat::Identity();
  float mass = 0.0f;                    // kg
  Vec3 com = Vec3::Zero();              // centre of mass in the body's frame
  Quat inertia_rot = Quat::Identity();  // principal axes in the body's frame
  Vec3 inertia = Vec3::Zero();          // principal moments, kg m²
  int first_joint = 0, num_joints = 0;
};

struct Character {
  std::string name;
  std::filesystem::path path;  // the MJCF
  uint64_t hash = 0;           // of everything below; a policy or library file made for another character differs

  std::vector<Body> bodies;  // root first; a parent comes before its children
  std::vector<Joint> joints;
  std::vector<Shape> shapes;
  std::vector<std::pair<int, int>> excluded_pairs;  // bodies that do not collide, beside parent and child

  // Per DoF.
  int num_dofs = 0;
  std::vector<int> dof_joint;
  std::vector<float> limit_lower, limit_upper;     // rad; of a ball joint they bound its exponential map per axis
  std::vector<float> kp, kd;                       // N m / rad, N m s / rad
  std::vector<float> armature;                     // kg m²
  std::vector<float> action_offset, action_scale;  // PD target = offset + scale * action

  // From the settings block, with defaults where there is none.
  std::vector<int> key_bodies;         // whose positions are motion features
  std::vector<int> feet;               // may touch the floor without that being a fall
  std::vector<float> fall_height;      // per body: lower than this, m, and touched, counts as fallen
  float stand_height = 0.0f;           // root height of the default pose, m: lowest shape point on the floor
  std::vector<float> default_dof_pos;  // default standing pose

  int num_bodies() const { return static_cast<int>(bodies.size()); }
  int num_joints() const { return static_cast<int>(joints.size()); }
  int body_index(const std::string& body) const;  // -1 if there is none

  // 1 + 15 n - 3.
  int observation_size() const { return 15 * num_bodies() - 2; }
  // height, root rotation, root velocities, 6 per joint, joint velocities, key bodies.
  int motion_feature_size() const { return 13 + 6 * num_joints() + num_dofs + 3 * static_cast<int>(key_bodies.size()); }
  float total_mass() const;
};

// Compiles the MJCF at `path` (and its .yaml if there is one). Three hinges on one body at one anchor about x, y and z
// become one ball joint, their ranges its per-axis limits. Throws Error, with what and where, on anything that
// cannot be simulated (slides, meshes, tendons, several trees, no free root).
Character load_character(const std::filesystem::path& path);

// As above from text; `settings_yaml` may be empty. `name` stands in for the path in errors.
Character parse_character(const std::string& mjcf, const std::string& settings_yaml, const std::string& name);

// MJCF of the character alone under gravity on a floor, as the MuJoCo backend compiles it: explicit inertias, ball
// joints, no PD drive in it (the backend's step applies the implicit PD), limits of hinges and cones, contact
// exclusions.
std::string to_mjcf(const Character& character);

}  // namespace calm
