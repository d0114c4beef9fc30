// The GPU's environments against the processor's: the same simulator, the same draws, the same actions.
#include <gtest/gtest.h>

#include <algorithm>

#ifdef CALM_WITH_CUDA
#include "env/cuda/cuda_env.h"

namespace calm {
namespace {

#define NEEDS_GPU() \
  if (!CudaEngine::available()) GTEST_SKIP() << "needs a GPU"

constexpr int kEnvs = 96;

EnvSettings busy() {
  EnvSettings s;
  s.episode_steps = 25, s.reset_fallen = 0.3f, s.recover_in_place = 0.5f, s.recovery_grace = 10;
  s.fallen_bank = 24, s.fallen_settle_steps = 20, s.latent_steps_min = 3, s.latent_steps_max = 12;
  s.latent_of_start = 0.7f, s.follow_limit = 0.05f;
  return s;
}

struct World {
  World()
      : character(load_character(CALM_SOURCE_DIR "/assets/characters/human.xml")),
        library(character, load_motions(character, "builtin:")),
        pool(2),
        simulator(character, {}, {}, kEnvs, pool),
        env(character, library, simulator, pool, busy(), {}, 5),
        actions(static_cast<size_t>(kEnvs) * character.num_dofs) {
    env.reset_all();
  }
  const std::vector<float>& act(Rng& rng) {
    for (float& a : actions) a = 0.5f * rng.uniform(-1.0f, 1.0f);
    return actions;
  }
  Character character;
  MotionLibrary library;
  ThreadPool pool;
  CudaSimulator simulator;
  BatchEnv env;
  std::vector<float> actions;
};

struct Output {
  explicit Output(const World& w)
      : windows(w.env.discriminator_windows().size()),
        observations(w.env.observations().size()),
        tracking(kEnvs),
        falls(kEnvs),
        dones(kEnvs),
        changed(kEnvs),
        moments(kEnvs) {}
  env_kernels::StepRows rows() {
    return {windows.data(), observations.data(), tracking.data(), falls.data(),
            dones.data(),   changed.data(),      moments.data()};
  }
  DeviceArray<float> windows, observations, tracking, falls, dones;
  DeviceArray<uint8_t> changed;
  DeviceArray<int64_t> moments;
};

template <class T>
std::vector<T> down(const DeviceArray<T>& array) {
  std::vector<T> out(array.size());
  array.download(out);
  return out;
}

TEST(CudaEnv, StepsAndResetsAsTheProcessorsDo) {
  NEEDS_GPU();
  World processor, gpu;
  const std::vector<float> exploration(kEnvs, 1.0f);
  CudaEnv env(gpu.env, gpu.simulator, exploration);
  Output out(gpu);
  Rng a(9), b(9);
  // another rounding grows with every contact, and once in a while puts a window or a fall a step aside; from there on
  // all else is another
  std::vector<uint8_t> parted(kEnvs, 0);
  const size_t window = processor.env.discriminator_windows().size() / kEnvs;
  const size_t size = processor.env.observations().size() / kEnvs;
  int ends = 0, changes = 0, followed = 0;
  for (int step = 0; step < 80; ++step) {
    processor.env.step(processor.act(a));
    const DeviceArray<float> actions(gpu.act(b));
    env.simulate(actions.data());
    env.observe(out.rows());
    const auto windows = down(out.windows), tracking = down(out.tracking), falls = down(out.falls);
    const auto dones = down(out.dones);
    const auto compare = [&](const std::vector<float>& ours, std::span<const float> theirs, size_t width, int e) {
      float worst = 0.0f;
      for (size_t i = e * width; i < (e + 1) * width; ++i)
        worst = std::max(worst, std::abs(ours[i] - theirs[i]) / (1.0f + std::abs(theirs[i])));
      EXPECT_LT(worst, step < 3 ? 1e-4f : 0.2f) << "step " << step << ", env " << e;
      if (worst > 1e-3f) parted[e] = 1;
    };
    for (int e = 0; e < kEnvs; ++e) {
      if (parted[e]) continue;
      compare(windows, processor.env.discriminator_windows(), window, e);
      if (parted[e]) continue;
      EXPECT_NEAR(tracking[e], processor.env.tracking()[e], 1e-3f);
      followed += tracking[e] >= 0.0f;
      parted[e] = falls[e] != processor.env.terminated()[e] ||
                  dones[e] != (processor.env.terminated()[e] || processor.env.truncated()[e]);
      ends += dones[e] != 0.0f;
    }
    processor.env.reset_finished();
    env.reset(out.rows());
    const auto changed = down(out.changed);
    const auto moments = down(out.moments);
    std::vector<float> observations(size * kEnvs);
    device_memory::download(observations.data(), env.observations(), observations.size() * sizeof(float));
    for (int e = 0; e < kEnvs; ++e) {
      if (parted[e]) continue;
      EXPECT_EQ(changed[e], processor.env.window_changed()[e]);
      const int64_t moment = processor.env.moments().moment(processor.env.windows()[e]);
      EXPECT_LE(std::abs(moments[e] - moment), 1) << "step " << step << ", env " << e;
      changes += changed[e];
      const float height = observations[e * size], theirs = processor.env.observations()[e * size];
      if (std::abs(height - theirs) > 1e-4f && moments[e] != moment) parted[e] = 1;  // started a moment aside
      if (!parted[e]) compare(observations, processor.env.observations(), size, e);
    }
  }
  EXPECT_LT(std::ranges::count(parted, 1), kEnvs / 3);
  EXPECT_GT(ends, 100);
  EXPECT_GT(changes, 2 * ends);
  EXPECT_GT(followed, 50);
  const BatchEnv::Counts ours = env.counts(), theirs = processor.env.counts();
  EXPECT_NEAR(static_cast<double>(ours.episodes), static_cast<double>(theirs.episodes), 0.1 * theirs.episodes);
  EXPECT_EQ(ours.episodes, ours.falls + ours.timeouts);
}

TEST(CudaEnv, SavedOnTheGpuGoesOnThere) {
  NEEDS_GPU();
  World world;
  const std::vector<float> exploration(kEnvs, 1.0f);
  CudaEnv env(world.env, world.simulator, exploration);
  Output out(world);
  const auto run = [&](int steps) {
    Rng rng(3);
    std::vector<float> trace;
    for (int step = 0; step < steps; ++step) {
      const DeviceArray<float> actions(world.act(rng));
      env.simulate(actions.data()), env.observe(out.rows()), env.reset(out.rows());
      const auto observations = down(out.observations);
      trace.insert(trace.end(), observations.begin(), observations.end());
    }
    return trace;
  };
  run(20);
  env.download();
  const std::string saved = world.env.save();
  const auto first = run(30);
  world.env.restore(saved);
  env.upload();
  EXPECT_EQ(run(30), first);
}

TEST(CudaEnv, ExploresWithTheProbabilityAndNoiseAskedFor) {
  NEEDS_GPU();
  World world;
  std::vector<float> exploration(kEnvs);
  for (int e = 0; e < kEnvs; ++e) exploration[e] = e < kEnvs / 2 ? 0.25f : 1.0f;
  CudaEnv env(world.env, world.simulator, exploration);
  const DeviceArray<float> means(std::vector<float>(world.actions.size(), 0.5f));
  const DeviceArray<float> actions(world.actions.size()), mask(kEnvs);
  double explored = 0.0, sum = 0.0, squared = 0.0, count = 0.0;
  constexpr int kDraws = 60;
  const auto dofs = static_cast<size_t>(world.character.num_dofs);
  for (int i = 0; i < kDraws; ++i) {
    env.explore(means.data(), 0.1f, actions.data(), mask.data());
    const auto a = down(actions), m = down(mask);
    for (size_t e = 0; e < kEnvs; ++e) {
      if (e < kEnvs / 2) explored += m[e] / (kDraws * kEnvs / 2.0);
      for (size_t d = e * dofs; d < (e + 1) * dofs; ++d) {
        const double noise = a[d] - 0.5;
        EXPECT_TRUE(m[e] != 0.0f || noise == 0.0);
        sum += noise, squared += noise * noise, count += m[e];
      }
    }
  }
  EXPECT_NEAR(explored, 0.25, 0.05);
  EXPECT_NEAR(sum / count, 0.0, 1e-3);
  EXPECT_NEAR(std::sqrt(squared / count), 0.1, 2e-3);
}

TEST(CudaEnv, DrawsClipRowsAsTheProcessorDoes) {
  NEEDS_GPU();
  World world;
  const std::vector<float> exploration(kEnvs, 1.0f);
  const CudaEnv env(world.env, world.simulator, exploration);
  constexpr int kRows = 2000;
  const DeviceArray<int64_t> newest(kRows), moments(kRows), near(kRows), other(kRows);
  env.draw_clip_rows(0.5f, 11, 4000, kRows, newest.data(), moments.data(), near.data(), other.data());
  const auto n = down(newest), m = down(moments), o = down(other), r = down(near);
  const EpisodeRules rules = world.env.rules();
  int same = 0;
  for (int i = 0; i < kRows; ++i) {
    Rng rng(11, 4000 + static_cast<uint64_t>(i));
    const ClipRow row = rules.draw_clip_row(0.5f, rng);
    same += n[i] == row.newest && m[i] == row.moment && r[i] == row.near;
    ASSERT_EQ(world.env.moments().clip_of(n[i]), row.clip);
    ASSERT_GE(o[i], 0);
    EXPECT_NE(world.env.moments().clip_of(m[static_cast<size_t>(o[i])]), row.clip);
  }
  EXPECT_GT(same, kRows * 98 / 100);
}

}  // namespace
}  // namespace calm
#endif
