// The loop around the trainer's iterations: run folder, checkpoints, curves, progress, signals.
#include <spdlog/spdlog.h>

#include <fstream>
#include <sstream>
#include <tuple>

#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/settings.h"
#include "base/stop_signals.h"
#include "draw/draw.h"
#include "learn/evaluate.h"
#include "learn/low_level_trainer.h"
#include "learn/tensorboard.h"
#include "learn/training_health.h"

namespace calm {

namespace {

// One row an iteration; columns may join later (an evaluation, say), missing values are empty.
class CurveTable {
 public:
  void add(const std::map<std::string, double>& row) {
    rows_.push_back(row);
    for (const auto& [name, value] : row)
      if (std::ranges::find(columns_, name) == columns_.end()) columns_.push_back(name);
  }

  std::string csv() const {
    std::string text;
    for (size_t i = 0; i < columns_.size(); ++i) text += (i ? "," : "") + columns_[i];
    text += '\n';
    for (const auto& row : rows_) {
      for (size_t i = 0; i < columns_.size(); ++i) {
        const auto it = row.find(columns_[i]);
        if (i) text += ',';
        if (it != row.end()) text += fmt::format("{:.6g}", it->second);
      }
      text += '\n';
    }
    return text;
  }

  // Rows of an earlier run up to `iteration`; lines that do not parse are left out.
  void read(const std::string& text, double iteration) {
    std::istringstream in(text);
    std::string line, cell;
    std::vector<std::string> names;
    if (!std::getline(in, line)) return;
    for (std::istringstream head(line); std::getline(head, cell, ',');) names.push_back(cell);
    while (std::getline(in, line)) {
      std::map<std::string, double> row;
      std::istringstream cells(line);
      for (size_t i = 0; i < names.size() && std::getline(cells, cell, ','); ++i) {
        char* end = nullptr;
        const double value = std::strtod(cell.c_str(), &end);
        if (!cell.empty() && end && *end == '\0') row[names[i]] = value;
      }
      if (row.contains("iteration") && row["iteration"] <= iteration) add(row);
    }
  }

  Curve curve(const std::string& name, const std::string& label) const {
    Curve curve{label, {}, {}};
    for (const auto& row : rows_)
      if (const auto it = row.find(name); it != row.end())
        curve.x.push_back(row.at("samples") / 1e6), curve.y.push_back(it->second);
    return curve;
  }

 private:
  std::vector<std::string> columns_ = {"iteration", "samples", "seconds"};
  std::vector<std::map<std::string, double>> rows_;
};

void draw_curves(const CurveTable& table, const std::filesystem::path& path) {
  const auto chart = [&](const char* title, const char* unit,
                         std::initializer_list<std::pair<const char*, const char*>> curves) {
    Chart c{title, "million samples", unit, {}, false};
    for (const auto& [name, label] : curves) c.curves.push_back(table.curve(name, label));
    return c;
  };
  const std::vector<Chart> charts = {
      chart("Reward", "a step", {{"reward", "total"}, {"style_reward", "discriminator's"}}),
      chart("Episode", "control steps", {{"episode_steps", "length (300 is full)"}}),
      chart("Falls", "share", {{"falls_share", "episodes ended by a fall"}, {"tracking", "follows start clip"}}),
      chart("Discriminator accuracy", "share",
            {{"accuracy_simulated", "simulated"},
             {"accuracy_clips", "clips"},
             {"accuracy_negatives", "other motion's latent"}}),
      chart("Evaluation", "share", {{"stays_up", "stays up 10 s"}, {"recognised", "clip recognised"}}),
      chart("Encoder", "", {{"alignment", "alignment"}, {"uniformity", "uniformity"}}),
      chart("Value explained", "share of variance", {{"value_explained", "explained"}}),
      chart("KL divergence and action size", "", {{"kl", "KL"}, {"action_size", "|mean action|"}}),
      chart("Gradient penalty", "", {{"gradient_penalty", "penalty"}}),
  };
  save_charts(charts, 3, path);
}

SafeTensors read_start(const std::filesystem::path& path) {
  const auto read = [](const std::filesystem::path& p) {
    return parse_safetensors(read_file(p, size_t{1} << 32), p.string());
  };
  SafeTensors file = read(path);
  if (!file.tensors.contains("encoder.0.weight"))
    file.tensors.merge(read(path.parent_path() / "encoder.safetensors").tensors);
  return file;
}

void write_safetensors(const SafeTensors& file, const std::filesystem::path& path) {
  write_file_atomic(path, serialise_safetensors(file));
}

}  // namespace

void train_low_level(const LowLevelSettings& settings, const Character& character, const MotionLibrary& library,
                     const std::filesystem::path& out, bool resume, double minutes, const std::filesystem::path& from) {
  const auto checkpoint = out / "checkpoint.pt";
  if (resume && !std::filesystem::exists(checkpoint))
    fail("{}: nothing to resume, there is no checkpoint.pt; start without --resume", out.string());
  if (!resume && std::filesystem::exists(checkpoint))
    fail("{}: holds a run already; add --resume to go on with it, or give another --out", out.string());

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
  CurveTable curves;
  double seconds_before = 0.0;
  if (resume) {
    trainer.load(read_file(checkpoint, size_t{1} << 36), checkpoint.string());
    if (std::filesystem::exists(out / "curves.csv"))
      curves.read(read_file(out / "curves.csv"), static_cast<double>(trainer.iteration()));
    if (const auto past = curves.curve("seconds", ""); !past.y.empty()) seconds_before = past.y.back();
    spdlog::info("resumed at iteration {}, {:.2f} M samples", trainer.iteration(), trainer.samples() / 1e6);
  }
  // not before the checkpoint has fitted: settings that do not must not replace those that do
  write_file_atomic(out / "settings.yaml", settings_to_yaml(settings));
  EventWriter events(out);

  const auto save = [&] {
    write_file_atomic(checkpoint, trainer.save());
    write_safetensors(trainer.export_model(), out / "model.safetensors");
    write_safetensors(trainer.export_policy(), out / "policy.safetensors");
    write_safetensors(trainer.export_encoder(), out / "encoder.safetensors");
    write_file_atomic(out / "curves.csv", curves.csv());
    try {
      draw_curves(curves, out / "curves.png");
    } catch (const Error& e) {
      spdlog::warn("curves.png is not drawn: {}", e.what());
    }
    events.flush();
  };

  ThreadPool eval_pool(settings.threads);
  // a GPU is for thousands
  const std::string eval_backend = settings.backend == "auto" || settings.backend == "cuda" ? "simd" : settings.backend;
  Progress progress("training", settings.samples, "samples", 10.0, trainer.samples());
  TrainingHealth health(settings);
  const auto warn = [](const std::vector<std::string>& lines) {
    for (const std::string& line : lines) spdlog::warn("{}", line);
  };
  double saved_at = 0.0, evaluated_at = 0.0;
  std::string state = "done";
  while (trainer.samples() < settings.samples) {
    trainer.iterate();
    auto row = trainer.stats();
    warn(health.observe(row));
    const double elapsed = progress.elapsed_s();

    // what it does from its clips' latents
    if (settings.eval_minutes > 0.0 && elapsed - evaluated_at >= 60.0 * settings.eval_minutes) {
      const auto policy = parse_policy(serialise_safetensors(trainer.export_policy()), "policy in training");
      const auto e = evaluate_low_level(policy, character, library, settings.physics, eval_backend, {}, eval_pool);
      row["stays_up"] = e.stays_up, row["recognised"] = e.recognised;
      spdlog::info("evaluation: {:.0f} % of {} episodes stay up for 10 s, {:.0f} % are recognised (chance {:.0f} %)",
                   100 * e.stays_up, e.episodes, 100 * e.recognised, 100 * e.chance);
      for (const auto& clip : e.clips)
        spdlog::info("  {:24} stays up {:3.0f} %  own distance {:.2f}, nearest other {:.2f}, taken for {}", clip.name,
                     100 * clip.stays_up, clip.own_distance, clip.other_distance, clip.taken_for);
      warn(health.observe(e));
      evaluated_at = progress.elapsed_s();
    }

    row["iteration"] = static_cast<double>(trainer.iteration());
    row["samples"] = trainer.samples();
    row["seconds"] = seconds_before + elapsed;
    curves.add(row);
    for (const auto& [name, value] : row)
      events.scalar("low_level/" + name, static_cast<float>(value), static_cast<int64_t>(trainer.samples()));
    std::string now;
    for (const auto& [name, label, digits] : {std::tuple{"reward", "reward", 2},
                                              {"tracking", "track", 2},
                                              {"episode_steps", "episode", 0},
                                              {"accuracy_simulated", "accuracy sim", 2},
                                              {"accuracy_clips", "clip", 2},
                                              {"accuracy_negatives", "neg", 2},
                                              {"keep_loss", "keep", 3},
                                              {"kl", "kl", 3}})
      if (row.contains(name)) now += fmt::format("{}{} {:.{}f}", now.empty() ? "" : "  ", label, row.at(name), digits);
    progress.update(trainer.samples(), now);
    if (elapsed - saved_at >= 60.0 * settings.checkpoint_minutes) {
      save();
      saved_at = progress.elapsed_s();
    }
    if (stop.requested() || (minutes > 0.0 && elapsed >= 60.0 * minutes)) {
      state = stop.requested() ? "stopped" : "time is up";
      break;
    }
  }
  save();
  spdlog::info("{} at {:.2f} M samples after {}; policy: {}", state, trainer.samples() / 1e6,
               format_duration(progress.elapsed_s()), (out / "policy.safetensors").string());
  if (trainer.samples() < settings.samples)
    spdlog::info("go on with: calm train low-level --out {} --resume", out.string());
}

}  // namespace calm
