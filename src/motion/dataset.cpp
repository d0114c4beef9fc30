#include "motion/dataset.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>

#include "base/error.h"
#include "base/settings.h"
#include "motion/clip_edit.h"
#include "motion/generator.h"
#include "motion/library.h"
#include "motion/npy.h"
#include "motion/retarget.h"

namespace calm {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kBuiltin = "builtin:";

// ${NAME} by the environment; ${NAME:-fallback} where that is not set, as shells have it.
std::string expand_environment(const std::string& text, const std::string& where) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t open = text.find("${", at);
    if (open == std::string::npos) return out + text.substr(at);
    const size_t close = text.find('}', open);
    if (close == std::string::npos) fail("{}: `{}` has no closing brace", where, text);
    std::string name = text.substr(open + 2, close - open - 2), fallback;
    const size_t separator = name.find(":-");
    if (separator != std::string::npos) {
      fallback = name.substr(separator + 2);
      name.resize(separator);
    }
    const char* value = std::getenv(name.c_str());
    if (!value || !*value) value = fallback.c_str();
    if (!*value)
      fail("{}: the environment has no {}; set it to the folder of the clips: export {}=...", where, name, name);
    out += text.substr(at, open - at) + value;
    at = close + 1;
  }
  return out;
}

int line_of(const YAML::Node& node) { return node.Mark().is_null() ? 0 : node.Mark().line + 1; }

// One map of a list: typed values, unknown keys refused.
class MapReader {
 public:
  MapReader(const YAML::Node& node, std::string path) : node_(node), path_(std::move(path)) {
    if (!node.IsMap()) fail("{}:{}: expected `name: value` lines", path_, line_of(node));
  }

  std::string where(const YAML::Node& node) const { return fmt::format("{}:{}", path_, line_of(node)); }

  // Whether the key is there; its value goes to `value`.
  template <class T>
  bool read(const char* key, T& value, bool may_be_negative = false) {
    const YAML::Node child = get(key);
    if (!child.IsDefined() || child.IsNull()) return false;
    try {
      value = child.as<T>();
    } catch (const YAML::Exception&) {
      fail("{}: `{}` cannot be `{}`", where(child), key, child.IsScalar() ? child.Scalar() : "this structure");
    }
    if constexpr (std::is_same_v<T, float>)
      if (!std::isfinite(value) || (value < 0.0f && !may_be_negative))
        fail("{}: `{}` must be a number{}", where(child), key, may_be_negative ? "" : " of at least 0");
    return true;
  }

  YAML::Node get(const char* key) {
    known_.emplace_back(key);
    return node_[key];
  }

  void finish() const {
    for (const auto& entry : node_) {
      const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "";
      if (std::ranges::find(known_, key) == known_.end())
        fail("{}: unknown key `{}`; did you mean `{}`?", where(entry.first), key, nearest_name(key, known_));
    }
  }

 private:
  const YAML::Node node_;
  std::string path_;
  std::vector<std::string> known_;
};

DatasetEntry read_entry(const YAML::Node& node, const fs::path& list, const fs::path& root) {
  MapReader reader(node, list.string());
  DatasetEntry entry;
  entry.line = line_of(node);
  std::string file;
  if (!reader.read("file", file) || file.empty()) fail("{}: this entry names no `file`", reader.where(node));
  reader.read("weight", entry.weight);
  const bool named = reader.read("name", entry.name);
  reader.read("tags", entry.tags);
  reader.read("start", entry.start);
  reader.read("end", entry.end);
  reader.read("mirror", entry.mirror);
  reader.read("bend", entry.bend, true);
  if (float fps = 0.0f; reader.read("fps", fps)) entry.fps = fps;
  reader.finish();
  if (entry.end > 0.0f && entry.end <= entry.start)
    fail("{}: `end` ({} s) must be later than `start` ({} s)", reader.where(node), entry.end, entry.start);

  file = expand_environment(file, reader.where(node));
  if (file.starts_with(kBuiltin)) {
    entry.file = file;
    if (!named) entry.name = file.substr(kBuiltin.size());
  } else {
    entry.file = (root / file).lexically_normal().string();
    if (!named) entry.name = fs::path(file).stem().string();
  }
  if (!named && entry.mirror) entry.name += "_mirrored";
  return entry;
}

// A clip file by its ending.
Clip import_clip(const Character& character, const fs::path& path, const fs::path& joint_map,
                 std::vector<std::string>* warnings) {
  if (path.extension() == ".npy") return import_npy(character, path, warnings);
  if (path.extension() == ".bvh")
    return import_bvh(character, path, load_retarget_map(joint_map.empty() ? default_retarget_map_path() : joint_map),
                      warnings);
  if (path.extension() == ".calmlib") {
    std::vector<Clip> clips = load_library_clips(character, path);
    if (clips.size() != 1) fail("{}: holds {} clips; a list takes libraries of one", path.string(), clips.size());
    return std::move(clips.front());
  }
  fail("{}: clips are .npy, .bvh and .calmlib files, data sets .yaml, libraries .calmlib", path.string());
}

// The generated clip of that name.
Clip builtin_clip(const std::vector<Clip>& generated, const std::string& name) {
  const auto found = std::ranges::find(generated, name, &Clip::name);
  if (found != generated.end()) return *found;
  std::vector<std::string> names;
  for (const Clip& clip : generated) names.push_back(clip.name);
  fail("there is no generated clip `{}`; there are {}", name, fmt::join(names, ", "));
}

}  // namespace

Dataset load_dataset(const fs::path& path) {
  const YAML::Node node = load_yaml(path);
  MapReader reader(node, path.string());
  Dataset dataset;
  dataset.path = path;
  const fs::path folder = path.parent_path();
  reader.read("character", dataset.character);
  if (std::string map; reader.read("joint_map", map))
    dataset.joint_map = folder / expand_environment(map, reader.where(node["joint_map"]));
  fs::path root = folder;
  if (std::string text; reader.read("root", text)) root = folder / expand_environment(text, reader.where(node["root"]));

  const YAML::Node motions = reader.get("motions");
  reader.finish();
  if (!motions.IsDefined() || !motions.IsSequence() || motions.size() == 0)
    fail("{}: has no `motions:` list", path.string());
  std::map<std::string, int> line_of_name;
  for (const auto& motion : motions) {
    dataset.entries.push_back(read_entry(motion, path, root));
    const DatasetEntry& entry = dataset.entries.back();
    const auto [earlier, is_new] = line_of_name.emplace(entry.name, entry.line);
    if (!is_new)
      fail("{}:{}: the clip in line {} is called `{}` too; give one of them another `name:`", path.string(), entry.line,
           earlier->second, entry.name);
  }
  return dataset;
}

std::vector<Clip> load_dataset_clips(const Character& character, const Dataset& dataset,
                                     std::vector<std::string>* warnings) {
  if (!dataset.character.empty() && fs::path(dataset.character).stem() != character.path.stem())
    fail("{}: is for character {}, not for {}; load that character or take `character:` out of the list",
         dataset.path.string(), dataset.character, character.path.filename().string());
  std::vector<Clip> generated, clips;
  for (const DatasetEntry& entry : dataset.entries) {
    try {
      Clip clip;
      if (entry.file.starts_with(kBuiltin)) {
        if (generated.empty()) generated = generate_clips(character);
        clip = builtin_clip(generated, entry.file.substr(kBuiltin.size()));
      } else {
        clip = import_clip(character, entry.file, dataset.joint_map, warnings);
      }
      clip.name = entry.name;
      if (entry.start > 0.0f || entry.end > 0.0f) clip = cut(clip, entry.start, entry.end);
      if (entry.fps) clip = resample(character, clip, *entry.fps);
      if (entry.mirror) clip = mirror(character, clip);
      if (entry.bend != 0.0f) clip = bend(character, clip, entry.bend);
      clip.weight = entry.weight;
      clip.tags.insert(clip.tags.end(), entry.tags.begin(), entry.tags.end());
      clips.push_back(std::move(clip));
    } catch (const Error& error) {
      fail("{}:{}: {}", dataset.path.string(), entry.line, error.what());
    }
  }
  return clips;
}

std::vector<Clip> load_motions(const Character& character, const std::string& spec) {
  if (spec.starts_with(kBuiltin)) {
    const std::vector<Clip> generated = generate_clips(character);
    if (spec.size() == kBuiltin.size()) return generated;
    // a few by name: builtin:stand,walk
    std::vector<Clip> clips;
    std::string names = spec.substr(kBuiltin.size());
    for (size_t at = 0; at <= names.size();) {
      const size_t comma = std::min(names.find(',', at), names.size());
      clips.push_back(builtin_clip(generated, names.substr(at, comma - at)));
      at = comma + 1;
    }
    return clips;
  }

  const fs::path path = spec;
  if (path.extension() == ".calmlib") return load_library_clips(character, path);
  std::vector<std::string> warnings;
  std::vector<Clip> clips;
  if (path.extension() == ".yaml" || path.extension() == ".yml")
    clips = load_dataset_clips(character, load_dataset(path), &warnings);
  else
    clips.push_back(import_clip(character, path, {}, &warnings));
  for (const std::string& warning : warnings) spdlog::warn("{}", warning);
  return clips;
}

}  // namespace calm
