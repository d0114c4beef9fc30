// The motion encoder of a trained policy as the runtime reads it: motion to a point on the sphere of latents.
#pragma once

#include "runtime/policy.h"

namespace calm {

struct MotionEncoder {
  Mlp net;
  Eigen::VectorXf feature_mean, feature_inv_std;  // (motion features)
  int frames = 0;                                 // it sees
  int stride = 0;                                 // control steps between them

  // Of the frames that it sees, newest first (frames x motion features), raw. Unit (latent_size).
  Eigen::VectorXf encode(const float* window) const;
};

// From encoder.safetensors or model.safetensors beside a policy, or such a file. Throws Error: what, where, what to do;
// also if it does not fit the policy.
MotionEncoder load_encoder(const std::filesystem::path& path, const Policy& policy);

}  // namespace calm
