#include <memory>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/settings.h"
#include "learn/high_level_trainer.h"
#include "learn/low_level_trainer.h"
#include "motion/library.h"
#include "tools/commands.h"
#include "tools/paths.h"
#include "tools/policy_files.h"

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

// What a training that starts from a model has in common with it.
void take_sizes(LowLevelSettings& settings, const std::filesystem::path& path) {
  const SafeTensors model = parse_safetensors(read_file(path, size_t{1} << 32), path.string());
  const auto text = model.metadata.find("settings");
  if (text == model.metadata.end()) fail("{}: names no settings; start from a run or a policy", path.string());
  LowLevelSettings theirs;
  read_settings(theirs, YAML::Load(text->second), path.string());
  NetworkSettings &to = settings.network, &from = theirs.network;
  settings.character = theirs.character, settings.physics = theirs.physics;
  settings.env.encoder_frames = theirs.env.encoder_frames;
  to.latent_size = from.latent_size, to.style_hidden = from.style_hidden, to.style_size = from.style_size;
  to.actor_hidden = from.actor_hidden, to.encoder_hidden = from.encoder_hidden;
  to.encoder_stride = from.encoder_stride;
  if (model.tensors.contains("value_norm.mean"))  // a policy comes without these two
    to.critic_hidden = from.critic_hidden, to.discriminator_hidden = from.discriminator_hidden;
}

// The clips of what is started from, or the starter clips where the character can act them out.
std::string default_motions(const Character& character, const std::filesystem::path& from) {
  if (!from.empty())
    for (const char* name : {"motions.calmlib", "motions.yaml"})
      if (const auto beside = from.parent_path() / name; std::filesystem::exists(beside)) return beside.string();
  return character.name == "human" ? own_or_given("assets/motions/starter/motions.yaml").string() : "builtin:";
}

void train(const TrainOptions& options, bool config_given) {
  const std::filesystem::path out = options.out;
  const bool from_run = options.resume && !config_given;
  auto settings = load_settings<LowLevelSettings>(from_run ? out / "settings.yaml" : own_or_given(options.config));
  std::filesystem::path from = options.from;
  if (std::filesystem::is_directory(from))
    from /= std::filesystem::exists(from / "model.safetensors") ? "model.safetensors" : "policy.safetensors";
  if (!from.empty()) take_sizes(settings, from);
  if (!options.character.empty()) settings.character = options.character;
  if (options.samples > 0.0) settings.samples = options.samples;
  if (options.threads >= 0) settings.threads = options.threads;
  if (options.seed >= 0) settings.seed = options.seed;
  validate(settings);
  const Character character = load_character(own_or_given(settings.character));
  // the run keeps its clips, so that it can go on without the files they came from
  const auto kept = out / "motions.calmlib";
  std::string motions = options.motions;
  if (motions.empty()) motions = options.resume ? kept.string() : default_motions(character, from);
  const MotionLibrary library(character, load_motions(character, motions));
  if (!options.resume && !std::filesystem::exists(out / "checkpoint.pt")) save_library(library, kept);
  train_low_level(settings, character, library, out, options.resume, options.minutes, from);
}

struct HighLevelOptions {
  std::string config = "configs/high_level/small.yaml";
  std::string task = "directed", policy = "assets/policies/human";
  std::string motions, out, character;
  std::vector<std::string> styles;
  bool resume = false;
  double minutes = 0.0, samples = 0.0;
  int threads = -1, seed = -1;
};

void train_directing(const HighLevelOptions& options, bool config_given) {
  const std::filesystem::path out = options.out;
  const bool from_run = options.resume && !config_given;
  auto settings = load_settings<HighLevelSettings>(from_run ? out / "settings.yaml" : own_or_given(options.config));
  if (options.samples > 0.0) settings.samples = options.samples;
  if (options.threads >= 0) settings.threads = options.threads;
  if (options.seed >= 0) settings.seed = options.seed;
  if (!options.styles.empty()) settings.styles = options.styles;
  validate(settings);
  const Task& task = find_task(options.task);
  const PolicyFiles files = open_policy(own_or_given(options.policy), options.character);
  const std::string motions = find_policy_motions(files, options.motions);
  const MotionLibrary library(files.character, load_motions(files.character, motions));
  std::optional<MotionEncoder> encoder;
  if (std::filesystem::exists(files.path.parent_path() / "encoder.safetensors"))
    encoder = load_encoder(files.path, files.policy);
  train_high_level(settings, task, files.policy, encoder ? &*encoder : nullptr, files.character, library,
                   physics_of_policy(files.policy), out, options.resume, options.minutes);
}

void add_train_high_level(CLI::App& train_app) {
  auto* high = train_app.add_subcommand("high-level", "stage 2: a controller that directs a trained low-level policy");
  const auto options = std::make_shared<HighLevelOptions>();
  std::string tasks;
  for (const Task& task : all_tasks())
    tasks += fmt::format("{}{}: {}", tasks.empty() ? "" : "; ", task.name, task.asks);
  high->add_option("--task", options->task, tasks)->capture_default_str();
  high->add_option("--policy", options->policy, "the low-level policy: run folder, policy folder or policy.safetensors")
      ->capture_default_str();
  auto* config = high->add_option("--config", options->config, "settings, YAML")->capture_default_str();
  high->add_option("--motions", options->motions, "the policy's clips; those beside it by default");
  high->add_option("--styles", options->styles, "clips to move like, for tasks with styles; all that move by default")
      ->delimiter(',');
  high->add_option("--out", options->out, "run folder")->required();
  high->add_option("--character", options->character, "MJCF file; the policy's by default");
  high->add_flag("--resume", options->resume, "go on from the run folder's checkpoint");
  high->add_option("--minutes", options->minutes, "end after so many minutes (0: when all samples are made)");
  high->add_option("--samples", options->samples, "decisions in all, instead of the settings'");
  high->add_option("--threads", options->threads, "threads (0: all cores; 1: bitwise repeatable)");
  high->add_option("--seed", options->seed, "random seed, instead of the settings'");
  high->callback([options, config] { train_directing(*options, config->count() > 0); });
}

}  // namespace

void add_train_command(CLI::App& app) {
  auto* train_app = app.add_subcommand("train", "train a controller");
  train_app->require_subcommand(1);
  auto* low = train_app->add_subcommand("low-level", "stage 1: motion encoder and low-level controller, from clips");
  const auto options = std::make_shared<TrainOptions>();
  auto* config = low->add_option("--config", options->config, "settings, YAML")->capture_default_str();
  low->add_option("--motions", options->motions,
                  "data set list (.yaml), library (.calmlib), one clip, or builtin: for generated clips; the starter "
                  "clips by default");
  low->add_option("--out", options->out, "run folder")->required();
  low->add_option("--character", options->character, "MJCF file; the settings' by default");
  low->add_flag("--resume", options->resume, "go on from the run folder's checkpoint");
  low->add_option("--from", options->from,
                  "start with the networks of another run or policy, of its sizes: a folder, or model.safetensors");
  low->add_option("--minutes", options->minutes, "end after so many minutes (0: when all samples are made)");
  low->add_option("--samples", options->samples, "control steps in all, instead of the settings'");
  low->add_option("--threads", options->threads, "threads (0: all cores; 1: bitwise repeatable)");
  low->add_option("--seed", options->seed, "random seed, instead of the settings'");
  add_train_high_level(*train_app);
  low->callback([options, config] { train(*options, config->count() > 0); });
}

}  // namespace calm
