// How rotations are carried over. A BVH skeleton's zero pose (arms out, legs spread, say) differs from ours (arms
// down), so a joint's rotation means nothing by itself. Let D be how far a joint has turned, in the world, since the
// rest pose. A body of ours that pointed the same way in the rest pose turns by the same D. For torso and head that is
// all. For limbs the rest pose gives the bone's direction, D turns it to where it is now, and our bone takes that
// direction; what is left, the twist about the bone, follows from the hinge below it: its axis stands on the plane of
// the limb. Where the limb is straight there is no plane, so the axis is taken as fixed in the upper bone, found once
// from all bent frames.
//
// Rejected: copying joint positions (files differ in bone lengths and some lose whole bones); plain inverse kinematics
// of all end points (hands of another arm length end in odd places; the eye reads arms by their directions). Ankles
// alone go by position, since a foot that stood must stand.
#include "motion/retarget.h"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "base/settings.h"

namespace calm {

namespace {

constexpr int kMaxFrames = 500'000;
constexpr float kSlowest = 0.25f;  // s a frame; what is slower is no motion, and resampling would make much of little

// Angle about unit `axis` that takes a to b, both seen along the axis.
float angle_about(const Vec3& axis, const Vec3& a, const Vec3& b) {
  return std::atan2(axis.dot(a.cross(b)), a.dot(b) - axis.dot(a) * axis.dot(b));
}

Vec3 orthogonal_to(const Vec3& v, const Vec3& unit) {
  const Vec3 rest = v - unit * unit.dot(v);
  const float norm = rest.norm();
  return norm > 1e-6f ? Vec3(rest / norm) : unit.unitOrthogonal();
}

float smoothstep(float lower, float upper, float x) {
  const float t = std::clamp((x - lower) / (upper - lower), 0.0f, 1.0f);
  return t * t * (3.0f - 2.0f * t);
}

float percentile(std::vector<float> values, float share) {
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(share * static_cast<float>(values.size() - 1));
  std::ranges::nth_element(values, at);
  return *at;
}

// Rotation that takes unit a to b and unit c, perpendicular to a, to d, perpendicular to b.
Quat align(const Vec3& a, const Vec3& c, const Vec3& b, const Vec3& d) {
  Eigen::Matrix3f from, to;
  from << a, c, a.cross(c);
  to << b, d, b.cross(d);
  return Quat(to * from.transpose()).normalized();
}

// Smooth and nowhere below `values`: the maximum over a neighbourhood, then the mean over the same.
std::vector<float> smooth_envelope(const std::vector<float>& values, int radius) {
  const int n = static_cast<int>(values.size());
  std::vector<float> highest(values.size()), out(values.size());
  for (int i = 0; i < n; ++i)
    highest[i] =
        *std::max_element(values.begin() + std::max(0, i - radius), values.begin() + std::min(n, i + radius + 1));
  for (int i = 0; i < n; ++i) {
    float sum = 0.0f;
    for (int k = -radius; k <= radius; ++k) sum += highest[std::clamp(i + k, 0, n - 1)];
    out[i] = sum / static_cast<float>(2 * radius + 1);
  }
  return out;
}

// ---- the map ------------------------------------------------------------------------------------------------------

std::optional<Vec3> axis_from_name(std::string name) {
  if (name == "auto") return std::nullopt;
  const bool negative = name.starts_with('-');
  if (negative || name.starts_with('+')) name.erase(0, 1);
  if (name != "x" && name != "y" && name != "z") return Vec3(Vec3::Zero());
  return Vec3(Vec3::Unit(name[0] - 'x') * (negative ? -1.0f : 1.0f));
}

std::vector<std::string> names_from(const YAML::Node& node) {
  if (node.IsSequence()) return node.as<std::vector<std::string>>();
  return {node.as<std::string>()};
}

// Names compare without the part before a colon, which tools add ("mixamorig:Hips").
std::string_view base_name(std::string_view name) {
  const auto colon = name.rfind(':');
  return colon == std::string_view::npos ? name : name.substr(colon + 1);
}

int find_joint(const BvhMotion& motion, const std::vector<std::string>& names) {
  for (const auto& name : names)
    if (const int j = motion.joint_index(name); j >= 0) return j;
  for (const auto& name : names) {
    const auto it =
        std::ranges::find_if(motion.joints, [&](const auto& j) { return base_name(j.name) == base_name(name); });
    if (it != motion.joints.end()) return static_cast<int>(it - motion.joints.begin());
  }
  return -1;
}

// ---- the character's side -----------------------------------------------------------------------------------------

// Two bones and the hinge between them, as the character has them.
struct Limb {
  int upper = 0, lower = 0, tip = 0;  // bodies
  int hinge = 0;                      // joint
  float sign = 1.0f;                  // of the angle when bent
  Vec3 upper_dir, hinge_axis,
      lower_dir;  // in the upper body's frame, the hinge at zero; unit, the first two orthogonal
  float upper_length = 0.0f, lower_length = 0.0f;
  bool is_leg = false;
};

int longest_child(const Character& c, int body) {
  int best = -1;
  for (int b = body + 1; b < c.num_bodies(); ++b)
    if (c.bodies[b].parent == body && (best < 0 || c.bodies[b].pos.norm() > c.bodies[best].pos.norm())) best = b;
  return best;
}

std::vector<Limb> find_limbs(const Character& c) {
  std::vector<Limb> limbs;
  for (int b = 1; b < c.num_bodies(); ++b) {
    const Body& lower = c.bodies[b];
    if (lower.num_joints != 1 || c.joints[lower.first_joint].kind != JointKind::kHinge) continue;
    const int upper = lower.parent;
    if (upper <= 0 || c.bodies[upper].num_joints != 1 || c.joints[c.bodies[upper].first_joint].kind != JointKind::kBall)
      continue;
    Limb limb;
    limb.upper = upper, limb.lower = b, limb.hinge = lower.first_joint;
    limb.tip = longest_child(c, b);
    if (limb.tip < 0 || lower.pos.norm() < 1e-4f || c.bodies[limb.tip].pos.norm() < 1e-4f) continue;
    const Joint& hinge = c.joints[limb.hinge];
    limb.sign = c.limit_lower[hinge.dof] + c.limit_upper[hinge.dof] < 0.0f ? -1.0f : 1.0f;
    limb.upper_length = lower.pos.norm();
    limb.upper_dir = lower.pos / limb.upper_length;
    limb.hinge_axis = orthogonal_to(lower.rot * hinge.axis, limb.upper_dir);
    limb.lower_length = c.bodies[limb.tip].pos.norm();
    limb.lower_dir = lower.rot * (c.bodies[limb.tip].pos / limb.lower_length);
    limb.is_leg = std::ranges::find(c.feet, limb.tip) != c.feet.end();
    limbs.push_back(limb);
  }
  return limbs;
}

// ---- the file's side ----------------------------------------------------------------------------------------------

// What of a resampled file frame the rest needs: in our axes and metres.
struct Source {
  int num_frames = 0;
  float fps = 30.0f;
  std::vector<Quat> turn;    // (frames x bodies) rotation in the world since the rest pose
  std::vector<Vec3> hips;    // (frames) middle of the hip joints, or the root joint
  std::vector<Vec3> ankles;  // (frames x limbs)
};

class Retargeter {
 public:
  Retargeter(const Character& character, const BvhMotion& motion, const RetargetMap& map, std::string name,
             std::vector<std::string>* warnings)
      : c_(character),
        motion_(motion),
        map_(map),
        name_(std::move(name)),
        warnings_(warnings),
        limbs_(find_limbs(character)) {}

  Clip run() {
    map_joints();
    rest_pose();
    choose_axes();
    rest_bones();
    choose_scale();
    choose_frames();
    resample();
    turn_bodies();
    level_feet();
    place_on_floor();
    place_at_origin();
    return clip();
  }

 private:
  template <typename... Args>
  void warn(fmt::format_string<Args...> format, Args&&... args) {
    if (warnings_) warnings_->push_back(fmt::format("{}: {}", name_, fmt::format(format, std::forward<Args>(args)...)));
  }
  int bodies() const { return c_.num_bodies(); }
  Quat& rot(int frame, int body) { return rot_[static_cast<size_t>(frame) * c_.bodies.size() + body]; }

  void map_joints() {
    const auto missing = unmapped_joints(c_, motion_, map_);
    if (!missing.empty())
      fail(
          "{}: no joint of the file fits {} of the map {}; write a map for this file's names (`calm motion info` lists "
          "them) after the examples in configs/retarget/",
          name_, fmt::join(missing, ", "), map_.name);
    joint_of_.assign(c_.bodies.size(), -1);
    for (const auto& [body, entry] : map_.joints)
      if (const int b = c_.body_index(body); b >= 0) joint_of_[b] = find_joint(motion_, entry.from);
    if (joint_of_[0] < 0) fail("{}: the map has no joint for the root body `{}`; add it", map_.name, c_.bodies[0].name);
  }

  void rest_pose() {
    if (!map_.rest_frame) {
      rest_ = bvh_zero_pose(motion_);
    } else {
      if (*map_.rest_frame >= motion_.num_frames)
        fail("{}: the map {} takes frame {} as the rest pose, the file has {} frames", name_, map_.name,
             *map_.rest_frame, motion_.num_frames);
      bvh_local_pose(motion_, *map_.rest_frame, rest_);
      bvh_forward_kinematics(motion_, rest_);
    }
  }

  // Rows of axes_: the file's forward, left and up directions.
  void choose_axes() {
    const auto snapped = [&](const Vec3& v) -> Vec3 {
      Eigen::Index axis;
      v.cwiseAbs().maxCoeff(&axis);
      return Vec3::Unit(axis) * (v[axis] < 0.0f ? -1.0f : 1.0f);
    };
    Vec3 feet = Vec3::Zero(), left = Vec3::Zero();
    int legs = 0;
    for (const Limb& limb : limbs_) {
      if (!limb.is_leg || joint_of_[limb.upper] < 0 || joint_of_[limb.tip] < 0) continue;
      ++legs;
      feet += rest_.pos[joint_of_[limb.tip]];
      left += rest_.pos[joint_of_[limb.upper]] * (c_.bodies[limb.upper].pos.y() < 0.0f ? -1.0f : 1.0f);
    }
    Vec3 up, forward;
    if (const auto axis = axis_from_name(map_.up)) {
      up = *axis;
    } else {
      if (legs == 0) fail("{}: up axis `auto` needs mapped legs; give `up:` in {}", name_, map_.name);
      up = snapped(rest_.pos[joint_of_[0]] - feet / static_cast<float>(legs));
    }
    if (const auto axis = axis_from_name(map_.forward)) {
      forward = *axis;
    } else {
      forward = left.cross(up);
      if (legs < 2 || forward.norm() < 1e-6f)
        fail("{}: forward axis `auto` needs both legs mapped; give `forward:` in {}", name_, map_.name);
      forward = map_.rest_frame ? Vec3(forward.normalized()) : snapped(forward);
    }
    if (std::abs(forward.dot(up)) > 1e-3f) fail("{}: up and forward are the same axis", map_.name);
    axes_ << forward.transpose(), up.cross(forward).transpose(), up.transpose();
  }

  Vec3 to_ours(const Vec3& v) const { return axes_ * v; }
  Quat to_ours(const Quat& q) const {
    Quat out;
    out.w() = q.w();
    out.vec() = axes_ * q.vec();
    return out;
  }

  // Direction of a body's bone in the rest pose, in our axes; zero where the file has no length there.
  Vec3 bone_direction(int body) const {
    const int joint = joint_of_[body];
    const auto& to = map_.joints.at(c_.bodies[body].name).to;
    int target = to.empty() ? -1 : find_joint(motion_, to);
    if (target < 0) {
      const int child = longest_child(c_, body);
      if (child >= 0) target = joint_of_[child];
    }
    const auto from_joint = [&](int j) { return Vec3(to_ours(Vec3(rest_.pos[j] - rest_.pos[joint]))); };
    const float small = 1e-4f * extent_;
    if (target >= 0 && from_joint(target).norm() > small) return from_joint(target).normalized();
    for (size_t j = static_cast<size_t>(joint) + 1; j < motion_.joints.size(); ++j)
      if (motion_.joints[j].parent == joint && from_joint(static_cast<int>(j)).norm() > small)
        return from_joint(static_cast<int>(j)).normalized();
    if (motion_.joints[joint].has_end && motion_.joints[joint].end.norm() > small)
      return to_ours(Vec3(rest_.rot[joint] * motion_.joints[joint].end)).normalized();
    return Vec3::Zero();
  }

  // What turns every body of ours, from its zero pose, into the file's rest pose.
  void rest_bones() {
    extent_ = 0.0f;
    for (const Vec3& p : rest_.pos) extent_ = std::max(extent_, (p - rest_.pos[0]).norm());
    if (!(extent_ > 0.0f) || !std::isfinite(extent_)) fail("{}: a skeleton without any length", name_);

    zero_rot_.assign(c_.bodies.size(), Quat::Identity());
    for (int b = 0; b < bodies(); ++b)
      zero_rot_[b] =
          c_.bodies[b].parent < 0 ? Quat(Quat::Identity()) : zero_rot_[c_.bodies[b].parent] * c_.bodies[b].rot;

    offset_.assign(c_.bodies.size(), Quat::Identity());
    bone_.assign(c_.bodies.size(), Vec3::Zero());
    for (const Limb& limb : limbs_) {
      if (joint_of_[limb.upper] < 0 || joint_of_[limb.lower] < 0)
        fail("{}: the map {} must have `{}` and `{}` both", name_, map_.name, c_.bodies[limb.upper].name,
             c_.bodies[limb.lower].name);
      const Vec3 ours = zero_rot_[limb.upper] * limb.upper_dir;
      for (const int b : {limb.upper, limb.lower}) {
        bone_[b] = bone_direction(b);
        if (bone_[b].isZero())
          fail("{}: the bone of joint `{}` has no length", name_, motion_.joints[joint_of_[b]].name);
      }
      offset_[limb.upper] = Quat::FromTwoVectors(ours, bone_[limb.upper]);
      offset_[limb.lower] = Quat::FromTwoVectors(zero_rot_[limb.upper] * limb.lower_dir, bone_[limb.lower]);
      if (joint_of_[limb.tip] < 0) continue;
      const Vec3 tip_bone = bone_direction(limb.tip);
      if (limb.is_leg) {
        // the foot: rolled as the shin is, its toe direction level with the sole, so square to the shin
        const Vec3 down = offset_[limb.lower] * zero_rot_[limb.upper] * limb.lower_dir;
        const Vec3 toe = tip_bone.isZero() ? Vec3(Vec3::UnitX()) : tip_bone;
        const Vec3 ahead = orthogonal_to(toe, down);
        offset_[limb.tip] = align(Vec3::UnitX(), -Vec3::UnitZ(), ahead, down);
      } else {
        offset_[limb.tip] = offset_[limb.lower];
        if (!tip_bone.isZero())
          offset_[limb.tip] = Quat::FromTwoVectors(bone_[limb.lower], tip_bone) * offset_[limb.lower];
      }
    }
    for (const auto& [body, entry] : map_.joints)
      if (const int b = c_.body_index(body); b >= 0)
        zero_rot_[b] = zero_rot_[b] * quat_from_exp_map(entry.rotation * (kPi / 180.0f));
  }

  void choose_scale() {
    float ours = 0.0f, theirs = 0.0f;
    for (const Limb& limb : limbs_) {
      if (!limb.is_leg || joint_of_[limb.tip] < 0) continue;
      ours += limb.upper_length + limb.lower_length;
      theirs += (rest_.pos[joint_of_[limb.lower]] - rest_.pos[joint_of_[limb.upper]]).norm() +
                (rest_.pos[joint_of_[limb.tip]] - rest_.pos[joint_of_[limb.lower]]).norm();
    }
    if (map_.scale) {
      scale_ = *map_.scale;
    } else {
      if (!(theirs > 0.0f)) fail("{}: scale `auto` needs mapped legs with feet; give `scale:` in {}", name_, map_.name);
      scale_ = ours / theirs;
    }
  }

  // An inserted T-pose: everything leaps from the first frame to the second, and then moves on smoothly.
  void choose_frames() {
    first_ = map_.skip_frames.value_or(0);
    if (!map_.skip_frames && motion_.num_frames >= 4) {
      const auto leap = [&](int frame) {
        BvhPose a, b;
        bvh_local_pose(motion_, frame, a);
        bvh_local_pose(motion_, frame + 1, b);
        float largest = 0.0f;
        for (size_t j = 0; j < a.local_rot.size(); ++j)
          largest = std::max(largest, a.local_rot[j].angularDistance(b.local_rot[j]));
        return largest;
      };
      // some files leave one limb in that pose for a frame or two more
      constexpr int kLatest = 4;
      std::vector<float> leaps;
      for (int frame = 0; frame < std::min(3 * kLatest, motion_.num_frames - 1); ++frame) leaps.push_back(leap(frame));
      const float usual = percentile(leaps, 0.5f);
      for (int frame = 0; frame < std::min<int>(kLatest, static_cast<int>(leaps.size()) - 2); ++frame)
        if (leaps[frame] > 0.35f && leaps[frame] > 4.0f * usual) first_ = frame + 1;
      if (first_ > 0)
        warn("{} left out: a pose of its own, far from what follows",
             first_ == 1 ? std::string("first frame") : fmt::format("first {} frames", first_));
    }
    if (motion_.num_frames - first_ < 2)
      fail("{}: {} frames, of which {} are skipped; two are needed at least", name_, motion_.num_frames, first_);
  }

  // Pose at source time `at` (frames), low-passed where the clip is slower than the file: a raised cosine over +-1 clip
  // frame, half at the highest frequency the clip can hold.
  void filtered_pose(double at, double radius, BvhPose& out) {
    const int last = motion_.num_frames - 1;
    const int from = static_cast<int>(std::ceil(at - radius + 1e-9)),
              to = static_cast<int>(std::floor(at + radius - 1e-9));
    bvh_local_pose(motion_, std::clamp(static_cast<int>(std::lround(at)), first_, last), nearest_);
    const size_t n = motion_.joints.size();
    sum_rot_.assign(n, Eigen::Vector4f::Zero());
    sum_pos_.assign(n, Vec3::Zero());
    double total = 0.0;
    for (int frame = from; frame <= to; ++frame) {
      const double distance = (frame - at) / radius;
      const double weight = radius > 1.0 ? 0.5 + 0.5 * std::cos(distance * std::numbers::pi) : 1.0 - std::abs(distance);
      // beyond the ends nothing is known; a filter that shrinks evenly keeps the ends where they are
      if (frame < first_ || frame > last || 2.0 * at - frame < first_ - 1e-6 || 2.0 * at - frame > last + 1e-6) {
        if (frame < first_ || frame > last || std::abs(frame - at) >= 1.0) continue;
      }
      bvh_local_pose(motion_, frame, window_);
      for (size_t j = 0; j < n; ++j) {
        const float sign = window_.local_rot[j].dot(nearest_.local_rot[j]) < 0.0f ? -1.0f : 1.0f;
        sum_rot_[j] += static_cast<float>(weight) * sign * window_.local_rot[j].coeffs();
        sum_pos_[j] += static_cast<float>(weight) * window_.local_pos[j];
      }
      total += weight;
    }
    if (!(total > 0.0)) {
      out = nearest_;
    } else {
      out.local_rot.resize(n);
      out.local_pos.resize(n);
      for (size_t j = 0; j < n; ++j) {
        out.local_rot[j].coeffs() = sum_rot_[j];
        out.local_rot[j].normalize();
        out.local_pos[j] = sum_pos_[j] / static_cast<float>(total);
      }
    }
    bvh_forward_kinematics(motion_, out);
  }

  void resample() {
    if (motion_.frame_time > kSlowest)
      fail("{}: a frame every {:.3g} s; at least {:.0f} a second are needed", name_, motion_.frame_time,
           1.0f / kSlowest);
    const double file_fps = 1.0 / static_cast<double>(motion_.frame_time);
    const double fps = map_.fps > 0.0f ? map_.fps : file_fps;
    const double ratio = file_fps / fps;  // file frames a clip frame
    const double count = std::floor((motion_.num_frames - 1 - first_) / ratio + 1e-3) + 1.0;
    if (count > kMaxFrames) fail("{}: {} frames at {} a second, more than {}; cut it", name_, count, fps, kMaxFrames);
    if (count < 2.0) fail("{}: shorter than two frames at {} a second; give fps: 0 to keep its own rate", name_, fps);
    const double radius = std::max(1.0, std::abs(ratio - 1.0) < 0.01 ? 1.0 : ratio);

    source_.num_frames = static_cast<int>(count);
    source_.fps = static_cast<float>(fps);
    source_.turn.resize(static_cast<size_t>(source_.num_frames) * c_.bodies.size());
    source_.ankles.assign(static_cast<size_t>(source_.num_frames) * limbs_.size(), Vec3::Zero());
    BvhPose pose;
    for (int frame = 0; frame < source_.num_frames; ++frame) {
      filtered_pose(std::min<double>(first_ + frame * ratio, motion_.num_frames - 1), radius, pose);
      for (int b = 0; b < bodies(); ++b) {
        const int j = joint_of_[b];
        if (j >= 0)
          source_.turn[static_cast<size_t>(frame) * c_.bodies.size() + b] =
              to_ours(Quat(pose.rot[j] * rest_.rot[j].conjugate())).normalized();
      }
      Vec3 hips = Vec3::Zero();
      int legs = 0;
      for (size_t l = 0; l < limbs_.size(); ++l) {
        const int tip = joint_of_[limbs_[l].tip];
        if (!limbs_[l].is_leg || tip < 0) continue;
        ++legs;
        hips += pose.pos[joint_of_[limbs_[l].upper]];
        source_.ankles[static_cast<size_t>(frame) * limbs_.size() + l] = scale_ * to_ours(pose.pos[tip]);
      }
      source_.hips.push_back(scale_ * to_ours(legs ? Vec3(hips / static_cast<float>(legs)) : pose.pos[joint_of_[0]]));
      bool finite = source_.hips.back().allFinite();
      for (size_t l = 0; l < limbs_.size(); ++l) finite &= ankle(frame, static_cast<int>(l)).allFinite();
      if (!finite) fail("{}: positions near frame {} are not finite", name_, frame);
    }
  }

  const Quat& turn(int frame, int body) const {
    return source_.turn[static_cast<size_t>(frame) * c_.bodies.size() + body];
  }

  // World rotations of all bodies by rotation alone; limbs by direction and plane.
  void turn_bodies() {
    const int n = source_.num_frames;
    rot_.assign(static_cast<size_t>(n) * c_.bodies.size(), Quat::Identity());
    root_.resize(static_cast<size_t>(n));
    for (int frame = 0; frame < n; ++frame) {
      for (int b = 0; b < bodies(); ++b) {
        const Body& body = c_.bodies[b];
        const bool moves = b == 0 || body.num_joints > 0;
        if (moves && joint_of_[b] >= 0)
          rot(frame, b) = (turn(frame, b) * offset_[b] * zero_rot_[b]).normalized();
        else
          rot(frame, b) = rot(frame, body.parent) * body.rot;
      }
    }

    Vec3 hips = Vec3::Zero();  // middle of our hip joints in the root's frame
    int legs = 0;
    for (const Limb& limb : limbs_)
      if (limb.is_leg && c_.bodies[limb.upper].parent == 0 && joint_of_[limb.tip] >= 0)
        hips += c_.bodies[limb.upper].pos, ++legs;
    if (legs) hips /= static_cast<float>(legs);
    for (int frame = 0; frame < n; ++frame) root_[frame] = source_.hips[frame] - rot(frame, 0) * hips;

    normal_.assign(limbs_.size(), std::vector<Vec3>(static_cast<size_t>(n)));
    for (size_t l = 0; l < limbs_.size(); ++l) find_normals(static_cast<int>(l));
    for (int frame = 0; frame < n; ++frame)
      for (size_t l = 0; l < limbs_.size(); ++l) {
        const Limb& limb = limbs_[l];
        set_limb(frame, static_cast<int>(l), turn(frame, limb.upper) * bone_[limb.upper],
                 turn(frame, limb.lower) * bone_[limb.lower]);
      }
  }

  // The direction of a limb's hinge axis over time.
  void find_normals(int l) {
    const Limb& limb = limbs_[l];
    const int n = source_.num_frames;
    // in the upper bone, from all frames, by how far they bend; a straight limb leaves the rest pose's axis
    constexpr float kPrior = 0.01f;
    Vec3 fixed = kPrior * static_cast<float>(n) * (offset_[limb.upper] * zero_rot_[limb.upper] * limb.hinge_axis);
    const auto bend = [&](int frame) -> Vec3 {
      return limb.sign *
             (turn(frame, limb.upper) * bone_[limb.upper]).cross(turn(frame, limb.lower) * bone_[limb.lower]);
    };
    for (int frame = 0; frame < n; ++frame) {
      const Vec3 b = bend(frame);
      fixed += b.norm() * (turn(frame, limb.upper).conjugate() * b);
    }
    fixed = orthogonal_to(fixed, bone_[limb.upper]);
    for (int frame = 0; frame < n; ++frame) {
      const Vec3 steady = turn(frame, limb.upper) * fixed;
      const Vec3 b = bend(frame);
      const float sine = b.norm();
      Vec3 normal = steady;
      if (sine > 0.05f) {
        const Vec3 plane = b / sine;
        const float weight = smoothstep(0.3f, 0.7f, sine) * smoothstep(-0.2f, 0.4f, plane.dot(steady));
        normal = (steady * (1.0f - weight) + plane * weight).normalized();
      }
      normal_[l][frame] = normal;
    }
  }

  // Upper and lower body so that the bones point along unit u and v as nearly as the hinge allows.
  void set_limb(int frame, int l, const Vec3& u, const Vec3& v) {
    const Limb& limb = limbs_[l];
    const Vec3 normal = orthogonal_to(normal_[l][frame], u);
    const Quat upper = align(limb.upper_dir, limb.hinge_axis, u, normal);
    const float angle = angle_about(normal, upper * limb.lower_dir, v);
    const Body& lower = c_.bodies[limb.lower];
    rot(frame, limb.upper) = upper;
    rot(frame, limb.lower) =
        (upper * lower.rot * Quat(Eigen::AngleAxisf(angle, c_.joints[limb.hinge].axis))).normalized();
    for (int b = limb.lower + 1; b < bodies(); ++b)
      if (c_.bodies[b].num_joints == 0 && c_.bodies[b].parent == limb.lower)
        rot(frame, b) = rot(frame, limb.lower) * c_.bodies[b].rot;
  }

  // A leg so that the ankle is at `target`, the plane of the limb kept.
  void reach(int frame, int l, const Vec3& target) {
    const Limb& limb = limbs_[l];
    const Vec3 from = body_pos(frame, limb.upper);
    const float a = limb.upper_length, b = limb.lower_length, full = a + b;
    const Vec3 way = target - from;
    float d = way.norm();
    if (d < 1e-3f) return;
    // near full stretch the knee would snap: the last percent is approached ever more slowly
    const float soft = 0.01f * full;
    if (d > full - soft) d = full - soft * std::exp(-(d - (full - soft)) / soft);
    d = std::clamp(d, std::abs(a - b) + 0.05f * full, full - 1e-4f * full);
    const Vec3 along = way.normalized();
    const Vec3 normal = orthogonal_to(normal_[l][frame], along);
    const float at_hip = std::acos(std::clamp((a * a + d * d - b * b) / (2.0f * a * d), -1.0f, 1.0f));
    const Vec3 u = Eigen::AngleAxisf(-limb.sign * at_hip, normal) * along;
    const Vec3 v = (along * d - u * a).normalized();
    // the plane must stay the one solved in
    const Vec3 kept = normal_[l][frame];
    normal_[l][frame] = normal;
    set_limb(frame, l, u, v);
    normal_[l][frame] = kept;
  }

  Vec3 body_pos(int frame, int body) {
    if (body == 0) return root_[frame];
    const int parent = c_.bodies[body].parent;
    return body_pos(frame, parent) + rot(frame, parent) * c_.bodies[body].pos;
  }

  Vec3& ankle(int frame, int l) { return source_.ankles[static_cast<size_t>(frame) * limbs_.size() + l]; }

  bool placed_by_ankle(int l) const { return limbs_[l].is_leg && joint_of_[limbs_[l].tip] >= 0 && map_.keep_feet; }

  // Frames in which the ankle of limb l stands nearly still.
  bool is_still(int frame, int l) {
    const int n = source_.num_frames;
    const int a = std::max(0, frame - 1), b = std::min(n - 1, frame + 1);
    const float dt = static_cast<float>(b - a) / source_.fps;
    const Quat change = rot(a, limbs_[l].tip).conjugate() * rot(b, limbs_[l].tip);
    return (ankle(b, l) - ankle(a, l)).norm() < 0.15f * dt && exp_map_from_quat(change).norm() < 0.7f * dt;
  }

  // A file's foot bone slopes from ankle to toes, by how much its sole alone knows: a foot that stands still near the
  // floor stands flat, and its pitch then is the offset.
  void level_feet() {
    if (!map_.level_feet) return;
    const int n = source_.num_frames;
    std::vector<float> heights, pitches;
    for (size_t l = 0; l < limbs_.size(); ++l)
      if (limbs_[l].is_leg && joint_of_[limbs_[l].tip] >= 0)
        for (int frame = 0; frame < n; ++frame) heights.push_back(ankle(frame, static_cast<int>(l)).z());
    if (heights.empty()) return;
    const float low = percentile(heights, 0.05f) + 0.03f;
    for (size_t l = 0; l < limbs_.size(); ++l) {
      if (!limbs_[l].is_leg || joint_of_[limbs_[l].tip] < 0) continue;
      for (int frame = 0; frame < n; ++frame)
        if (ankle(frame, static_cast<int>(l)).z() < low && is_still(frame, static_cast<int>(l)))
          pitches.push_back(std::asin(std::clamp((rot(frame, limbs_[l].tip) * Vec3::UnitX()).z(), -1.0f, 1.0f)));
    }
    if (pitches.size() < 4) return;
    // a dancer on his toes stands still, too: more than what skeletons differ by is no offset
    const float pitch = std::clamp(percentile(pitches, 0.5f), -0.15f, 0.15f);
    for (const Limb& limb : limbs_)
      if (limb.is_leg && joint_of_[limb.tip] >= 0)
        for (int frame = 0; frame < n; ++frame)
          rot(frame, limb.tip) = rot(frame, limb.tip) * Quat(Eigen::AngleAxisf(pitch, Vec3::UnitY()));
  }

  float lowest(int frame, int body) { return lowest_point(c_, body, body_pos(frame, body), rot(frame, body)); }

  void reach_all() {
    for (size_t l = 0; l < limbs_.size(); ++l)
      if (placed_by_ankle(static_cast<int>(l)))
        for (int frame = 0; frame < source_.num_frames; ++frame)
          reach(frame, static_cast<int>(l), ankle(frame, static_cast<int>(l)));
  }

  void shift(const std::vector<float>& up) {
    for (int frame = 0; frame < source_.num_frames; ++frame) {
      root_[frame].z() += up[frame];
      for (size_t l = 0; l < limbs_.size(); ++l) ankle(frame, static_cast<int>(l)).z() += up[frame];
    }
  }

  // Recording rooms are not quite level: along the path the floor may rise by a percent or two. The slope that fits the
  // standing feet is taken out.
  void level_ground() {
    if (!map_.level_ground) return;
    std::vector<Eigen::Vector3f> stands;
    for (int frame = 0; frame < source_.num_frames; ++frame)
      for (size_t l = 0; l < limbs_.size(); ++l)
        if (limbs_[l].is_leg && joint_of_[limbs_[l].tip] >= 0 && is_still(frame, static_cast<int>(l))) {
          const Vec3 p = body_pos(frame, limbs_[l].tip);
          stands.emplace_back(p.x(), p.y(), lowest(frame, limbs_[l].tip));
        }
    Eigen::Vector2f slope = Eigen::Vector2f::Zero();
    for (int round = 0; round < 3; ++round) {
      if (stands.size() < 12) return;
      Vec3 mean = Vec3::Zero();
      for (const auto& p : stands) mean += p / static_cast<float>(stands.size());
      Eigen::Matrix2f spread = Eigen::Matrix2f::Zero();
      Eigen::Vector2f rise = Eigen::Vector2f::Zero();
      for (const auto& p : stands) {
        const Eigen::Vector2f d = (p - mean).head<2>();
        spread += d * d.transpose() / static_cast<float>(stands.size());
        rise += d * (p.z() - mean.z()) / static_cast<float>(stands.size());
      }
      // only along directions in which the path is long enough to tell (a standard deviation of 0.4 m)
      Eigen::SelfAdjointEigenSolver<Eigen::Matrix2f> axes;
      axes.computeDirect(spread);  // closed form
      slope.setZero();
      for (int k = 0; k < 2; ++k)
        if (const Eigen::Vector2f axis = axes.eigenvectors().col(k); axes.eigenvalues()[k] > 0.16f)
          slope += axis * axis.dot(rise) / axes.eigenvalues()[k];
      // steps and obstacles are no slope
      std::erase_if(stands, [&](const auto& p) {
        return std::abs(p.z() - mean.z() - slope.dot((p - mean).template head<2>())) > 0.03f;
      });
    }
    if (slope.norm() > 0.04f || slope.norm() < 1e-3f) return;
    if (slope.norm() > 0.01f) warn("the ground rises by {:.1f} % along the path; levelled", 100.0f * slope.norm());
    for (int frame = 0; frame < source_.num_frames; ++frame) {
      root_[frame].z() -= slope.dot(root_[frame].head<2>());
      for (size_t l = 0; l < limbs_.size(); ++l)
        ankle(frame, static_cast<int>(l)).z() -= slope.dot(ankle(frame, static_cast<int>(l)).head<2>());
    }
    reach_all();
  }

  void place_on_floor() {
    const int n = source_.num_frames;
    reach_all();

    level_ground();

    // the floor is where feet stand still; in a clip without such moments, where it is lowest but for outliers
    std::vector<float> standing, all;
    for (int frame = 0; frame < n; ++frame) {
      float least = std::numeric_limits<float>::infinity();
      for (int b = 0; b < bodies(); ++b) least = std::min(least, lowest(frame, b));
      if (std::isfinite(least)) all.push_back(least);
      for (size_t l = 0; l < limbs_.size(); ++l)
        if (limbs_[l].is_leg && joint_of_[limbs_[l].tip] >= 0 && is_still(frame, static_cast<int>(l)))
          standing.push_back(lowest(frame, limbs_[l].tip));
    }
    if (all.empty()) return;
    float floor = percentile(all, 0.05f);
    if (standing.size() >= 4) {
      // of several levels (a foot held still in the air) the lowest
      const float bottom = percentile(standing, 0.1f);
      std::erase_if(standing, [&](float h) { return h > bottom + 0.04f; });
      floor = percentile(standing, 0.5f);
    }
    shift(std::vector<float>(static_cast<size_t>(n), -floor));

    // feet that dip under it are lifted at the ankle, the rest of the body as a whole, both smoothly
    const int radius = std::max(1, static_cast<int>(std::lround(0.1f * source_.fps)));
    std::vector<float> dip(static_cast<size_t>(n));
    for (size_t l = 0; l < limbs_.size(); ++l) {
      if (!placed_by_ankle(static_cast<int>(l))) continue;
      for (int frame = 0; frame < n; ++frame) dip[frame] = std::max(0.0f, -lowest(frame, limbs_[l].tip));
      const auto lift = smooth_envelope(dip, radius);
      for (int frame = 0; frame < n; ++frame) ankle(frame, static_cast<int>(l)).z() += lift[frame];
    }
    reach_all();
    for (int frame = 0; frame < n; ++frame) {
      float least = 0.0f;
      for (int b = 0; b < bodies(); ++b) least = std::min(least, lowest(frame, b));
      dip[frame] = -least;
    }
    shift(smooth_envelope(dip, radius));
    const float deepest = *std::ranges::max_element(dip);
    if (deepest > 0.05f) warn("lifted by up to {:.0f} cm, so that no body is under the floor", 100.0f * deepest);
  }

  void place_at_origin() {
    if (!map_.place_at_origin) return;
    const Quat turn = quat_about_z(-heading(rot(0, 0)));
    const Vec3 start(root_[0].x(), root_[0].y(), 0.0f);
    for (auto& p : root_) p = turn * (p - start);
    for (auto& q : rot_) q = (turn * q).normalized();
  }

  Clip clip() {
    const int n = source_.num_frames;
    Clip out;
    out.name = name_;
    out.source = name_;
    out.fps = source_.fps;
    out.num_frames = n;
    out.root_pos.resize(3 * static_cast<size_t>(n));
    out.body_rot.resize(4 * rot_.size());
    std::vector<float> dofs(static_cast<size_t>(c_.num_dofs));
    std::vector<int> clamped(static_cast<size_t>(c_.num_dofs));
    for (int frame = 0; frame < n; ++frame) {
      Vec3Map(out.root_pos.data() + 3 * frame) = root_[frame];
      float* row = out.body_rot.data() + 4 * c_.bodies.size() * static_cast<size_t>(frame);
      for (int b = 0; b < bodies(); ++b) {
        const int parent = c_.bodies[b].parent;
        QuatMap(row + 4 * b) =
            parent < 0 ? rot(frame, b) : (rot(frame, parent).conjugate() * rot(frame, b)).normalized();
      }
      if (map_.clamp) clamp_row(row, dofs, clamped);
      if (frame > 0)
        for (int b = 0; b < bodies(); ++b) {
          QuatMap q(row + 4 * b);
          if (q.dot(ConstQuatMap(row - 4 * c_.bodies.size() + 4 * b)) < 0.0f) q.coeffs() = -q.coeffs();
        }
    }
    for (const Joint& joint : c_.joints)
      for (int d = joint.dof; map_.clamp && d < joint.dof + joint.num_dofs; ++d)
        if (clamped[d] > 0) warn("joint `{}` clamped to its limits in {} of {} frames", joint.name, clamped[d], n);
    compute_velocities(c_, out);
    return out;
  }

  void clamp_row(float* row, std::vector<float>& dofs, std::vector<int>& clamped) {
    dof_pos_from_rotations(c_, row, dofs.data());
    for (int d = 0; d < c_.num_dofs; ++d) {
      const float inside = std::clamp(dofs[d], c_.limit_lower[d], c_.limit_upper[d]);
      clamped[d] += std::abs(inside - dofs[d]) > 1e-4f;
      dofs[d] = inside;
    }
    for (int b = 1; b < bodies(); ++b) {
      Quat q = c_.bodies[b].rot;
      for (int j = c_.bodies[b].first_joint; j < c_.bodies[b].first_joint + c_.bodies[b].num_joints; ++j)
        q = q * joint_rotation(c_.joints[j], dofs.data());
      QuatMap(row + 4 * b) = q;
    }
  }

  const Character& c_;
  const BvhMotion& motion_;
  const RetargetMap& map_;
  std::string name_;
  std::vector<std::string>* warnings_;
  std::vector<Limb> limbs_;

  std::vector<int> joint_of_;  // (bodies) joint of the file, -1 for none
  BvhPose rest_;
  Eigen::Matrix3f axes_;
  float extent_ = 1.0f;         // of the skeleton, file units
  float scale_ = 1.0f;          // metres per unit
  int first_ = 0;               // frame of the file that the clip starts with
  std::vector<Quat> zero_rot_;  // (bodies) world rotations of ours in our zero pose, and the map's own offsets
  std::vector<Quat> offset_;    // (bodies) from our zero pose to the file's rest pose, world
  std::vector<Vec3> bone_;      // (bodies) of limbs: direction of the file's bone in the rest pose, our axes
  Source source_;
  std::vector<Quat> rot_;                  // (frames x bodies) world
  std::vector<Vec3> root_;                 // (frames)
  std::vector<std::vector<Vec3>> normal_;  // (limbs x frames) direction of the hinge axis

  BvhPose nearest_, window_;  // scratch of filtered_pose
  std::vector<Eigen::Vector4f> sum_rot_;
  std::vector<Vec3> sum_pos_;
};

}  // namespace

RetargetMap parse_retarget_map(const std::string& yaml, const std::string& name) {
  YAML::Node root;
  try {
    root = YAML::Load(yaml);
  } catch (const YAML::Exception& e) {
    fail("{}:{}: {}", name, e.mark.line + 1, e.msg);
  }
  if (!root.IsMap()) fail("{}: expected `name: value` lines; see configs/retarget/cmu.yaml", name);

  RetargetMap map;
  map.name = name;
  const std::vector<std::string> known = {"up",    "forward",   "scale",      "skip_frames",  "rest",  "fps",
                                          "place", "keep_feet", "level_feet", "level_ground", "clamp", "joints"};
  for (const auto& entry : root) {
    const auto key = entry.first.as<std::string>("");
    const YAML::Node value = entry.second;
    const int line = entry.first.Mark().line + 1;
    const auto bad = [&](const char* wanted) { fail("{}:{}: `{}` must be {}", name, line, key, wanted); };
    try {
      if (key == "up" || key == "forward") {
        const auto axis = value.as<std::string>();
        if (const auto v = axis_from_name(axis); v && v->isZero()) bad("auto, x, y, z, -x, -y or -z");
        (key == "up" ? map.up : map.forward) = axis;
      } else if (key == "scale") {
        if (value.as<std::string>() == "auto") continue;
        map.scale = value.as<float>();
        if (!(*map.scale > 0.0f) || !std::isfinite(*map.scale)) bad("`auto` or metres per unit of the file");
      } else if (key == "skip_frames") {
        if (value.as<std::string>() == "auto") continue;
        map.skip_frames = value.as<int>();
        if (*map.skip_frames < 0) bad("`auto` or a number of frames");
      } else if (key == "rest") {
        if (value.as<std::string>() == "zero") continue;
        map.rest_frame = value.as<int>();
        if (*map.rest_frame < 0) bad("`zero` or the number of a frame, from 0");
      } else if (key == "fps") {
        map.fps = value.as<float>();
        if (!(map.fps >= 0.0f && map.fps <= 1000.0f)) bad("frames per second, or 0 for the file's own");
      } else if (key == "place") {
        const auto place = value.as<std::string>();
        if (place != "origin" && place != "keep") bad("origin or keep");
        map.place_at_origin = place == "origin";
      } else if (key == "keep_feet") {
        map.keep_feet = value.as<bool>();
      } else if (key == "level_feet") {
        map.level_feet = value.as<bool>();
      } else if (key == "level_ground") {
        map.level_ground = value.as<bool>();
      } else if (key == "clamp") {
        map.clamp = value.as<bool>();
      } else if (key == "joints") {
        if (!value.IsMap()) bad("a list of `our body: their joint`");
        for (const auto& item : value) {
          RetargetJoint joint;
          if (item.second.IsMap()) {
            for (const auto& part : item.second) {
              const auto what = part.first.as<std::string>();
              if (what == "from")
                joint.from = names_from(part.second);
              else if (what == "to")
                joint.to = names_from(part.second);
              else if (what == "rotation") {
                const auto r = part.second.as<std::vector<float>>();
                if (r.size() != 3) bad("given with three numbers for a rotation");
                joint.rotation = Vec3(r[0], r[1], r[2]);
              } else
                fail("{}:{}: unknown key `{}`; did you mean `{}`?", name, part.first.Mark().line + 1, what,
                     nearest_name(what, {"from", "to", "rotation"}));
            }
          } else {
            joint.from = names_from(item.second);
          }
          if (joint.from.empty()) fail("{}:{}: no joint given", name, item.first.Mark().line + 1);
          map.joints[item.first.as<std::string>()] = joint;
        }
      } else {
        fail("{}:{}: unknown key `{}`; did you mean `{}`?", name, line, key, nearest_name(key, known));
      }
    } catch (const YAML::Exception& e) {
      fail("{}:{}: `{}` cannot be read: {}", name, line, key, e.msg);
    }
  }
  if (map.joints.empty()) fail("{}: no `joints:`; see configs/retarget/cmu.yaml", name);
  return map;
}

RetargetMap load_retarget_map(const std::filesystem::path& path) {
  return parse_retarget_map(read_file(path, size_t{1} << 20), path.string());
}

std::vector<std::string> unmapped_joints(const Character& character, const BvhMotion& motion, const RetargetMap& map) {
  std::vector<std::string> missing;
  for (int b = 0; b < character.num_bodies(); ++b) {
    const Body& body = character.bodies[b];
    const auto it = map.joints.find(body.name);
    if (it == map.joints.end() || (b > 0 && body.num_joints == 0)) continue;  // stays in its zero pose, or is fixed
    if (find_joint(motion, it->second.from) < 0)
      missing.push_back(fmt::format("`{}` ({})", body.name, fmt::join(it->second.from, " or ")));
  }
  return missing;
}

Clip retarget(const Character& character, const BvhMotion& motion, const RetargetMap& map, const std::string& name,
              std::vector<std::string>* warnings) {
  return Retargeter(character, motion, map, name, warnings).run();
}

Clip import_bvh(const Character& character, const std::filesystem::path& path, const RetargetMap& map,
                std::vector<std::string>* warnings) {
  Clip clip = retarget(character, read_bvh(path), map, path.string(), warnings);
  clip.name = path.stem().string();
  return clip;
}

std::filesystem::path default_retarget_map_path() {
  return std::filesystem::path(CALM_SOURCE_DIR) / "configs" / "retarget" / "cmu.yaml";
}

float lowest_point(const Character& character, int body, const Vec3& pos, const Quat& rot) {
  float least = std::numeric_limits<float>::infinity();
  for (const Shape& shape : character.shapes) {
    if (shape.body != body || !shape.collides) continue;
    const float centre = (pos + rot * shape.pos).z();
    const Eigen::Matrix3f axes = (rot * shape.rot).toRotationMatrix();
    const float along = std::abs(axes(2, 2));
    float below = 0.0f;
    switch (shape.kind) {
      case ShapeKind::kSphere:
        below = shape.size.x();
        break;
      case ShapeKind::kCapsule:
        below = shape.size.x() + shape.size.y() * along;
        break;
      case ShapeKind::kCylinder:
        below = shape.size.x() * std::sqrt(std::max(0.0f, 1.0f - along * along)) + shape.size.y() * along;
        break;
      case ShapeKind::kBox:
        below = shape.size.dot(axes.row(2).cwiseAbs().transpose());
        break;
    }
    least = std::min(least, centre - below);
  }
  return least;
}

void clip_pose(const Character& character, const Clip& clip, int frame, CharacterState& state) {
  const float* rot = clip.body_rot.data() + 4 * character.bodies.size() * static_cast<size_t>(frame);
  dof_pos_from_rotations(character, rot, state.dof_pos.data());
  std::ranges::fill(state.dof_vel, 0.0f);
  RootState root;
  root.pos = ConstVec3Map(clip.root_pos.data() + 3 * static_cast<size_t>(frame));
  root.rot = ConstQuatMap(rot).normalized();
  forward_kinematics(character, root, state);
}

}  // namespace calm
