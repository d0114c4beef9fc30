#include "learn/training_run.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "learn/tensorboard.h"

namespace calm {

void CurveTable::add(const std::map<std::string, double>& row) {
  rows_.push_back(row);
  for (const auto& [name, value] : row)
    if (std::ranges::find(columns_, name) == columns_.end()) columns_.push_back(name);
}

std::string CurveTable::csv() const {
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

void CurveTable::read(const std::string& text, double iteration) {
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

Curve CurveTable::curve(const std::string& name, const std::string& label) const {
  Curve curve{label, {}, {}};
  for (const auto& row : rows_)
    if (const auto it = row.find(name); it != row.end())
      curve.x.push_back(row.at("samples") / 1e6), curve.y.push_back(it->second);
  return curve;
}

void check_run_folder(const std::filesystem::path& out, bool resume) {
  const bool begun = std::filesystem::exists(out / "checkpoint.pt");
  if (resume && !begun) fail("{}: nothing to resume, there is no checkpoint.pt; start without --resume", out.string());
  if (!resume && begun)
    fail("{}: holds a run already; add --resume to go on with it, or give another --out", out.string());
}

void run_training(Trainer& trainer, const TrainingRun& run, const std::function<bool()>& stop,
                  const AfterIteration& after) {
  const auto checkpoint = run.out / "checkpoint.pt";
  CurveTable curves;
  double seconds_before = 0.0;
  if (run.resume) {
    trainer.load(read_file(checkpoint, size_t{1} << 36), checkpoint.string());
    if (std::filesystem::exists(run.out / "curves.csv"))
      curves.read(read_file(run.out / "curves.csv"), static_cast<double>(trainer.iteration()));
    if (const auto past = curves.curve("seconds", ""); !past.y.empty()) seconds_before = past.y.back();
    spdlog::info("resumed at iteration {}, {:.2f} M samples", trainer.iteration(), trainer.samples() / 1e6);
  }
  // not before the checkpoint has fitted: settings that do not must not replace those that do
  write_file_atomic(run.out / "settings.yaml", run.settings_yaml);
  EventWriter events(run.out);

  const auto save = [&] {
    write_file_atomic(checkpoint, trainer.save());
    for (const auto& [name, file] : trainer.export_files())
      write_file_atomic(run.out / name, serialise_safetensors(file));
    write_file_atomic(run.out / "curves.csv", curves.csv());
    try {
      std::vector<Chart> charts;
      for (const ChartPlan& plan : run.charts) {
        Chart chart{plan.title, "million samples", plan.unit, {}, false};
        for (const auto& [name, label] : plan.curves) chart.curves.push_back(curves.curve(name, label));
        charts.push_back(std::move(chart));
      }
      save_charts(charts, 3, run.out / "curves.png");
    } catch (const Error& e) {
      spdlog::warn("curves.png is not drawn: {}", e.what());
    }
    events.flush();
  };

  Progress progress("training", run.samples, run.unit, 10.0, trainer.samples());
  std::string scalar_prefix = run.verb + "/", state = "done";
  std::ranges::replace(scalar_prefix, '-', '_');
  double saved_at = 0.0;
  while (trainer.samples() < run.samples) {
    trainer.iterate();
    auto row = trainer.stats();
    const double elapsed = progress.elapsed_s();
    after(row, elapsed);

    row["iteration"] = static_cast<double>(trainer.iteration());
    row["samples"] = trainer.samples();
    row["seconds"] = seconds_before + elapsed;
    curves.add(row);
    for (const auto& [name, value] : row)
      events.scalar(scalar_prefix + name, static_cast<float>(value), static_cast<int64_t>(trainer.samples()));
    std::string now;
    for (const auto& [name, label, digits] : run.shown)
      if (row.contains(name)) now += fmt::format("{}{} {:.{}f}", now.empty() ? "" : "  ", label, row.at(name), digits);
    progress.update(trainer.samples(), now);
    if (elapsed - saved_at >= 60.0 * run.checkpoint_minutes) {
      save();
      saved_at = progress.elapsed_s();
    }
    if (const bool stopped = stop(); stopped || (run.minutes > 0.0 && elapsed >= 60.0 * run.minutes)) {
      state = stopped ? "stopped" : "time is up";
      break;
    }
  }
  save();
  spdlog::info("{} at {:.2f} M samples after {}; run folder: {}", state, trainer.samples() / 1e6,
               format_duration(progress.elapsed_s()), run.out.string());
  if (trainer.samples() < run.samples)
    spdlog::info("go on with: calm train {} --out {} --resume", run.verb, run.out.string());
}

}  // namespace calm
