// The specification's fall (fall_rule.h) of an environment, for play and benchmarks. That it counts only after the
// second step, and not during a recovery, is the caller's.
#pragma once

#include "sim/simulator.h"

namespace calm {

bool touches_while_low(const Character& character, const BatchState& state, int env);

}  // namespace calm
