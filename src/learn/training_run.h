// The loop around a trainer's iterations, for every stage: run folder, checkpoints, curves, progress, signals.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "draw/draw.h"
#include "runtime/safetensors.h"

namespace calm {

// One row an iteration, of named numbers; columns may join later (an evaluation, say), missing values are empty.
class CurveTable {
 public:
  void add(const std::map<std::string, double>& row);
  std::string csv() const;
  // Rows of an earlier run up to `iteration`; lines that do not parse are left out.
  void read(const std::string& text, double iteration);
  // One column against millions of samples.
  Curve curve(const std::string& name, const std::string& label) const;

 private:
  std::vector<std::string> columns_ = {"iteration", "samples", "seconds"};
  std::vector<std::map<std::string, double>> rows_;
};

// A chart and the columns that it shows, with their labels.
struct ChartPlan {
  std::string title, unit;
  std::vector<std::pair<std::string, std::string>> curves;
};

// What the loop asks of a trainer.
class Trainer {
 public:
  virtual ~Trainer() = default;

  virtual void iterate() = 0;
  virtual double samples() const = 0;  // made so far
  virtual int64_t iteration() const = 0;
  virtual const std::map<std::string, double>& stats() const = 0;  // of the last iteration, by name of the curve

  // The whole state: after load() the future is, on one thread, bitwise that of the trainer that saved.
  virtual std::string save() const = 0;
  virtual void load(const std::string& bytes, const std::string& where) = 0;

  // Files of the run folder for others to read, by name.
  virtual std::map<std::string, SafeTensors> export_files() const = 0;
};

struct TrainingRun {
  std::filesystem::path out;
  std::string verb;           // "low-level", as in `calm train low-level`
  std::string settings_yaml;  // the resolved settings
  double samples = 0.0;       // to make
  std::string unit;           // of samples, for the rate
  double checkpoint_minutes = 10.0;
  bool resume = false;
  double minutes = 0.0;  // > 0: end after so many
  std::vector<ChartPlan> charts;
  std::vector<std::tuple<std::string, std::string, int>> shown;  // column, label and digits of the progress line
};

// Throws Error unless the run can be started or resumed as asked. Call before the trainer is made.
void check_run_folder(const std::filesystem::path& out, bool resume);

// Called after every iteration with the row that the curves get, which it may add to, and seconds since the start.
using AfterIteration = std::function<void(std::map<std::string, double>& row, double elapsed_s)>;

// Trains until run.samples, the time is up or a signal comes; saves and says where. Make a StopSignals before any
// thread is started, and pass whether it was asked to stop.
void run_training(Trainer& trainer, const TrainingRun& run, const std::function<bool()>& stop,
                  const AfterIteration& after);

}  // namespace calm
