// Settings from YAML into plain structs. A struct lists its fields once, in a function
//   template <class Visitor> void visit(Visitor& v, PhysicsSettings& s) { v("substeps", s.substeps); ... }
// Reading: every key of the file must be a field (an unknown key is an error that names the nearest known one);
// a field that the file leaves out keeps its default. A file may name another that it starts from: `base: FILE`, beside
// it. Writing gives the resolved settings.
#pragma once

#include <yaml-cpp/yaml.h>

#include <filesystem>
#include <string>
#include <type_traits>
#include <vector>

#include "base/error.h"

namespace calm {

// The known name with the smallest edit distance to `name`.
std::string nearest_name(const std::string& name, const std::vector<std::string>& known);

// Parses a YAML file; Error with file and line on bad syntax.
YAML::Node load_yaml(const std::filesystem::path& path);

class SettingsReader {
 public:
  // where: how errors name the source ("small.yaml: ppo").
  SettingsReader(YAML::Node node, std::string where);

  template <class T>
  void operator()(const char* name, T& value) {
    known_.emplace_back(name);
    const YAML::Node child = node_.IsMap() ? node_[name] : YAML::Node(YAML::NodeType::Undefined);
    if (!child.IsDefined() || child.IsNull()) return;
    if constexpr (requires(SettingsReader & reader, T & v) { visit(reader, v); }) {
      SettingsReader reader(child, where_ + ": " + name);
      visit(reader, value);
      reader.finish();
    } else {
      try {
        value = child.as<T>();
      } catch (const YAML::Exception&) {
        bad_value(name, child);
      }
    }
  }

  // Throws Error on keys that no field took. Call once, after the visit.
  void finish() const;

 private:
  [[noreturn]] void bad_value(const char* name, const YAML::Node& child) const;

  YAML::Node node_;
  std::string where_;
  std::vector<std::string> known_;
};

class SettingsWriter {
 public:
  template <class T>
  void operator()(const char* name, T& value) {
    if constexpr (requires(SettingsWriter & writer, T & v) { visit(writer, v); }) {
      SettingsWriter writer;
      visit(writer, value);
      node[name] = writer.node;
    } else {
      node[name] = value;
    }
  }

  YAML::Node node{YAML::NodeType::Map};
};

template <class T>
void read_settings(T& settings, const YAML::Node& node, const std::string& where) {
  SettingsReader reader(node, where);
  visit(reader, settings);
  reader.finish();
}

// Takes the `base` out of a file's settings: the path of the file they start from; empty if there is none.
std::filesystem::path take_base(YAML::Node& node, const std::filesystem::path& path);

// depth: of files that may start from one another; deeper is taken for a circle.
template <class T>
T load_settings(const std::filesystem::path& path, int depth = 8) {
  YAML::Node node = load_yaml(path);
  T settings;
  if (const auto base = take_base(node, path); !base.empty()) {
    if (depth == 0) fail("{}: `base` leads through too many files, or in a circle", path.string());
    settings = load_settings<T>(base, depth - 1);
  }
  read_settings(settings, node, path.string());
  return settings;
}

template <class T>
std::string settings_to_yaml(T settings) {
  SettingsWriter writer;
  visit(writer, settings);
  YAML::Emitter out;
  out << writer.node;
  return std::string(out.c_str()) + "\n";
}

}  // namespace calm
