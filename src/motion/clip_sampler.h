// What is drawn at random from the clips of a library: which clip, and which window of it. Views of the library's
// tables; on a processor and on a GPU alike.
#pragma once

#include "base/rng.h"

namespace calm {

// A time span of a clip that ends at `time`: how encoder and discriminator windows are named and stored.
struct Window {
  int clip = 0;
  float time = 0.0f;  // newest frame, s
  bool operator==(const Window&) const = default;
};

struct ClipSampler {
  int num_clips = 0;
  const double* cumulative_weight = nullptr;  // (clips)
  const float* length = nullptr;              // (clips) s

  // A clip by weight.
  CALM_DEVICE int sample_clip(Rng& rng) const {
    const double total = cumulative_weight[num_clips - 1], at = static_cast<double>(rng.uniform()) * total;
    // the first clip beyond `at`: that passes over clips of weight 0, and `total` keeps rounding from going past the
    // end
    int low = 0, high = num_clips - 1;
    while (low < high) {
      const int middle = (low + high) / 2;
      const double weight = cumulative_weight[middle];
      if (weight > at || weight >= total)
        high = middle;
      else
        low = middle + 1;
    }
    return low;
  }

  // Newest time of an encoder window of `frames`: uniform in [min(length, (frames - 1) dt), length].
  CALM_DEVICE Window sample_encoder_window(int clip, int frames, float dt, Rng& rng) const {
    const float end = length[clip], time = rng.uniform(earliest_encoder_time(clip, frames, dt), end);
    return {clip, time < end ? time : end};
  }
  CALM_DEVICE float earliest_encoder_time(int clip, int frames, float dt) const {
    const float span = static_cast<float>(frames - 1) * dt;
    return span < length[clip] ? span : length[clip];
  }

  // Newest time of a discriminator window of `frames` inside `encoder` window of `encoder_frames`: uniform over its
  // valid part: the whole window lies in the encoder window, and that in the clip, as far as they are long enough.
  CALM_DEVICE Window sample_discriminator_window(Window encoder, int encoder_frames, int frames, float dt,
                                                 Rng& rng) const {
    float start = encoder.time - static_cast<float>(encoder_frames - 1) * dt;
    start = start > 0.0f ? start : 0.0f;
    float earliest = start + static_cast<float>(frames - 1) * dt;
    earliest = earliest < encoder.time ? earliest : encoder.time;
    const float time = rng.uniform(earliest, encoder.time);
    return {encoder.clip, time < encoder.time ? time : encoder.time};
  }
};

}  // namespace calm
