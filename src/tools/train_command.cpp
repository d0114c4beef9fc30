#include <memory>

#include "base/settings.h"
#include "learn/low_level_trainer.h"
#include "motion/library.h"
#include "tools/commands.h"
#include "tools/paths.h"

namespace calm {

namespace {

struct TrainOptions {
  std::string config = "configs/low_level/small.yaml";
  std::string motions;
  std::string out, from;
  std::string character;
  bool resume = false;
  double minutes = 0.0;
  double samples = 0.0;
  int threads = -1;
  int seed = -1;
};

void train(const TrainOptions& options, bool config_given) {
  const std::filesystem::path out = options.out;
  const bool from_run = options.resume && !config_given;
  auto settings = load_settings<LowLevelSettings>(from_run ? out / "settings.yaml" : own_or_given(options.config));
  if (!options.character.empty()) settings.character = options.character;
  if (options.samples > 0.0) settings.samples = options.samples;
  if (options.threads >= 0) settings.threads = options.threads;
  if (options.seed >= 0) settings.seed = options.seed;
  validate(settings);
  const Character character = load_character(own_or_given(settings.character));
  // the run keeps its clips, so that it can go on without the files they came from
  const auto kept = out / "motions.calmlib";
  std::string motions = options.motions;
  if (motions.empty()) motions = options.resume ? kept.string() : "builtin:";
  const MotionLibrary library(character, load_motions(character, motions));
  if (!options.resume && !std::filesystem::exists(out / "checkpoint.pt")) save_library(library, kept);
  std::filesystem::path from = options.from;
  if (std::filesystem::is_directory(from)) from /= "model.safetensors";
  train_low_level(settings, character, library, out, options.resume, options.minutes, from);
}

}  // namespace

void add_train_command(CLI::App& app) {
  auto* train_app = app.add_subcommand("train", "train a controller");
  train_app->require_subcommand(1);
  auto* low = train_app->add_subcommand("low-level", "stage 1: motion encoder and low-level controller, from clips");
  const auto options = std::make_shared<TrainOptions>();
  auto* config = low->add_option("--config", options->config, "settings, YAML")->capture_default_str();
  low->add_option("--motions", options->motions,
                  "data set list (.yaml), library (.calmlib), one clip, or builtin: for generated clips (the default)");
  low->add_option("--out", options->out, "run folder")->required();
  low->add_option("--character", options->character, "MJCF file; the settings' by default");
  low->add_flag("--resume", options->resume, "go on from the run folder's checkpoint");
  low->add_option("--from", options->from, "start with the networks of another run: its folder or model.safetensors");
  low->add_option("--minutes", options->minutes, "end after so many minutes (0: when all samples are made)");
  low->add_option("--samples", options->samples, "control steps in all, instead of the settings'");
  low->add_option("--threads", options->threads, "threads (0: all cores; 1: bitwise repeatable)");
  low->add_option("--seed", options->seed, "random seed, instead of the settings'");
  low->callback([options, config] { train(*options, config->count() > 0); });
}

}  // namespace calm
