// BVH motion files of any tool: reading, and forward kinematics of what was read.
//
// Input: text of the Biovision hierarchy format; any channel order per joint, positions on any joint, any joint names.
// Output: plain values in the file's own units, axes and angles in degrees; nothing is converted here
// (motion/retarget.h does that). Errors: Error with file and line. A damaged file costs neither a crash nor more memory
// than a small multiple of its size (why not a library: docs/decisions/bvh-import.md).
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/math.h"

namespace calm {

enum class BvhChannel { kXPosition, kYPosition, kZPosition, kXRotation, kYRotation, kZRotation };

struct BvhJoint {
  std::string name;
  int parent = -1;                   // index; -1 for the root
  Vec3 offset = Vec3::Zero();        // from the parent in the zero pose, file units
  std::vector<BvhChannel> channels;  // rotations multiply in this order, left to right
  int first_channel = 0;             // in a frame's row
  bool has_end = false;              // an End Site lies below it
  Vec3 end = Vec3::Zero();           // its offset
};

struct BvhMotion {
  std::vector<BvhJoint> joints;  // depth-first as in the file: a parent comes before its children
  int num_channels = 0;
  float frame_time = 0.0f;  // s
  int num_frames = 0;
  std::vector<float> values;  // (frames x channels) file units and degrees

  float fps() const { return 1.0f / frame_time; }
  float seconds() const { return frame_time * static_cast<float>(num_frames > 0 ? num_frames - 1 : 0); }
  int joint_index(std::string_view name) const;  // -1 if there is none
};

// What a joint does at one moment: rotations in the parent, translations from the parent.
struct BvhPose {
  std::vector<Quat> local_rot;  // (joints)
  std::vector<Vec3> local_pos;  // (joints)
  std::vector<Quat> rot;        // (joints) world, as the file's axes have it
  std::vector<Vec3> pos;        // (joints) world, file units
};

BvhMotion read_bvh(const std::filesystem::path& path);

// As above from text; `name` stands in for the path in errors.
BvhMotion parse_bvh(std::string_view text, const std::string& name);

// local_rot and local_pos of a frame. A position channel replaces that coordinate of the joint's offset.
void bvh_local_pose(const BvhMotion& motion, int frame, BvhPose& pose);

// rot and pos from local_rot and local_pos.
void bvh_forward_kinematics(const BvhMotion& motion, BvhPose& pose);

// All rotations zero, the root at its offset: the pose in which the file's skeleton is drawn.
BvhPose bvh_zero_pose(const BvhMotion& motion);

// What can be told of a file without a joint map.
struct BvhGuess {
  Vec3 up = Vec3::UnitY();       // axis of the file, signed: away from the legs, over the clip
  std::string up_axis = "y";     // "y", "-z", ...
  float height = 0.0f;           // of the skeleton in its zero pose along up, file units
  float metres_per_unit = 1.0f;  // that make it 1.7 m
  std::string unit;              // the known unit that is nearest, empty if none is near
};
BvhGuess guess_bvh(const BvhMotion& motion);

}  // namespace calm
