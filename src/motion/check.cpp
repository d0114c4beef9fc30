#include "motion/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "motion/retarget.h"

namespace calm {

namespace {

constexpr float kDeg = 180.0f / kPi;
constexpr float kContactHeight = 0.025f;  // m: a point of a sole that is lower may be standing
constexpr float kContactRise = 0.3f;      // m/s: one that rises or sinks faster is not
constexpr float kSwingSpeed = 1.0f;       // m/s: a low foot that is faster swings,
constexpr float kStandingShare = 0.4f;    // unless fewer than this share of its low moments are slower: then it slides

Severity grade(float value, Threshold threshold) {
  return value > threshold.error ? Severity::kError : value > threshold.warn ? Severity::kWarn : Severity::kOk;
}

// Points of a body's shapes that can touch the floor, in the body's frame, with the radius around them.
struct ContactPoint {
  Vec3 pos;
  float radius;
};

std::vector<ContactPoint> contact_points(const Character& c, int body) {
  std::vector<ContactPoint> points;
  for (const Shape& s : c.shapes) {
    if (s.body != body || !s.collides) continue;
    const auto add = [&](const Vec3& local, float radius) { points.push_back({s.pos + s.rot * local, radius}); };
    switch (s.kind) {
      case ShapeKind::kSphere:
        add(Vec3::Zero(), s.size.x());
        break;
      case ShapeKind::kCapsule:
        for (const float side : {-1.0f, 1.0f}) add(Vec3(0, 0, side * s.size.y()), s.size.x());
        break;
      case ShapeKind::kCylinder:
        for (const float side : {-1.0f, 1.0f})
          for (int k = 0; k < 8; ++k)
            add(Vec3(s.size.x() * std::cos(0.25f * kPi * k), s.size.x() * std::sin(0.25f * kPi * k), side * s.size.y()),
                0.0f);
        break;
      case ShapeKind::kBox:
        for (int k = 0; k < 8; ++k)
          add(s.size.cwiseProduct(Vec3(k & 1 ? 1 : -1, k & 2 ? 1 : -1, k & 4 ? 1 : -1)), 0.0f);
        break;
    }
  }
  return points;
}

class Checker {
 public:
  Checker(const Character& c, const Clip& clip, const CheckThresholds& thresholds)
      : c_(c), clip_(clip), limit_(thresholds), n_(clip.num_frames) {}

  ClipReport run() {
    report_.clip = clip_.name;
    report_.fps = clip_.fps;
    if (!check_arrays() || !check_finite()) return report_;
    report_.seconds = clip_.length();
    check_length();
    check_quaternions();
    for (int frame = 0; frame < n_; ++frame) {
      poses_.emplace_back(c_);
      clip_pose(c_, clip_, frame, poses_.back());
    }
    check_sliding();
    check_floor();
    check_jumps();
    check_repeats();
    check_limits();
    check_hinges();
    return report_;
  }

 private:
  void add(const char* kind, Severity severity, std::string text, float value, float time = -1.0f) {
    report_.findings.push_back({kind, severity, std::move(text), value, time});
  }
  float time(int frame) const { return static_cast<float>(frame) / clip_.fps; }

  bool check_arrays() {
    const auto frames = static_cast<size_t>(std::max(0, n_));
    const bool fits = n_ >= 2 && clip_.fps > 0.0f && std::isfinite(clip_.fps) && clip_.root_pos.size() == 3 * frames &&
                      clip_.body_rot.size() == 4 * frames * c_.bodies.size();
    if (!fits)
      add("length", Severity::kError,
          n_ < 2 ? fmt::format("{} frames; a motion needs two at least", n_)
                 : "its arrays do not fit this character; import it again",
          static_cast<float>(n_));
    return fits;
  }

  bool check_finite() {
    size_t bad = 0, first = std::numeric_limits<size_t>::max();
    const auto count = [&](const std::vector<float>& values, size_t per_frame) {
      for (size_t i = 0; i < values.size(); ++i)
        if (!std::isfinite(values[i])) ++bad, first = std::min(first, i / per_frame);
    };
    count(clip_.root_pos, 3);
    count(clip_.body_rot, 4 * c_.bodies.size());
    count(clip_.root_vel, 3);
    count(clip_.root_ang_vel, 3);
    if (c_.num_dofs > 0) count(clip_.dof_vel, static_cast<size_t>(c_.num_dofs));
    if (bad == 0) {
      add("finite", Severity::kOk, "all numbers are finite", 0.0f);
      return true;
    }
    const float at = time(static_cast<int>(first));
    add("finite", Severity::kError, fmt::format("{} numbers are not finite, the first at {:.2f} s", bad, at),
        static_cast<float>(bad), at);
    return false;
  }

  void check_length() {
    const float s = clip_.length();
    const std::string text = fmt::format("{} frames at {:.5g} a second, {:.2f} s", n_, clip_.fps, s);
    if (s < limit_.short_s)
      add("length", Severity::kWarn, text + ": too short to show a motion", s);
    else
      add("length", Severity::kOk, text, s);
  }

  void check_quaternions() {
    float worst = 0.0f;
    int at = 0;
    const size_t row = c_.bodies.size();
    for (size_t i = 0; i < row * static_cast<size_t>(n_); ++i) {
      const float off = std::abs(ConstQuatMap(clip_.body_rot.data() + 4 * i).norm() - 1.0f);
      if (off > worst) worst = off, at = static_cast<int>(i / row);
    }
    add("quaternions", grade(worst, limit_.quaternion_norm),
        fmt::format("rotations differ from unit length by up to {:.1e}", worst), worst, time(at));
  }

  // A foot slides when no point of its sole that touches the floor stays where it is.
  void check_sliding() {
    float worst_mean = 0.0f, peak = 0.0f, contact_s = 0.0f;
    int worst_foot = -1, peak_at = 0;
    for (const int foot : c_.feet) {
      const auto points = contact_points(c_, foot);
      const auto world = [&](int frame, const ContactPoint& p) -> Vec3 {
        const auto view = poses_[frame].view();
        return view.pos(foot) + view.rot(foot) * p.pos - Vec3(0, 0, p.radius);
      };
      // frames in which the sole is low; a swinging foot passes low as well, but fast, and only for part of them
      std::vector<std::pair<float, int>> low;  // speed of the slowest point, frame
      for (int frame = 0; frame + 1 < n_; ++frame) {
        float slowest = std::numeric_limits<float>::infinity();
        for (const auto& p : points) {
          const Vec3 a = world(frame, p), b = world(frame + 1, p);
          if (a.z() > kContactHeight || b.z() > kContactHeight) continue;
          const Vec3 v = (b - a) * clip_.fps;
          if (std::abs(v.z()) < kContactRise) slowest = std::min(slowest, v.head<2>().norm());
        }
        if (std::isfinite(slowest)) low.emplace_back(slowest, frame);
      }
      const auto standing = [](const std::pair<float, int>& f) { return f.first < kSwingSpeed; };
      const auto num_standing = std::ranges::count_if(low, standing);
      if (static_cast<float>(num_standing) >= kStandingShare * static_cast<float>(low.size()))
        std::erase_if(low, std::not_fn(standing));
      const int count = static_cast<int>(low.size());
      if (count < 3) continue;
      float sum = 0.0f, foot_peak = 0.0f;
      int foot_peak_at = 0;
      for (const auto& [speed, frame] : low) {
        sum += speed;
        if (speed > foot_peak) foot_peak = speed, foot_peak_at = frame;
      }
      const float mean = sum / static_cast<float>(count);
      contact_s += static_cast<float>(count) / clip_.fps;
      if (worst_foot < 0 || mean > worst_mean)
        worst_mean = mean, worst_foot = foot, peak = foot_peak, peak_at = foot_peak_at;
    }
    if (worst_foot < 0) {
      add("foot_sliding", Severity::kOk, "no foot stands on the floor long enough to tell", 0.0f);
      return;
    }
    const auto severity = grade(worst_mean, limit_.slide_speed);
    add("foot_sliding", severity,
        fmt::format("{} moves at {:.3f} m/s on average while it stands, at most {:.2f} m/s at {:.2f} s (feet stand for "
                    "{:.1f} s in all)",
                    c_.bodies[worst_foot].name, worst_mean, peak, time(peak_at), contact_s),
        worst_mean, time(peak_at));
  }

  void check_floor() {
    float deepest = std::numeric_limits<float>::infinity();
    int at = 0, body = 0, run = 0, longest = 0, longest_end = 0;
    for (int frame = 0; frame < n_; ++frame) {
      const auto view = poses_[frame].view();
      float least = std::numeric_limits<float>::infinity();
      for (int b = 0; b < c_.num_bodies(); ++b) {
        const float low = lowest_point(c_, b, view.pos(b), view.rot(b));
        if (low < deepest) deepest = low, at = frame, body = b;
        least = std::min(least, low);
      }
      run = least > limit_.floating_height ? run + 1 : 0;
      if (run > longest) longest = run, longest_end = frame;
    }
    if (!std::isfinite(deepest)) return;  // a character without shapes
    const float depth = std::max(0.0f, -deepest);
    add("penetration", grade(depth, limit_.penetration),
        depth > 0.0f
            ? fmt::format("{} is {:.1f} cm under the floor at {:.2f} s", c_.bodies[body].name, 100.0f * depth, time(at))
            : fmt::format("nothing is under the floor; the lowest point is {:.1f} cm above it", 100.0f * deepest),
        depth, time(at));
    const float floating = static_cast<float>(longest) / clip_.fps;
    const float start = time(longest_end - longest + 1);
    add("floating", grade(floating, limit_.floating_s),
        longest > 0 ? fmt::format("no point within {:.0f} cm of the floor for {:.2f} s from {:.2f} s on",
                                  100.0f * limit_.floating_height, floating, start)
                    : "always near the floor",
        floating, longest > 0 ? start : -1.0f);
  }

  // Fast motion rises and falls over some frames. Two things do not: a step that stands alone (the pose leaps and
  // stays), and a step out and back again (one frame is off).
  struct Jump {
    float size = 0.0f;
    int frame = 0;
  };
  template <typename Distance>
  Jump worst_jump(const Distance& distance) const {
    std::vector<float> step(static_cast<size_t>(n_ - 1));
    for (int f = 0; f + 1 < n_; ++f) step[f] = distance(f, f + 1);
    const auto at = [&](int f) { return f < 0 || f + 1 >= n_ ? 0.0f : step[f]; };
    Jump worst;
    for (int f = 0; f + 1 < n_; ++f) {
      const float alone = at(f) - std::max(at(f - 1), at(f + 1));
      float back = 0.0f;
      if (f + 2 < n_) back = std::min(at(f), at(f + 1)) - distance(f, f + 2) - std::max(at(f - 1), at(f + 2));
      if (std::max(alone, back) > worst.size) worst = {std::max(alone, back), f + 1};
    }
    return worst;
  }

  void check_jumps() {
    float worst = 0.0f;
    int at = 0, body = 0;
    for (int b = 0; b < c_.num_bodies(); ++b) {
      const auto q = [&](int frame) {
        return Quat(ConstQuatMap(clip_.body_rot.data() + 4 * (c_.bodies.size() * static_cast<size_t>(frame) + b)))
            .normalized();
      };
      const Jump jump = worst_jump([&](int f, int g) { return q(f).angularDistance(q(g)) * kDeg; });
      if (jump.size > worst) worst = jump.size, at = jump.frame, body = b;
    }
    const Jump root = worst_jump([&](int f, int g) {
      return (ConstVec3Map(clip_.root_pos.data() + 3 * f) - ConstVec3Map(clip_.root_pos.data() + 3 * g)).norm();
    });
    const float root_worst = root.size;
    const int root_at = root.frame;

    const auto of_rotation = grade(worst, limit_.rotation_jump_deg), of_root = grade(root_worst, limit_.root_jump);
    if (of_root > of_rotation)
      add("jump", of_root, fmt::format("the root jumps by {:.1f} cm at {:.2f} s", 100.0f * root_worst, time(root_at)),
          root_worst, time(root_at));
    else
      add("jump", of_rotation,
          fmt::format("{} {} by {:.0f} degrees in one frame at {:.2f} s, beyond what the frames around it do",
                      c_.bodies[body].name, of_rotation == Severity::kOk ? "turns" : "jumps", worst, time(at)),
          worst, time(at));
  }

  // Frames that repeat the one before amid motion: recorded slower than the file says. Played, the motion stutters.
  void check_repeats() {
    std::vector<float> step(static_cast<size_t>(n_ - 1));  // deg, of all bodies together
    const size_t row = 4 * c_.bodies.size();
    for (int f = 0; f + 1 < n_; ++f)
      for (size_t b = 0; b < row; b += 4)
        step[f] += ConstQuatMap(clip_.body_rot.data() + row * f + b)
                       .angularDistance(ConstQuatMap(clip_.body_rot.data() + row * (f + 1) + b)) *
                   kDeg;
    int repeats = 0, first = -1;
    for (int f = 1; f + 2 < n_; ++f) {
      const float around = std::min(step[f - 1], step[f + 1]);
      if (around < 2.0f || step[f] > 0.05f * around) continue;
      ++repeats;
      if (first < 0) first = f + 1;
    }
    const float share = static_cast<float>(repeats) / static_cast<float>(n_);
    add("repeats", grade(share, limit_.repeat_share),
        repeats == 0
            ? "no frame repeats the one before amid motion"
            : fmt::format("{:.0f} % of the frames repeat the one before amid motion, the first at {:.2f} s; it was "
                          "recorded at a lower rate than {:.5g} a second",
                          100.0f * share, time(first), clip_.fps),
        share, repeats == 0 ? -1.0f : time(first));
  }

  void check_limits() {
    float worst = 0.0f;
    int worst_dof = -1, worst_at = 0, frames_beyond = 0;
    std::vector<int> beyond(c_.joints.size());
    for (int frame = 0; frame < n_; ++frame) {
      bool any = false;
      for (const Joint& joint : c_.joints) {
        bool of_joint = false;
        for (int d = joint.dof; d < joint.dof + joint.num_dofs; ++d) {
          const float q = poses_[frame].dof_pos[d];
          const float over = std::max(c_.limit_lower[d] - q, q - c_.limit_upper[d]) * kDeg;
          if (over > 1.0f) of_joint = true;
          if (over > worst) worst = over, worst_dof = d, worst_at = frame;
        }
        beyond[&joint - c_.joints.data()] += of_joint;
        any |= of_joint;
      }
      frames_beyond += any;
    }
    if (worst_dof < 0 || worst <= 1.0f) {
      add("limits", Severity::kOk, "all joints within their limits", std::max(0.0f, worst));
      return;
    }
    const Joint& joint = c_.joints[c_.dof_joint[worst_dof]];
    const std::string axis =
        joint.kind == JointKind::kBall ? fmt::format(" ({} axis)", "xyz"[worst_dof - joint.dof]) : "";
    std::string others;
    for (const Joint& j : c_.joints)
      if (const int k = beyond[&j - c_.joints.data()]; k > 0)
        others += fmt::format("{}{} {:.0f} %", others.empty() ? "" : ", ", j.name, 100.0f * k / n_);
    add("limits", grade(worst, limit_.limit_excess_deg),
        fmt::format("{}{} is {:.0f} degrees beyond its limit at {:.2f} s; share of frames beyond: {}", joint.name, axis,
                    worst, time(worst_at), others),
        worst, time(worst_at));
  }

  // What a hinge cannot hold of the rotation that the clip gives its body: lost when it is played.
  void check_hinges() {
    float worst = 0.0f;
    int at = 0, at_body = 0;
    for (int frame = 0; frame < n_; ++frame)
      for (int b = 1; b < c_.num_bodies(); ++b) {
        const Body& body = c_.bodies[b];
        if (body.num_joints > 0 && c_.joints[body.first_joint].kind == JointKind::kBall) continue;
        Quat held = body.rot;
        for (int j = body.first_joint; j < body.first_joint + body.num_joints; ++j)
          held = held * joint_rotation(c_.joints[j], poses_[frame].dof_pos.data());
        const Quat given =
            ConstQuatMap(clip_.body_rot.data() + 4 * (c_.bodies.size() * static_cast<size_t>(frame) + b)).normalized();
        const float off = held.angularDistance(given) * kDeg;
        if (off > worst) worst = off, at = frame, at_body = b;
      }
    if (worst < 0.5f)
      add("hinges", Severity::kOk, "hinges and fixed bodies hold all of their rotation", worst);
    else
      add("hinges", grade(worst, limit_.hinge_rest_deg),
          fmt::format("{} turns by {:.1f} degrees that its joint cannot follow, at {:.2f} s", c_.bodies[at_body].name,
                      worst, time(at)),
          worst, time(at));
  }

  const Character& c_;
  const Clip& clip_;
  const CheckThresholds& limit_;
  const int n_;
  std::vector<CharacterState> poses_;  // (frames)
  ClipReport report_;
};

}  // namespace

const char* severity_name(Severity severity) {
  return severity == Severity::kError ? "error" : severity == Severity::kWarn ? "warn" : "ok";
}

Severity ClipReport::worst() const {
  Severity worst = Severity::kOk;
  for (const Finding& f : findings) worst = std::max(worst, f.severity);
  return worst;
}

const Finding* ClipReport::find(const std::string& kind) const {
  const auto it = std::ranges::find(findings, kind, &Finding::kind);
  return it == findings.end() ? nullptr : &*it;
}

ClipReport check_clip(const Character& character, const Clip& clip, const CheckThresholds& thresholds) {
  return Checker(character, clip, thresholds).run();
}

}  // namespace calm
