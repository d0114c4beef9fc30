// Stage 1 as a run: its curves, its evaluations, its warnings.
#include <spdlog/spdlog.h>

#include "base/error.h"
#include "base/file.h"
#include "base/settings.h"
#include "base/stop_signals.h"
#include "learn/evaluate.h"
#include "learn/low_level_trainer.h"
#include "learn/training_health.h"
#include "learn/training_run.h"

namespace calm {

namespace {

SafeTensors read_start(const std::filesystem::path& path) {
  const auto read = [](const std::filesystem::path& p) {
    return parse_safetensors(read_file(p, size_t{1} << 32), p.string());
  };
  SafeTensors file = read(path);
  if (!file.tensors.contains("encoder.0.weight"))
    file.tensors.merge(read(path.parent_path() / "encoder.safetensors").tensors);
  return file;
}

}  // namespace

void train_low_level(const LowLevelSettings& settings, const Character& character, const MotionLibrary& library,
                     const std::filesystem::path& out, bool resume, double minutes, const std::filesystem::path& from) {
  check_run_folder(out, resume);
  spdlog::info("{} clips, {:.1f} s in all; {} environments of {} ({} DoFs)", library.num_clips(),
               library.total_seconds(), settings.num_envs, character.name, character.num_dofs);
  const StopSignals stop;  // before any thread is started
  if (resume && !from.empty()) fail("train: a run is either resumed or started from a model; leave out --from");
  LowLevelTrainer trainer(settings, character, library);
  if (!from.empty()) {
    trainer.start_from(read_start(from), from.string());
    spdlog::info("starts from {}", from.string());
  } else if (settings.update.keep_weight > 0.0f && !resume) {
    fail("train: update.keep_weight keeps what a controller can do already; say which with --from");
  }

  TrainingRun run;
  run.out = out, run.verb = "low-level", run.settings_yaml = settings_to_yaml(settings);
  run.samples = settings.samples, run.unit = "samples", run.checkpoint_minutes = settings.checkpoint_minutes;
  run.resume = resume, run.minutes = minutes;
  run.charts = {
      {"Reward", "a step", {{"reward", "total"}, {"style_reward", "discriminator's"}}},
      {"Episode", "control steps", {{"episode_steps", "length (300 is full)"}}},
      {"Falls", "share", {{"falls_share", "episodes ended by a fall"}, {"tracking", "follows start clip"}}},
      {"Discriminator accuracy",
       "share",
       {{"accuracy_simulated", "simulated"},
        {"accuracy_clips", "clips"},
        {"accuracy_negatives", "other motion's latent"}}},
      {"Evaluation", "share", {{"stays_up", "stays up 10 s"}, {"recognised", "clip recognised"}}},
      {"Encoder", "", {{"alignment", "alignment"}, {"uniformity", "uniformity"}}},
      {"Value explained", "share of variance", {{"value_explained", "explained"}}},
      {"KL divergence and action size", "", {{"kl", "KL"}, {"action_size", "|mean action|"}}},
      {"Gradient penalty", "", {{"gradient_penalty", "penalty"}}},
  };
  run.shown = {{"reward", "reward", 2},
               {"tracking", "track", 2},
               {"episode_steps", "episode", 0},
               {"accuracy_simulated", "accuracy sim", 2},
               {"accuracy_clips", "clip", 2},
               {"accuracy_negatives", "neg", 2},
               {"follows_new", "new clips", 2},
               {"keep_loss", "keep", 3},
               {"kl", "kl", 3}};

  ThreadPool eval_pool(settings.threads);
  // a GPU is for thousands
  const std::string eval_backend = settings.backend == "auto" || settings.backend == "cuda" ? "simd" : settings.backend;
  TrainingHealth health(settings);
  const auto warn = [](const std::vector<std::string>& lines) {
    for (const std::string& line : lines) spdlog::warn("{}", line);
  };
  double evaluated_at = 0.0;
  run_training(
      trainer, run, [&stop] { return stop.requested(); },
      [&](auto& row, double elapsed) {
        warn(health.observe(row));
        if (settings.eval_minutes <= 0.0 || elapsed - evaluated_at < 60.0 * settings.eval_minutes) return;
        // what it does from its clips' latents
        evaluated_at = elapsed;
        const auto policy = parse_policy(serialise_safetensors(trainer.export_policy()), "policy in training");
        const auto e = evaluate_low_level(policy, character, library, settings.physics, eval_backend, {}, eval_pool);
        row["stays_up"] = e.stays_up, row["recognised"] = e.recognised;
        spdlog::info("evaluation: {:.0f} % of {} episodes stay up for 10 s, {:.0f} % are recognised (chance {:.0f} %)",
                     100 * e.stays_up, e.episodes, 100 * e.recognised, 100 * e.chance);
        for (const auto& clip : e.clips)
          spdlog::info("  {:24} stays up {:3.0f} %  own distance {:.2f}, nearest other {:.2f}, taken for {}", clip.name,
                       100 * clip.stays_up, clip.own_distance, clip.other_distance, clip.taken_for);
        warn(health.observe(e));
      });
}

}  // namespace calm
