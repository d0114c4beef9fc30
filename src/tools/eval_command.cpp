#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/settings.h"
#include "draw/draw.h"
#include "learn/evaluate.h"
#include "learn/low_level_settings.h"
#include "learn/paper_report.h"
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

// One control step of all environments under one latent.
void act(const Policy& policy, int latent, BatchEnv& env) {
  const int size = static_cast<int>(env.observations().size()) / env.num_envs();
  std::vector<float> actions;
  for (int e = 0; e < env.num_envs(); ++e) {
    const Eigen::Map<const Eigen::VectorXf> observation(env.observations().data() + e * size, size);
    const Eigen::VectorXf action = policy.act(observation, policy.latents[latent].z);
    actions.insert(actions.end(), action.begin(), action.end());
  }
  env.step(actions);
}

constexpr int kMoments = 10, kWidth = 1500, kHeight = 280;
constexpr float kApart = 1.1f;  // m between moments

// For each clip a picture: moments of the clip above, of the simulation from the clip's first state under its latent
// below. PNG files named after the clips.
void draw_strips(const PolicyFiles& files, const MotionLibrary& library, const PhysicsSettings& physics,
                 const std::string& backend, const std::filesystem::path& folder, ThreadPool& pool) {
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
      act(files.policy, latent, env);
    }
    const std::vector<Image> rows = {draw_states(character, reference, kWidth, kHeight),
                                     draw_states(character, simulated, kWidth, kHeight)};
    const std::vector<std::string> captions = {"clip", "policy"};
    save_png(stack_images(rows, 1, captions), folder / (clip.name + ".png"));
    fmt::print(stderr, "drew {}\n", (folder / (clip.name + ".png")).string());
  }
}

// Four falls, a row each: from where it lies, under the latent of the policy's first clip, every quarter of a second.
void draw_getting_up(const PolicyFiles& files, const MotionLibrary& library, const PhysicsSettings& physics,
                     const std::string& backend, const std::filesystem::path& path, ThreadPool& pool) {
  constexpr int kFalls = 4;
  const auto simulator = make_simulator(backend, files.character, physics, kFalls, pool);
  EnvSettings env_settings;
  env_settings.reset_fallen = 1.0f, env_settings.recover_in_place = 0.0f, env_settings.fallen_bank = 16;
  BatchEnv env(files.character, library, *simulator, pool, env_settings, physics, 1);
  env.reset_all();
  std::vector<std::vector<CharacterState>> states(kFalls);
  const int every = std::max(1, static_cast<int>(0.25f * physics.control_rate));
  for (int step = 0; step <= every * (kMoments - 1); ++step) {
    if (step % every == 0)
      for (int e = 0; e < kFalls; ++e)
        states[e].push_back(
            placed(files.character, simulator->state().view(e), kApart * static_cast<float>(step / every)));
    act(files.policy, 0, env);
  }
  std::vector<Image> rows;
  for (const auto& row : states) rows.push_back(draw_states(files.character, row, kWidth, kHeight));
  save_png(stack_images(rows, 1), path);
  fmt::print(stderr, "drew {}\n", path.string());
}

// What both measurements begin with.
struct Subject {
  Subject(const std::string& policy, const std::string& character, const std::string& motions)
      : files(open_policy(policy, character)),
        library(files.character, load_motions(files.character, find_policy_motions(files, motions))) {
    read_settings(settings, YAML::Load(files.policy.settings), files.path.string());
  }
  PolicyFiles files;
  MotionLibrary library;  // refers to the character of `files`
  LowLevelSettings settings;
};

void evaluate(const EvalOptions& options) {
  const Subject subject(options.policy, options.character, options.motions);
  const auto& [files, library, settings] = subject;
  ThreadPool pool(options.threads);
  const Evaluation e =
      evaluate_low_level(files.policy, files.character, library, settings.physics, options.backend, options.eval, pool);
  if (!options.png.empty()) {
    draw_strips(files, library, settings.physics, options.backend, options.png, pool);
    draw_getting_up(files, library, settings.physics, options.backend,
                    std::filesystem::path(options.png) / "getting_up.png", pool);
  }
  if (options.json) {
    nlohmann::ordered_json out = {{"stays_up", e.stays_up}, {"recognised", e.recognised},
                                  {"chance", e.chance},     {"joint_speed", e.joint_speed},
                                  {"episodes", e.episodes}, {"clips", nlohmann::json::array()}};
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

struct PaperOptions {
  std::string policy, motions, character, backend = "simd", png, page;
  PaperMeasureSettings measures;
  DirectedSettings directed;
  std::string high;
  int threads = 0;
  bool json = false;
};

void evaluate_paper(const PaperOptions& options) {
  const Subject subject(options.policy, options.character, options.motions);
  const auto& [files, library, settings] = subject;
  std::optional<MotionEncoder> encoder;
  for (const char* name : {"encoder.safetensors", "model.safetensors"})
    if (!encoder && std::filesystem::exists(files.path.parent_path() / name))
      encoder = load_encoder(files.path.parent_path() / name, files.policy);
  ThreadPool pool(options.threads);
  const MotionEncoder* encodes = encoder ? &*encoder : nullptr;
  ReportContext context{options.policy, options.backend, options.measures, {}};
  if (const auto high = open_high_level(files, options.high)) {
    DirectedSettings directed = options.directed;
    directed.seed = options.measures.seed;
    context.directed = measure_directing(files.policy, *high, encodes, files.character, library, settings.physics,
                                         options.backend, directed, pool);
  }
  const PaperMeasures m = measure_as_the_paper(files.policy, encodes, files.character, library, settings.physics,
                                               options.backend, options.measures, pool);
  if (!options.png.empty()) draw_report(m, options.png);
  if (!options.page.empty()) write_report_page(m, context, options.page);
  if (options.json)
    fmt::print("{}\n", report_json(m, context).dump(2));
  else
    fmt::print("{}", report_text(m, context));
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
  low->add_option("--png", options->png,
                  "also draw each clip beside what the policy does, and how it gets up, into this folder");
  low->add_flag("--json", options->json, "print JSON");
  low->callback([options] { evaluate(*options); });

  auto* paper = eval_app->add_subcommand(
      "paper", "the measures of the paper, without people (definitions: in the JSON and the page)");
  const auto measures = std::make_shared<PaperOptions>();
  PaperMeasureSettings& m = measures->measures;
  paper->add_option("policy", measures->policy, "run folder, policy folder or policy.safetensors")->required();
  paper->add_option("--motions", measures->motions, "the clips; those beside the policy by default");
  paper->add_option("--character", measures->character, "MJCF file; the policy's by default");
  paper->add_option("--sim", measures->backend, "simulation backend")->capture_default_str();
  paper->add_option("--episodes", m.episodes_per_clip, "episodes a clip")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  paper->add_option("--falls", m.falls, "falls to get up from")->check(CLI::Range(1, 100000))->capture_default_str();
  paper->add_option("--pushes", m.pushes, "pushes, and boxes")->check(CLI::Range(1, 100000))->capture_default_str();
  paper->add_option("--push-speed", m.push_speed, "of a push, m/s")
      ->check(CLI::Range(0.0, 20.0))
      ->capture_default_str();
  paper->add_option("--box-mass", m.box_mass, "kg")->check(CLI::Range(0.01, 1000.0))->capture_default_str();
  paper->add_option("--box-speed", m.box_speed, "m/s")->check(CLI::Range(0.1, 50.0))->capture_default_str();
  DirectedSettings& d = measures->directed;
  paper->add_option("--high", measures->high, "high-level policy of the task `directed`; beside the policy by default");
  paper->add_option("--styles", d.styles, "clips to be moved like")->delimiter(',')->capture_default_str();
  paper->add_option("--strikes", d.strikes, "clips that strike a pillar")->delimiter(',')->capture_default_str();
  paper->add_option("--stays", d.stays, "clips acted out at a place")->delimiter(',')->capture_default_str();
  paper->add_option("--slow-style", d.slow_style, "what a style faster than 2 m/s gives way to near the target")
      ->capture_default_str();
  paper->add_option("--directed-episodes", d.episodes, "of each style and state machine")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  paper->add_option("--seed", m.seed, "random seed")->capture_default_str();
  paper->add_option("--threads", measures->threads, "threads (0: all cores)")->check(CLI::Range(0, 1024));
  paper->add_option("--page", measures->page, "also write a page with tables and charts, HTML");
  paper->add_option("--png", measures->png, "also draw the charts");
  paper->add_flag("--json", measures->json, "print JSON");
  paper->callback([measures] { evaluate_paper(*measures); });
}

}  // namespace calm
