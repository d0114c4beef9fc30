// A play session: one simulated character, moved by a policy that acts out the clip it is told, or by a state machine
// that directs it to a target: a pillar to strike, or a place.
//
// Input: a character and a policy that fits it (check_policy_fits); for state machines also a high-level policy of the
// task `directed`. Output: the simulated state after each tick, one control step (1/30 s) long, and statistics of the
// session.
// Ownership: character, policies, machines and pool must outlive the session. Threads: none inside; one thread at a
// time calls it (play/server.h owns the loop). Errors: Error from the constructor and for unknown clip names; never
// from tick().
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/rng.h"
#include "base/threads.h"
#include "direct/stage.h"

namespace calm {

struct SessionSettings {
  std::string backend = "simd";   // of make_simulator
  PhysicsSettings physics{};      // those of the training: see physics_of_policy
  uint64_t seed = 1;              // of the pushes' directions
  int blend_steps = 10;           // control steps from one clip's latent to the next one's
  float push_speed = 1.5f;        // m/s, what a push adds to the root
  bool auto_reset = false;        // stand it up again when it stays down
  float auto_reset_after = 4.0f;  // s it may lie before that
  float risen_share = 0.75f;      // of the standing root height: higher than this, a fallen character has got up
  float target_distance = 4.0f;   // m at which a machine's target is put up
  float again_after = 3.0f;       // s in a machine's final state, until it has another target
};

// What a session has seen so far. Resets do not clear it.
struct SessionStatistics {
  int64_t ticks = 0;         // control steps made
  int64_t falls = 0;         // times it went from up to fallen
  int64_t resets = 0;        // by command or by itself
  int64_t diverged = 0;      // times physics failed and the character was put back
  double distance = 0.0;     // m, of the root along the floor
  float root_height = 0.0f;  // m, now
  float root_speed = 0.0f;   // m/s, now, along the floor
  bool fallen = false;       // now
};

class Session {
 public:
  Session(const Character& character, const Policy& policy, const SessionSettings& settings, ThreadPool& pool,
          const HighLevelPolicy* high = nullptr, std::span<const Machine> machines = {});

  // One control step: observation -> policy -> PD targets -> physics.
  void tick();

  // What is due at a tick of the clock: tick() unless paused. True if a step was made.
  bool advance();

  // Acts out a clip from here on. Error if the policy does not know it.
  void select_clip(const std::string& name);
  void select_clip(int index);  // of policy.latents
  // Is directed by a machine from here on, until a clip is selected. Error if there is none of that name.
  void select_machine(const std::string& name);
  void set_paused(bool paused) { paused_ = paused; }
  void step_once();  // pauses, and makes one step
  void reset();      // to the standing pose at the origin, at rest
  void push();       // shoves the root in a random horizontal direction
  void set_auto_reset(bool on) { settings_.auto_reset = on; }

  const Character& character() const { return character_; }
  const Policy& policy() const { return policy_; }
  const SessionSettings& settings() const { return settings_; }
  const BatchState& state() const { return actors_.state(); }
  const SessionStatistics& statistics() const { return statistics_; }
  Eigen::VectorXf latent() const { return actors_.latent(0).transpose(); }  // in force, unit
  int clip() const { return clip_; }  // commanded, index into policy.latents; -1 if there is none
  std::span<const Machine> machines() const { return machines_; }
  int machine() const { return machine_; }           // that directs it, index into machines; -1: none
  int machine_index(const std::string& name) const;  // -1 if there is none
  std::string machine_state() const;                 // its state's name, "get up" while it gets up
  // Of the machine; kNone if none directs. The pose of the pillar's middle, or of the place on the floor.
  TargetKind target_kind() const { return stage_ ? stage_->target_kind() : TargetKind::kNone; }
  RootState target() const;
  bool paused() const { return paused_; }
  bool auto_reset() const { return settings_.auto_reset; }
  double time() const { return static_cast<double>(statistics_.ticks) * dt_; }  // s simulated
  float mean_speed() const;                                                     // m/s along the floor
  uint32_t epoch() const { return epoch_; }  // counts jumps of the state: poses of two epochs do not interpolate

 private:
  void blend_latent();
  void direct();
  void put_up_target();
  void put_pillar_aside();
  void observe_outcome(const Vec3& root_before);

  const Character& character_;
  const Policy& policy_;
  SessionSettings settings_;
  Actors actors_;  // one
  std::span<const Machine> machines_;
  std::unique_ptr<Director> director_;  // if there is a high-level policy
  std::unique_ptr<Stage> stage_;        // while a machine directs
  int machine_ = -1;
  int steps_final_ = 0;  // control steps in a final state
  Rng rng_;
  double dt_;

  Eigen::VectorXf z_from_, z_to_;
  int blend_step_ = 0;  // of blend_steps, which is the end
  int clip_ = -1;
  bool paused_ = false;
  uint32_t epoch_ = 0;
  int steps_since_reset_ = 0;
  int steps_down_ = 0;
  SessionStatistics statistics_;
};

}  // namespace calm
