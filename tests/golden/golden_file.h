// Golden numbers: files of recorded input and results that ours must equal.
//
// Where a file is looked for: the folder that env GOLDEN_DIR names, and no other if it is set; else ../shared/golden
// beside the repository; else tests/golden/data, which holds those of the files that may be copied. Every size comes
// from the file: tests go over whatever entries there are. A key that is missing, an array of another length and a
// number that is not finite, theirs or ours, are failures.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace calm {

using Json = nlohmann::json;

// What the issue asks for: within either of the two.
inline constexpr float kGoldenRelative = 1e-4f;
inline constexpr float kGoldenAbsolute = 1e-5f;

inline std::vector<std::filesystem::path> golden_folders() {
  if (const char* folder = std::getenv("GOLDEN_DIR"); folder && *folder) return {folder};
  const std::filesystem::path source = CALM_SOURCE_DIR;
  return {source / "../shared/golden", source / "tests/golden/data"};
}

// The path of the golden file `name` ("tasks.json"), or an empty one.
inline std::filesystem::path find_golden(const std::string& name) {
  for (const auto& folder : golden_folders())
    if (std::filesystem::exists(folder / name)) return (folder / name).lexically_normal();
  return {};
}

// Throws on bad syntax; JSON knows no NaN, so a file with one in it throws here.
inline Json load_golden(const std::filesystem::path& path) {
  try {
    return Json::parse(read_file(path));
  } catch (const Json::exception& error) {
    fail("{}: {}", path.string(), error.what());
  }
}

// The member `key`; throws with the key's name if there is none.
inline const Json& golden_at(const Json& object, const std::string& key) {
  if (!object.is_object() || !object.contains(key)) fail("golden file: no key '{}'", key);
  return object.at(key);
}

// A number or a flat array of numbers as floats.
inline std::vector<float> golden_floats(const Json& array) {
  std::vector<float> values;
  const auto append = [&values](const Json& number) {
    if (!number.is_number()) fail("golden file: '{}' is not a number", number.dump());
    values.push_back(number.get<float>());
  };
  if (array.is_array())
    for (const Json& number : array) append(number);
  else
    append(array);
  return values;
}

inline std::vector<float> golden_floats(const Json& object, const std::string& key) {
  return golden_floats(golden_at(object, key));
}

// As above, but the array must hold `size` numbers.
inline std::vector<float> golden_floats(const Json& object, const std::string& key, size_t size) {
  auto values = golden_floats(object, key);
  if (values.size() != size) fail("golden file: '{}' has {} numbers, not {}", key, values.size(), size);
  return values;
}

inline int golden_int(const Json& object, const std::string& key) {
  const Json& value = golden_at(object, key);
  if (!value.is_number_integer() || value.get<int64_t>() < 1 || value.get<int64_t>() > 100000)
    fail("golden file: '{}' is {}, not a whole number from 1 to 100000", key, value.dump());
  return value.get<int>();
}

inline float golden_float(const Json& object, const std::string& key) {
  const auto values = golden_floats(golden_at(object, key));
  if (values.size() != 1) fail("golden file: '{}' is not a single number", key);
  return values[0];
}

// Within `relative` of the golden number or within `absolute`; reports the first few and the count that are not.
inline void expect_golden(const std::string& name, std::span<const float> ours, const Json& golden,
                          float relative = kGoldenRelative, float absolute = kGoldenAbsolute) {
  SCOPED_TRACE(name);
  const auto expected = golden_floats(golden);
  ASSERT_FALSE(expected.empty()) << name << ": no numbers to compare with";
  ASSERT_EQ(ours.size(), expected.size()) << name;
  constexpr size_t kShown = 5;
  size_t wrong = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(static_cast<double>(ours[i]) - expected[i]);
    const double allowed = std::max<double>(absolute, static_cast<double>(relative) * std::abs(expected[i]));
    // so that NaN, which compares false with everything, is wrong
    if (difference <= allowed && std::isfinite(expected[i])) continue;
    if (++wrong <= kShown)
      ADD_FAILURE() << name << "[" << i << "]: ours " << ours[i] << ", golden " << expected[i] << ", difference "
                    << difference << " of " << allowed << " allowed";
  }
  EXPECT_EQ(wrong, 0u) << name << ": so many of " << expected.size() << " numbers differ";
}

// For a fixture's or a test's start: declares `const Json variable` with the file's content, or skips, naming where
// the file was looked for.
#define CALM_GOLDEN_OR_SKIP(variable, name)                                                                 \
  const std::filesystem::path variable##_path = ::calm::find_golden(name);                                  \
  if (variable##_path.empty()) {                                                                            \
    std::string looked;                                                                                     \
    for (const auto& folder : ::calm::golden_folders()) looked += " " + folder.lexically_normal().string(); \
    GTEST_SKIP() << (name) << " is in none of:" << looked;                                                  \
  }                                                                                                         \
  const ::calm::Json variable = ::calm::load_golden(variable##_path)

}  // namespace calm
