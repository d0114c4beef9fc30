// `calm motion`: what is in clips, what is wrong with them, pictures of them, and libraries from them.
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "draw/draw.h"
#include "motion/bvh.h"
#include "motion/check.h"
#include "motion/clip_edit.h"
#include "motion/generator.h"
#include "motion/library.h"
#include "motion/npy.h"
#include "motion/retarget.h"
#include "tools/commands.h"

namespace calm {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kHuman = "assets/characters/human.xml";
constexpr const char* kKnight = "assets/characters/knight.xml";

// Our own files are found from any working directory.
fs::path own_file(const char* relative) {
  if (fs::exists(relative)) return relative;
  return fs::path(CALM_SOURCE_DIR) / relative;
}

struct Options {
  std::vector<std::string> inputs;
  std::string character, map, out, pictures;
  std::optional<float> fps;
  int frames = 10;
  bool json = false;
};

// Characters stay where they are once loaded: clips and libraries point to them.
class Characters {
 public:
  const Character& at(const fs::path& path) {
    auto& entry = loaded_[path.string()];
    if (!entry) entry = std::make_unique<Character>(load_character(path));
    return *entry;
  }

 private:
  std::map<std::string, std::unique_ptr<Character>> loaded_;
};

std::string extension(const fs::path& path) {
  std::string e = path.extension().string();
  std::ranges::transform(e, e.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return e;
}

// Files and data sets stay as they are, folders become the clips that lie in them.
std::vector<std::string> expand(const std::vector<std::string>& inputs) {
  std::vector<std::string> out;
  for (const auto& input : inputs) {
    if (!fs::is_directory(input)) {
      out.push_back(input);
      continue;
    }
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(input))
      if (entry.is_regular_file() && (extension(entry.path()) == ".bvh" || extension(entry.path()) == ".npy"))
        found.push_back(entry.path().string());
    if (found.empty()) fail("{}: no .bvh or .npy file in this folder", input);
    std::ranges::sort(found);
    out.insert(out.end(), found.begin(), found.end());
  }
  return out;
}

// The character that a clip file is for, where the user names none: files whose skeleton has a sword take the knight.
fs::path character_for(const std::string& input, const Options& options) {
  if (!options.character.empty()) return options.character;
  if (extension(input) == ".npy" && read_file(input, size_t{256} << 20).find("sword") != std::string::npos)
    return own_file(kKnight);
  return own_file(kHuman);
}

RetargetMap map_for(const BvhMotion& motion, const Character& character, const std::string& file,
                    const Options& options) {
  RetargetMap map = load_retarget_map(options.map.empty() ? default_retarget_map_path() : fs::path(options.map));
  if (options.map.empty())
    if (const auto missing = unmapped_joints(character, motion, map); !missing.empty())
      fail(
          "{}: its joints are not those of the default map {}; it lacks {}. Give --map; examples are in "
          "configs/retarget/, "
          "and `calm motion info` lists the file's joints",
          file, map.name, fmt::join(missing, ", "));
  if (options.fps) map.fps = *options.fps;
  return map;
}

// All clips of one input.
std::vector<Clip> load_input(const std::string& input, const Character& character, const Options& options,
                             std::vector<std::string>* warnings) {
  const std::string kind = extension(input);
  if (kind == ".bvh") {
    const BvhMotion motion = read_bvh(input);
    Clip clip = retarget(character, motion, map_for(motion, character, input, options), input, warnings);
    clip.name = fs::path(input).stem().string();
    std::vector<Clip> clips;
    clips.push_back(std::move(clip));
    return clips;
  }
  std::vector<Clip> clips;
  if (kind == ".npy")
    clips.push_back(import_npy(character, input, warnings));
  else
    clips = load_motions(character, input);
  if (options.fps && *options.fps > 0.0f)
    for (Clip& clip : clips)
      if (std::abs(clip.fps - *options.fps) > 1e-3f) clip = resample(character, clip, *options.fps);
  return clips;
}

void print_warnings(const std::vector<std::string>& warnings) {
  for (const auto& w : warnings) fmt::print(stderr, "note: {}\n", w);
}

// ---- info ---------------------------------------------------------------------------------------------------------

const char* channel_name(BvhChannel channel) {
  static constexpr std::array<const char*, 6> kNames = {"Xposition", "Yposition", "Zposition",
                                                        "Xrotation", "Yrotation", "Zrotation"};
  return kNames[static_cast<size_t>(channel)];
}

json info_bvh(const std::string& input) {
  const BvhMotion motion = read_bvh(input);
  const BvhGuess guess = guess_bvh(motion);
  json joints = json::array();
  for (const BvhJoint& joint : motion.joints) {
    json channels = json::array();
    for (const BvhChannel c : joint.channels) channels.push_back(channel_name(c));
    joints.push_back({{"name", joint.name},
                      {"parent", joint.parent < 0 ? json() : json(motion.joints[joint.parent].name)},
                      {"offset", {joint.offset.x(), joint.offset.y(), joint.offset.z()}},
                      {"channels", channels}});
  }
  return {{"file", input},
          {"format", "bvh"},
          {"frames", motion.num_frames},
          {"fps", motion.fps()},
          {"seconds", motion.seconds()},
          {"channels", motion.num_channels},
          {"up_axis_guess", guess.up_axis},
          {"skeleton_height", guess.height},
          {"metres_per_unit_guess", guess.metres_per_unit},
          {"unit_guess", guess.unit.empty() ? json() : json(guess.unit)},
          {"joints", joints}};
}

json info_clip(const Clip& clip, const Character& character, const std::string& input) {
  float distance = 0.0f, lowest = std::numeric_limits<float>::infinity(), highest = -lowest;
  for (int f = 0; f < clip.num_frames; ++f) {
    const ConstVec3Map p(clip.root_pos.data() + 3 * f);
    if (f > 0) distance += (p - ConstVec3Map(p.data() - 3)).head<2>().norm();
    lowest = std::min(lowest, p.z());
    highest = std::max(highest, p.z());
  }
  return {{"file", input},
          {"format", extension(input).empty() ? "" : extension(input).substr(1)},
          {"clip", clip.name},
          {"tags", clip.tags},
          {"weight", clip.weight},
          {"character", character.name},
          {"bodies", character.num_bodies()},
          {"frames", clip.num_frames},
          {"fps", clip.fps},
          {"seconds", clip.length()},
          {"root_path_m", distance},
          {"root_height_m", {lowest, highest}}};
}

void print_bvh(const json& info) {
  fmt::print("{}: BVH, {} joints, {} channels, {} frames at {:.5g} a second, {:.2f} s\n",
             info["file"].get<std::string>(), info["joints"].size(), info["channels"].get<int>(),
             info["frames"].get<int>(), info["fps"].get<double>(), info["seconds"].get<double>());
  fmt::print("  up axis {} (guess), skeleton {:.4g} units high, so a unit is about {:.4g} m{}\n",
             info["up_axis_guess"].get<std::string>(), info["skeleton_height"].get<double>(),
             info["metres_per_unit_guess"].get<double>(),
             info["unit_guess"].is_null() ? "" : fmt::format(" ({})", info["unit_guess"].get<std::string>()));
  std::map<std::string, int> depth;
  for (const json& joint : info["joints"]) {
    const auto name = joint["name"].get<std::string>();
    const int d = joint["parent"].is_null() ? 0 : depth[joint["parent"].get<std::string>()] + 1;
    depth[name] = d;
    std::string channels;
    for (const json& c : joint["channels"]) channels += ' ' + c.get<std::string>();
    const auto& o = joint["offset"];
    fmt::print("  {:<{}}{:<{}} {:>9.3f} {:>9.3f} {:>9.3f} {}\n", "", std::min(2 * d, 60), name,
               std::max(4, 40 - std::min(2 * d, 36)), o[0].get<double>(), o[1].get<double>(), o[2].get<double>(),
               channels);
  }
}

void print_clip(const json& info) {
  fmt::print(
      "{}: clip `{}` on {} ({} bodies), {} frames at {:.5g} a second, {:.2f} s; root moves {:.2f} m, {:.2f} to "
      "{:.2f} m high\n",
      info["file"].get<std::string>(), info["clip"].get<std::string>(), info["character"].get<std::string>(),
      info["bodies"].get<int>(), info["frames"].get<int>(), info["fps"].get<double>(), info["seconds"].get<double>(),
      info["root_path_m"].get<double>(), info["root_height_m"][0].get<double>(),
      info["root_height_m"][1].get<double>());
}

void run_info(const Options& options) {
  Characters characters;
  json all = json::array();
  for (const auto& input : expand(options.inputs)) {
    if (extension(input) == ".bvh") {
      all.push_back(info_bvh(input));
      if (!options.json) print_bvh(all.back());
      continue;
    }
    const Character& character = characters.at(character_for(input, options));
    std::vector<std::string> warnings;
    for (const Clip& clip : load_input(input, character, options, &warnings)) {
      all.push_back(info_clip(clip, character, input));
      if (!options.json) print_clip(all.back());
    }
    print_warnings(warnings);
  }
  if (options.json) fmt::print("{}\n", json{{"files", all}}.dump(2, ' ', false, json::error_handler_t::replace));
}

// ---- import and generate ------------------------------------------------------------------------------------------

void save_clips(const Character& character, std::vector<Clip> clips, const std::string& out) {
  const MotionLibrary library(character, std::move(clips));
  save_library(library, out);
  fmt::print("{}: {} clips, {:.1f} s, for `{}`\n", out, library.num_clips(), library.total_seconds(), character.name);
}

void run_import(const Options& options) {
  Characters characters;
  const auto inputs = expand(options.inputs);
  const Character& character = characters.at(character_for(inputs.front(), options));
  Progress progress("import", static_cast<double>(inputs.size()), "files");
  std::vector<Clip> clips;
  std::vector<std::string> warnings;
  std::set<std::string> names;
  for (size_t i = 0; i < inputs.size(); ++i) {
    for (Clip& clip : load_input(inputs[i], character, options, &warnings)) {
      const std::string name = clip.name;
      for (int k = 2; !names.insert(clip.name).second; ++k) clip.name = fmt::format("{}_{}", name, k);
      clips.push_back(std::move(clip));
    }
    progress.update(static_cast<double>(i + 1), inputs[i], i + 1 == inputs.size());
  }
  print_warnings(warnings);
  save_clips(character, std::move(clips), options.out);
}

void run_generate(const Options& options) {
  const Character character =
      load_character(options.character.empty() ? own_file(kHuman) : fs::path(options.character));
  save_clips(character, generate_clips(character), options.out);
}

// ---- pictures -----------------------------------------------------------------------------------------------------

// A row of moments, evenly spread over the clip, each at its own place along x whatever its path was.
std::vector<CharacterState> strip(const Character& character, const Clip& clip, int count, float turn) {
  constexpr float kSpacing = 1.1f;  // m
  std::vector<CharacterState> states;
  count = std::clamp(count, 1, clip.num_frames);
  for (int i = 0; i < count; ++i) {
    const int frame = count == 1 ? 0 : static_cast<int>(std::lround(i * (clip.num_frames - 1.0) / (count - 1)));
    CharacterState state(character);
    clip_pose(character, clip, frame, state);
    const Quat q = quat_about_z(turn);
    const Vec3 origin(state.body_pos[0], state.body_pos[1], 0.0f);
    for (int b = 0; b < character.num_bodies(); ++b) {
      Vec3Map p(state.body_pos.data() + 3 * b);
      p = q * (p - origin) + Vec3(kSpacing * static_cast<float>(i), 0.0f, 0.0f);
      QuatMap r(state.body_rot.data() + 4 * b);
      r = q * r;
    }
    states.push_back(std::move(state));
  }
  return states;
}

Image clip_picture(const Character& character, const Clip& clip, int frames) {
  const int width = 160 * std::max(2, frames);
  std::vector<Image> rows;
  rows.push_back(draw_states(character, strip(character, clip, frames, 0.0f), width, 300));
  rows.push_back(draw_states(character, strip(character, clip, frames, -0.5f * kPi), width, 300));
  const std::vector<std::string> captions = {"side", "front"};
  return stack_images(rows, 1, captions);
}

void save_clip_charts(const Character& character, const Clip& clip, const fs::path& path) {
  Curve height{"root", {}, {}}, speed{"root", {}, {}};
  std::vector<Curve> feet;
  for (const int foot : character.feet) feet.push_back({character.bodies[foot].name, {}, {}});
  CharacterState state(character);
  for (int f = 0; f < clip.num_frames; ++f) {
    clip_pose(character, clip, f, state);
    const double t = f / clip.fps;
    height.x.push_back(t), height.y.push_back(state.view().pos(0).z());
    speed.x.push_back(t), speed.y.push_back(ConstVec3Map(clip.root_vel.data() + 3 * f).head<2>().norm());
    for (size_t i = 0; i < feet.size(); ++i) {
      const int foot = character.feet[i];
      feet[i].x.push_back(t);
      feet[i].y.push_back(lowest_point(character, foot, state.view().pos(foot), state.view().rot(foot)));
    }
  }
  const std::vector<Chart> charts = {{"root height", "s", "m", {height}},
                                     {"root speed over ground", "s", "m/s", {speed}},
                                     {"lowest point of the feet", "s", "m", feet}};
  save_charts(charts, 3, path);
}

fs::path charts_path(const fs::path& picture) {
  return picture.parent_path() / (picture.stem().string() + "_charts" + picture.extension().string());
}

void save_pictures(const Character& character, const Clip& clip, const fs::path& path, int frames) {
  if (path.has_parent_path()) {
    std::error_code ec;
    fs::create_directories(path.parent_path(), ec);
  }
  save_png(clip_picture(character, clip, frames), path);
  save_clip_charts(character, clip, charts_path(path));
}

void run_draw(const Options& options) {
  Characters characters;
  const auto inputs = expand(options.inputs);
  if (inputs.size() != 1) fail("calm motion draw takes one file; `calm motion check --png DIR` draws many");
  const Character& character = characters.at(character_for(inputs[0], options));
  std::vector<std::string> warnings;
  const auto clips = load_input(inputs[0], character, options, &warnings);
  print_warnings(warnings);
  const fs::path out = options.out;
  for (size_t i = 0; i < clips.size(); ++i) {
    const fs::path path = clips.size() == 1 ? out
                                            : out.parent_path() / fmt::format("{}_{}{}", out.stem().string(),
                                                                              clips[i].name, out.extension().string());
    save_pictures(character, clips[i], path, options.frames);
    fmt::print("{}\n{}\n", path.string(), charts_path(path).string());
  }
}

// ---- check --------------------------------------------------------------------------------------------------------

json to_json(const ClipReport& report, const std::string& input) {
  json findings = json::array();
  for (const Finding& f : report.findings)
    findings.push_back({{"kind", f.kind},
                        {"severity", severity_name(f.severity)},
                        {"text", f.text},
                        {"value", f.value},
                        {"time", f.time < 0.0f ? json() : json(f.time)}});
  return {{"file", input},
          {"clip", report.clip},
          {"seconds", report.seconds},
          {"fps", report.fps},
          {"result", severity_name(report.worst())},
          {"findings", findings}};
}

void print_report(const ClipReport& report, const std::string& input) {
  fmt::print("{:<5} {} ({}, {:.2f} s)\n", severity_name(report.worst()), report.clip, input, report.seconds);
  for (const Finding& f : report.findings)
    if (f.severity != Severity::kOk) fmt::print("      {:<5} {}: {}\n", severity_name(f.severity), f.kind, f.text);
}

void run_check(const Options& options) {
  Characters characters;
  json all = json::array();
  int counts[3] = {0, 0, 0};
  for (const auto& input : expand(options.inputs)) {
    std::vector<std::string> warnings;
    try {
      const Character& character = characters.at(character_for(input, options));
      for (const Clip& clip : load_input(input, character, options, &warnings)) {
        const ClipReport report = check_clip(character, clip);
        ++counts[static_cast<int>(report.worst())];
        all.push_back(to_json(report, input));
        if (!options.json) print_report(report, input);
        if (!options.pictures.empty())
          save_pictures(character, clip, fs::path(options.pictures) / (clip.name + ".png"), options.frames);
      }
    } catch (const Error& e) {
      // one unreadable file must not hide what is wrong with the others
      ++counts[static_cast<int>(Severity::kError)];
      all.push_back({{"file", input},
                     {"clip", nullptr},
                     {"result", "error"},
                     {"findings", {{{"kind", "file"}, {"severity", "error"}, {"text", e.what()}}}}});
      if (!options.json) fmt::print("error {}\n", e.what());
    }
    if (!options.json) print_warnings(warnings);
  }
  if (options.json) {
    const json result = {{"clips", all}, {"ok", counts[0]}, {"warnings", counts[1]}, {"errors", counts[2]}};
    fmt::print("{}\n", result.dump(2, ' ', false, json::error_handler_t::replace));
  } else {
    fmt::print("{} clips without findings, {} with warnings, {} with errors\n", counts[0], counts[1], counts[2]);
  }
  if (counts[2] > 0) {
    std::fflush(stdout);
    throw CLI::RuntimeError(1);
  }
}

}  // namespace

void add_motion_command(CLI::App& app) {
  auto* motion = app.add_subcommand("motion", "Motion clips: what is in them, import, checks, pictures");
  motion->require_subcommand(1);
  const auto options = std::make_shared<Options>();

  const auto add_inputs = [&](CLI::App* sub) {
    sub->add_option("inputs", options->inputs,
                    "Clips (.npy, .bvh), folders of them, data set lists (.yaml), libraries (.calmlib), or `builtin:`")
        ->required();
  };
  const auto add_character = [&](CLI::App* sub) {
    sub->add_option("--character", options->character,
                    "MJCF of the character [human; knight for .npy files whose skeleton has a sword]")
        ->check(CLI::ExistingFile);
  };
  const auto add_map = [&](CLI::App* sub) {
    sub->add_option("--map", options->map, "Joint map for BVH files [configs/retarget/cmu.yaml]")
        ->check(CLI::ExistingFile);
    sub->add_option("--fps", options->fps, "Frames per second of the clips; 0 keeps the file's own [the map's, 30]")
        ->check(CLI::Range(0.0, 1000.0));
  };

  auto* info = motion->add_subcommand("info", "Tell what is in clips: skeleton, frames, rate, axes, scale");
  add_inputs(info);
  add_character(info);
  info->add_flag("--json", options->json, "Print JSON");
  info->callback([options] { run_info(*options); });

  auto* make = motion->add_subcommand("import", "Make a binary motion library from clips");
  add_inputs(make);
  add_character(make);
  add_map(make);
  make->add_option("--out", options->out, "Library file to write (.calmlib)")->required();
  make->callback([options] { run_import(*options); });

  auto* check = motion->add_subcommand("check", "Tell what is wrong with clips; exit code 1 if any has an error");
  add_inputs(check);
  add_character(check);
  add_map(check);
  check->add_flag("--json", options->json, "Print JSON");
  check->add_option("--png", options->pictures, "Folder for a strip of frames and charts of every clip");
  check->add_option("--frames", options->frames, "Moments in a strip")->capture_default_str()->check(CLI::Range(1, 40));
  check->callback([options] { run_check(*options); });

  auto* draw = motion->add_subcommand("draw", "Draw a clip: moments in a row, side and front, and charts beside it");
  add_inputs(draw);
  add_character(draw);
  add_map(draw);
  draw->add_option("--out", options->out, "Picture to write (.png); the charts get `_charts` in their name")
      ->required();
  draw->add_option("--frames", options->frames, "Moments in the strip")
      ->capture_default_str()
      ->check(CLI::Range(1, 40));
  draw->callback([options] { run_draw(*options); });

  auto* generate = motion->add_subcommand("generate", "Make the library of simple clips that needs no outside data");
  add_character(generate);
  generate->add_option("--out", options->out, "Library file to write (.calmlib)")->required();
  generate->callback([options] { run_generate(*options); });
}

}  // namespace calm
