// Carries out commands: what a state machine, or a player, wants becomes the latent that the low-level policy is given.
//
// Acting gives a clip's latent straight in; moving asks the high-level policy every `decision_steps` control steps. A
// new latent is reached over `blend_steps`, along the great arc. One director for many characters side by side.
#pragma once

#include <span>

#include "direct/machine.h"
#include "env/actors.h"
#include "runtime/high_level_policy.h"

namespace calm {

struct DirectorSettings {
  int blend_steps = 5;  // control steps from one acted latent to the next; 1: at once
};

class Director {
 public:
  // actors and high must outlive it; high: of the task `directed`. Throws Error on another task.
  Director(Actors& actors, const HighLevelPolicy& high, const DirectorSettings& settings = {});

  // Gives every character its latent for the next control step. commands: (size).
  void direct(std::span<const Command> commands);
  // Forgets what character i was doing, as after place().
  void forget(int i);

  // m/s at which a clip moves, if it is one of the high-level policy's styles; else 1.
  float speed_of(int clip) const { return speeds_[static_cast<size_t>(clip)]; }

 private:
  struct Doing {
    Command command;
    int steps = 0;  // since the command changed its kind or its clip; 0: not begun
    Eigen::VectorXf from, to;
  };

  Actors& actors_;
  const HighLevelPolicy& high_;
  DirectorSettings settings_;
  std::vector<float> speeds_;  // (clips)
  std::vector<Doing> doing_;
};

}  // namespace calm
