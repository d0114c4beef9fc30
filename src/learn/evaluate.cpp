#include "learn/evaluate.h"

#include <limits>
#include <map>

#include "base/error.h"
#include "features/features.h"
#include "learn/motion_distance.h"

namespace calm {

namespace {

using Rows = MotionDistance::Rows;

}  // namespace

Evaluation evaluate_low_level(const Policy& policy, const Character& character, const MotionLibrary& library,
                              const PhysicsSettings& physics, const std::string& backend, const EvalSettings& settings,
                              ThreadPool& pool) {
  const int num_clips = library.num_clips(), episodes = num_clips * settings.episodes_per_clip;
  const int features = character.motion_feature_size(), obs_size = character.observation_size();
  const float dt = 1.0f / physics.control_rate;
  const int steps = static_cast<int>(std::lround(settings.seconds / dt));
  const int skip = static_cast<int>(std::lround(settings.skip_seconds / dt));

  std::vector<int> latent_of(num_clips);
  for (int c = 0; c < num_clips; ++c) {
    latent_of[c] = policy.latent_index(library.clip(c).name);
    if (latent_of[c] < 0)
      fail("policy: knows no clip `{}`; evaluate it on the motions it was trained on", library.clip(c).name);
  }

  EnvSettings env_settings;
  env_settings.reset_fallen = 0.0f;
  env_settings.episode_steps = steps + 1;
  const auto simulator = make_simulator(backend, character, physics, episodes, pool);
  BatchEnv env(character, library, *simulator, pool, env_settings, physics, static_cast<uint64_t>(settings.seed));
  env.hold_windows(true);
  for (int e = 0; e < episodes; ++e) {
    const int clip = e / settings.episodes_per_clip;
    Rng rng(static_cast<uint64_t>(settings.seed), 0xe7a1ull + static_cast<uint64_t>(e));
    const float time = rng.uniform() * library.clip(clip).length();
    env.start_from_clip(e, clip, time, {clip, library.clip(clip).length()});
  }

  // simulate, recording features until a fall
  std::vector<Rows> motion(episodes, Rows(steps, features));
  std::vector<int> lasted(episodes, steps);
  std::vector<uint8_t> fell(episodes, 0);
  std::vector<float> actions(static_cast<size_t>(episodes) * character.num_dofs);
  for (int step = 0; step < steps; ++step) {
    pool.parallel_for(episodes, 2, [&](int e, int) {
      const auto obs =
          Eigen::Map<const Eigen::VectorXf>(&env.observations()[static_cast<size_t>(e) * obs_size], obs_size);
      const auto action = policy.act(obs, policy.latents[latent_of[e / settings.episodes_per_clip]].z);
      Eigen::Map<Eigen::VectorXf>(&actions[static_cast<size_t>(e) * character.num_dofs], character.num_dofs) = action;
    });
    env.step(actions);
    for (int e = 0; e < episodes; ++e) {
      const float* newest =
          &env.discriminator_windows()[static_cast<size_t>(e) * env_settings.discriminator_frames * features];
      std::copy_n(newest, features, motion[e].row(step).data());
      if (env.terminated()[e] && !fell[e]) fell[e] = 1, lasted[e] = step;
    }
  }

  // distances of every episode to every clip; what lies on the floor after a fall does not count
  const int window = static_cast<int>(std::lround(settings.window_seconds / dt));
  const MotionDistance to(library, dt, window);
  std::vector<std::vector<double>> distances(episodes);
  pool.parallel_for(episodes, 1, [&](int e, int) {
    const int begin = std::min(skip, std::max(0, lasted[e] - window)), frames = std::max(lasted[e] - begin, 1);
    distances[e] = to.to_clips(motion[e].middleRows(begin, frames));
  });

  Evaluation result;
  result.episodes = episodes, result.chance = 1.0 / num_clips;
  for (int c = 0; c < num_clips; ++c) {
    ClipEvaluation clip;
    clip.name = library.clip(c).name;
    std::map<int, int> nearest_counts;
    for (int k = 0; k < settings.episodes_per_clip; ++k) {
      const int e = c * settings.episodes_per_clip + k;
      const auto nearest = static_cast<int>(std::ranges::min_element(distances[e]) - distances[e].begin());
      ++nearest_counts[nearest];
      double other = std::numeric_limits<double>::infinity();
      for (int o = 0; o < num_clips; ++o)
        if (o != c) other = std::min(other, distances[e][o]);
      clip.own_distance += distances[e][c], clip.other_distance += num_clips > 1 ? other : 0.0;
      clip.recognised_share += nearest == c, clip.stays_up += !fell[e];
    }
    const double n = settings.episodes_per_clip;
    result.stays_up += clip.stays_up, result.recognised += clip.recognised_share;
    clip.own_distance /= n, clip.other_distance /= n, clip.recognised_share /= n, clip.stays_up /= n;
    clip.recognised = clip.recognised_share > 0.5;
    clip.taken_for =
        library.clip(std::ranges::max_element(nearest_counts, {}, [](auto& p) { return p.second; })->first).name;
    result.clips.push_back(clip);
  }
  result.stays_up /= episodes, result.recognised /= episodes;

  // joint velocities, the episodes' over the clips'
  const int first = 13 + 6 * character.num_joints();
  const auto joint_speed = [&](const Rows& rows) {
    return rows.middleCols(first, character.num_dofs).cwiseAbs().mean();
  };
  double of_episodes = 0.0, of_clips = 0.0;
  for (int e = 0; e < episodes; ++e)
    of_episodes += static_cast<double>(joint_speed(motion[e].topRows(std::max(lasted[e], 1)))) / episodes;
  for (int c = 0; c < num_clips; ++c) {
    const int frames = static_cast<int>(library.clip(c).length() / dt) + 1;
    Rows rows(frames, features);
    for (int f = 0; f < frames; ++f)
      library.window_features({c, static_cast<float>(f) * dt}, 1, dt, rows.row(f).data());
    of_clips += static_cast<double>(joint_speed(rows)) / num_clips;
  }
  result.joint_speed = of_clips > 0.0 ? of_episodes / of_clips : 0.0;
  return result;
}

}  // namespace calm
