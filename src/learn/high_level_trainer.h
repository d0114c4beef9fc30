// Stage 2: trains a controller that directs the frozen low-level policy, by PPO (Schulman et al. 2017).
//
// Input: a task, a low-level policy, its clips and, for styles, its encoder. Output: a run folder with settings.yaml,
// checkpoint.pt, high_level.safetensors (what the runtime reads), curves.csv, curves.png, TensorBoard events. A sample
// is a decision: `env.decision_steps` control steps of one character. On the processor; the low-level policy's weights
// never change.
#pragma once

#include <filesystem>
#include <memory>

#include "learn/high_level_settings.h"
#include "learn/training_run.h"
#include "runtime/encoder.h"

namespace calm {

// Styles that settings ask for, with speeds from the clips and latents of windows all over them; without an encoder
// only those of their middles. Throws Error on a clip that the policy does not know, or if there is none.
void find_styles(const HighLevelSettings& settings, const Policy& policy, const MotionEncoder* encoder,
                 const MotionLibrary& library, float dt, std::vector<Style>& styles,
                 std::vector<StyleLatents>& latents);

class HighLevelTrainer : public Trainer {
 public:
  // task, policy, character and library must outlive the trainer. encoder may be null. Throws Error on settings that
  // cannot work.
  HighLevelTrainer(const HighLevelSettings& settings, const Task& task, const Policy& policy,
                   const MotionEncoder* encoder, const Character& character, const MotionLibrary& library,
                   const PhysicsSettings& physics);
  ~HighLevelTrainer() override;

  void iterate() override;
  double samples() const override;  // decisions
  int64_t iteration() const override;
  const std::map<std::string, double>& stats() const override;

  SafeTensors export_policy() const;
  std::map<std::string, SafeTensors> export_files() const override;
  std::string save() const override;
  void load(const std::string& bytes, const std::string& where) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Trains into folder `out`, as train_low_level does.
void train_high_level(const HighLevelSettings& settings, const Task& task, const Policy& policy,
                      const MotionEncoder* encoder, const Character& character, const MotionLibrary& library,
                      const PhysicsSettings& physics, const std::filesystem::path& out, bool resume, double minutes);

}  // namespace calm
