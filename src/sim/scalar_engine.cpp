#include "sim/lane_engine.h"

namespace calm {

std::unique_ptr<Engine<double>> make_scalar_engine(const ModelView<double>& model) {
  return std::make_unique<LaneEngine<double>>(model);
}

}  // namespace calm
