// A reader of our own and not Assimp's: see docs/decisions/bvh-import.md. Everything is a loop over one buffer with an
// explicit stack, so that depth and work are bounded by the limits below and by the size of the file.
#include "motion/bvh.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/file.h"

namespace calm {

namespace {

constexpr size_t kMaxFileBytes = size_t{256} << 20;
constexpr size_t kMaxJoints = 1000;
constexpr size_t kMaxDepth = 200;
constexpr float kMaxValue = 1e9f;  // so that squares of what is read stay far from infinity

bool same_word(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f' || c == '\0'; }

std::string_view trimmed(std::string_view s) {
  while (!s.empty() && is_blank(s.front())) s.remove_prefix(1);
  while (!s.empty() && is_blank(s.back())) s.remove_suffix(1);
  return s;
}

// What a message may show of an untrusted file: short, printable.
std::string shown(std::string_view s) {
  std::string out(s.substr(0, 40));
  for (char& c : out)
    if (std::iscntrl(static_cast<unsigned char>(c))) c = '?';
  return out;
}

class Parser {
 public:
  Parser(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  BvhMotion parse() {
    if (text_.starts_with("\xEF\xBB\xBF")) pos_ = 3;
    parse_hierarchy();
    parse_motion();
    return std::move(motion_);
  }

 private:
  template <typename... Args>
  [[noreturn]] void error(fmt::format_string<Args...> format, Args&&... args) const {
    fail("{}:{}: {}", name_, line_, fmt::format(format, std::forward<Args>(args)...));
  }

  void skip_space() {
    for (; pos_ < text_.size(); ++pos_) {
      if (text_[pos_] == '\n')
        ++line_;
      else if (!is_blank(text_[pos_]))
        return;
    }
  }

  // A brace, or what lies before the next space or brace; empty at the end of the file.
  std::string_view next() {
    skip_space();
    const size_t start = pos_;
    const auto is_brace = [](char c) { return c == '{' || c == '}'; };
    if (pos_ < text_.size() && is_brace(text_[pos_])) return text_.substr(pos_++, 1);
    while (pos_ < text_.size() && text_[pos_] != '\n' && !is_blank(text_[pos_]) && !is_brace(text_[pos_])) ++pos_;
    return text_.substr(start, pos_ - start);
  }

  void expect(std::string_view word) {
    const auto token = next();
    if (!same_word(token, word))
      error("expected `{}`, found `{}`", word, token.empty() ? "the end of the file" : shown(token));
  }

  // The rest of the line up to an opening brace; names may hold spaces and colons.
  std::string rest_of_line_as_name() {
    const size_t start = pos_;
    while (pos_ < text_.size() && text_[pos_] != '\n' && text_[pos_] != '{') ++pos_;
    return std::string(trimmed(text_.substr(start, pos_ - start)).substr(0, 200));
  }

  float number(std::string_view token) const {
    if (token.starts_with('+')) token.remove_prefix(1);
    float value = 0.0f;
    const auto [end, ec] = std::from_chars(token.data(), token.data() + token.size(), value);
    if (ec == std::errc::result_out_of_range && end == token.data() + token.size() && token.find("e-") != token.npos)
      return 0.0f;  // smaller than a float can be
    if (ec != std::errc() || end != token.data() + token.size() || !std::isfinite(value))
      error("expected a number, found `{}`", token.empty() ? "the end of the file" : shown(token));
    if (std::abs(value) > kMaxValue) error("{} is larger than any length or angle", value);
    return value;
  }

  Vec3 offset() {
    Vec3 v;
    for (int i = 0; i < 3; ++i) v[i] = number(next());
    return v;
  }

  void parse_hierarchy() {
    expect("HIERARCHY");
    expect("ROOT");
    std::vector<int> stack;  // open joints; kEndSite marks an End Site
    constexpr int kEndSite = -2;
    open_joint(-1);
    stack.push_back(0);
    while (!stack.empty()) {
      const auto token = next();
      if (token.empty()) error("the file ends inside the hierarchy; it is cut off");
      if (token == "}") {
        stack.pop_back();
      } else if (stack.back() == kEndSite) {
        if (!same_word(token, "OFFSET")) error("an End Site has an OFFSET only, found `{}`", shown(token));
        const Vec3 end = offset();
        auto& joint = motion_.joints[static_cast<size_t>(stack[stack.size() - 2])];
        if (!joint.has_end) joint.end = end, joint.has_end = true;
      } else if (same_word(token, "OFFSET")) {
        motion_.joints[static_cast<size_t>(stack.back())].offset = offset();
      } else if (same_word(token, "CHANNELS")) {
        parse_channels(motion_.joints[static_cast<size_t>(stack.back())]);
      } else if (same_word(token, "JOINT")) {
        if (stack.size() >= kMaxDepth) error("joints nested deeper than {}", kMaxDepth);
        if (motion_.joints.size() >= kMaxJoints) error("more than {} joints", kMaxJoints);
        open_joint(stack.back());
        stack.push_back(static_cast<int>(motion_.joints.size()) - 1);
      } else if (same_word(token, "End")) {
        rest_of_line_as_name();
        expect("{");
        stack.push_back(kEndSite);
      } else {
        error("expected OFFSET, CHANNELS, JOINT, End Site or a closing brace, found `{}`", shown(token));
      }
    }
    for (auto& joint : motion_.joints) {
      joint.first_channel = motion_.num_channels;
      motion_.num_channels += static_cast<int>(joint.channels.size());
    }
    if (motion_.num_channels == 0) error("no joint has any channel, so nothing can move");
  }

  void open_joint(int parent) {
    BvhJoint joint;
    joint.name = rest_of_line_as_name();
    if (joint.name.empty()) error("a joint without a name");
    joint.parent = parent;
    expect("{");
    motion_.joints.push_back(std::move(joint));
  }

  void parse_channels(BvhJoint& joint) {
    if (!joint.channels.empty()) error("joint `{}` has two CHANNELS lines", shown(joint.name));
    const float count = number(next());
    if (count != std::floor(count) || count < 0.0f || count > 6.0f)
      error("joint `{}` has {} channels; 0 to 6 are possible", shown(joint.name), count);
    static constexpr std::array<std::string_view, 6> kNames = {"Xposition", "Yposition", "Zposition",
                                                               "Xrotation", "Yrotation", "Zrotation"};
    for (int i = 0; i < static_cast<int>(count); ++i) {
      const auto token = next();
      const auto it = std::ranges::find_if(kNames, [&](auto n) { return same_word(n, token); });
      if (it == kNames.end()) error("unknown channel `{}`; known are {}", shown(token), fmt::join(kNames, ", "));
      const auto channel = static_cast<BvhChannel>(it - kNames.begin());
      if (std::ranges::find(joint.channels, channel) != joint.channels.end())
        error("joint `{}` has channel {} twice", shown(joint.name), *it);
      joint.channels.push_back(channel);
    }
  }

  // `word`, a colon with or without space before it, and a number on the same or the next line.
  float labelled_number(std::string_view label) {
    skip_space();
    const size_t start = pos_;
    while (pos_ < text_.size() && text_[pos_] != ':' && text_[pos_] != '\n') ++pos_;
    std::string words;  // single spaces between them, whatever stood there
    for (const char c : trimmed(text_.substr(start, pos_ - start))) {
      const char plain = is_blank(c) ? ' ' : c;
      if (plain != ' ' || !words.ends_with(' ')) words += plain;
    }
    if (pos_ >= text_.size() || text_[pos_] != ':' || !same_word(words, label))
      error("expected `{}:`, found `{}`", label, shown(words));
    ++pos_;
    return number(next());
  }

  void parse_motion() {
    if (const auto token = next(); !same_word(token, "MOTION")) {
      if (same_word(token, "ROOT")) error("a second ROOT; one skeleton a file can be read");
      error("expected `MOTION`, found `{}`", token.empty() ? "the end of the file" : shown(token));
    }
    const double frames = labelled_number("Frames");
    if (frames != std::floor(frames) || frames < 1.0) error("{} frames; at least one is needed", frames);
    motion_.frame_time = labelled_number("Frame Time");
    if (!(motion_.frame_time >= 1e-5f && motion_.frame_time <= 10.0f))
      error("frame time {} s; it must lie between 0.00001 and 10", motion_.frame_time);

    // a value takes at least a digit and a separator, so a lying header is seen before memory is taken
    const double needed = 2.0 * frames * motion_.num_channels - 1.0;
    if (needed > static_cast<double>(text_.size() - pos_))
      error("{} frames of {} channels cannot stand in the {} bytes that follow; the file is cut off", frames,
            motion_.num_channels, text_.size() - pos_);
    motion_.num_frames = static_cast<int>(frames);
    motion_.values.reserve(static_cast<size_t>(motion_.num_frames) * static_cast<size_t>(motion_.num_channels));
    for (int frame = 0; frame < motion_.num_frames; ++frame) parse_frame(frame);
    skip_space();
    if (pos_ < text_.size()) error("more lines than the {} frames that the header announces", motion_.num_frames);
  }

  void parse_frame(int frame) {
    skip_space();
    if (pos_ >= text_.size()) error("the file ends after frame {} of {}; it is cut off", frame, motion_.num_frames);
    size_t end = text_.find('\n', pos_);
    if (end == std::string_view::npos) end = text_.size();
    int count = 0;
    for (; pos_ < end; ++count) {
      size_t stop = pos_;
      while (stop < end && !is_blank(text_[stop])) ++stop;
      if (count == motion_.num_channels)
        error("frame {} has more than the {} values that the channels need", frame + 1, motion_.num_channels);
      motion_.values.push_back(number(text_.substr(pos_, stop - pos_)));
      for (pos_ = stop; pos_ < end && is_blank(text_[pos_]);) ++pos_;
    }
    if (count != motion_.num_channels)
      error("frame {} has {} values, the channels need {}", frame + 1, count, motion_.num_channels);
  }

  std::string_view text_;
  const std::string& name_;
  size_t pos_ = 0;
  int line_ = 1;
  BvhMotion motion_;
};

}  // namespace

int BvhMotion::joint_index(std::string_view name) const {
  const auto it = std::ranges::find(joints, name, &BvhJoint::name);
  return it == joints.end() ? -1 : static_cast<int>(it - joints.begin());
}

BvhMotion parse_bvh(std::string_view text, const std::string& name) {
  if (text.size() > kMaxFileBytes)
    fail("{}: {} bytes, more than the {} accepted here", name, text.size(), kMaxFileBytes);
  return Parser(text, name).parse();
}

BvhMotion read_bvh(const std::filesystem::path& path) {
  return parse_bvh(read_file(path, kMaxFileBytes), path.string());
}

void bvh_local_pose(const BvhMotion& motion, int frame, BvhPose& pose) {
  pose.local_rot.resize(motion.joints.size());
  pose.local_pos.resize(motion.joints.size());
  const float* row = motion.values.data() + static_cast<size_t>(frame) * static_cast<size_t>(motion.num_channels);
  for (size_t j = 0; j < motion.joints.size(); ++j) {
    const BvhJoint& joint = motion.joints[j];
    Vec3 pos = joint.offset;
    Quat rot = Quat::Identity();
    for (size_t c = 0; c < joint.channels.size(); ++c) {
      const int kind = static_cast<int>(joint.channels[c]);
      const float value = row[joint.first_channel + static_cast<int>(c)];
      if (kind < 3) {
        pos[kind] = value;
      } else {
        const float angle = std::remainder(value, 360.0f) * (kPi / 180.0f);
        rot = rot * Quat(Eigen::AngleAxisf(angle, Vec3::Unit(kind - 3)));
      }
    }
    pose.local_pos[j] = pos;
    pose.local_rot[j] = rot.normalized();
  }
}

void bvh_forward_kinematics(const BvhMotion& motion, BvhPose& pose) {
  pose.rot.resize(motion.joints.size());
  pose.pos.resize(motion.joints.size());
  for (size_t j = 0; j < motion.joints.size(); ++j) {
    if (motion.joints[j].parent < 0) {
      pose.rot[j] = pose.local_rot[j];
      pose.pos[j] = pose.local_pos[j];
    } else {
      const auto p = static_cast<size_t>(motion.joints[j].parent);
      pose.rot[j] = (pose.rot[p] * pose.local_rot[j]).normalized();
      pose.pos[j] = pose.pos[p] + pose.rot[p] * pose.local_pos[j];
    }
  }
}

BvhPose bvh_zero_pose(const BvhMotion& motion) {
  BvhPose pose;
  pose.local_rot.assign(motion.joints.size(), Quat::Identity());
  for (const auto& joint : motion.joints) pose.local_pos.push_back(joint.offset);
  bvh_forward_kinematics(motion, pose);
  return pose;
}

BvhGuess guess_bvh(const BvhMotion& motion) {
  const size_t n = motion.joints.size();
  std::vector<std::vector<int>> children(n);
  std::vector<int> subtree(n, 1), branch(n, -1);
  for (size_t j = n; j-- > 1;) subtree[static_cast<size_t>(motion.joints[j].parent)] += subtree[j];
  for (size_t j = 1; j < n; ++j) children[static_cast<size_t>(motion.joints[j].parent)].push_back(static_cast<int>(j));

  // the first joint with several children is the pelvis; the largest branch is the spine, the others are legs
  size_t pelvis = 0;
  while (children[pelvis].size() == 1) pelvis = static_cast<size_t>(children[pelvis][0]);
  int spine = -1;
  for (const int c : children[pelvis])
    if (spine < 0 || subtree[static_cast<size_t>(c)] > subtree[static_cast<size_t>(spine)]) spine = c;
  for (size_t j = pelvis + 1; j < n; ++j) {
    const auto p = static_cast<size_t>(motion.joints[j].parent);
    branch[j] = p == pelvis ? static_cast<int>(j) : branch[p];
  }

  Vec3 up = Vec3::Zero();
  BvhPose pose;
  const int step = std::max(1, motion.num_frames / 100);
  for (int frame = 0; frame < motion.num_frames; frame += step) {
    bvh_local_pose(motion, frame, pose);
    bvh_forward_kinematics(motion, pose);
    for (size_t j = pelvis + 1; j < n; ++j) {
      if (branch[j] < 0) continue;
      const Vec3 away = pose.pos[j] - pose.pos[pelvis];
      up += branch[j] == spine ? Vec3(Vec3::Zero()) : Vec3(-away);
    }
  }
  BvhGuess guess;
  if (up.norm() > 0.0f) {
    Eigen::Index axis;
    up.cwiseAbs().maxCoeff(&axis);
    guess.up = Vec3::Unit(axis) * (up[axis] < 0.0f ? -1.0f : 1.0f);
    guess.up_axis = fmt::format("{}{}", up[axis] < 0.0f ? "-" : "", "xyz"[axis]);
  }

  const BvhPose zero = bvh_zero_pose(motion);
  float low = 0.0f, high = 0.0f;
  for (size_t j = 0; j < n; ++j) {
    const float at = guess.up.dot(zero.pos[j] - zero.pos[0]);
    const float end = at + guess.up.dot(motion.joints[j].end);
    low = std::min({low, at, end});
    high = std::max({high, at, end});
  }
  guess.height = high - low;
  if (!(guess.height > 0.0f)) return guess;
  guess.metres_per_unit = 1.7f / guess.height;
  struct Unit {
    const char* name;
    float metres;
  };
  for (const Unit unit : {Unit{"m", 1.0f}, Unit{"dm", 0.1f}, Unit{"cm", 0.01f}, Unit{"mm", 0.001f},
                          Unit{"inch", 0.0254f}, Unit{"CMU mocap unit (0.056444 m)", 0.056444f}})
    if (std::abs(std::log(guess.metres_per_unit / unit.metres)) < std::log(1.25f)) guess.unit = unit.name;
  return guess;
}

}  // namespace calm
