// From a character, props and settings to what the backends simulate: MuJoCo's model, and the batched simulator's
// tables.
#pragma once

#include "character/mujoco_model.h"
#include "character/props.h"
#include "sim/model.h"
#include "sim/simulator.h"

namespace calm {

// MuJoCo's model of the problem: options, who collides with whom, and the drives' h kd + h² kp in the armature, so
// that its inverse weights are of the inertia that the solver meets. Throws Error on settings that cannot be.
MujocoModel compile_driven(const Character& character, const std::vector<Prop>& props, const PhysicsSettings& settings);

// Stiffness (multiples of kp) and damping of the spring beyond a ball joint's per-axis limit.
struct LimitSpring {
  double stiffness = 0.0, damping = 0.0;
};
LimitSpring limit_spring(const Character& character, const PhysicsSettings& settings, int dof);

inline double timestep_of(const PhysicsSettings& settings) {
  return 1.0 / (static_cast<double>(settings.control_rate) * settings.substeps);
}

// driven: what compile_driven made of the same. S: float or double.
template <class S>
Model<S> make_model(const Character& character, const std::vector<Prop>& props, const PhysicsSettings& settings,
                    const mjModel& driven);

}  // namespace calm
