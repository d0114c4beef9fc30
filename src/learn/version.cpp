#include "learn/version.h"

#include <torch/version.h>

namespace calm {

const char* torch_version() { return TORCH_VERSION; }

}  // namespace calm
