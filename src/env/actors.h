// Characters side by side under one low-level policy, each with a latent of its own: what tasks, state machines and
// measures are played on.
//
// Ownership: policy, character and pool must outlive it. A character's motion depends neither on threads nor on what
// the others do. Nothing is allocated in step() but the networks' layers.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/policy.h"
#include "sim/simulator.h"

namespace calm {

// The physics that the policy's own settings name, the defaults if they name none.
PhysicsSettings physics_of_policy(const Policy& policy);

class Actors {
 public:
  Actors(const Policy& policy, const Character& character, const PhysicsSettings& physics, const std::string& backend,
         int count, ThreadPool& pool, const std::vector<Prop>& props = {});

  int size() const { return static_cast<int>(latents_.rows()); }
  const Character& character() const { return character_; }
  const Policy& policy() const { return policy_; }
  Simulator& simulator() { return *simulator_; }
  const BatchState& state() const { return simulator_->state(); }
  CharacterStateView view(int i) const { return state().view(i); }
  RootState prop(int i, int prop) const;

  // Puts one character somewhere.
  void place(int i, const RootState& root, std::span<const float> dof_pos, std::span<const float> dof_vel);
  // Goes on from where it is, as if it had been put there.
  void start_anew(int i) { steps_[i] = 0; }

  // z: unit (latent_size), in force from the next step on.
  void set_latent(int i, const Eigen::Ref<const Eigen::VectorXf>& z);
  auto latent(int i) const { return latents_.row(i); }

  // One control step of all: observation, policy, PD targets, physics.
  void step();
  // The same with actions given, each in [-1, 1] (size x DoFs), instead of the policy's.
  void step(std::span<const float> actions);

  // As of the last step or place(). (size x observation_size)
  const RowMatrix& observations() const { return obs_; }

  // The specification's fall, or put back by the simulator; never in the first two steps after place().
  bool fallen(int i) const;

  std::string save() const;                // everything: going on from it is bitwise the same
  void restore(const std::string& saved);  // Error if it does not fit

 private:
  void simulate();

  const Policy& policy_;
  const Character& character_;
  ThreadPool& pool_;
  std::unique_ptr<Simulator> simulator_;
  RowMatrix latents_, styles_, obs_;
  std::vector<uint8_t> stale_;  // the style is not yet the latent's
  std::vector<int> steps_;      // since placed
  std::vector<float> targets_;  // (size x DoFs) rad
};

}  // namespace calm
