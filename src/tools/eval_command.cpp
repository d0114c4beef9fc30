#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/settings.h"
#include "draw/draw.h"
#include "learn/evaluate.h"
#include "learn/low_level_settings.h"
#include "tools/commands.h"
#include "tools/policy_files.h"

namespace calm {

namespace {

struct EvalOptions {
  std::string policy, motions, character, backend = "simd", png;
  EvalSettings eval = {.episodes_per_clip = 32};  // more than while training: shares to a percent or two
  int threads = 0;
  bool json = false;
};

// A state moved along the floor, so that moments stand side by side.
CharacterState placed(const Character& character, const CharacterStateView& view, float x) {
  CharacterState state(character);
  const Vec3 shift(x - view.pos(0).x(), -view.pos(0).y(), 0.0f);
  const size_t bodies = character.bodies.size();
  std::copy_n(view.body_pos, 3 * bodies, state.body_pos.begin());
  std::copy_n(view.body_rot, 4 * bodies, state.body_rot.begin());
  for (size_t b = 0; b < bodies; ++b) Vec3Map{&state.body_pos[3 * b]} += shift;
  return state;
}

// For each clip a picture: moments of the clip above, of the simulation from the clip's first state under its latent
// below. PNG files named after the clips.
void draw_strips(const PolicyFiles& files, const MotionLibrary& library, const PhysicsSettings& physics,
                 const std::string& backend, const std::filesystem::path& folder, ThreadPool& pool) {
  constexpr int kMoments = 10, kWidth = 1500, kHeight = 280;
  constexpr float kApart = 1.1f;  // m between moments
  const Character& character = files.character;
  const float dt = 1.0f / physics.control_rate;
  const auto simulator = make_simulator(backend, character, physics, 1, pool);
  EnvSettings env_settings;
  env_settings.reset_fallen = 0.0f;
  BatchEnv env(character, library, *simulator, pool, env_settings, physics, 1);
  env.hold_windows(true);
  for (int c = 0; c < library.num_clips(); ++c) {
    const Clip& clip = library.clip(c);
    const int latent = files.policy.latent_index(clip.name);
    if (latent < 0) continue;
    const int every = std::max(1, static_cast<int>(clip.length() / dt) / (kMoments - 1));
    std::vector<CharacterState> reference, simulated;
    CharacterState state(character);
    env.start_from_clip(0, c, 0.0f, {c, clip.length()});
    for (int step = 0; step <= every * (kMoments - 1); ++step) {
      if (step % every == 0) {
        const float x = kApart * static_cast<float>(step / every);
        library.state(c, static_cast<float>(step) * dt, state);
        reference.push_back(placed(character, state.view(), x));
        simulated.push_back(placed(character, simulator->state().view(0), x));
      }
      const Eigen::VectorXf action =
          files.policy.act(Eigen::Map<const Eigen::VectorXf>(env.observations().data(), character.observation_size()),
                           files.policy.latents[latent].z);
      env.step({action.data(), static_cast<size_t>(action.size())});
    }
    const std::vector<Image> rows = {draw_states(character, reference, kWidth, kHeight),
                                     draw_states(character, simulated, kWidth, kHeight)};
    const std::vector<std::string> captions = {"clip", "policy"};
    save_png(stack_images(rows, 1, captions), folder / (clip.name + ".png"));
    fmt::print(stderr, "drew {}\n", (folder / (clip.name + ".png")).string());
  }
}

void evaluate(const EvalOptions& options) {
  const PolicyFiles files = open_policy(options.policy, options.character);
  const MotionLibrary library(files.character,
                              load_motions(files.character, find_policy_motions(files, options.motions)));
  LowLevelSettings settings;
  read_settings(settings, YAML::Load(files.policy.settings), files.path.string());
  ThreadPool pool(options.threads);
  const Evaluation e =
      evaluate_low_level(files.policy, files.character, library, settings.physics, options.backend, options.eval, pool);
  if (!options.png.empty()) draw_strips(files, library, settings.physics, options.backend, options.png, pool);
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
  low->add_option("--png", options->png, "also draw each clip beside what the policy does, into this folder");
  low->add_flag("--json", options->json, "print JSON");
  low->callback([options] { evaluate(*options); });
}

}  // namespace calm
