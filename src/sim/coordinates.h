// Between the seam's states (roots, DoFs, bodies) and the batched simulator's coordinates (model.h) of one environment,
// in double: what our own backends do on the processor whenever an environment is set, shown or pushed.
//
// positions (num_positions), velocities (num_velocities). Threads: all functions may be called at once.
#pragma once

#include <memory>
#include <mutex>
#include <span>

#include "sim/model.h"
#include "sim/simulator.h"

namespace calm {

class Coordinates {
 public:
  // `character` must outlive this.
  Coordinates(const Character& character, Model<double> model);
  ~Coordinates();

  const Model<double>& model() const { return model_; }
  // The character's coordinates come first, then seven and six of each prop.
  int character_positions() const { return model_.scalars.num_positions - 7 * model_.scalars.num_props; }
  int character_velocities() const { return model_.scalars.num_velocities - 6 * model_.scalars.num_props; }
  const LinkRow<double>& prop_link(int prop) const;

  // Writes the character's, or a prop's. Throws Error, and writes nothing, on sizes that do not fit, a prop that there
  // is not, and what is not finite; `env` is named in it.
  void set_character(int env, const RootState& root, std::span<const float> dof_pos, std::span<const float> dof_vel,
                     double* positions, double* velocities) const;
  void set_prop(int env, int prop, const RootState& state, double* positions, double* velocities) const;

  // Writes poses and velocities of the character's bodies and its DoFs, or a prop's, to row `env` of `out`. With a
  // scratch of the caller's nothing is allocated.
  void show_character(const double* positions, const double* velocities, int env, BatchState& out) const;
  void show_character(const double* positions, const double* velocities, int env, BatchState& out,
                      CharacterState& scratch) const;
  void show_prop(const double* positions, const double* velocities, int env, int prop, BatchState& out) const;

  // Adds to the velocities what changes that of a body's centre of mass by `change`, m/s, with the least kinetic
  // energy.
  void push(int body, const Vec3& change, const double* positions, double* velocities);

 private:
  struct Pusher;

  const Character& character_;
  Model<double> model_;
  std::unique_ptr<Pusher> pusher_;
  std::mutex push_mutex_;
};

}  // namespace calm
