// Weights of the discriminator's loss terms. Apart from losses.h so that settings can be read without LibTorch.
#pragma once

namespace calm {

struct DiscriminatorWeights {
  float prediction = 0.5f;        // of the sum of both cross-entropies
  float logit_weights = 0.01f;    // |last layer's weights|²
  float gradient_penalty = 5.0f;  // mean |d logit / d features|² over clip windows
  float weight_decay = 1e-4f;     // |all weights|²
};

template <class Visitor>
void visit(Visitor& v, DiscriminatorWeights& s) {
  v("prediction", s.prediction);
  v("logit_weights", s.logit_weights);
  v("gradient_penalty", s.gradient_penalty);
  v("weight_decay", s.weight_decay);
}

}  // namespace calm
