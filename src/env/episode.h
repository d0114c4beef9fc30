// What happens to one environment between simulated steps: how an episode starts, ends, changes its latent and follows
// its clip. On a processor (batch_env.h) and on a GPU (cuda/cuda_env.h) alike; nothing here simulates.
#pragma once

#include <cmath>

#include "env/env_settings.h"
#include "motion/clip_sampler.h"
#include "sim/fall_rule.h"

namespace calm {

inline constexpr int kMomentsPerStep = 8;
inline constexpr int kGraceOnceUp = 15;     // control steps
inline constexpr int kSettle = 45;          // control steps in which a new clip need not be followed closely yet
inline constexpr float kTurnMemory = 1.0f;  // s

// Time snapped down to the grid of moments, kMomentsPerStep a control step of dt.
CALM_INLINE float snap_to_moment(float time, float dt) {
  const float grid = dt / kMomentsPerStep;
  return floorf(time / grid + 1e-3f) * grid;
}

// View of a MomentTable.
struct Moments {
  float grid = 0.0f;  // s
  int num_features = 0;
  const int64_t* first = nullptr;   // (clips + 1) first moment; the last entry is the number of moments
  const int* clip_of = nullptr;     // (moments)
  const float* features = nullptr;  // (moments x features)

  CALM_DEVICE int64_t last_of(int clip) const { return first[clip + 1] - 1; }
  // Of a window's newest frame; the clip's first or last if it lies outside.
  CALM_DEVICE int64_t at(const Window& window) const {
    const auto moment = first[window.clip] + static_cast<int64_t>(floorf(window.time / grid + 1e-2f));
    const int64_t last = last_of(window.clip);
    return moment < first[window.clip] ? first[window.clip] : moment > last ? last : moment;
  }
};

struct Episode {
  int step = 0;            // control steps since the start
  int grace = 0;           // steps left in which a fall does not end it
  int latent_left = 0;     // steps until the next latent
  int64_t reference = -1;  // moment of the clip that it follows; -1: it follows none
  int settle = 0;          // steps left in which straying from that does not end it
  float turned = 0.0f;     // rad by which it has turned too far to the left of late, where new clips are learnt
  Rng rng;
};

// What an environment is put into when its episode ends.
struct Reset {
  enum class To { kGoOn, kFallen, kClip, kStand };
  To to = To::kGoOn;
  int fallen = 0;  // of the bank
  int clip = 0;
  float time = 0.0f;  // of the clip, at a moment
};

// How the last step ended for an environment.
struct StepEnd {
  float tracking = -1.0f;  // how near it is to the clip that it follows, or to standing where it recovers and that is
                           // scored, in [0, 1]; negative: neither
  bool fell = false;       // or strayed, or was put back by the simulator
  bool out_of_time = false;
};

// Of a clip, for the discriminator's and the encoder's losses: moments of windows' newest frames.
struct ClipRow {
  int clip = 0;
  int64_t newest = 0;  // of a discriminator window
  int64_t moment = 0;  // of an encoder window that holds it
  int64_t near = 0;    // of another encoder window nearby
};

// All that the functions below need; points to tables that lie elsewhere.
struct EpisodeRules {
  EnvSettings settings;
  float dt = 0.0f;            // of a control step, s
  float follow_share = 1.0f;  // of the episodes that could follow, those which do
  int num_fallen = 0;         // states in the bank
  // >= 0: a policy learns more clips, those from this index on. They and no others are followed, whenever a latent of
  // theirs is in force: from the moment that is nearest to what the character does, over and over.
  int first_new = -1;
  ClipSampler clips;
  Moments moments;

  // of the character
  int num_bodies = 0, num_joints = 0, num_dofs = 0, num_key_bodies = 0;
  float stand_height = 0.0f;           // of the root, m
  const uint8_t* is_foot = nullptr;    // (bodies)
  const float* fall_height = nullptr;  // (bodies) m

  // A window for the next latent, and how long that is held.
  CALM_DEVICE Window draw_window(Episode& episode) const {
    Rng& rng = episode.rng;
    const int clip = clips.sample_clip(rng);
    Window window = clips.sample_encoder_window(clip, settings.encoder_frames, dt, rng);
    window.time = snap_to_moment(window.time, dt);
    episode.latent_left =
        settings.latent_steps_min + rng.below(settings.latent_steps_max - settings.latent_steps_min + 1);
    episode.reference = -1;
    return window;
  }

  CALM_DEVICE bool is_new(int clip) const { return first_new >= 0 && clip >= first_new; }

  // Once a latent is in force: follows its clip if that is to be learnt. features: newest row of the discriminator's
  // window.
  CALM_DEVICE void follow_new(Episode& episode, int clip, const float* features) const {
    if (!is_new(clip) || episode.grace > 0) return;
    episode.turned = 0.0f, episode.settle = 0;
    if (episode.reference >= 0) return;
    episode.reference = nearest_moment(clip, features), episode.settle = kSettle;
  }

  // Of a clip, at least half a second before its end if it is so long.
  CALM_DEVICE int64_t nearest_moment(int clip, const float* features) const {
    constexpr int kStride = kMomentsPerStep / 2;
    const int64_t first = moments.first[clip];
    int64_t end = moments.last_of(clip) - static_cast<int64_t>(0.5f / moments.grid), nearest = first;
    end = end > first ? end : first;
    float least = 1e30f;
    for (int64_t moment = first; moment <= end; moment += kStride) {
      const float error = distance(features, moments.features + moment * moments.num_features);
      if (error < least) least = error, nearest = moment;
    }
    return nearest;
  }

  // near: at most `apart` seconds from the other encoder window.
  CALM_DEVICE ClipRow draw_clip_row(float apart, Rng& rng) const {
    ClipRow row;
    row.clip = clips.sample_clip(rng);
    const int frames = settings.encoder_frames;
    Window window = clips.sample_encoder_window(row.clip, frames, dt, rng);
    window.time = snap_to_moment(window.time, dt);
    Window inside = clips.sample_discriminator_window(window, frames, settings.discriminator_frames, dt, rng);
    inside.time = snap_to_moment(inside.time, dt);
    const float length = clips.length[row.clip], earliest = clips.earliest_encoder_time(row.clip, frames, dt);
    float time = window.time + rng.uniform(-apart, apart);
    time = time > earliest ? time : earliest, time = time < length ? time : length;
    row.newest = moments.at(inside), row.moment = moments.at(window);
    row.near = moments.at({row.clip, snap_to_moment(time, dt)});
    return row;
  }

  // Starts the next episode; `window` becomes that of its first latent. in_place: it may go on from where it lies.
  CALM_DEVICE Reset draw_reset(Episode& episode, bool in_place, Window& window) const {
    Rng& rng = episode.rng;
    Reset reset;
    episode.step = 0, episode.grace = 0, episode.reference = -1;
    if (in_place && rng.uniform() < settings.recover_in_place) {
      episode.grace = settings.recovery_grace;
      window = draw_window(episode);
      return reset;
    }
    if (num_fallen > 0 && rng.uniform() < settings.reset_fallen) {
      reset.to = Reset::To::kFallen, reset.fallen = rng.below(num_fallen);
      episode.grace = settings.recovery_grace;
      window = draw_window(episode);
      return reset;
    }
    if (!(rng.uniform() < settings.reset_from_clip)) {
      reset.to = Reset::To::kStand;
      window = draw_window(episode);
      return reset;
    }
    reset.to = Reset::To::kClip, reset.clip = clips.sample_clip(rng);
    const float length = clips.length[reset.clip];
    reset.time = snap_to_moment(rng.uniform() * length, dt);
    window = draw_window(episode);
    if (rng.uniform() < settings.latent_of_start) {
      // a window of this clip that holds the moment started from
      const float span = static_cast<float>(settings.encoder_frames - 1) * dt;
      float earliest = clips.earliest_encoder_time(reset.clip, settings.encoder_frames, dt), latest = reset.time + span;
      earliest = earliest > reset.time ? earliest : reset.time, latest = latest < length ? latest : length;
      window = {reset.clip, snap_to_moment(rng.uniform(earliest, latest > earliest ? latest : earliest), dt)};
      // no less than a step of the clip must be left
      const int64_t moment = moments.at({reset.clip, reset.time});
      const bool follows = first_new < 0 ? rng.uniform() < follow_share : is_new(reset.clip);
      if (follows && moment + kMomentsPerStep <= moments.last_of(reset.clip)) {
        episode.reference = moment;
        if (first_new < 0) episode.latent_left = settings.episode_steps;
      }
    }
    return reset;
  }

  // Counts a step and tells how it ended. features: newest row of the discriminator's window.
  CALM_DEVICE StepEnd end_step(Episode& episode, bool diverged, const float* features, const float* forces,
                               const float* positions) const {
    StepEnd end;
    ++episode.step;
    --episode.latent_left;
    if (!diverged) end.tracking = follow(episode, features);
    const bool strayed = end.tracking >= 0.0f && end.tracking < settings.follow_limit && episode.settle == 0;
    if (episode.settle > 0) --episode.settle;
    if (settings.recovery_score && episode.grace > 0 && !diverged) {
      end.tracking = standing_score(features);
      // it stands: recovering ends soon
      if (end.tracking > 0.9f && episode.grace > kGraceOnceUp) episode.grace = kGraceOnceUp;
    }
    // contacts settle in the first step
    const auto foot = [this](int b) { return is_foot[b] != 0; };
    const bool fell =
        episode.grace == 0 && episode.step > 1 && touches_while_low(num_bodies, foot, fall_height, forces, positions);
    end.fell = diverged || strayed || fell;
    bool clip_is_over =
        episode.reference >= 0 && episode.reference == moments.last_of(moments.clip_of[episode.reference]);
    if (clip_is_over && first_new >= 0) {
      episode.reference = nearest_moment(moments.clip_of[episode.reference], features);
      clip_is_over = false;
    }
    end.out_of_time = !end.fell && (episode.step >= settings.episode_steps || clip_is_over);
    if (episode.grace > 0) --episode.grace;
    return end;
  }

  // 1 upright and as high as in standing, nearly; 0 on the floor or upside down. From the features' root height and the
  // height that its upward axis reaches.
  CALM_DEVICE float standing_score(const float* features) const {
    const float height = features[0] / (0.9f * stand_height), up = 0.5f + 0.5f * features[6];
    return (height < 0.0f ? 0.0f : height > 1.0f ? 1.0f : height) * up;
  }

  // A product of the terms of Peng et al. 2018 (DeepMimic), over motion features: a sum would pay for standing still in
  // a clip of walking. Of two columns of a rotation matrix the squared difference is about 4/3 of the squared angle.
  // Advances the clip's time.
  CALM_DEVICE float follow(Episode& episode, const float* features) const {
    if (episode.reference < 0) return -1.0f;
    const int64_t last = moments.last_of(moments.clip_of[episode.reference]);
    float best = 1e30f;
    int64_t best_moment = episode.reference;
    // the control step's eight moments first, then from half to one and a half times as fast
    for (int i = 0; i < 5; ++i) {
      const int advance = i == 0 ? kMomentsPerStep : (i <= 2 ? 1 + i : 2 + i) * (kMomentsPerStep / 4);
      const int64_t moment = episode.reference + advance < last ? episode.reference + advance : last;
      const float error = distance(features, moments.features + moment * moments.num_features);
      if (error < best) best = error, best_moment = moment;
    }
    episode.reference = best_moment;
    if (first_new >= 0) {
      // It starts from other clips: what is far must still say which way is nearer. Paths that bend differ in little
      // but the turn, which is summed up, as the root's yaw swings with each stride.
      const int yaw_rate = 1 + 6 + 3 + 2;
      const float faster = features[yaw_rate] - moments.features[best_moment * moments.num_features + yaw_rate];
      episode.turned += dt * (faster - episode.turned / kTurnMemory);
      best = 0.3f * best + 0.5f * episode.turned * episode.turned;
    }
    return expf(-best);
  }

  CALM_DEVICE float distance(const float* x, const float* y) const {
    float error = 0.0f;
    const auto add = [&](int count, float weight) {
      float squared = 0.0f;
      for (int i = 0; i < count; ++i) squared += (x[i] - y[i]) * (x[i] - y[i]);
      error += weight * squared;
      x += count, y += count;
    };
    add(1, 20.0f);                  // root height, m²
    add(6, 1.5f);                   // root tilt
    add(3, 1.0f);                   // root velocity, (m/s)²
    add(3, 0.1f);                   // root angular velocity, (rad/s)²
    add(6 * num_joints, 0.3f);      // joint rotations
    add(num_dofs, 0.002f);          // joint velocities, (rad/s)²
    add(3 * num_key_bodies, 3.0f);  // key bodies, m²
    return error;
  }
};

}  // namespace calm
