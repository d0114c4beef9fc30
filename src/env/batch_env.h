// The batch of training environments: simulation, resets, falls, latents' windows and discriminator windows.
//
// One control step: step(actions) simulates and fills observations, discriminator windows, `terminated` (fell) and
// `truncated` (time is up); the learner reads them; reset_finished() then starts new episodes where one ended and
// draws new latent windows where they are due. All buffers are allocated at construction, rows are environments.
// Deterministic: every environment has a random stream of its own.
//
// Following (not in the paper; for the first hours of a training): an episode that starts from a clip under a latent of
// that clip is scored by how near it stays to the clip, ends early where it strays, and its time is up where the clip
// ends. The clip's time runs between half and one and a half times as fast as the simulation's, whichever fits best, as
// the policy cannot know the clip's time, only the state it is in.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/rng.h"
#include "base/threads.h"
#include "env/moment_table.h"
#include "sim/simulator.h"

namespace calm {

struct EnvSettings {
  int episode_steps = 300;        // control steps until a time-out
  float reset_from_clip = 0.5f;   // share of resets to a random clip state; the rest start standing
  float reset_fallen = 0.1f;      // share of all resets that start from the bank of fallen states
  float recover_in_place = 0.2f;  // share of falls after which the episode goes on from where it lies
  int recovery_grace = 60;        // control steps of a recovery episode in which a fall does not end it
  int fallen_bank = 256;          // states in the bank
  int fallen_settle_steps = 150;  // control steps a bank state falls and settles for
  int latent_steps_min = 10;      // a latent is held for a random number of control steps in
  int latent_steps_max = 150;     // [min, max]
  float latent_of_start = 0.0f;   // share of clip resets whose first latent is of the clip and time started from
  float follow_limit = 0.0f;      // > 0: a following episode ends as a fall where its tracking score is below this
  int discriminator_frames = 10;  // consecutive control steps, newest first
  int encoder_frames = 60;        // 2 s
};

template <class Visitor>
void visit(Visitor& v, EnvSettings& s) {
  v("episode_steps", s.episode_steps);
  v("reset_from_clip", s.reset_from_clip);
  v("reset_fallen", s.reset_fallen);
  v("recover_in_place", s.recover_in_place);
  v("recovery_grace", s.recovery_grace);
  v("fallen_bank", s.fallen_bank);
  v("fallen_settle_steps", s.fallen_settle_steps);
  v("latent_steps_min", s.latent_steps_min);
  v("latent_steps_max", s.latent_steps_max);
  v("latent_of_start", s.latent_of_start);
  v("follow_limit", s.follow_limit);
  v("discriminator_frames", s.discriminator_frames);
  v("encoder_frames", s.encoder_frames);
}

class BatchEnv {
 public:
  // All references must outlive the environment. seed: of all random streams.
  BatchEnv(const Character& character, const MotionLibrary& library, Simulator& simulator, ThreadPool& pool,
           const EnvSettings& settings, const PhysicsSettings& physics, uint64_t seed);

  const MomentTable& moments() const { return moments_; }
  int num_envs() const { return num_envs_; }
  float dt() const { return dt_; }

  // Starts a new episode everywhere.
  void reset_all();

  // actions: (env x dof), clamped to [-1, 1].
  void step(std::span<const float> actions);

  // Ends of episodes and latents; refreshes observations and discriminator windows of what was reset.
  void reset_finished();

  // As of the last step or reset.
  std::span<const float> observations() const { return observations_; }           // (env x observation_size)
  std::span<const float> discriminator_windows() const { return disc_windows_; }  // (env x frames x features)
  std::span<const uint8_t> terminated() const { return terminated_; }             // (env) fell in the last step
  std::span<const uint8_t> truncated() const { return truncated_; }               // (env) time ran out
  std::span<const Window> windows() const { return windows_; }                    // (env) window of the latent in force
  std::span<const uint8_t> window_changed() const { return window_changed_; }     // (env) by the last reset_finished

  // How well each environment follows the clip it was started from, in [0, 1]; negative where it does not follow one.
  // Computed by step(). (env)
  std::span<const float> tracking() const { return tracking_; }

  // Share of the episodes that could follow (latent_of_start) which do; the others are free. From the next reset on.
  void set_follow_share(double share) { follow_share_ = static_cast<float>(share); }

  // Totals since construction, for curves.
  struct Counts {
    int64_t episodes = 0, falls = 0, timeouts = 0, episode_steps = 0;
  };
  Counts counts() const { return counts_; }
  double physics_seconds() const { return physics_seconds_; }  // spent in the simulator's steps since construction

  // The whole state, simulator included: restoring it makes the future repeat bitwise.
  std::string save() const;
  void restore(const std::string& saved);  // Error if it does not fit

  // For evaluation: puts one environment into a clip state with a window of choice, or keeps it from ever changing.
  void start_from_clip(int env, int clip, float time, Window window);
  void hold_windows(bool hold) { hold_windows_ = hold; }

 private:
  struct Episode {
    int step = 0;            // control steps since the start
    int grace = 0;           // steps left in which a fall does not end the episode
    int latent_left = 0;     // steps until the next latent
    int64_t reference = -1;  // moment of the clip that the episode follows; -1: it follows none
    Rng rng;
  };

  void make_fallen_bank(uint64_t seed);
  void reset_env(int env, CharacterState& scratch);
  void draw_window(int env);
  void refresh_observation(int env);
  void fill_history(int env);                                  // every frame as the newest
  void fill_history_from_clip(int env, int clip, float time);  // frames as the clip had them
  bool has_fallen(int env) const;
  bool clip_is_over(const Episode& episode) const;
  float follow(int env);  // advances the clip's time; the tracking score

  const Character* character_;
  const MotionLibrary* library_;
  Simulator* simulator_;
  ThreadPool* pool_;
  EnvSettings settings_;
  int num_envs_;
  float dt_;
  MomentTable moments_;
  float follow_share_ = 1.0f;
  bool hold_windows_ = false;

  std::vector<Episode> episodes_;  // (env)
  std::vector<Window> windows_;    // (env)
  std::vector<float> observations_, disc_windows_, pd_targets_, tracking_;
  std::vector<uint8_t> terminated_, truncated_, window_changed_;
  std::vector<CharacterState> scratch_;  // per thread
  struct FallenState {
    RootState root;
    std::vector<float> dof_pos, dof_vel;
  };
  std::vector<FallenState> fallen_;
  Counts counts_;
  double physics_seconds_ = 0.0;
};

}  // namespace calm
