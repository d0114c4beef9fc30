// Compiled once for each width of processor, each into a library of its own whose only symbol that others see is the
// function named by CALM_MAKE_ENGINE: what the compiler leaves outside of functions (templates of the standard library
// among it) must not be shared, or a processor without this width would run it.
#include "sim/lanes.h"
//
#include "sim/lane_engine.h"

namespace calm {

__attribute__((visibility("default"))) std::unique_ptr<Engine<float>> CALM_MAKE_ENGINE(const ModelView<float>& model) {
  return std::make_unique<LaneEngine<std::experimental::native_simd<float>>>(model);
}

}  // namespace calm
