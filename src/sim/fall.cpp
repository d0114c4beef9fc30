#include "sim/fall.h"

#include <algorithm>

namespace calm {

bool touches_while_low(const Character& character, const BatchState& state, int env) {
  constexpr float kTouch = 0.1f;  // N, in any component
  const CharacterStateView view = state.view(env);
  const float* forces = &state.contact_force[3 * static_cast<size_t>(env) * state.num_bodies];
  bool touches = false, low = false;
  for (int b = 0; b < state.num_bodies; ++b) {
    if (std::ranges::find(character.feet, b) != character.feet.end()) continue;
    touches = touches || ConstVec3Map(forces + 3 * b).cwiseAbs().maxCoeff() > kTouch;
    low = low || view.pos(b).z() < character.fall_height[b];
  }
  return touches && low;
}

}  // namespace calm
