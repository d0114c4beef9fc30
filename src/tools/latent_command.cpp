// `calm latent`: neighbours, ways and a map on the sphere of latents.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/settings.h"
#include "draw/draw.h"
#include "learn/latent_map.h"
#include "learn/low_level_settings.h"
#include "tools/commands.h"
#include "tools/policy_files.h"

namespace calm {

namespace {

using Json = nlohmann::ordered_json;

struct LatentOptions {
  std::string policy, from, to, motions, png, csv;
  int top = 5, steps = 11;
  bool json = false;
};

int clip_of(const Policy& policy, const std::string& name) {
  const int clip = policy.latent_index(name);
  if (clip >= 0) return clip;
  std::vector<std::string> names;
  for (const auto& latent : policy.latents) names.push_back(latent.name);
  fail("`{}`: the policy knows no clip of that name; it knows {}", name, fmt::join(names, ", "));
}

float degrees(float cosine) { return 180.0f / kPi * std::acos(std::clamp(cosine, -1.0f, 1.0f)); }

// A place on the sphere, and the clip whose latent it is; -1 on the way from one to another.
struct Place {
  Eigen::VectorXf z;
  int clip = -1;
};

// CLIP, or A:B:T for the point at T of the way from A to B.
Place place_of(const Policy& policy, const std::string& text) {
  const size_t second = text.rfind(':'), first = second == 0 ? std::string::npos : text.rfind(':', second - 1);
  if (second == std::string::npos || first == std::string::npos || policy.latent_index(text) >= 0) {
    const int clip = clip_of(policy, text);
    return {policy.latents[clip].z, clip};
  }
  const int from = clip_of(policy, text.substr(0, first)),
            to = clip_of(policy, text.substr(first + 1, second - first - 1));
  float t = 0.0f;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data() + second + 1, end, t);
  if (error != std::errc() || rest != end || !(t >= 0.0f && t <= 1.0f))
    fail("`{}`: after the second colon stands how far on the way from one clip to the other, from 0 to 1", text);
  return {great_arc(policy.latents[from].z, policy.latents[to].z, t), -1};
}

void print_near(const LatentOptions& options) {
  const Policy policy = load_policy(options.policy);
  const Place place = place_of(policy, options.from);
  auto near = nearest_latents(policy, place.z, options.top + 1);
  std::erase_if(near, [&](const LatentNeighbour& n) { return n.clip == place.clip; });
  near.resize(std::min(near.size(), static_cast<size_t>(options.top)));
  Json out = Json::array();
  for (const auto& n : near) {
    const std::string& name = policy.latents[n.clip].name;
    if (options.json)
      out.push_back({{"name", name}, {"cosine", n.cosine}, {"degrees", degrees(n.cosine)}});
    else
      fmt::print("{:28} {:6.3f}  {:5.1f} degrees\n", name, n.cosine, degrees(n.cosine));
  }
  if (options.json) fmt::print("{}\n", out.dump(2));
}

void print_path(const LatentOptions& options) {
  const Policy policy = load_policy(options.policy);
  const Eigen::VectorXf &a = policy.latents[clip_of(policy, options.from)].z,
                        &b = policy.latents[clip_of(policy, options.to)].z;
  Json out = Json::array();
  for (int i = 0; i < options.steps; ++i) {
    const float t = static_cast<float>(i) / static_cast<float>(options.steps - 1);
    const Eigen::VectorXf z = great_arc(a, b, t);
    const auto near = nearest_latents(policy, z, options.top);
    if (options.json) {
      Json names = Json::array();
      for (const auto& n : near) names.push_back({{"name", policy.latents[n.clip].name}, {"cosine", n.cosine}});
      out.push_back({{"t", t}, {"latent", std::vector<float>(z.begin(), z.end())}, {"near", names}});
      continue;
    }
    fmt::print("{:4.2f} ", t);
    for (const auto& n : near) fmt::print("  {} {:.2f}", policy.latents[n.clip].name, n.cosine);
    fmt::print("\n");
  }
  if (options.json) fmt::print("{}\n", out.dump(2));
}

// A name may hold what separates cells (RFC 4180).
std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + '"';
}

// What a map shows: points on the sphere, each of a clip.
struct MapPoints {
  const char* what = "";
  std::vector<std::string> clips;
  std::vector<Eigen::RowVectorXf> rows;
  std::vector<int> clip_of_row;
};

// Windows of each clip, evenly over it and as many of each.
MapPoints points_of_windows(const PolicyFiles& files, const std::string& motions) {
  constexpr int kMost = 700;  // points: more make no clearer map
  LowLevelSettings settings;
  read_settings(settings, YAML::Load(files.policy.settings), files.path.string());
  const MotionEncoder encoder = load_encoder(files.path, files.policy);
  const MotionLibrary library(files.character, load_motions(files.character, find_policy_motions(files, motions)));
  MapPoints points;
  points.what = "windows";
  const int each = std::max(2, kMost / library.num_clips());
  for (int c = 0; c < library.num_clips(); ++c) {
    points.clips.push_back(library.clip(c).name);
    const Eigen::MatrixXf windows = encode_windows(encoder, library, c, 1.0f / settings.physics.control_rate);
    const auto count = std::min<Eigen::Index>(windows.rows(), each);
    for (Eigen::Index i = 0; i < count; ++i)
      points.rows.emplace_back(windows.row(i * windows.rows() / count)), points.clip_of_row.push_back(c);
  }
  return points;
}

MapPoints points_of_latents(const Policy& policy) {
  MapPoints points;
  points.what = "latents";
  for (const NamedLatent& latent : policy.latents) {
    points.clip_of_row.push_back(static_cast<int>(points.clips.size()));
    points.clips.push_back(latent.name);
    points.rows.emplace_back(latent.z.transpose());
  }
  return points;
}

void draw_map(const LatentOptions& options) {
  const PolicyFiles files = open_policy(options.policy, "");
  MapPoints shown;
  try {
    shown = points_of_windows(files, options.motions);
  } catch (const Error& error) {
    if (!options.motions.empty()) throw;  // whoever names the clips wants to see them
    fmt::print(stderr, "calm: the map shows the clips' latents only, no windows: {}\n", error.what());
    shown = points_of_latents(files.policy);
  }
  const size_t count = shown.rows.size(), clips = shown.clips.size();
  Eigen::MatrixXf points(count, files.policy.latent_size);
  for (size_t i = 0; i < count; ++i) points.row(static_cast<Eigen::Index>(i)) = shown.rows[i];
  const PlaneMap map = map_to_plane(points);

  ScatterChart chart{fmt::format("{} {} of {} clips (stress {:.2f})", count, shown.what, clips, map.stress),
                     std::vector<ScatterGroup>(clips)};
  std::string csv = "clip,x,y\n";
  for (size_t i = 0; i < count; ++i) {
    const auto row = map.points.row(static_cast<Eigen::Index>(i));
    ScatterGroup& group = chart.groups[shown.clip_of_row[i]];
    group.name = shown.clips[shown.clip_of_row[i]];
    group.x.push_back(row.x()), group.y.push_back(row.y());
    csv += fmt::format("{},{:.6g},{:.6g}\n", csv_cell(group.name), row.x(), row.y());
  }
  if (!options.png.empty()) save_charts(std::vector<AnyChart>{chart}, 1, options.png, 1400, 1100);
  if (!options.csv.empty()) write_file_atomic(options.csv, csv);
  fmt::print("{} {} of {} clips; stress {:.3f}: distances on the map are that share off the angles on the sphere\n",
             count, shown.what, clips, map.stress);
  if (clips < 3) return;
  // a plane has no room for many directions that are all far from each other, whatever they are
  Rng rng(1, 0);
  Eigen::MatrixXf random(clips, files.policy.latent_size);
  for (float& x : random.reshaped()) x = rng.normal();
  for (Eigen::Index r = 0; r < random.rows(); ++r) random.row(r).normalize();
  fmt::print(
      "as many clips in random directions would have about {:.2f}; near to that, or above, the map says little about "
      "which clips are neighbours (calm latent near does)\n",
      map_to_plane(random).stress);
}

}  // namespace

void add_latent_command(CLI::App& app) {
  auto* latent = app.add_subcommand("latent", "the sphere of latents: neighbours, the way from clip to clip, a map");
  latent->require_subcommand(1);
  const auto options = std::make_shared<LatentOptions>();
  const auto add = [&](const char* name, const char* what) {
    auto* command = latent->add_subcommand(name, what);
    command->add_option("policy", options->policy, "run folder, policy folder or policy.safetensors")->required();
    return command;
  };
  const auto add_listing = [&](CLI::App* command) {
    command->add_option("--top", options->top, "clips to name")->check(CLI::Range(1, 1000))->capture_default_str();
    command->add_flag("--json", options->json, "print JSON");
  };
  auto* near = add("near", "clips whose latents are nearest to a clip's");
  near->add_option("clip", options->from,
                   "a clip of the policy, or A:B:T: at T in [0, 1] of the way from clip A to clip B")
      ->required();
  add_listing(near);
  near->callback([options] { print_near(*options); });

  auto* path = add("path", "points on the shortest way from one clip's latent to another's, and the clips near them");
  path->add_option("from", options->from, "a clip of the policy")->required();
  path->add_option("to", options->to, "another")->required();
  path->add_option("--steps", options->steps, "points")->check(CLI::Range(2, 10000))->capture_default_str();
  add_listing(path);
  path->callback([options] { print_path(*options); });

  auto* map = add("map", "a map of the sphere: windows of all clips in the plane, by the angles between them");
  map->add_option("--png", options->png, "picture to write");
  map->add_option("--csv", options->csv, "table of points to write");
  map->add_option("--motions", options->motions,
                  "the clips; those beside the policy by default. Without clips or encoder: latents only");
  map->callback([options] { draw_map(*options); });
}

}  // namespace calm
