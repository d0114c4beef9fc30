#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/settings.h"
#include "draw/draw.h"
#include "learn/evaluate.h"
#include "learn/low_level_settings.h"
#include "learn/paper_measures.h"
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

struct PaperOptions {
  std::string policy, motions, character, backend = "simd";
  PaperMeasureSettings measures;
  int threads = 0;
  bool json = false;
};

nlohmann::ordered_json interval(const Estimate& e) { return {e.low, e.high}; }

nlohmann::ordered_json to_json(const PaperMeasures& m, const PaperOptions& options) {
  const PaperMeasureSettings& s = options.measures;
  nlohmann::ordered_json out;
  out["fisher"] = m.fisher ? nlohmann::ordered_json(*m.fisher) : nlohmann::ordered_json(nullptr);
  out["inception"] = m.inception, out["inception_of_clips"] = m.inception_of_clips;
  out["controllability"] = {{"classifier_top1", m.classifier_top1.value},
                            {"classifier_top3", m.classifier_top3.value},
                            {"nearest_clip", m.nearest_clip.value},
                            {"chance", m.chance}};
  out["classifier"] = {{"held_out_accuracy", m.classifier_held_out},
                       {"standing_still_named_right", m.still_named_right}};
  out["stays_up"] = m.stays_up.value;
  out["get_up"] = {{"within_4s", m.gets_up_within_4s.value}, {"mean_s", m.gets_up_after_s.value}};
  out["push_recovery"] = {{"push", m.push_recovery.value},
                          {"push_m_per_s", s.push_speed},
                          {"box", m.box_recovery.value},
                          {"box_kg", s.box_mass},
                          {"box_m_per_s", s.box_speed}};
  out["foot_slide"] = m.foot_slide, out["foot_slide_of_clips"] = m.foot_slide_of_clips;
  out["jerk_ratio"] = m.jerk_ratio;
  out["interpolation_smoothness"] = m.interpolation_smoothness.value;
  out["interpolation_stays_up"] = m.interpolation_stays_up.value;
  out["confidence_95"] = {{"classifier_top1", interval(m.classifier_top1)},
                          {"classifier_top3", interval(m.classifier_top3)},
                          {"nearest_clip", interval(m.nearest_clip)},
                          {"stays_up", interval(m.stays_up)},
                          {"get_up_within_4s", interval(m.gets_up_within_4s)},
                          {"get_up_mean_s", interval(m.gets_up_after_s)},
                          {"push", interval(m.push_recovery)},
                          {"box", interval(m.box_recovery)},
                          {"interpolation_smoothness", interval(m.interpolation_smoothness)},
                          {"interpolation_stays_up", interval(m.interpolation_stays_up)}};
  out["paper"] = {{"fisher", 0.23}, {"inception", 19.8}, {"controllability_by_people", 0.78}};
  out["near_duplicates"] = m.near_duplicates;
  out["classes"] = m.classes;
  for (size_t c = 0; c < m.clips.size(); ++c)
    out["clips"].push_back({{"name", m.clips[c]}, {"named_right", m.named_right[c]}});
  out["episodes"] = {{"motions", m.stays_up.count},
                     {"falls", m.gets_up_within_4s.count},
                     {"pushes", m.push_recovery.count},
                     {"boxes", m.box_recovery.count},
                     {"interpolations", m.interpolation_stays_up.count}};
  out["seed"] = s.seed, out["sim"] = options.backend;
  return out;
}

void print(const PaperMeasures& m, const PaperOptions& options) {
  const PaperMeasureSettings& s = options.measures;
  const auto share = [](const char* name, const Estimate& e, const std::string& beside) {
    fmt::print("{:34} {:5.1f} %  ({:.1f} to {:.1f}, {} episodes) {}\n", name, 100 * e.value, 100 * e.low, 100 * e.high,
               e.count, beside);
  };
  if (m.fisher) fmt::print("{:34} {:5.3f}    paper 0.23, lower is better\n", "Fisher concentration", *m.fisher);
  fmt::print("{:34} {:5.2f}    clips {:.2f} of {} classes; paper 19.8 on other clips\n", "Inception Score", m.inception,
             m.inception_of_clips, m.classes);
  share("named right by the classifier", m.classifier_top1,
        fmt::format("chance {:.1f} %; people in the paper 78 %", 100 * m.chance));
  share("  among its first three", m.classifier_top3, "");
  share("nearest clip is the one asked for", m.nearest_clip, "");
  share("stays up for 10 s", m.stays_up, "");
  share("gets up within 4 s", m.gets_up_within_4s,
        fmt::format("mean {:.1f} s of {} that do within 8", m.gets_up_after_s.value, m.gets_up_after_s.count));
  share("recovers from a push", m.push_recovery, fmt::format("of the trunk by {:.1f} m/s", s.push_speed));
  share("recovers from a box", m.box_recovery, fmt::format("of {:.1f} kg at {:.1f} m/s", s.box_mass, s.box_speed));
  fmt::print("{:34} {:5.3f} m/s, clips {:.3f}\n", "foot slide", m.foot_slide, m.foot_slide_of_clips);
  fmt::print("{:34} {:5.2f}    of the clips'\n", "jerk", m.jerk_ratio);
  fmt::print("{:34} {:5.2f}    of the motions' own jerk\n", "jerk while interpolating",
             m.interpolation_smoothness.value);
  share("stays up while interpolating", m.interpolation_stays_up, "");
  fmt::print(
      "classifier on the clips' held-out windows: {:.1f} %; a motion that stands still is named right for {:.1f} % "
      "of the clips\n",
      100 * m.classifier_held_out, 100 * m.still_named_right);
  for (const auto& group : m.near_duplicates) fmt::print("counted as one: {}\n", fmt::join(group, ", "));
  std::string wrong;
  for (size_t c = 0; c < m.clips.size(); ++c)
    if (m.named_right[c] < 0.5) wrong += fmt::format(" {} {:.0f} %", m.clips[c], 100 * m.named_right[c]);
  if (!wrong.empty()) fmt::print("named right in less than half of their episodes:{}\n", wrong);
  if (!m.fisher) fmt::print("no encoder beside the policy: no Fisher concentration\n");
}

void evaluate_paper(const PaperOptions& options) {
  const PolicyFiles files = open_policy(options.policy, options.character);
  const MotionLibrary library(files.character,
                              load_motions(files.character, find_policy_motions(files, options.motions)));
  LowLevelSettings settings;
  read_settings(settings, YAML::Load(files.policy.settings), files.path.string());
  std::optional<MotionEncoder> encoder;
  for (const char* name : {"encoder.safetensors", "model.safetensors"})
    if (!encoder && std::filesystem::exists(files.path.parent_path() / name))
      encoder = load_encoder(files.path.parent_path() / name, files.policy);
  ThreadPool pool(options.threads);
  const PaperMeasures m = measure_as_the_paper(files.policy, encoder ? &*encoder : nullptr, files.character, library,
                                               settings.physics, options.backend, options.measures, pool);
  if (options.json)
    fmt::print("{}\n", to_json(m, options).dump(2));
  else
    print(m, options);
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

  auto* paper =
      eval_app->add_subcommand("paper", "the measures of the paper, without people (see learn/paper_measures.h)");
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
  paper->add_option("--seed", m.seed, "random seed")->capture_default_str();
  paper->add_option("--threads", measures->threads, "threads (0: all cores)")->check(CLI::Range(0, 1024));
  paper->add_flag("--json", measures->json, "print JSON");
  paper->callback([measures] { evaluate_paper(*measures); });
}

}  // namespace calm
