#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/settings.h"
#include "learn/evaluate.h"
#include "learn/low_level_settings.h"
#include "tools/commands.h"
#include "tools/policy_files.h"

namespace calm {

namespace {

struct EvalOptions {
  std::string policy, motions, character, backend = "mujoco";
  EvalSettings eval;
  int threads = 0;
  bool json = false;
};

void evaluate(const EvalOptions& options) {
  const PolicyFiles files = open_policy(options.policy, options.character);
  const MotionLibrary library(files.character,
                              load_motions(files.character, find_policy_motions(files, options.motions)));
  LowLevelSettings settings;
  read_settings(settings, YAML::Load(files.policy.settings), files.path.string());
  ThreadPool pool(options.threads);
  const Evaluation e =
      evaluate_low_level(files.policy, files.character, library, settings.physics, options.backend, options.eval, pool);
  if (options.json) {
    nlohmann::ordered_json out = {{"stays_up", e.stays_up},
                                  {"recognised", e.recognised},
                                  {"chance", e.chance},
                                  {"episodes", e.episodes},
                                  {"clips", nlohmann::json::array()}};
    for (const auto& c : e.clips)
      out["clips"].push_back({{"name", c.name},
                              {"own_distance", c.own_distance},
                              {"other_distance", c.other_distance},
                              {"recognised", c.recognised},
                              {"recognised_share", c.recognised_share},
                              {"stays_up", c.stays_up},
                              {"taken_for", c.taken_for}});
    fmt::print("{}\n", out.dump(2));
    return;
  }
  fmt::print("{:28} {:>9} {:>13} {:>14} {:>11}  {}\n", "clip", "stays up", "own distance", "nearest other",
             "recognised", "taken for");
  for (const auto& c : e.clips)
    fmt::print("{:28} {:>8.0f}% {:>13.2f} {:>14.2f} {:>10.0f}%  {}\n", c.name, 100 * c.stays_up, c.own_distance,
               c.other_distance, 100 * c.recognised_share, c.taken_for);
  fmt::print("\nstays up for {:.0f} s: {:.1f} % of {} episodes from clips\nrecognised: {:.1f} % (chance {:.1f} %)\n",
             options.eval.seconds, 100 * e.stays_up, e.episodes, 100 * e.recognised, 100 * e.chance);
}

}  // namespace

void add_eval_command(CLI::App& app) {
  auto* eval_app = app.add_subcommand("eval", "measure a trained controller");
  eval_app->require_subcommand(1);
  auto* low = eval_app->add_subcommand("low-level", "stays up? does what its clips show? (see learn/evaluate.h)");
  const auto options = std::make_shared<EvalOptions>();
  low->add_option("policy", options->policy, "run folder, policy folder or policy.safetensors")->required();
  low->add_option("--motions", options->motions, "the clips; motions.calmlib beside the policy by default");
  low->add_option("--character", options->character, "MJCF file; the policy's by default");
  low->add_option("--sim", options->backend, "simulation backend")->capture_default_str();
  low->add_option("--episodes", options->eval.episodes_per_clip, "episodes a clip")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  low->add_option("--seconds", options->eval.seconds, "length of an episode")
      ->check(CLI::Range(3.0, 600.0))
      ->capture_default_str();
  low->add_option("--seed", options->eval.seed, "random seed")->capture_default_str();
  low->add_option("--threads", options->threads, "threads (0: all cores)");
  low->add_flag("--json", options->json, "print JSON");
  low->callback([options] { evaluate(*options); });
}

}  // namespace calm
