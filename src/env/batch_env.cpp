#include "env/batch_env.h"

#include <chrono>
#include <cstring>

#include "base/error.h"
#include "base/pack.h"
#include "features/features.h"

namespace calm {

namespace {

constexpr int kGrain = 4;  // environments a thread takes at a time

}  // namespace

BatchEnv::BatchEnv(const Character& character, const MotionLibrary& library, Simulator& simulator, ThreadPool& pool,
                   const EnvSettings& settings, const PhysicsSettings& physics, uint64_t seed)
    : character_(&character),
      library_(&library),
      simulator_(&simulator),
      pool_(&pool),
      settings_(settings),
      num_envs_(simulator.state().num_envs),
      dt_(1.0f / physics.control_rate),
      moments_(library, dt_),
      episodes_(num_envs_),
      windows_(num_envs_),
      observations_(static_cast<size_t>(num_envs_) * character.observation_size()),
      disc_windows_(static_cast<size_t>(num_envs_) * settings.discriminator_frames * character.motion_feature_size()),
      pd_targets_(static_cast<size_t>(num_envs_) * character.num_dofs),
      tracking_(num_envs_, -1.0f),
      terminated_(num_envs_),
      truncated_(num_envs_),
      window_changed_(num_envs_) {
  if (settings.latent_steps_min < 1 || settings.latent_steps_max < settings.latent_steps_min)
    fail("env: latent_steps_min {} and latent_steps_max {} must be 1 <= min <= max", settings.latent_steps_min,
         settings.latent_steps_max);
  if (settings.discriminator_frames < 2 || settings.encoder_frames < settings.discriminator_frames)
    fail("env: need 2 <= discriminator_frames <= encoder_frames, not {} and {}", settings.discriminator_frames,
         settings.encoder_frames);
  for (int b = 0; b < character.num_bodies(); ++b)
    is_foot_.push_back(std::ranges::find(character.feet, b) != character.feet.end());
  for (int worker = 0; worker < pool.size(); ++worker) scratch_.emplace_back(character);
  for (int env = 0; env < num_envs_; ++env) episodes_[env].rng = Rng(seed, static_cast<uint64_t>(env));
  if (settings.reset_fallen > 0.0f) make_fallen_bank(seed);
}

// Falls from random orientations with random targets, settled; all environments serve as the drop tower.
void BatchEnv::make_fallen_bank(uint64_t seed) {
  const int num_dofs = character_->num_dofs;
  while (static_cast<int>(fallen_.size()) < settings_.fallen_bank) {
    Rng rng(seed, 0xfa11ull + fallen_.size());
    for (int env = 0; env < num_envs_; ++env) {
      const CharacterState start = default_state(*character_);
      RootState root;
      root.pos = Vec3(0.0f, 0.0f, character_->stand_height + 0.3f);
      root.rot = Quat(rng.normal(), rng.normal(), rng.normal(), rng.normal()).normalized();
      simulator_->set_state(env, root, start.dof_pos, start.dof_vel);
    }
    for (int step = 0; step < settings_.fallen_settle_steps; ++step) {
      if (step % 15 == 0)
        for (int env = 0; env < num_envs_; ++env)
          for (int d = 0; d < num_dofs; ++d)
            pd_targets_[static_cast<size_t>(env) * num_dofs + d] =
                character_->action_offset[d] + 0.5f * character_->action_scale[d] * rng.uniform(-1.0f, 1.0f);
      simulator_->step(pd_targets_);
    }
    const BatchState& state = simulator_->state();
    for (int env = 0; env < num_envs_ && static_cast<int>(fallen_.size()) < settings_.fallen_bank; ++env) {
      const auto v = state.view(env);
      FallenState fallen;
      fallen.root = {Vec3(0.0f, 0.0f, v.pos(0).z()), v.rot(0), Vec3::Zero(), Vec3::Zero()};
      fallen.dof_pos.assign(v.dof_pos, v.dof_pos + num_dofs);
      fallen.dof_vel.assign(num_dofs, 0.0f);
      fallen_.push_back(std::move(fallen));
    }
  }
}

EpisodeRules BatchEnv::rules() const {
  EpisodeRules rules;
  rules.settings = settings_, rules.dt = dt_, rules.follow_share = follow_share_, rules.first_new = first_new_;
  rules.num_fallen = static_cast<int>(fallen_.size());
  rules.clips = library_->sampler(), rules.moments = moments_.view();
  rules.num_bodies = character_->num_bodies(), rules.num_joints = character_->num_joints();
  rules.num_dofs = character_->num_dofs, rules.num_key_bodies = static_cast<int>(character_->key_bodies.size());
  rules.stand_height = character_->stand_height;
  rules.is_foot = is_foot_.data(), rules.fall_height = character_->fall_height.data();
  return rules;
}

void BatchEnv::refresh_observation(int env) {
  write_observation(*character_, simulator_->state().view(env),
                    &observations_[static_cast<size_t>(env) * character_->observation_size()]);
}

void BatchEnv::fill_history(int env) {
  const size_t features = character_->motion_feature_size();
  float* window = &disc_windows_[env * features * settings_.discriminator_frames];
  write_motion_features(*character_, simulator_->state().view(env), window);
  for (int frame = 1; frame < settings_.discriminator_frames; ++frame)
    std::copy_n(window, features, window + frame * features);
}

void BatchEnv::fill_history_from_clip(int env, int clip, float time) {
  const size_t features = character_->motion_feature_size();
  library_->window_features({clip, time}, settings_.discriminator_frames, dt_,
                            &disc_windows_[env * features * settings_.discriminator_frames]);
}

RootState BatchEnv::clip_state(int clip, float time, CharacterState& out) const {
  library_->state(clip, time, out);
  RootState root = out.root();
  root.pos.head<2>().setZero();
  return root;
}

void BatchEnv::start_from_clip(int env, int clip, float time, Window window) {
  CharacterState state(*character_);
  const RootState root = clip_state(clip, time, state);
  simulator_->set_state(env, root, state.dof_pos, state.dof_vel);
  Episode& episode = episodes_[env];
  episode.step = 0, episode.grace = 0, episode.latent_left = settings_.latent_steps_max;
  episode.settle = 0, episode.turned = 0.0f;
  episode.reference = moments_.moment({clip, time});
  windows_[env] = window;
  window_changed_[env] = 1;
  terminated_[env] = truncated_[env] = 0;
  tracking_[env] = -1.0f;
  fill_history_from_clip(env, clip, time);
  refresh_observation(env);
}

void BatchEnv::reset_env(int env, CharacterState& scratch) {
  const bool fell = terminated_[env] && !simulator_->state().diverged[env];
  const Reset reset = rules().draw_reset(episodes_[env], fell, windows_[env]);
  window_changed_[env] = 1;
  switch (reset.to) {
    case Reset::To::kGoOn:
      return;
    case Reset::To::kFallen: {
      const FallenState& fallen = fallen_[reset.fallen];
      simulator_->set_state(env, fallen.root, fallen.dof_pos, fallen.dof_vel);
      fill_history(env);
      break;
    }
    case Reset::To::kClip: {
      const RootState root = clip_state(reset.clip, reset.time, scratch);
      simulator_->set_state(env, root, scratch.dof_pos, scratch.dof_vel);
      fill_history_from_clip(env, reset.clip, reset.time);
      break;
    }
    case Reset::To::kStand:
      scratch = default_state(*character_);
      simulator_->set_state(env, scratch.root(), scratch.dof_pos, scratch.dof_vel);
      fill_history(env);
      break;
  }
  refresh_observation(env);
}

void BatchEnv::reset_all() {
  std::ranges::fill(terminated_, uint8_t{0});
  pool_->parallel_for(num_envs_, kGrain, [&](int env, int worker) {
    reset_env(env, scratch_[worker]);
    follow_new(env);
  });
}

void BatchEnv::follow_new(int env) {
  const size_t size = static_cast<size_t>(character_->motion_feature_size()) * settings_.discriminator_frames;
  rules().follow_new(episodes_[env], windows_[env].clip, &disc_windows_[env * size]);
}

void BatchEnv::step(std::span<const float> actions) {
  const int num_dofs = character_->num_dofs;
  for (int env = 0; env < num_envs_; ++env)
    for (int d = 0; d < num_dofs; ++d) {
      const size_t i = static_cast<size_t>(env) * num_dofs + d;
      pd_targets_[i] = character_->action_offset[d] + character_->action_scale[d] * std::clamp(actions[i], -1.0f, 1.0f);
    }
  const auto start = std::chrono::steady_clock::now();
  simulator_->step(pd_targets_);
  physics_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  const size_t features = character_->motion_feature_size();
  const size_t window_size = features * settings_.discriminator_frames;
  const EpisodeRules episode_rules = rules();
  pool_->parallel_for(num_envs_, kGrain, [&](int env, int) {
    // discriminator window: newest first
    float* window = &disc_windows_[env * window_size];
    std::memmove(window + features, window, (window_size - features) * sizeof(float));
    write_motion_features(*character_, simulator_->state().view(env), window);
    refresh_observation(env);

    const BatchState& state = simulator_->state();
    const size_t row = 3 * static_cast<size_t>(env) * state.num_bodies;
    const StepEnd end = episode_rules.end_step(episodes_[env], state.diverged[env], window, &state.contact_force[row],
                                               &state.body_pos[row]);
    tracking_[env] = end.tracking, terminated_[env] = end.fell, truncated_[env] = end.out_of_time;
  });

  for (int env = 0; env < num_envs_; ++env) {
    if (!terminated_[env] && !truncated_[env]) continue;
    ++counts_.episodes;
    counts_.falls += terminated_[env];
    counts_.timeouts += truncated_[env];
    counts_.episode_steps += episodes_[env].step;
  }
}

void BatchEnv::reset_finished() {
  pool_->parallel_for(num_envs_, kGrain, [&](int env, int worker) {
    window_changed_[env] = 0;
    if (terminated_[env] || truncated_[env]) {
      reset_env(env, scratch_[worker]);
    } else if (!hold_windows_ && episodes_[env].latent_left <= 0) {
      windows_[env] = rules().draw_window(episodes_[env]);
      window_changed_[env] = 1;
    }
    if (window_changed_[env]) follow_new(env);
  });
}

std::string BatchEnv::save() const {
  Packer out;
  for (int env = 0; env < num_envs_; ++env) {
    const Episode& e = episodes_[env];
    out.put(e.step), out.put(e.grace), out.put(e.latent_left), out.put(e.reference);
    out.put(e.settle), out.put(e.turned);
    out.put(e.rng.state());
    out.put(windows_[env]);
    out.put_array(std::span<const double>(simulator_->save(env)));
  }
  out.put_array(std::span<const float>(disc_windows_));
  out.put_array(std::span<const float>(observations_));
  out.put_array(std::span<const uint8_t>(terminated_));
  out.put_array(std::span<const uint8_t>(truncated_));
  out.put(counts_);
  return out.bytes;
}

void BatchEnv::restore(const std::string& saved) {
  Unpacker in(saved);
  std::vector<double> simulated;
  for (int env = 0; env < num_envs_; ++env) {
    Episode& e = episodes_[env];
    e.step = in.get<int>(), e.grace = in.get<int>(), e.latent_left = in.get<int>();
    e.reference = in.get<int64_t>();
    e.settle = in.get<int>(), e.turned = in.get<float>();
    if (e.reference >= moments_.num_moments()) fail("saved environments do not fit: other clips");
    e.rng.set_state(in.get<Rng::State>());
    windows_[env] = in.get<Window>();
    in.get_array(simulated, true);
    simulator_->restore(env, simulated);
  }
  in.get_array(disc_windows_);
  in.get_array(observations_);
  in.get_array(terminated_);
  in.get_array(truncated_);
  counts_ = in.get<Counts>();
  in.finish();
}

}  // namespace calm
