// Counter-based random numbers (Philox 4x32-10, Salmon et al., SC 2011): stream (seed, key) gives the same
// sequence on every machine and thread, its state is 24 bytes and can be saved, and a GPU can compute the same.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

#include "base/device.h"

namespace calm {

class Rng {
 public:
  // seed: of the run; stream: which consumer (an environment's index, say).
  CALM_DEVICE explicit Rng(uint64_t seed = 0, uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  CALM_DEVICE uint32_t next_u32() {
    if (count_ / 4 != block_index_) {
      block_index_ = count_ / 4;
      philox(block_index_);
    }
    return block_[count_++ % 4];
  }

  // Uniform in [0, 1).
  CALM_DEVICE float uniform() { return static_cast<float>(next_u32() >> 8) * 0x1p-24f; }
  CALM_DEVICE float uniform(float lower, float upper) { return lower + (upper - lower) * uniform(); }

  // Uniform in [0, n); n > 0.
  CALM_DEVICE int below(int n) {
    return static_cast<int>((static_cast<uint64_t>(next_u32()) * static_cast<uint64_t>(n)) >> 32);
  }

  // Standard normal (Box-Muller; the sine half is dropped to keep the state small).
  CALM_DEVICE float normal() {
    const float u = 1.0f - uniform();
    return std::sqrt(-2.0f * std::log(u)) * std::cos(2.0f * std::numbers::pi_v<float> * uniform());
  }

  struct State {
    uint64_t seed, stream, count;
  };
  CALM_DEVICE State state() const { return {seed_, stream_, count_}; }
  CALM_DEVICE void set_state(const State& s) {
    seed_ = s.seed, stream_ = s.stream, count_ = s.count;
    block_index_ = kNoBlock;
  }

 private:
  CALM_DEVICE void philox(uint64_t counter) {
    uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32);
    uint32_t c2 = static_cast<uint32_t>(stream_), c3 = static_cast<uint32_t>(stream_ >> 32);
    uint32_t k0 = static_cast<uint32_t>(seed_), k1 = static_cast<uint32_t>(seed_ >> 32);
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53} * c0, p1 = uint64_t{0xCD9E8D57} * c2;
      c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0, c1 = static_cast<uint32_t>(p1);
      c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1, c3 = static_cast<uint32_t>(p0);
      k0 += 0x9E3779B9, k1 += 0xBB67AE85;
    }
    block_[0] = c0, block_[1] = c1, block_[2] = c2, block_[3] = c3;
  }

  static constexpr uint64_t kNoBlock = ~uint64_t{0};
  uint64_t seed_, stream_, count_ = 0;
  uint64_t block_index_ = kNoBlock;  // of the four numbers kept in block_
  uint32_t block_[4] = {};
};

}  // namespace calm
