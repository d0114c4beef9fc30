#include "sim/fall.h"

#include <algorithm>

#include "sim/fall_rule.h"

namespace calm {

bool touches_while_low(const Character& character, const BatchState& state, int env) {
  const auto is_foot = [&](int b) { return std::ranges::find(character.feet, b) != character.feet.end(); };
  const size_t row = 3 * static_cast<size_t>(env) * state.num_bodies;
  return touches_while_low(state.num_bodies, is_foot, character.fall_height.data(), &state.contact_force[row],
                           &state.body_pos[row]);
}

}  // namespace calm
