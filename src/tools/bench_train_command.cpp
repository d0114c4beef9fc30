#include <fmt/format.h>
#include <mujoco/mujoco.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/settings.h"
#include "learn/low_level_trainer.h"
#include "learn/version.h"
#include "tools/commands.h"
#include "tools/machine.h"
#include "tools/paths.h"

namespace calm {

namespace {

struct BenchOptions {
  std::string config = "configs/low_level/small.yaml", motions = "builtin:";
  int iterations = 5, threads = -1;
  bool json = false;
};

void bench_train(const BenchOptions& options) {
  auto settings = load_settings<LowLevelSettings>(own_or_given(options.config));
  if (options.threads >= 0) settings.threads = options.threads;
  const Character character = load_character(own_or_given(settings.character));
  const MotionLibrary library(character, load_motions(character, options.motions));
  LowLevelTrainer trainer(settings, character, library);
  trainer.iterate();  // warm-up
  const TrainParts before = trainer.parts();
  const double samples_before = trainer.samples();
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < options.iterations; ++i) trainer.iterate();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double samples = trainer.samples() - samples_before;
  const TrainParts& after = trainer.parts();
  const nlohmann::ordered_json out = {
      {"samples_per_s", samples / seconds},
      {"seconds", seconds},
      {"samples", samples},
      {"parts",
       {{"physics", after.physics - before.physics},
        {"features", after.features - before.features},
        {"inference", after.inference - before.inference},
        {"losses", after.losses - before.losses},
        {"optimiser", after.optimiser - before.optimiser}}},
      {"preset", options.config},
      {"num_envs", settings.num_envs},
      {"horizon", settings.horizon},
      {"machine",
       {{"processor", processor()},
        {"cores", std::thread::hardware_concurrency()},
        {"threads", settings.threads > 0 ? settings.threads : static_cast<int>(std::thread::hardware_concurrency())},
        {"device", settings.device}}},
      {"libraries", {{"libtorch", torch_version()}, {"mujoco", mj_versionString()}, {"compiler", __VERSION__}}}};
  if (options.json) {
    fmt::print("{}\n", out.dump(2));
    return;
  }
  fmt::print("{:.0f} samples/s with {} ({} iterations, {:.1f} s)\n", samples / seconds, options.config,
             options.iterations, seconds);
  for (const auto& [name, part] : out["parts"].items())
    fmt::print("  {:10} {:7.2f} s  {:4.1f} %\n", name, part.get<double>(), 100.0 * part.get<double>() / seconds);
}

}  // namespace

void add_bench_train_command(CLI::App& bench) {
  auto* train = bench.add_subcommand("train", "stage 1 training: samples a second, and where the time goes");
  const auto options = std::make_shared<BenchOptions>();
  train->add_option("--config", options->config, "settings, YAML")->capture_default_str();
  train->add_option("--motions", options->motions, "as for train")->capture_default_str();
  train->add_option("--iterations", options->iterations, "iterations measured")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  train->add_option("--threads", options->threads, "threads (0: all cores)");
  train->add_flag("--json", options->json, "print JSON");
  train->callback([options] { bench_train(*options); });
}

}  // namespace calm
