#include "learn/paper_measures.h"

#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/progress.h"
#include "env/actors.h"
#include "features/features.h"
#include "learn/latent_map.h"
#include "learn/motion_classifier.h"
#include "learn/motion_distance.h"

namespace calm {

Estimate share_of(int successes, int count) {
  if (count == 0) return {};
  constexpr double z = 1.96;
  const double n = count, p = successes / n, middle = (p + z * z / (2 * n)) / (1 + z * z / n);
  const double half = z / (1 + z * z / n) * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {p, std::max(0.0, middle - half), std::min(1.0, middle + half), count};
}

Estimate mean_of(const std::vector<double>& values) {
  if (values.empty()) return {};
  double sum = 0.0, squares = 0.0;
  for (const double v : values) sum += v;
  const double n = static_cast<double>(values.size()), mean = sum / n;
  for (const double v : values) squares += (v - mean) * (v - mean);
  const double half = values.size() > 1 ? 1.96 * std::sqrt(squares / (n - 1) / n) : 0.0;
  return {mean, mean - half, mean + half, static_cast<int>(values.size())};
}

double fisher_concentration(const std::vector<Eigen::MatrixXd>& classes) {
  double within = 0.0, between = 0.0;
  Eigen::MatrixXd means(classes.size(), classes.front().cols());
  for (size_t c = 0; c < classes.size(); ++c) {
    means.row(static_cast<Eigen::Index>(c)) = classes[c].colwise().mean();
    const auto apart = classes[c].rowwise() - means.row(static_cast<Eigen::Index>(c));
    within += apart.rowwise().squaredNorm().mean();
  }
  between = (means.rowwise() - means.colwise().mean()).rowwise().squaredNorm().sum();
  return between > 0.0 ? within / between : std::numeric_limits<double>::infinity();
}

double inception_score(const Eigen::MatrixXd& p) {
  if (p.rows() == 0) return 0.0;
  const Eigen::RowVectorXd all = p.colwise().mean();
  double divergence = 0.0;
  for (Eigen::Index i = 0; i < p.rows(); ++i)
    for (Eigen::Index c = 0; c < p.cols(); ++c)
      if (p(i, c) > 0.0) divergence += p(i, c) * std::log(p(i, c) / all[c]);
  return std::exp(divergence / static_cast<double>(p.rows()));
}

std::vector<double> distance_by_body(const Eigen::MatrixXf& motion, const Eigen::MatrixXf& clip, int window) {
  window = std::min({window, static_cast<int>(motion.rows()), static_cast<int>(clip.rows())});
  const Eigen::Index bodies = motion.cols() / 3;
  Eigen::VectorXd sum = Eigen::VectorXd::Zero(bodies);
  double frames = 0.0;
  for (Eigen::Index begin = 0; window > 0 && begin + window <= motion.rows(); begin += window) {
    const auto seen = motion.middleRows(begin, window);
    Eigen::Index best = 0;
    float least = std::numeric_limits<float>::infinity();
    for (Eigen::Index at = 0; at + window <= clip.rows(); ++at)
      if (const float error = (seen - clip.middleRows(at, window)).squaredNorm(); error < least)
        least = error, best = at;
    const Eigen::MatrixXf apart = seen - clip.middleRows(best, window);
    for (Eigen::Index b = 0; b < bodies; ++b) sum[b] += apart.middleCols(3 * b, 3).rowwise().norm().sum();
    frames += window;
  }
  if (frames > 0.0) sum /= frames;
  return {sum.data(), sum.data() + sum.size()};
}

namespace {

using Rows = MotionDistance::Rows;

// As training's bank of fallen states is made: random targets, drawn anew every half second.
class Thrashing {
 public:
  Thrashing(Actors& actors, std::vector<Rng>& rngs)
      : actors_(actors), rngs_(rngs), actions_(rngs.size() * static_cast<size_t>(actors.character().num_dofs)) {}
  void step() {
    const auto dofs = static_cast<size_t>(actors_.character().num_dofs);
    if (steps_++ % 15 == 0)
      for (size_t i = 0; i < actions_.size(); ++i) actions_[i] = 0.5f * rngs_[i / dofs].uniform(-1.0f, 1.0f);
    actors_.step(actions_);
  }

 private:
  Actors& actors_;
  std::vector<Rng>& rngs_;
  std::vector<float> actions_;
  int steps_ = 0;
};

// Positions of all bodies, one row a control step.
struct Track {
  std::vector<std::vector<float>> rows;

  void add(const CharacterStateView& state, int bodies) {
    rows.emplace_back(state.body_pos, state.body_pos + 3 * bodies);
  }
  // Mean length of the bodies' third differences from row `begin` to `end`, m.
  double jerk(size_t begin, size_t end) const {
    double sum = 0.0, count = 0.0;
    for (size_t t = begin + 3; t < std::min(end, rows.size()); ++t)
      for (size_t b = 0; b < rows[t].size(); b += 3, ++count) {
        Eigen::Vector3d third;
        for (size_t k = 0; k < 3; ++k)
          third[static_cast<Eigen::Index>(k)] = static_cast<double>(rows[t][b + k]) - 3.0 * rows[t - 1][b + k] +
                                                3.0 * rows[t - 2][b + k] - rows[t - 3][b + k];
        sum += third.norm();
      }
    return count > 0.0 ? sum / count : 0.0;
  }
  // Adds the horizontal way of feet that are down, m, and the steps that they were.
  void add_slide(const std::vector<int>& feet, const std::vector<float>& down, size_t begin, size_t end, double& way,
                 double& steps) const {
    for (size_t t = begin + 1; t < std::min(end, rows.size()); ++t)
      for (size_t f = 0; f < feet.size(); ++f) {
        const float *now = &rows[t][3 * static_cast<size_t>(feet[f])],
                    *before = &rows[t - 1][3 * static_cast<size_t>(feet[f])];
        if (now[2] > down[f] || before[2] > down[f]) continue;
        way += std::hypot(now[0] - before[0], now[1] - before[1]), steps += 1.0;
      }
  }
};

// Positions of all bodies in the root's heading frame, from the floor below the root.
void write_body_positions(const Character& character, const CharacterStateView& state, Eigen::MatrixXf& out,
                          Eigen::Index row) {
  const Quat turn = inverse_heading(state.rot(0));
  const Vec3 below(state.pos(0).x(), state.pos(0).y(), 0.0f);
  for (int b = 0; b < character.num_bodies(); ++b)
    out.row(row).segment<3>(3 * b) = (turn * Vec3(state.pos(b) - below)).transpose();
}

class Measurer {
 public:
  Measurer(const Policy& policy, const MotionEncoder* encoder, const Character& character, const MotionLibrary& library,
           const PhysicsSettings& physics, const std::string& backend, const PaperMeasureSettings& settings,
           ThreadPool& pool)
      : policy_(policy),
        encoder_(encoder),
        character_(character),
        library_(library),
        physics_(physics),
        backend_(backend),
        settings_(settings),
        pool_(pool),
        dt_(1.0f / physics.control_rate),
        standing_(default_state(character)) {
    for (const Body& body : character.bodies) out_.bodies.push_back(body.name);
    for (int c = 0; c < library.num_clips(); ++c) {
      const int latent = policy.latent_index(library.clip(c).name);
      if (latent < 0)
        fail("policy: knows no clip `{}`; measure it on the motions it was trained on", library.clip(c).name);
      latents_.push_back(policy.latents[latent].z);
      out_.clips.push_back(library.clip(c).name);
      double height = 0.0;
      CharacterState state(character);
      for (int i = 0; i <= 20; ++i) {
        library.state(c, library.clip(c).length() * static_cast<float>(i) / 20.0f, state);
        height += state.body_pos[2] / 21.0;
      }
      if (height > 0.75 * character.stand_height) upright_.push_back(c);
    }
    if (upright_.empty()) fail("paper measures: no clip stands upright on average; getting up cannot be measured");
    for (const int foot : character.feet)
      down_.push_back(standing_.body_pos[3 * static_cast<size_t>(foot) + 2] + 0.02f);
    for (size_t b = 1; b < character.bodies.size(); ++b)
      if (character.bodies[b].mass > character.bodies[trunk_].mass) trunk_ = static_cast<int>(b);
  }

  PaperMeasures measure() {
    Progress progress("eval paper", 6, "parts");
    int part = 0;
    const auto done = [&] { progress.update(++part); };
    if (encoder_ != nullptr) measure_encoder();
    done();
    measure_motions();
    done();
    measure_getting_up();
    done();
    out_.push_recovery = measure_recovery(false);
    done();
    out_.box_recovery = measure_recovery(true);
    done();
    measure_interpolation();
    done();
    return out_;
  }

 private:
  int steps(float seconds) const { return static_cast<int>(std::lround(seconds / dt_)); }
  Rng rng(uint64_t purpose, int i) const {
    return Rng(static_cast<uint64_t>(settings_.seed), (purpose << 32) + static_cast<uint64_t>(i));
  }
  int upright_clip(Rng& r) const { return upright_[r.below(static_cast<int>(upright_.size()))]; }
  void start_in_clip(Actors& actors, int env, int clip, Rng& r) const {
    CharacterState state(character_);
    library_.state(clip, r.uniform() * library_.clip(clip).length(), state);
    RootState root = state.root();
    root.pos.head<2>().setZero();
    actors.place(env, root, state.dof_pos, state.dof_vel);
  }

  void measure_encoder() {
    std::vector<Eigen::MatrixXd> classes;
    for (int c = 0; c < library_.num_clips(); ++c)
      classes.emplace_back(encode_windows(*encoder_, library_, c, dt_).cast<double>());
    out_.fisher = fisher_concentration(classes);
  }

  Rows clip_rows(int clip, Track* track, Eigen::MatrixXf& positions) const {
    const int frames = static_cast<int>(library_.clip(clip).length() / dt_ + 1e-3f) + 1;
    Rows rows(frames, character_.motion_feature_size());
    positions.resize(frames, 3 * character_.num_bodies());
    CharacterState state(character_);
    for (int f = 0; f < frames; ++f) {
      library_.window_features({clip, static_cast<float>(f) * dt_}, 1, dt_, rows.row(f).data());
      library_.state(clip, static_cast<float>(f) * dt_, state);
      track->add(state.view(), character_.num_bodies());
      write_body_positions(character_, state.view(), positions, f);
    }
    return rows;
  }

  void measure_motions() {
    const int clips = library_.num_clips(), episodes = clips * settings_.episodes_per_clip;
    const int length = steps(10.0f), skip = steps(2.0f);
    const MotionDistance to(library_, dt_, steps(1.0f));
    const std::vector<int> group = to.groups(kNearDuplicate);
    const MotionClassifier classifier(library_, group, dt_, {.seed = settings_.seed});
    out_.classes = classifier.num_classes(), out_.chance = 1.0 / out_.classes;
    out_.classifier_held_out = classifier.held_out_accuracy();
    for (int g = 0; g < out_.classes; ++g) {
      std::vector<std::string> names;
      for (int c = 0; c < clips; ++c)
        if (group[c] == g) names.push_back(library_.clip(c).name);
      out_.class_names.push_back(names.front());
      if (names.size() > 1) out_.near_duplicates.push_back(names);
    }

    // the clips themselves, and one that stands still
    double clip_jerk = 0.0, clip_way = 0.0, clip_steps = 0.0;
    std::vector<Eigen::RowVectorXd> of_clips;
    std::vector<Eigen::MatrixXf> clip_positions(clips);
    for (int c = 0; c < clips; ++c) {
      Track track;
      const Rows rows = clip_rows(c, &track, clip_positions[c]);
      clip_jerk += track.jerk(0, track.rows.size()) / clips;
      track.add_slide(character_.feet, down_, 0, track.rows.size(), clip_way, clip_steps);
      const Eigen::MatrixXd p = classifier.probabilities(rows, 1);
      constexpr int kEach = 20;  // windows of each clip, so that long ones weigh no more
      for (int i = 0; i < kEach && p.rows() > 0; ++i) of_clips.emplace_back(p.row(i * p.rows() / kEach));
    }
    out_.inception_of_clips = inception_score(joined(of_clips));
    Rows still(classifier.span() + 1, character_.motion_feature_size());
    for (Eigen::Index f = 0; f < still.rows(); ++f)
      write_motion_features(character_, standing_.view(), still.row(f).data());
    Eigen::Index named = 0;
    classifier.probabilities(still).row(0).maxCoeff(&named);
    for (int c = 0; c < clips; ++c) out_.still_named_right += (group[c] == named ? 1.0 : 0.0) / clips;

    // episodes
    Actors actors(policy_, character_, physics_, backend_, episodes, pool_);
    for (int e = 0; e < episodes; ++e) {
      Rng r = rng(1, e);
      start_in_clip(actors, e, e / settings_.episodes_per_clip, r);
      actors.set_latent(e, latents_[e / settings_.episodes_per_clip]);
    }
    std::vector<Rows> motion(episodes, Rows(length, character_.motion_feature_size()));
    std::vector<Track> tracks(episodes);
    std::vector<Eigen::MatrixXf> positions(episodes, Eigen::MatrixXf(length, 3 * character_.num_bodies()));
    std::vector<int> lasted(episodes, length);
    for (int step = 0; step < length; ++step) {
      actors.step();
      for (int e = 0; e < episodes; ++e) {
        write_motion_features(character_, actors.view(e), motion[e].row(step).data());
        tracks[e].add(actors.view(e), character_.num_bodies());
        write_body_positions(character_, actors.view(e), positions[e], step);
        if (lasted[e] == length && actors.fallen(e)) lasted[e] = step;
      }
    }

    int up = 0, top1 = 0, top3 = 0, nearest = 0;
    double jerk = 0.0, way = 0.0, down_steps = 0.0, jerk_episodes = 0.0;
    std::vector<Eigen::RowVectorXd> windows;
    std::vector<std::vector<double>> distances(episodes);
    std::vector<int> begins(episodes);
    for (int e = 0; e < episodes; ++e) begins[e] = std::min(skip, std::max(0, lasted[e] - classifier.span() - 1));
    const auto seen = [&](int e) { return motion[e].middleRows(begins[e], std::max(lasted[e] - begins[e], 1)); };
    std::vector<std::vector<double>> by_body(episodes);
    pool_.parallel_for(episodes, 1, [&](int e, int) {
      distances[e] = to.to_clips(seen(e));
      by_body[e] = distance_by_body(positions[e].middleRows(begins[e], std::max(lasted[e] - begins[e], 1)),
                                    clip_positions[e / settings_.episodes_per_clip], steps(0.5f));
    });
    const double one = 1.0 / settings_.episodes_per_clip;
    out_.named_right.assign(clips, 0.0), out_.clip_stays_up.assign(clips, 0.0);
    out_.named_as = Eigen::MatrixXd::Zero(clips, out_.classes);
    out_.body_distance.assign(out_.bodies.size(), 0.0);
    for (int e = 0; e < episodes; ++e) {
      const int clip = e / settings_.episodes_per_clip;
      up += lasted[e] == length;
      out_.clip_stays_up[clip] += lasted[e] == length ? one : 0.0;
      for (size_t b = 0; b < out_.bodies.size(); ++b) out_.body_distance[b] += by_body[e][b] / episodes;
      nearest += group[std::ranges::min_element(distances[e]) - distances[e].begin()] == group[clip];
      if (lasted[e] == length) {
        jerk += tracks[e].jerk(skip, length), ++jerk_episodes;
        tracks[e].add_slide(character_.feet, down_, skip, length, way, down_steps);
      }
      const Eigen::MatrixXd p = classifier.probabilities(seen(e));
      if (p.rows() == 0) continue;
      for (Eigen::Index w = 0; w < p.rows(); ++w) windows.emplace_back(p.row(w));
      const Eigen::RowVectorXd together = p.array().max(1e-6).log().matrix().colwise().mean();
      const auto better = (together.array() > together[group[clip]]).count();
      top1 += better == 0, top3 += better < 3;
      out_.named_right[clip] += better == 0 ? one : 0.0;
      Eigen::Index best = 0;
      together.maxCoeff(&best);
      out_.named_as(clip, best) += one;
    }
    out_.stays_up = share_of(up, episodes);
    out_.classifier_top1 = share_of(top1, episodes), out_.classifier_top3 = share_of(top3, episodes);
    out_.nearest_clip = share_of(nearest, episodes);
    out_.inception = inception_score(joined(windows));
    out_.jerk_ratio = jerk_episodes > 0.0 && clip_jerk > 0.0 ? jerk / jerk_episodes / clip_jerk : 0.0;
    out_.foot_slide = down_steps > 0.0 ? way / down_steps / dt_ : 0.0;
    out_.foot_slide_of_clips = clip_steps > 0.0 ? clip_way / clip_steps / dt_ : 0.0;
  }

  void measure_getting_up() {
    const int count = settings_.falls;
    Actors actors(policy_, character_, physics_, backend_, count, pool_);
    std::vector<Rng> rngs;
    for (int e = 0; e < count; ++e) {
      Rng& r = rngs.emplace_back(rng(2, e));
      RootState root;
      root.pos = Vec3(0.0f, 0.0f, character_.stand_height + 0.3f);
      root.rot = Quat(r.normal(), r.normal(), r.normal(), r.normal()).normalized();
      actors.place(e, root, standing_.dof_pos, standing_.dof_vel);
      actors.set_latent(e, latents_[upright_clip(r)]);
    }
    Thrashing thrashing(actors, rngs);
    for (int step = 0; step < steps(5.0f); ++step) thrashing.step();
    std::vector<int> since(count, 0), up_at(count, -1);
    const int hold = steps(0.5f), length = steps(8.0f);
    for (int step = 0; step < length + hold; ++step) {
      actors.step();
      for (int e = 0; e < count; ++e) {
        const CharacterStateView view = actors.view(e);
        const bool up =
            view.pos(0).z() > 0.75f * character_.stand_height &&
            (Quat(view.rot(0)) * character_.bodies[0].rot.conjugate() * Vec3::UnitZ()).z() > std::cos(kPi / 4);
        since[e] = up ? since[e] + 1 : 0;
        if (since[e] == hold && up_at[e] < 0) up_at[e] = step + 1 - hold;
      }
    }
    int within = 0;
    std::vector<double> seconds;
    for (const int at : up_at) {
      within += at >= 0 && at <= steps(4.0f);
      if (at >= 0) seconds.push_back(at * dt_);
    }
    out_.gets_up_within_4s = share_of(within, count), out_.gets_up_after_s = mean_of(seconds);
    out_.get_up_seconds = std::move(seconds);
  }

  Estimate measure_recovery(bool box) {
    const int count = settings_.pushes;
    std::vector<Prop> props;
    if (box) props.push_back({.name = "thrown_box", .size = Vec3(0.1f, 0.1f, 0.1f), .pos = Vec3(0.0f, 30.0f, 0.1f)});
    if (box) props[0].mass = settings_.box_mass;
    Actors actors(policy_, character_, physics_, backend_, count, pool_, props);
    std::vector<Rng> rngs;
    for (int e = 0; e < count; ++e) {
      Rng& r = rngs.emplace_back(rng(box ? 4 : 3, e));
      const int clip = upright_clip(r);
      start_in_clip(actors, e, clip, r);
      actors.set_latent(e, latents_[clip]);
    }
    std::vector<uint8_t> fell(count, 0), fell_before(count, 0);
    const int strike = steps(3.0f), length = strike + steps(3.0f);
    for (int step = 0; step < length; ++step) {
      if (step == strike) {
        fell_before = fell;
        for (int e = 0; e < count; ++e) {
          const float angle = rngs[e].uniform(0.0f, 2.0f * kPi);
          const Vec3 way(std::cos(angle), std::sin(angle), 0.0f);
          if (!box) {
            actors.simulator().push(e, trunk_, settings_.push_speed * way);
            continue;
          }
          // from a metre away, aimed at where the trunk will be
          const float flight = 1.0f / settings_.box_speed;
          RootState state;
          state.pos = actors.view(e).pos(trunk_) + flight * actors.view(e).vel(trunk_) - way;
          state.vel = settings_.box_speed * way + Vec3(0.0f, 0.0f, 0.5f * 9.81f * flight);
          actors.simulator().set_prop(e, 0, state);
        }
      }
      actors.step();
      for (int e = 0; e < count; ++e) fell[e] = fell[e] || actors.fallen(e);
    }
    int stood = 0, recovered = 0;
    for (int e = 0; e < count; ++e)
      if (!fell_before[e]) ++stood, recovered += !fell[e];
    return share_of(recovered, stood);
  }

  void measure_interpolation() {
    const int count = settings_.interpolations, before = steps(2.0f), way = 100, after = steps(2.0f);
    Actors actors(policy_, character_, physics_, backend_, count, pool_);
    std::vector<std::pair<int, int>> ends;
    for (int e = 0; e < count; ++e) {
      Rng r = rng(5, e);
      const int clips = library_.num_clips(), from = r.below(clips);
      const int to = clips > 1 ? (from + 1 + r.below(clips - 1)) % clips : from;
      ends.emplace_back(from, to);
      start_in_clip(actors, e, from, r);
    }
    std::vector<Track> tracks(count);
    std::vector<uint8_t> fell(count, 0);
    for (int step = 0; step < before + way + after; ++step) {
      const float t = std::clamp(static_cast<float>(step - before) / static_cast<float>(way), 0.0f, 1.0f);
      for (int e = 0; e < count; ++e) {
        const Eigen::VectorXf mixed = (1.0f - t) * latents_[ends[e].first] + t * latents_[ends[e].second];
        actors.set_latent(e, mixed.norm() > 1e-6f ? Eigen::VectorXf(mixed.normalized()) : latents_[ends[e].second]);
      }
      actors.step();
      for (int e = 0; e < count; ++e) {
        tracks[e].add(actors.view(e), character_.num_bodies());
        fell[e] = fell[e] || actors.fallen(e);
      }
    }
    std::vector<double> ratios;
    int up = 0;
    for (int e = 0; e < count; ++e) {
      up += !fell[e];
      const auto begin = static_cast<size_t>(before), end = begin + static_cast<size_t>(way),
                 second = static_cast<size_t>(steps(1.0f));
      const double apart =
          0.5 * (tracks[e].jerk(begin - second, begin) + tracks[e].jerk(end + second, end + 2 * second));
      // two that stand still say nothing
      if (!fell[e] && apart > 1e-3) ratios.push_back(tracks[e].jerk(begin, end) / apart);
    }
    out_.interpolation_smoothness = mean_of(ratios), out_.interpolation_stays_up = share_of(up, count);
  }

  static Eigen::MatrixXd joined(const std::vector<Eigen::RowVectorXd>& rows) {
    if (rows.empty()) return {};
    Eigen::MatrixXd out(rows.size(), rows.front().size());
    for (size_t i = 0; i < rows.size(); ++i) out.row(static_cast<Eigen::Index>(i)) = rows[i];
    return out;
  }

  const Policy& policy_;
  const MotionEncoder* encoder_;
  const Character& character_;
  const MotionLibrary& library_;
  const PhysicsSettings& physics_;
  std::string backend_;
  PaperMeasureSettings settings_;
  ThreadPool& pool_;
  float dt_;
  CharacterState standing_;
  std::vector<Eigen::VectorXf> latents_;  // (clips)
  std::vector<int> upright_;              // clips
  std::vector<float> down_;               // (feet) height below which one is down
  int trunk_ = 0;                         // heaviest body
  PaperMeasures out_;
};

}  // namespace

PaperMeasures measure_as_the_paper(const Policy& policy, const MotionEncoder* encoder, const Character& character,
                                   const MotionLibrary& library, const PhysicsSettings& physics,
                                   const std::string& backend, const PaperMeasureSettings& settings, ThreadPool& pool) {
  return Measurer(policy, encoder, character, library, physics, backend, settings, pool).measure();
}

}  // namespace calm
