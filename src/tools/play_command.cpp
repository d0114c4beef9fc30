#include <fmt/format.h>
#include <spawn.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "base/error.h"
#include "direct/machine_file.h"
#include "play/server.h"
#include "tools/commands.h"
#include "tools/paths.h"
#include "tools/policy_files.h"

extern char** environ;

namespace calm {

namespace {

namespace fs = std::filesystem;

struct PlayOptions {
  std::string policy, character, clip, high, machine, machines = "configs/state_machines", sim = "simd",
                                                      host = "127.0.0.1";
  std::string web = CALM_SOURCE_DIR "/web/dist";
  int port = 8080;
  double seconds = 0.0;
  uint64_t seed = 1;
  bool headless = false, auto_reset = false;
};

// Those of a folder that fit the policy and hold no mistake; the others are for other policies.
std::vector<Machine> find_machines(const fs::path& folder, const Policy& policy) {
  if (!fs::is_directory(folder)) fail("{}: is no folder of state machines; see --machines", folder.string());
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".yaml") files.push_back(entry.path());
  std::ranges::sort(files);
  std::vector<Machine> machines;
  for (const fs::path& file : files) try {
      machines.push_back(load_machine(file, policy));
    } catch (const Error& e) {
      spdlog::debug("{}", e.what());
    }
  return machines;
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
  const PolicyFiles files = open_policy(own_or_given(options.policy), options.character);
  const std::optional<HighLevelPolicy> high = open_high_level(files, options.high);
  std::vector<Machine> machines;
  if (high) machines = find_machines(own_or_given(options.machines), files.policy);

  SessionSettings settings;
  settings.backend = options.sim;
  settings.physics = physics_of_policy(files.policy);
  settings.seed = options.seed;
  settings.auto_reset = options.auto_reset;
  ThreadPool pool(1);
  Session session(files.character, files.policy, settings, pool, high ? &*high : nullptr, machines);
  if (!options.clip.empty()) session.select_clip(options.clip);
  if (!options.machine.empty()) session.select_machine(options.machine);

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
  command->add_option("--high", options->high,
                      "high-level policy, which state machines need; default: the one beside the policy");
  command->add_option("--machine", options->machine, "state machine to begin with, by its name");
  command->add_option("--machines", options->machines, "folder of state machines")->capture_default_str();
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
