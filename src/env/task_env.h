// The batch of stage 2: characters under a frozen low-level policy, each with a target of one task.
//
// A decision gives every character a latent and simulates `decision_steps` control steps; then inputs, rewards and ends
// are read, and reset_finished() starts new episodes where one ended. Rewards see the root's movement over the whole
// decision (1/6 s): within a control step a walking pelvis sways as fast as it advances. Deterministic: every
// environment has a random stream of its own.
#pragma once

#include "env/actors.h"
#include "env/task_table.h"
#include "motion/library.h"

namespace calm {

struct TaskSettings {
  int decision_steps = 5;        // control steps a latent is held
  int episode_steps = 300;       // control steps until a time-out
  float reset_from_clip = 0.7f;  // share of resets to a random clip state; the rest start standing
  bool end_at_fall = true;
  bool end_at_success = false;
};

template <class Visitor>
void visit(Visitor& v, TaskSettings& s) {
  v("decision_steps", s.decision_steps);
  v("episode_steps", s.episode_steps);
  v("reset_from_clip", s.reset_from_clip);
  v("end_at_fall", s.end_at_fall);
  v("end_at_success", s.end_at_success);
}

// A style's latents: that of its clip's middle, which the policy sees, and of windows all over it, which count as it.
struct StyleLatents {
  Eigen::VectorXf z;  // unit (latent_size)
  RowMatrix windows;  // (windows x latent_size) unit; z alone where there is no encoder
};

// max over the windows of (cos(z, window) + 1) / 2, for unit z (specification, "Stage 2").
float style_score(const StyleLatents& style, const Eigen::Ref<const Eigen::VectorXf>& z);

class TaskEnv {
 public:
  // styles: of world.styles, in order; may be empty for a task that is not styled. All references must outlive it; its
  // world's character is set. Throws Error where the task cannot be done by this character or without styles.
  TaskEnv(const Task& task, TaskWorld world, std::vector<StyleLatents> styles, const MotionLibrary& library,
          Actors& actors, ThreadPool& pool, const TaskSettings& settings, float dt, uint64_t seed);

  int size() const { return actors_.size(); }
  int num_inputs() const;  // observation, goal, and the style's latent if the task is styled

  void reset_all();
  // One decision. latents: (size x latent_size), unit.
  void decide(const RowMatrix& latents);
  void reset_finished();
  // New target for one environment, now.
  void draw_target(int env);

  // As of the last decision or reset; rows are environments.
  const RowMatrix& inputs() const { return inputs_; }
  std::span<const float> task_reward() const { return task_reward_; }    // in [0, 1]
  std::span<const float> style_reward() const { return style_reward_; }  // in [0, 1]; 0 if the task is not styled
  std::span<const uint8_t> fell() const { return fell_; }                // ended by a fall
  std::span<const uint8_t> out_of_time() const { return out_of_time_; }  // ended by time or by success
  std::span<const uint8_t> success() const { return success_; }          // after this decision

  const TaskTarget& target(int env) const { return targets_[env]; }
  TaskTarget& target(int env) { return targets_[env]; }  // call refresh(env) afterwards
  void refresh(int env) { write_inputs(env, actors_.view(env).pos(0), dt_); }
  const TaskWorld& world() const { return world_; }
  const StyleLatents& style(int env) const { return styles_[static_cast<size_t>(targets_[env].style)]; }
  Actors& actors() { return actors_; }

  std::string save() const;
  void restore(const std::string& saved);

 private:
  TaskView view(int env, const Vec3& root_before, float seconds) const;
  void reset(int env, CharacterState& scratch);
  void place_prop(int env);
  void write_inputs(int env, const Vec3& root_before, float seconds);

  const Task& task_;
  TaskWorld world_;
  std::vector<StyleLatents> styles_;
  const MotionLibrary& library_;
  Actors& actors_;
  ThreadPool& pool_;
  TaskSettings settings_;
  float dt_;  // of a control step, s

  std::vector<TaskTarget> targets_;
  std::vector<Rng> rngs_;
  std::vector<int> steps_, redraw_left_;  // control steps
  RowMatrix inputs_;
  std::vector<float> task_reward_, style_reward_;
  std::vector<uint8_t> fell_, out_of_time_, success_;
  std::vector<CharacterState> scratch_;  // per thread
};

}  // namespace calm
