// Stage 1: trains motion encoder, conditional discriminator and low-level controller together.
//
// Input: settings, a character, a motion library. Output: a run folder with settings.yaml, checkpoint.pt (to resume),
// model.safetensors (all networks), policy.safetensors and encoder.safetensors (what the runtime reads), curves.csv,
// curves.png and TensorBoard event files. An iteration is: rollout, rewards and returns, update, normalisers.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "learn/low_level_settings.h"
#include "learn/training_run.h"
#include "runtime/policy.h"

namespace calm {

// Seconds spent since training began, by part.
struct TrainParts {
  double physics = 0.0, features = 0.0, inference = 0.0, losses = 0.0, optimiser = 0.0;
};

class LowLevelTrainer : public Trainer {
 public:
  // character and library must outlive the trainer. Throws Error on settings that cannot work.
  LowLevelTrainer(const LowLevelSettings& settings, const Character& character, const MotionLibrary& library);
  ~LowLevelTrainer() override;

  // One iteration: horizon x num_envs samples.
  void iterate() override;

  double samples() const override;  // control steps
  int64_t iteration() const override;
  const std::map<std::string, double>& stats() const override;
  const TrainParts& parts() const;

  SafeTensors export_model() const;    // every network and normaliser
  SafeTensors export_policy() const;   // what the runtime reads
  SafeTensors export_encoder() const;  // what it reads where motion is to be encoded (runtime/encoder.h)
  std::map<std::string, SafeTensors> export_files() const override;

  // Takes networks and normalisers of an export_model(), or of a policy joined with its encoder (critic and
  // discriminator then start untrained), from which another training then starts. Throws Error if sizes differ.
  void start_from(const SafeTensors& file, const std::string& where);

  std::string save() const override;
  void load(const std::string& bytes, const std::string& where) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Trains until settings.samples into folder `out`; with resume goes on from its checkpoint. Handles SIGINT and SIGTERM
// (saves and returns). Prints progress with rate and time left. minutes > 0 ends early after that many.
// from: a model.safetensors, or a policy.safetensors with its encoder.safetensors beside it, whose networks to start
// with; or empty.
void train_low_level(const LowLevelSettings& settings, const Character& character, const MotionLibrary& library,
                     const std::filesystem::path& out, bool resume, double minutes = 0.0,
                     const std::filesystem::path& from = {});

}  // namespace calm
