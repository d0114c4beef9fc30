#include "base/settings.h"

#include <algorithm>
#include <numeric>

#include "base/file.h"

namespace calm {

namespace {

// Levenshtein distance.
size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row.back();
}

std::string position(const YAML::Node& node) {
  return node.Mark().is_null() ? std::string() : fmt::format(" (line {})", node.Mark().line + 1);
}

}  // namespace

std::string nearest_name(const std::string& name, const std::vector<std::string>& known) {
  if (known.empty()) return {};
  return *std::ranges::min_element(known, {}, [&](const std::string& k) { return edit_distance(name, k); });
}

YAML::Node load_yaml(const std::filesystem::path& path) {
  const std::string text = read_file(path, size_t{16} << 20);
  try {
    return YAML::Load(text);
  } catch (const YAML::Exception& e) {
    fail("{}:{}: {}", path.string(), e.mark.line + 1, e.msg);
  }
}

std::filesystem::path take_base(YAML::Node& node, const std::filesystem::path& path) {
  const YAML::Node base = node.IsMap() ? node["base"] : YAML::Node(YAML::NodeType::Undefined);
  if (!base.IsDefined()) return {};
  if (!base.IsScalar() || base.Scalar().empty())
    fail("{}{}: `base` must be the name of a file", path.string(), position(base));
  const auto from = path.parent_path() / base.Scalar();
  node.remove("base");
  return from;
}

SettingsReader::SettingsReader(YAML::Node node, std::string where) : node_(std::move(node)), where_(std::move(where)) {
  if (!node_.IsMap() && !node_.IsNull()) fail("{}{}: expected `name: value` lines", where_, position(node_));
}

void SettingsReader::finish() const {
  if (!node_.IsMap()) return;
  for (const auto& entry : node_) {
    const auto key = entry.first.Scalar();
    if (std::ranges::find(known_, key) == known_.end())
      fail("{}{}: unknown key `{}`; did you mean `{}`?", where_, position(entry.first), key, nearest_name(key, known_));
  }
}

void SettingsReader::bad_value(const char* name, const YAML::Node& child) const {
  const std::string text = child.IsScalar() ? child.Scalar() : "this structure";
  fail("{}{}: `{}` cannot be `{}`", where_, position(child), name, text);
}

}  // namespace calm
