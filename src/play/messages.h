// What goes over the wire between the play server and its page: JSON text both ways, binary frames to the page.
// docs/formats.md describes them; the page's side is web/src/protocol.ts.
#pragma once

#include <string>
#include <variant>

#include "play/session.h"

namespace calm {

inline constexpr int kProtocolVersion = 2;

// Sent once to each new client: what to draw and what can be commanded.
std::string scene_message(const Session& session);

// Sent when it changes: clip, machine and its state, paused, fallen, counts.
std::string status_message(const Session& session);
std::string error_message(const std::string& text);
std::string pong_message(double t);

// One pose, little-endian: magic "CALM", u16 version, u16 bodies, u32 tick, u32 epoch, u32 flags (1 paused, 2 fallen, 4
// pillar, 8 place), f32 root speed m/s, f64 time s, f32 root height m, i32 clip, then bodies x 7 f32 (position,
// rotation x y z w), then bodies f32 (contact force N), then, if flag 4 or 8 is set, 7 f32 of the target.
inline constexpr size_t kFrameHeaderSize = 40;
std::string encode_frame(const Session& session);

// What a client asks for.
struct CommandClip {
  std::string clip;
};
struct CommandMachine {
  std::string machine;
};
struct CommandPause {
  bool paused;
};
struct CommandTogglePause {};
struct CommandStep {};
struct CommandReset {};
struct CommandPush {};
struct CommandAutoReset {
  bool on;
};
struct Ping {
  double t;  // the client's clock, sent back as it came
};
using ClientMessage = std::variant<CommandClip, CommandMachine, CommandPause, CommandTogglePause, CommandStep,
                                   CommandReset, CommandPush, CommandAutoReset, Ping>;

// Throws Error: what is wrong with the message. `text` is not trusted.
ClientMessage parse_client_message(const std::string& text);

// Does what a message asks for. Throws Error on an unknown clip or machine.
void apply_message(const ClientMessage& message, Session& session);

}  // namespace calm
