// `calm character`: what is in a character file, as a table and as a picture.
#include <fmt/ranges.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "character/state.h"
#include "draw/draw.h"
#include "tools/commands.h"

namespace calm {

namespace {

constexpr float kDegrees = 180.0f / kPi;

const char* kind_name(const Joint& joint) { return joint.kind == JointKind::kBall ? "ball" : "hinge"; }

// Height of the highest shape point in the default pose, m.
float standing_height(const Character& c) {
  const CharacterState state = default_state(c);
  float top = 0.0f;
  for (const Shape& s : c.shapes) {
    const Quat rot = state.view().rot(s.body) * s.rot;
    const float center = (state.view().pos(s.body) + state.view().rot(s.body) * s.pos).z();
    const Vec3 up = rot.toRotationMatrix().row(2).transpose();
    float reach = s.size.x();
    if (s.kind == ShapeKind::kCapsule) reach += s.size.y() * std::abs(up.z());
    if (s.kind == ShapeKind::kBox) reach = up.cwiseAbs().dot(s.size);
    if (s.kind == ShapeKind::kCylinder)
      reach = s.size.y() * std::abs(up.z()) + s.size.x() * std::sqrt(std::max(0.0f, 1.0f - up.z() * up.z()));
    top = std::max(top, center + reach);
  }
  return top;
}

std::vector<std::string> names(const Character& c, const std::vector<int>& bodies) {
  std::vector<std::string> result;
  for (const int b : bodies) result.push_back(c.bodies[b].name);
  return result;
}

nlohmann::json to_json(const Character& c) {
  nlohmann::json j = {{"name", c.name},
                      {"hash", fmt::format("{:016x}", c.hash)},
                      {"num_bodies", c.num_bodies()},
                      {"num_joints", c.num_joints()},
                      {"num_dofs", c.num_dofs},
                      {"observation_size", c.observation_size()},
                      {"motion_feature_size", c.motion_feature_size()},
                      {"mass", c.total_mass()},
                      {"height", standing_height(c)},
                      {"stand_height", c.stand_height},
                      {"key_bodies", names(c, c.key_bodies)},
                      {"feet", names(c, c.feet)}};
  for (int b = 0; b < c.num_bodies(); ++b) {
    const Body& body = c.bodies[b];
    j["bodies"].push_back({{"name", body.name},
                           {"parent", body.parent < 0 ? nlohmann::json() : nlohmann::json(c.bodies[body.parent].name)},
                           {"mass", body.mass},
                           {"fall_height", c.fall_height[b]}});
  }
  j["joints"] = nlohmann::json::array();
  for (const Joint& joint : c.joints) {
    nlohmann::json dofs = nlohmann::json::array();
    for (int d = joint.dof; d < joint.dof + joint.num_dofs; ++d)
      dofs.push_back({{"lower", c.limit_lower[d]},
                      {"upper", c.limit_upper[d]},
                      {"kp", c.kp[d]},
                      {"kd", c.kd[d]},
                      {"armature", c.armature[d]},
                      {"action_offset", c.action_offset[d]},
                      {"action_scale", c.action_scale[d]}});
    j["joints"].push_back(
        {{"name", joint.name}, {"kind", kind_name(joint)}, {"body", c.bodies[joint.body].name}, {"dofs", dofs}});
  }
  j["excluded_pairs"] = nlohmann::json::array();
  for (const auto& [a, b] : c.excluded_pairs) j["excluded_pairs"].push_back({c.bodies[a].name, c.bodies[b].name});
  return j;
}

void print_table(const Character& c) {
  fmt::print("{}: {} bodies, {} joints, {} degrees of freedom, {:.1f} kg, {:.2f} m tall, root at {:.3f} m\n", c.name,
             c.num_bodies(), c.num_joints(), c.num_dofs, c.total_mass(), standing_height(c), c.stand_height);
  fmt::print("observation {} numbers, motion features {} a frame, hash {:016x}\n\n", c.observation_size(),
             c.motion_feature_size(), c.hash);

  size_t width = 8;
  for (const Body& b : c.bodies) width = std::max(width, b.name.size() + 1);
  for (const Joint& j : c.joints) width = std::max(width, j.name.size() + 1);

  fmt::print("{:<{}}{:<{}}{:>8}{:>8}\n", "body", width, "parent", width, "kg", "fall m");
  for (int b = 0; b < c.num_bodies(); ++b) {
    const Body& body = c.bodies[b];
    fmt::print("{:<{}}{:<{}}{:>8.2f}{:>8.2f}\n", body.name, width, body.parent < 0 ? "-" : c.bodies[body.parent].name,
               width, body.mass, c.fall_height[b]);
  }

  fmt::print("\n{:<{}}{:<7}{:>4}{:>16}{:>7}{:>7}{:>10}{:>9}{:>8}\n", "joint", width, "kind", "dof", "limits deg", "kp",
             "kd", "armature", "offset", "scale");
  for (const Joint& joint : c.joints)
    for (int d = joint.dof; d < joint.dof + joint.num_dofs; ++d)
      fmt::print("{:<{}}{:<7}{:>4}{:>16}{:>7.5g}{:>7.4g}{:>10.4g}{:>9.3f}{:>8.3f}\n", d == joint.dof ? joint.name : "",
                 width, d == joint.dof ? kind_name(joint) : "", d,
                 fmt::format("{:.4g} to {:.4g}", kDegrees * c.limit_lower[d], kDegrees * c.limit_upper[d]), c.kp[d],
                 c.kd[d], c.armature[d], c.action_offset[d], c.action_scale[d]);

  fmt::print("\nkey bodies: {}\nfeet: {}\n", fmt::join(names(c, c.key_bodies), ", "),
             fmt::join(names(c, c.feet), ", "));
  for (const auto& [a, b] : c.excluded_pairs)
    fmt::print("do not collide: {}, {}\n", c.bodies[a].name, c.bodies[b].name);
}

}  // namespace

void add_character_command(CLI::App& app) {
  auto* command = app.add_subcommand("character", "Tells what is in a character file (MJCF)");
  command->require_subcommand(1);

  struct Options {
    std::string file, out;
    bool json = false;
  };
  const auto options = std::make_shared<Options>();
  auto* info = command->add_subcommand("info", "Bodies, joints, limits, gains and derived sizes");
  info->add_option("file", options->file, "MJCF file; its settings block lies beside it as .yaml")->required();
  info->add_flag("--json", options->json, "Print as JSON");
  info->callback([options] {
    const Character character = load_character(options->file);
    if (options->json)
      fmt::print("{}\n", to_json(character).dump(2));
    else
      print_table(character);
  });

  auto* draw = command->add_subcommand("draw", "The default pose from the front, the side and behind, as PNG");
  draw->add_option("file", options->file, "MJCF file; its settings block lies beside it as .yaml")->required();
  draw->add_option("--out", options->out, "PNG file to write")->required();
  draw->callback([options] {
    draw_character(load_character(options->file), options->out);
    fmt::print("{}\n", options->out);
  });
}

}  // namespace calm
