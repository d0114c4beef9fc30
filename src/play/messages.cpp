#include "play/messages.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "env/task_table.h"

namespace calm {

namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "frames are written as the machine holds them");

// names come from files: what is not UTF-8 in them must not stop the show
std::string dump(const json& message) { return message.dump(-1, ' ', false, json::error_handler_t::replace); }

json numbers(const Vec3& v) { return {v.x(), v.y(), v.z()}; }
json numbers(const Quat& q) { return {q.x(), q.y(), q.z(), q.w()}; }

const char* kind_name(ShapeKind kind) {
  switch (kind) {
    case ShapeKind::kSphere:
      return "sphere";
    case ShapeKind::kCapsule:
      return "capsule";
    case ShapeKind::kBox:
      return "box";
    case ShapeKind::kCylinder:
      return "cylinder";
  }
  return "sphere";
}

template <class T>
void append(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <class T>
T field(const json& message, const char* name, const char* kind, bool (json::*is_kind)() const noexcept) {
  const auto it = message.find(name);
  if (it == message.end() || !((*it).*is_kind)()) fail("`{}` must be a {}", name, kind);
  return it->get<T>();
}

}  // namespace

std::string scene_message(const Session& session) {
  const Character& character = session.character();
  json bodies = json::array(), clips = json::array(), machines = json::array();
  for (const Machine& machine : session.machines()) machines.push_back(machine.name);
  const Prop pillar = strike_pillar();
  for (const Body& body : character.bodies)
    bodies.push_back({{"name", body.name}, {"parent", body.parent}, {"shapes", json::array()}});
  for (const Shape& shape : character.shapes)
    bodies[shape.body]["shapes"].push_back({{"kind", kind_name(shape.kind)},
                                            {"pos", numbers(shape.pos)},
                                            {"rot", numbers(shape.rot)},
                                            {"size", numbers(shape.size)},
                                            {"rgba", {shape.rgba[0], shape.rgba[1], shape.rgba[2], shape.rgba[3]}}});
  for (const NamedLatent& latent : session.policy().latents)
    clips.push_back({{"name", latent.name}, {"tags", latent.tags}, {"duration", latent.duration}});
  return dump({{"type", "scene"},
               {"version", kProtocolVersion},
               {"character", character.name},
               {"stand_height", character.stand_height},
               {"control_rate", session.settings().physics.control_rate},
               {"bodies", std::move(bodies)},
               {"clips", std::move(clips)},
               {"machines", std::move(machines)},
               {"target", {{"kind", kind_name(pillar.kind)}, {"size", numbers(pillar.size)}}}});
}

std::string status_message(const Session& session) {
  const SessionStatistics& s = session.statistics();
  const int clip = session.clip();
  return dump({{"type", "status"},
               {"clip", clip < 0 ? json() : json(session.policy().latents[clip].name)},
               {"machine", session.machine() < 0 ? json() : json(session.machines()[session.machine()].name)},
               {"state", session.machine_state()},
               {"paused", session.paused()},
               {"auto_reset", session.auto_reset()},
               {"fallen", s.fallen},
               {"falls", s.falls},
               {"resets", s.resets},
               {"diverged", s.diverged}});
}

std::string error_message(const std::string& text) { return dump({{"type", "error"}, {"message", text}}); }

std::string pong_message(double t) { return dump({{"type", "pong"}, {"t", t}}); }

std::string encode_frame(const Session& session) {
  const BatchState& state = session.state();
  const SessionStatistics& statistics = session.statistics();
  const size_t bodies = static_cast<size_t>(state.num_bodies);
  std::string out;
  out.reserve(kFrameHeaderSize + bodies * 8 * sizeof(float));

  // header
  out.append("CALM");
  append(out, static_cast<uint16_t>(kProtocolVersion));
  append(out, static_cast<uint16_t>(bodies));
  append(out, static_cast<uint32_t>(statistics.ticks));
  append(out, session.epoch());
  append(out, static_cast<uint32_t>((session.paused() ? 1 : 0) | (statistics.fallen ? 2 : 0) |
                                    (session.target_kind() == TargetKind::kPillar  ? 4
                                     : session.target_kind() == TargetKind::kPlace ? 8
                                                                                   : 0)));
  append(out, statistics.root_speed);
  append(out, session.time());
  append(out, statistics.root_height);
  append(out, static_cast<int32_t>(session.clip()));

  // poses, contact forces
  for (size_t b = 0; b < bodies; ++b) {
    out.append(reinterpret_cast<const char*>(&state.body_pos[3 * b]), 3 * sizeof(float));
    out.append(reinterpret_cast<const char*>(&state.body_rot[4 * b]), 4 * sizeof(float));
  }
  for (size_t b = 0; b < bodies; ++b) append(out, ConstVec3Map(&state.contact_force[3 * b]).norm());
  if (session.target_kind() != TargetKind::kNone) {
    const RootState target = session.target();
    for (const float x : {target.pos.x(), target.pos.y(), target.pos.z(), target.rot.x(), target.rot.y(),
                          target.rot.z(), target.rot.w()})
      append(out, x);
  }
  return out;
}

ClientMessage parse_client_message(const std::string& text) {
  const json message = json::parse(text, nullptr, false);
  if (message.is_discarded()) fail("the message is not JSON");
  if (!message.is_object()) fail("the message must be an object");
  const auto type = field<std::string>(message, "type", "string", &json::is_string);
  if (type == "command") return CommandClip{field<std::string>(message, "clip", "string", &json::is_string)};
  if (type == "machine") return CommandMachine{field<std::string>(message, "machine", "string", &json::is_string)};
  if (type == "pause") {
    if (!message.contains("paused")) return CommandTogglePause{};
    return CommandPause{field<bool>(message, "paused", "boolean", &json::is_boolean)};
  }
  if (type == "step") return CommandStep{};
  if (type == "reset") return CommandReset{};
  if (type == "push") return CommandPush{};
  if (type == "auto_reset") return CommandAutoReset{field<bool>(message, "on", "boolean", &json::is_boolean)};
  if (type == "ping") return Ping{field<double>(message, "t", "number", &json::is_number)};
  fail("`{}`: there is no such type of message", type);
}

void apply_message(const ClientMessage& message, Session& session) {
  struct Apply {
    Session& session;
    void operator()(const CommandClip& c) const { session.select_clip(c.clip); }
    void operator()(const CommandMachine& c) const { session.select_machine(c.machine); }
    void operator()(const CommandPause& c) const { session.set_paused(c.paused); }
    void operator()(const CommandTogglePause&) const { session.set_paused(!session.paused()); }
    void operator()(const CommandStep&) const { session.step_once(); }
    void operator()(const CommandReset&) const { session.reset(); }
    void operator()(const CommandPush&) const { session.push(); }
    void operator()(const CommandAutoReset& c) const { session.set_auto_reset(c.on); }
    void operator()(const Ping&) const {}
  };
  std::visit(Apply{session}, message);
}

}  // namespace calm
