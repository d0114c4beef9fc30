#include "sim/backend.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace calm {

void start_standing(Simulator& simulator, int num_envs, const Character& character, const std::vector<Prop>& props) {
  const CharacterState standing = default_state(character);
  for (int env = 0; env < num_envs; ++env) {
    simulator.set_state(env, standing.root(), standing.dof_pos, standing.dof_vel);
    for (size_t p = 0; p < props.size(); ++p) {
      RootState at;
      at.pos = props[p].pos, at.rot = props[p].rot;
      simulator.set_prop(env, static_cast<int>(p), at);
    }
  }
}

void check_targets(std::span<const float> pd_targets, const BatchState& state) {
  if (pd_targets.size() == state.dof_pos.size()) return;
  fail("simulator step: {} PD targets for {} environments of {} DoFs", pd_targets.size(), state.num_envs,
       state.num_dofs);
}

void check_saved(std::span<const double> saved, size_t expected) {
  if (saved.size() == expected && std::ranges::all_of(saved, [](double x) { return std::isfinite(x); })) return;
  fail("simulator: a saved state of {} numbers where {} finite ones belong; it is of another character", saved.size(),
       expected);
}

void clear_forces(BatchState& state, int env) {
  const size_t numbers = 3 * static_cast<size_t>(state.num_bodies);
  std::fill_n(state.contact_force.begin() + static_cast<std::ptrdiff_t>(env * numbers), numbers, 0.0f);
}

void clear_all_forces(BatchState& state, int env) {
  clear_forces(state, env);
  const size_t numbers = 3 * static_cast<size_t>(state.num_props);
  std::fill_n(state.prop_force.begin() + static_cast<std::ptrdiff_t>(env * numbers), numbers, 0.0f);
}

}  // namespace calm
