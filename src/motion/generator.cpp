// Clips are drawn as functions of time: where the pelvis and the two ankles are, how torso, head and arms are turned.
// Legs follow by inverse kinematics, so a planted foot is planted exactly. Walking needs a plan of steps: the pelvis
// follows the smoothed middle of the feet and leans towards the one that stands.
#include "motion/generator.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <string>

#include "base/error.h"
#include "motion/retarget.h"

namespace calm {

namespace {

constexpr float kFps = 30.0f;
enum Side { kRight = 0, kLeft = 1 };

// Rotations are exponential maps in the parent's frame: +y tips forward, +z turns left, +x rolls to the right.
struct Pose {
  Vec3 pelvis = Vec3::Zero();       // from where it is in standing, m
  Vec3 pelvis_turn = Vec3::Zero();  // world
  Vec3 torso = Vec3::Zero(), head = Vec3::Zero();
  std::array<Quat, 2> shoulder = {Quat::Identity(), Quat::Identity()};
  std::array<float, 2> elbow = {0.2f, 0.2f};                 // flexion, rad
  std::array<Vec3, 2> ankle = {Vec3::Zero(), Vec3::Zero()};  // from where it is in standing, m
  std::array<float, 2> foot_pitch = {0.0f, 0.0f};            // toes down, rad
};

using PoseAt = std::function<Pose(float time)>;

Quat turn_x(float angle) { return Quat(Eigen::AngleAxisf(angle, Vec3::UnitX())); }
Quat turn_y(float angle) { return Quat(Eigen::AngleAxisf(angle, Vec3::UnitY())); }
Quat turn_z(float angle) { return Quat(Eigen::AngleAxisf(angle, Vec3::UnitZ())); }

// 0 until `start`, 1 from `end`, a half cosine between.
float ease(float time, float start, float end) {
  const float x = std::clamp((time - start) / (end - start), 0.0f, 1.0f);
  return 0.5f - 0.5f * std::cos(kPi * x);
}
// Up between a and b, down again between c and d.
float bump(float time, float a, float b, float c, float d) { return ease(time, a, b) - ease(time, c, d); }
float wave(float time, float period) { return std::sin(2.0f * kPi * time / period); }

// Raised sideways by `out`, then forward by `forward`.
Quat shoulder(Side side, float out, float forward) { return turn_y(-forward) * turn_x(side == kRight ? -out : out); }

class Puppet {
 public:
  explicit Puppet(const Character& character) : character_(character) {
    std::vector<std::string> missing;
    const auto find = [&](const std::string& name) {
      const int body = character.body_index(name);
      if (body < 0) missing.push_back(name);
      return body;
    };
    pelvis_ = find("pelvis"), torso_ = find("torso"), head_ = find("head");
    for (const Side side : {kRight, kLeft}) {
      const std::string prefix = side == kRight ? "right_" : "left_";
      upper_arm_[side] = find(prefix + "upper_arm"), lower_arm_[side] = find(prefix + "lower_arm");
      thigh_[side] = find(prefix + "thigh"), shin_[side] = find(prefix + "shin"), foot_[side] = find(prefix + "foot");
    }
    if (!missing.empty())
      fail("character {}: the clip generator needs bodies named {}; it has none of that name", character.name,
           fmt::join(missing, ", "));
    if (pelvis_ != 0) fail("character {}: the clip generator needs `pelvis` as the root", character.name);
    for (const Side side : {kRight, kLeft}) {
      for (const int body : {lower_arm_[side], shin_[side]}) check_hinge(body);
      hip_[side] = character.bodies[thigh_[side]].pos;
      const float leg = leg_reach(side, 0.0f);
      const float sole = -lowest_point(character, foot_[side], Vec3::Zero(), Quat::Identity());
      if (!std::isfinite(sole)) fail("character {}: its feet have no shape to stand on", character.name);
      // soft knees: 5 mm short of straight legs
      stand_height_ = side == kRight ? sole + leg - 0.005f - hip_[side].z()
                                     : std::min(stand_height_, sole + leg - 0.005f - hip_[side].z());
      stand_ankle_[side] = Vec3(hip_[side].x(), hip_[side].y(), sole);
    }
  }

  Clip clip(const std::string& name, float seconds, std::vector<std::string> tags, const PoseAt& pose_at) const {
    Clip clip;
    clip.name = name;
    clip.source = "builtin:" + name;
    clip.tags = std::move(tags);
    clip.fps = kFps;
    clip.num_frames = static_cast<int>(std::lround(seconds * kFps)) + 1;
    const size_t bodies = character_.bodies.size();
    clip.root_pos.resize(3 * static_cast<size_t>(clip.num_frames));
    clip.body_rot.resize(4 * bodies * static_cast<size_t>(clip.num_frames));
    for (int frame = 0; frame < clip.num_frames; ++frame)
      write_frame(pose_at(static_cast<float>(frame) / kFps), clip.root_pos.data() + 3 * frame,
                  clip.body_rot.data() + 4 * bodies * static_cast<size_t>(frame));
    compute_velocities(character_, clip);
    return clip;
  }

  float leg_length() const { return leg_reach(kRight, 0.0f); }

 private:
  void check_hinge(int body) const {
    const Body& b = character_.bodies[body];
    if (b.num_joints != 1 || character_.joints[b.first_joint].kind != JointKind::kHinge ||
        std::abs(character_.joints[b.first_joint].axis.y()) < 0.99f)
      fail("character {}: the clip generator needs a hinge about y at `{}`", character_.name, b.name);
  }

  // Hinge angle about +y of a flexion: knees bend backwards, elbows forwards; the joint's own axis may point either
  // way.
  Quat hinge(int body, float flexion) const {
    const Joint& joint = character_.joints[character_.bodies[body].first_joint];
    const bool positive =
        joint.num_dofs == 1 && character_.limit_upper[joint.dof] >= -character_.limit_lower[joint.dof];
    return Quat(Eigen::AngleAxisf(positive ? flexion : -flexion, joint.axis));
  }

  // Ankle from hip in the thigh's frame.
  Vec3 leg_vector(Side side, float knee) const {
    return character_.bodies[shin_[side]].pos + hinge(shin_[side], knee) * character_.bodies[foot_[side]].pos;
  }
  float leg_reach(Side side, float knee) const { return leg_vector(side, knee).norm(); }

  void write_frame(const Pose& pose, float* root_pos, float* body_rot) const {
    const auto rot = [&](int body) { return QuatMap(body_rot + 4 * body); };
    const auto set = [&](int body, const Quat& joint_rot) { rot(body) = character_.bodies[body].rot * joint_rot; };
    for (size_t b = 0; b < character_.bodies.size(); ++b) set(static_cast<int>(b), Quat::Identity());

    const Vec3 pelvis = pose.pelvis + Vec3(0.0f, 0.0f, stand_height_);
    const Quat pelvis_rot = quat_from_exp_map(pose.pelvis_turn);
    Vec3Map{root_pos} = pelvis;
    rot(pelvis_) = pelvis_rot;
    set(torso_, quat_from_exp_map(pose.torso));
    set(head_, quat_from_exp_map(pose.head));
    for (const Side side : {kRight, kLeft}) {
      set(upper_arm_[side], pose.shoulder[side]);
      set(lower_arm_[side], hinge(lower_arm_[side], pose.elbow[side]));

      // the knee by the distance from hip to ankle, by bisection: it shrinks as the knee bends
      const Vec3 to_ankle = stand_ankle_[side] + pose.ankle[side] - (pelvis + pelvis_rot * hip_[side]);
      float low = 0.0f, high = 2.7f;
      for (int i = 0; i < 40; ++i) {
        const float middle = 0.5f * (low + high);
        (leg_reach(side, middle) > to_ankle.norm() ? low : high) = middle;
      }
      const Vec3 straight = leg_vector(side, low).normalized(), wanted = to_ankle.normalized();

      // the hip turns that line onto the wanted one, the knee's axis staying as much to the side as it can
      const auto frame = [](const Vec3& along, const Vec3& sideways) {
        Eigen::Matrix3f m;
        const Vec3 y = (sideways - along * along.dot(sideways)).normalized();
        m << along, y, along.cross(y);
        return m;
      };
      const Quat thigh(frame(wanted, pelvis_rot * Vec3::UnitY()) * frame(straight, Vec3::UnitY()).transpose());
      const Quat knee = hinge(shin_[side], low);
      set(thigh_[side], pelvis_rot.conjugate() * thigh);
      set(shin_[side], knee);
      set(foot_[side], (thigh * knee).conjugate() * turn_y(pose.foot_pitch[side]));
    }
  }

  const Character& character_;
  int pelvis_ = 0, torso_ = 0, head_ = 0;
  std::array<int, 2> upper_arm_{}, lower_arm_{}, thigh_{}, shin_{}, foot_{};
  std::array<Vec3, 2> hip_, stand_ankle_;
  float stand_height_ = 0.0f;
};

// Arms that hang a little away from the body.
Pose rest_pose() {
  Pose pose;
  for (const Side side : {kRight, kLeft}) pose.shoulder[side] = shoulder(side, 0.15f, 0.0f);
  return pose;
}

// ---- steps ----

struct Step {
  Side foot;
  float lift, land;  // s
  Vec3 by;           // where the foot is set down, from where it stood
};

// Feet and pelvis through a plan of steps.
class StepPlan {
 public:
  StepPlan(std::vector<Step> steps, float height, float drop)
      : steps_(std::move(steps)), height_(height), drop_(drop) {}

  Pose at(float time) const {
    Pose pose = rest_pose();
    for (const Side side : {kRight, kLeft}) {
      pose.ankle[side] = foot(side, time);
      pose.foot_pitch[side] = pitch(side, time);
    }
    // the pelvis: the feet's middle and the lean, smoothed over time
    constexpr float kSigma = 0.18f, kSpacing = 0.03f;
    Vec3 sum = Vec3::Zero();
    float weights = 0.0f;
    for (int k = -18; k <= 18; ++k) {
      const float dt = kSpacing * static_cast<float>(k);
      const float weight = std::exp(-0.5f * dt * dt / (kSigma * kSigma));
      sum += weight * support(time + dt);
      weights += weight;
    }
    pose.pelvis = sum / weights;
    pose.pelvis.z() = -drop_ * ease(time, 0.0f, steps_.front().lift) *
                      (1.0f - ease(time, steps_.back().land, steps_.back().land + 0.5f));
    // arms against the legs
    for (const Side side : {kRight, kLeft}) {
      const float ahead = pose.ankle[side].x() - pose.pelvis.x();
      pose.shoulder[side] = shoulder(side, 0.15f, -0.9f * ahead);
      pose.elbow[side] = 0.3f;
    }
    return pose;
  }

 private:
  Vec3 foot(Side side, float time) const {
    Vec3 pos = Vec3::Zero();
    for (const Step& step : steps_) {
      if (step.foot != side) continue;
      // up before forward, and forward before down
      const float margin = 0.12f * (step.land - step.lift);
      pos += step.by * ease(time, step.lift + margin, step.land - margin);
      pos.z() += height_ * arch(step, time);
    }
    return pos;
  }

  float pitch(Side side, float time) const {
    float sum = 0.0f;
    for (const Step& step : steps_)
      if (step.foot == side) sum += 0.25f * arch(step, time) * (1.0f - ease(time, step.lift, step.land));
    return sum;
  }

  static float arch(const Step& step, float time) {
    const float s = std::sin(kPi * std::clamp((time - step.lift) / (step.land - step.lift), 0.0f, 1.0f));
    return s * s;
  }

  // Where the weight should be, from between the feet in standing.
  Vec3 support(float time) const {
    Vec3 middle = 0.5f * (foot(kRight, time) + foot(kLeft, time));
    for (const Step& step : steps_)
      if (time >= step.lift && time <= step.land) middle.y() += step.foot == kRight ? 0.05f : -0.05f;
    return middle;
  }

  std::vector<Step> steps_;
  float height_;  // m that a foot is lifted
  float drop_;    // m that the pelvis sinks, so that the legs reach
};

StepPlan plan_steps(int count, float lift_time, float both_time, const std::function<Vec3(int)>& by, float height,
                    float drop) {
  std::vector<Step> steps;
  float time = 0.5f;
  for (int i = 0; i < count; ++i) {
    steps.push_back({i % 2 == 0 ? kRight : kLeft, time, time + lift_time, by(i)});
    time += lift_time + both_time;
  }
  return StepPlan(std::move(steps), height, drop);
}

// ---- the clips ----

Pose stand(float t) {
  Pose pose = rest_pose();
  const float breath = wave(t, 3.0f);
  pose.torso.y() = 0.02f * breath;
  pose.head.y() = -0.01f * breath;
  pose.pelvis.z() = 0.002f * breath - 0.002f;
  pose.pelvis.y() = 0.004f * wave(t, 6.0f);
  for (const Side side : {kRight, kLeft}) pose.shoulder[side] = shoulder(side, 0.15f + 0.02f * breath, 0.0f);
  return pose;
}

// amount 0 to 1; full: thighs halfway to level, arms forward for balance.
Pose crouched(float amount) {
  Pose pose = rest_pose();
  pose.pelvis = Vec3(-0.09f, 0.0f, -0.26f) * amount;
  pose.pelvis_turn.y() = 0.25f * amount;
  pose.torso.y() = 0.3f * amount;
  pose.head.y() = -0.3f * amount;
  for (const Side side : {kRight, kLeft}) {
    pose.shoulder[side] = shoulder(side, 0.15f, 1.0f * amount);
    pose.elbow[side] = 0.2f + 0.2f * amount;
  }
  return pose;
}

Pose squat_hold(float t) {
  Pose pose = crouched(0.7f);
  pose.pelvis.z() += 0.004f * wave(t, 2.0f);
  pose.torso.y() += 0.015f * wave(t, 2.0f);
  return pose;
}

Pose raise_arms(float t) {
  Pose pose = stand(t);
  const float up = bump(t, 0.3f, 1.5f, 2.3f, 3.6f);
  for (const Side side : {kRight, kLeft}) pose.shoulder[side] = shoulder(side, 0.15f + 2.45f * up, 0.0f);
  pose.head.y() -= 0.15f * up;
  return pose;
}

Pose wave_hand(float t) {
  Pose pose = stand(t);
  const float up = bump(t, 0.3f, 1.1f, 3.0f, 3.8f);
  const float swing = bump(t, 1.0f, 1.3f, 2.8f, 3.1f) * wave(t - 1.0f, 0.7f);
  // the arm out to the side, turned about its own length so that the elbow bends upwards
  pose.shoulder[kRight] = turn_x(-0.15f - 1.25f * up) * turn_z(-1.45f * up);
  pose.elbow[kRight] = 0.2f + 1.2f * up + 0.4f * swing;
  pose.torso.x() = -0.04f * up;
  return pose;
}

Pose sway(float t) {
  Pose pose = rest_pose();
  const float lean = bump(t, 0.0f, 0.8f, 3.2f, 4.0f) * wave(t, 2.0f);
  pose.pelvis = Vec3(0.0f, -0.06f * lean, -0.015f * bump(t, 0.0f, 0.8f, 3.2f, 4.0f));
  pose.torso.x() = 0.12f * lean;
  pose.head.x() = -0.06f * lean;
  for (const Side side : {kRight, kLeft})
    pose.shoulder[side] = shoulder(side, 0.2f + (side == kRight ? 0.1f : -0.1f) * lean, 0.0f);
  return pose;
}

Pose punch(float t) {
  const float guard = bump(t, 0.0f, 0.7f, 2.6f, 3.4f);
  const std::array<float, 2> out = {bump(t, 0.9f, 1.15f, 1.25f, 1.6f), bump(t, 1.7f, 1.95f, 2.05f, 2.4f)};
  Pose pose = rest_pose();
  pose.pelvis.z() = -0.05f * guard;
  const float twist = out[kRight] - out[kLeft];
  pose.pelvis_turn.z() = 0.15f * twist;
  pose.torso = Vec3(0.0f, 0.1f * guard, 0.3f * twist);
  pose.head = Vec3(0.0f, -0.05f * guard, -0.3f * twist);
  for (const Side side : {kRight, kLeft}) {
    pose.shoulder[side] = shoulder(side, 0.15f - 0.05f * guard, 0.5f * guard + 1.0f * out[side]);
    pose.elbow[side] = 0.2f + 1.8f * guard - 1.8f * out[side];
  }
  return pose;
}

}  // namespace

std::vector<Clip> generate_clips(const Character& character) {
  const Puppet puppet(character);
  const float leg = puppet.leg_length();
  const StepPlan in_place = plan_steps(
      6, 0.45f, 0.1f, [](int) { return Vec3(0.0f, 0.0f, 0.0f); }, 0.18f * leg, 0.02f * leg);
  constexpr int kWalkSteps = 8;
  const float length = 0.45f * leg;  // of a step
  const StepPlan walk = plan_steps(
      kWalkSteps, 0.42f, 0.1f,
      [&](int i) { return Vec3((i == 0 || i == kWalkSteps - 1 ? 1.0f : 2.0f) * length, 0.0f, 0.0f); }, 0.08f * leg,
      0.07f * leg);

  std::vector<Clip> clips;
  clips.push_back(puppet.clip("stand", 3.0f, {"stand"}, stand));
  clips.push_back(puppet.clip("step_in_place", 4.4f, {"step"}, [&](float t) { return in_place.at(t); }));
  clips.push_back(
      puppet.clip("crouch", 4.0f, {"crouch"}, [](float t) { return crouched(bump(t, 0.3f, 1.6f, 2.2f, 3.6f)); }));
  clips.push_back(puppet.clip("squat_hold", 3.0f, {"crouch"}, squat_hold));
  clips.push_back(puppet.clip("raise_arms", 4.0f, {"arms"}, raise_arms));
  clips.push_back(puppet.clip("wave", 4.0f, {"arms"}, wave_hand));
  clips.push_back(puppet.clip("sway", 4.0f, {"sway"}, sway));
  clips.push_back(puppet.clip("punch", 3.5f, {"punch"}, punch));
  clips.push_back(puppet.clip("walk", 5.2f, {"walk"}, [&](float t) { return walk.at(t); }));
  return clips;
}

}  // namespace calm
