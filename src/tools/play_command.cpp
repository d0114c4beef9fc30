#include <fmt/format.h>
#include <spawn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "base/error.h"
#include "play/server.h"
#include "tools/commands.h"

extern char** environ;

namespace calm {

namespace {

namespace fs = std::filesystem;

struct PlayOptions {
  std::string policy, character, clip, sim = "simd", host = "127.0.0.1";
  std::string web = CALM_SOURCE_DIR "/web/dist";
  int port = 8080;
  double seconds = 0.0;
  uint64_t seed = 1;
  bool headless = false, auto_reset = false;
};

// The MJCF that the policy names: beside the policy, in the repository, or from here.
fs::path find_character(const Policy& policy, const PlayOptions& options) {
  if (!options.character.empty()) return options.character;
  const fs::path named = policy.character_mjcf;
  const fs::path policy_path = options.policy;
  const fs::path folder = fs::is_directory(policy_path) ? policy_path : policy_path.parent_path();
  for (const fs::path& candidate : {folder / named, fs::path(CALM_SOURCE_DIR) / named, named})
    if (fs::is_regular_file(candidate)) return candidate;
  fail("{}: its character `{}` lies neither beside it nor in {}; give its MJCF with --character", options.policy,
       policy.character_mjcf, CALM_SOURCE_DIR);
}

void open_browser(const std::string& url) {
  if (!std::getenv("DISPLAY") && !std::getenv("WAYLAND_DISPLAY")) return;
  char program[] = "xdg-open";
  std::string address = url;
  char* arguments[] = {program, address.data(), nullptr};
  pid_t pid = 0;
  posix_spawnp(&pid, program, nullptr, nullptr, arguments, environ);  // the address is printed anyway
}

void play(const PlayOptions& options) {
  const Policy policy = load_policy(options.policy);
  const Character character = load_character(find_character(policy, options));
  check_policy_fits(policy, character, options.policy);

  SessionSettings settings;
  settings.backend = options.sim;
  settings.physics = physics_of_policy(policy);
  settings.seed = options.seed;
  settings.auto_reset = options.auto_reset;
  ThreadPool pool(1);
  Session session(character, policy, settings, pool);
  if (!options.clip.empty()) session.select_clip(options.clip);

  Server server(session, {.host = options.host,
                          .port = options.port,
                          .web = options.web,
                          .seconds = options.seconds,
                          .handle_signals = true});
  fmt::print("serving {}\n", server.url());
  std::fflush(stdout);
  if (!options.headless) open_browser(server.url());
  server.run();

  const SessionStatistics& s = session.statistics();
  fmt::print("{} steps, {:.1f} s simulated, {} falls, mean speed {:.2f} m/s\n", s.ticks, session.time(), s.falls,
             session.mean_speed());
}

}  // namespace

void add_play_command(CLI::App& app) {
  auto* command = app.add_subcommand("play", "simulate a trained policy in real time and serve the page that shows it");
  auto options = std::make_shared<PlayOptions>();
  command->add_option("policy", options->policy, "policy file (.safetensors), or the folder that holds it")->required();
  command->add_option("--character", options->character, "MJCF file, instead of the one that the policy names");
  command->add_option("--clip", options->clip, "clip to begin with; default: the policy's first");
  command->add_option("--port", options->port, "port of the page; 0 takes any free one")->capture_default_str();
  command->add_option("--host", options->host, "address to serve on; 0.0.0.0 lets other machines in")
      ->capture_default_str();
  command->add_option("--web", options->web, "folder of the built page")->capture_default_str();
  command->add_option("--seconds", options->seconds, "end after this time, s; 0 runs until Ctrl-C")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  command->add_option("--sim", options->sim, "physics backend")->capture_default_str();
  command->add_option("--seed", options->seed, "of the pushes")->capture_default_str();
  command->add_flag("--auto-reset", options->auto_reset, "stand the character up when it stays down");
  command->add_flag("--headless", options->headless, "do not open a browser");
  command->callback([options] { play(*options); });
}

}  // namespace calm
