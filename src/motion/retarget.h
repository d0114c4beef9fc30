// BVH motion onto a character, by a joint map.
//
// Input: a BVH file, and a map (YAML, see configs/retarget/) that says which of its joints moves which body, which axes
// are up and forward, and how large a unit is. Output: a clip in our conventions (z up, x forward, metres), feet on the
// floor, starting at the origin with its heading along +x. Errors: Error, one line with the file.
//
// Rotations are carried over, not positions: skeletons differ in lengths, and files lose some. Stages: axes ->
// resampling
// -> body rotations from bone directions -> hinges from the plane of the limb -> ankles back to where the (scaled) file
// has them -> floor.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "motion/bvh.h"
#include "motion/clip.h"

namespace calm {

struct RetargetJoint {
  std::vector<std::string> from;  // joint of the file that moves the body; the first of these names that it has
  std::vector<std::string> to;    // joint that the bone points to; empty: the joint of our child body, or the child
  Vec3 rotation = Vec3::Zero();   // added in the body's own frame, exponential map, degrees
};

struct RetargetMap {
  std::string name;                // for messages: the map's path
  std::string up = "auto";         // axis of the file that points up: x y z -x -y -z, or auto (from hips to head)
  std::string forward = "auto";    // axis that the figure faces in the rest pose, or auto (from left to right hip)
  std::optional<float> scale;      // metres per unit; none is `auto`: from the length of the legs
  std::optional<int> skip_frames;  // leading frames to leave out; none is `auto`: an inserted T-pose is left out
  std::optional<int> rest_frame;   // frame in which bones are compared; none is `zero`: all rotations zero
  float fps = 30.0f;               // of the clip; 0 keeps the file's own rate
  bool place_at_origin = true;     // start at x = y = 0 with heading +x; otherwise as the file has it
  bool keep_feet = true;           // ankles where the scaled file has them, so that planted feet stay planted
  bool level_feet = true;          // pitch of the feet from the moments they stand on the floor
  bool level_ground = true;        // a slope of the recorded ground of up to 4 % is taken out
  bool clamp = false;              // joint positions into the character's limits
  std::map<std::string, RetargetJoint> joints;  // by our body's name
};

RetargetMap load_retarget_map(const std::filesystem::path& path);
RetargetMap parse_retarget_map(const std::string& yaml, const std::string& name);

// Names in `map` of bodies of the character that no joint of the file fits; empty: the map fits.
std::vector<std::string> unmapped_joints(const Character& character, const BvhMotion& motion, const RetargetMap& map);

// The clip; `warnings` (may be null) gets lines for people. `name` becomes the clip's name and source.
Clip retarget(const Character& character, const BvhMotion& motion, const RetargetMap& map, const std::string& name,
              std::vector<std::string>* warnings);

// As above from a file; the clip is named after its stem.
Clip import_bvh(const Character& character, const std::filesystem::path& path, const RetargetMap& map,
                std::vector<std::string>* warnings);

// The map for the CMU clips, where this program finds it (source tree).
std::filesystem::path default_retarget_map_path();

// Height of the lowest point of one body's shapes, m; infinity where it has none.
float lowest_point(const Character& character, int body, const Vec3& pos, const Quat& rot);

// All bodies of frame `frame` of a clip, without velocities.
void clip_pose(const Character& character, const Clip& clip, int frame, CharacterState& state);

}  // namespace calm
