// The specification's fall on flat rows: on a processor and on a GPU alike.
#pragma once

#include <cmath>

#include "base/device.h"

namespace calm {

// A body other than the feet touches something with a force component above 0.1 N while a body other than the feet is
// lower than its limit. is_foot(body); fall_height (bodies) m; forces (bodies x 3) N, positions (bodies x 3) m.
template <class IsFoot>
CALM_DEVICE bool touches_while_low(int num_bodies, IsFoot is_foot, const float* fall_height, const float* forces,
                                   const float* positions) {
  constexpr float kTouch = 0.1f;  // N
  bool touches = false, low = false;
  for (int b = 0; b < num_bodies; ++b) {
    if (is_foot(b)) continue;
    for (int k = 3 * b; k < 3 * b + 3; ++k) touches = touches || fabsf(forces[k]) > kTouch;
    low = low || positions[3 * b + 2] < fall_height[b];
  }
  return touches && low;
}

}  // namespace calm
