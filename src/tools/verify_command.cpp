#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "sim/verify.h"
#include "tools/commands.h"
#include "tools/paths.h"

namespace calm {

namespace {

struct VerifyOptions {
  std::string character, backend = "simd";
  uint64_t seed = 1;
  int threads = 0;
  bool json = false;
};

void verify_sim(const VerifyOptions& options) {
  const Character character = load_character(own_or_given(options.character));
  ThreadPool pool(options.threads);
  const std::vector<Check> checks = verify_simulator(character, options.backend, options.seed, pool);
  const Check* failed = nullptr;
  int failures = 0;
  for (const Check& check : checks) {
    failures += !check.ok;
    if (!check.ok && failed == nullptr) failed = &check;
  }

  if (options.json) {
    nlohmann::ordered_json out = {{"ok", failures == 0},
                                  {"backend", options.backend},
                                  {"character", options.character},
                                  {"checks", nlohmann::json::array()}};
    for (const Check& c : checks)
      out["checks"].push_back(nlohmann::ordered_json{
          {"name", c.name}, {"error", c.error}, {"tolerance", c.tolerance}, {"ok", c.ok}, {"note", c.note}});
    fmt::print("{}\n", out.dump(2));
  } else {
    fmt::print("{:28} {:>10} {:>10}  {:6}  {}\n", "check", "error", "tolerance", "", "what");
    for (const Check& c : checks)
      fmt::print("{:28} {:>10.2e} {:>10.0e}  {:6}  {}\n", c.name, c.error, c.tolerance, c.ok ? "ok" : "FAILED", c.note);
  }
  if (failed == nullptr) return;
  fmt::print(stderr, "calm: {} of {} checks of \"{}\" failed: {} is off by {:.2e}, allowed is {:.0e}{}\n", failures,
             checks.size(), options.backend, failed->name, failed->error, failed->tolerance,
             failures > 1 ? "; the others are marked in the list" : "");
  throw CLI::RuntimeError(1);
}

}  // namespace

void add_verify_command(CLI::App& app) {
  auto* verify = app.add_subcommand("verify", "hold what the program computes against what it should be");
  verify->require_subcommand(1);
  auto* sim = verify->add_subcommand(
      "sim", "a simulation backend against MuJoCo and laws of mechanics, on a character (see sim/verify.h)");
  const auto options = std::make_shared<VerifyOptions>();
  sim->add_option("--character", options->character, "MJCF file")->required();
  sim->add_option("--backend", options->backend, "simulation backend")->capture_default_str();
  sim->add_option("--seed", options->seed, "of the random states")->capture_default_str();
  sim->add_option("--threads", options->threads, "threads (0: all cores)")->check(CLI::Range(0, 1024));
  sim->add_flag("--json", options->json, "print JSON");
  sim->callback([options] { verify_sim(*options); });
}

}  // namespace calm
