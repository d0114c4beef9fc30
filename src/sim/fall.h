// The specification's fall, for training and play alike: a body other than the feet touches something with a force
// component above 0.1 N while a body other than the feet is lower than its limit. That it counts only after the second
// step, and not during a recovery, is the caller's.
#pragma once

#include "sim/simulator.h"

namespace calm {

bool touches_while_low(const Character& character, const BatchState& state, int env);

}  // namespace calm
