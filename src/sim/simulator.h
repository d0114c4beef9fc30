// The simulation seam: a batch of environments, one character each, stepped together.
//
// State is structure-of-arrays float32, row = environment; views stay valid for the simulator's life and are
// refreshed by step() and set_state(). Everything is allocated at construction.
// One step is one control step: `substeps` physics steps with PD targets held. Results of an environment depend
// neither on the number of environments nor on threads. Errors: at construction (Error); in the hot path an
// environment whose state is not finite is put back to its last set state and marked in `diverged`.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/threads.h"
#include "character/props.h"
#include "character/state.h"

namespace calm {

struct PhysicsSettings {
  float control_rate = 30.0f;     // Hz
  int substeps = 4;               // physics steps a control step: 120 Hz
  bool self_collision = true;     // bodies of the character against each other, parent and child excepted
  float floor_friction = 1.0f;    // sliding friction of the floor; a contact takes the larger of the two
  float limit_stiffness = 20.0f;  // per-axis limits of ball joints: spring beyond the limit, in multiples of kp
  int solver_iterations = 20;     // at most, of the contact solver
  float max_ang_vel = 50.0f;      // rad/s; a joint or root that turns faster after a substep is slowed to this
};

template <class Visitor>
void visit(Visitor& v, PhysicsSettings& s) {
  v("control_rate", s.control_rate);
  v("substeps", s.substeps);
  v("self_collision", s.self_collision);
  v("floor_friction", s.floor_friction);
  v("limit_stiffness", s.limit_stiffness);
  v("solver_iterations", s.solver_iterations);
  v("max_ang_vel", s.max_ang_vel);
}

struct BatchState {
  int num_envs = 0, num_bodies = 0, num_dofs = 0, num_props = 0;
  std::vector<float> body_pos;       // (env x body x 3) m
  std::vector<float> body_rot;       // (env x body x 4) x y z w
  std::vector<float> body_vel;       // (env x body x 3) m/s, of the body frame's origin
  std::vector<float> body_ang_vel;   // (env x body x 3) rad/s, world
  std::vector<float> dof_pos;        // (env x dof) rad
  std::vector<float> dof_vel;        // (env x dof) rad/s
  std::vector<float> contact_force;  // (env x body x 3) N, world, sum over the body's contacts in the last substep
  std::vector<float> prop_pos;       // (env x prop x 3) m, of the centre; the other props' rows likewise
  std::vector<float> prop_rot, prop_vel, prop_ang_vel, prop_force;
  std::vector<uint8_t> diverged;  // (env) 1: was not finite in the last step and has been put back

  // How the last step was solved.
  std::vector<int> num_contacts;       // (env) in the last substep
  std::vector<float> solver_residual;  // (env) greatest of the substeps: gradient over force, 0 is exact
  std::vector<int> solver_iterations;  // (env) sum over the substeps

  // Allocates all rows.
  void resize(const Character& character, int envs, int props);

  CharacterStateView view(int env) const {
    const size_t e = static_cast<size_t>(env), b = e * num_bodies, d = e * num_dofs;
    return {&body_pos[3 * b], &body_rot[4 * b], &body_vel[3 * b], &body_ang_vel[3 * b], &dof_pos[d], &dof_vel[d]};
  }
};

class Simulator {
 public:
  virtual ~Simulator() = default;

  virtual const BatchState& state() const = 0;

  // Sets environment `env` to a reduced state, and its bodies and velocities with it; contact forces become 0.
  // Not thread-safe for one environment, safe for different ones.
  virtual void set_state(int env, const RootState& root, std::span<const float> dof_pos,
                         std::span<const float> dof_vel) = 0;

  // The same for a prop, which otherwise stays where it is. Its rotation is of its own axes.
  virtual void set_prop(int env, int prop, const RootState& state) = 0;

  // One control step of every environment. pd_targets: (env x dof) rad.
  virtual void step(std::span<const float> pd_targets) = 0;

  // Adds a velocity change to a body, m/s at its centre of mass, applied at the next step (a push).
  virtual void push(int env, int body, const Vec3& impulse) = 0;

  // Environments put back since construction because their state was not finite.
  virtual int64_t num_diverged() const = 0;

  // Contacts left out since construction for want of room.
  virtual int64_t num_overflows() const = 0;

  // The whole physical state of one environment, warm starts included: restoring it makes the future repeat bitwise.
  virtual std::vector<double> save(int env) const = 0;
  virtual void restore(int env, std::span<const double> saved) = 0;
};

// backend: "simd" (single precision, an environment a lane, as wide as the processor allows; "simd:avx512", "simd:avx2"
// and "simd:base" name a width), "scalar" (double precision, the reference), "cuda" (on a GPU) or "mujoco" (the
// oracle). `character` and `pool` must outlive the simulator. Throws Error on an unknown backend or one that this
// machine lacks.
std::unique_ptr<Simulator> make_simulator(const std::string& backend, const Character& character,
                                          const PhysicsSettings& settings, int num_envs, ThreadPool& pool,
                                          const std::vector<Prop>& props = {});

// The backends that this build and this machine have, the default first.
std::vector<std::string> available_backends();

}  // namespace calm
