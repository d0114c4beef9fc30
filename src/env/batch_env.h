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
#include "env/episode.h"
#include "env/moment_table.h"
#include "sim/simulator.h"

namespace calm {

class BatchEnv {
  friend class CudaEnv;  // goes on from its state on a GPU, and hands it back

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

  // A policy learns the clips from this index on (EpisodeRules::first_new); -1: it learns all. From the next reset on.
  void set_first_new(int clip) { first_new_ = clip; }

  // Totals since construction, for curves.
  struct Counts {
    int64_t episodes = 0, falls = 0, timeouts = 0, episode_steps = 0;
  };
  Counts counts() const { return counts_; }
  double physics_seconds() const { return physics_seconds_; }  // spent in the simulator's steps since construction

  // The whole state, simulator included: restoring it makes the future repeat bitwise.
  std::string save() const;
  void restore(const std::string& saved);  // Error if it does not fit

  EpisodeRules rules() const;  // valid for this object's life, but for the follow share and first new clip

  // For evaluation: puts one environment into a clip state with a window of choice, or keeps it from ever changing.
  void start_from_clip(int env, int clip, float time, Window window);
  void hold_windows(bool hold) { hold_windows_ = hold; }

 private:
  void make_fallen_bank(uint64_t seed);
  // The root over the origin; `out` gets the rest.
  RootState clip_state(int clip, float time, CharacterState& out) const;
  void reset_env(int env, CharacterState& scratch);
  void follow_new(int env);
  void refresh_observation(int env);
  void fill_history(int env);                                  // every frame as the newest
  void fill_history_from_clip(int env, int clip, float time);  // frames as the clip had them

  const Character* character_;
  const MotionLibrary* library_;
  Simulator* simulator_;
  ThreadPool* pool_;
  EnvSettings settings_;
  int num_envs_;
  float dt_;
  MomentTable moments_;
  std::vector<uint8_t> is_foot_;  // (bodies)
  float follow_share_ = 1.0f;
  int first_new_ = -1;
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
