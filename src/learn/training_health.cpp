#include "learn/training_health.h"

#include <fmt/format.h>

#include <algorithm>

namespace calm {

namespace {

constexpr double kMemory = 50.0;  // iterations
constexpr int kFirst = 150;       // iterations before anything is said: the start is always odd

}  // namespace

TrainingHealth::TrainingHealth(const LowLevelSettings& settings) : settings_(settings) {}

void TrainingHealth::judge(const std::string& sign, bool wrong, const std::string& line,
                           std::vector<std::string>& lines) {
  if (!wrong) {
    wrong_.erase(sign);
  } else if (wrong_.insert(sign).second) {
    lines.push_back(line);
  }
}

std::vector<std::string> TrainingHealth::observe(const std::map<std::string, double>& stats) {
  for (const auto& [name, value] : stats) {
    const auto [entry, is_new] = mean_.emplace(name, value);
    if (!is_new) entry->second += (value - entry->second) / kMemory;
  }
  std::vector<std::string> lines;
  if (++iterations_ < kFirst) return lines;
  const auto known = [this](std::initializer_list<const char*> names) {
    return std::ranges::all_of(names, [this](const char* name) { return mean_.contains(name); });
  };
  const auto mean = [this](const char* name) { return mean_.at(name); };

  const double scale = settings_.reward.discriminator_scale;
  // while episodes follow their clips they need no discriminator
  if (known({"accuracy_simulated", "accuracy_clips", "style_reward", "style_reward_spread", "follow_share"}))
    judge(
        "discriminator wins",
        mean("follow_share") < 0.5 && mean("accuracy_simulated") > 0.98 && mean("accuracy_clips") > 0.98 &&
            mean("style_reward") < 0.05 * scale && mean("style_reward_spread") < 0.05 * scale,
        fmt::format("the discriminator wins: it is right about {:.1f} % of simulated windows and its reward is {:.3f} "
                    "everywhere, which teaches nothing. Let episodes follow clips for longer (reward.tracking_full and "
                    "tracking_fade), lower update.discriminator_rate, or raise update.discriminator.gradient_penalty",
                    100 * mean("accuracy_simulated"), mean("style_reward")),
        lines);
  if (known({"uniformity"}) && settings_.update.encoder_weight > 0.0f)
    judge("latents degenerate", mean("uniformity") > -0.5,
          fmt::format("all clips have nearly the same latent (uniformity {:.2f}, far from it is below -2). Raise "
                      "update.uniformity_weight or update.encoder_weight, or keep update.negatives on",
                      mean("uniformity")),
          lines);
  if (known({"episode_steps", "falls_share"}))
    judge("falls at once", mean("episode_steps") < 20.0 && mean("falls_share") > 0.9 && iterations_ > 4 * kFirst,
          fmt::format(
              "episodes last {:.0f} control steps and {:.0f} % end in a fall or astray. Check the clips with `calm "
              "motion check` and the character's gains and limits; start from clips (env.reset_from_clip: 1) with "
              "warm_start; lower env.follow_limit",
              mean("episode_steps"), 100 * mean("falls_share")),
          lines);
  if (known({"value_explained"}))
    judge("values say nothing", mean("value_explained") < -0.2,
          fmt::format("the critic's values are worse than none (explained {:.2f}). Lower update.learning_rate or set "
                      "update.max_gradient_norm (5)",
                      mean("value_explained")),
          lines);
  if (known({"kl"}) && settings_.update.target_kl > 0.0f)
    judge("too large steps", mean("kl") > 10.0 * settings_.update.target_kl,
          fmt::format("the policy changes by a KL divergence of {:.2f} an iteration where {:.2f} is wanted. Lower "
                      "update.learning_rate, update.passes, or raise update.minibatch",
                      mean("kl"), settings_.update.target_kl),
          lines);
  return lines;
}

std::vector<std::string> TrainingHealth::observe(const Evaluation& evaluation) {
  std::vector<std::string> lines;
  judge("stands still", evaluation.joint_speed < 0.4,
        fmt::format(
            "the policy hardly moves: its joints turn at {:.0f} % of the clips' speed. Standing still pays; give "
            "standing clips less weight in the list, set env.follow_limit (0.15) so that who strays from a moving "
            "clip ends, or lower update.gamma",
            100 * evaluation.joint_speed),
        lines);
  std::map<std::string, int> taken;
  for (const auto& clip : evaluation.clips)
    if (clip.taken_for != clip.name) ++taken[clip.taken_for];
  const auto most = std::ranges::max_element(taken, {}, [](const auto& item) { return item.second; });
  const size_t others = evaluation.clips.size() - 1;
  const bool swallowed =
      most != taken.end() && evaluation.clips.size() > 3 && most->second > 0.4 * static_cast<double>(others);
  judge("one clip swallows the rest", swallowed,
        swallowed
            ? fmt::format("{} of {} other clips are acted out like `{}`. Give it less weight in the list or cut it "
                          "shorter, let episodes follow clips for longer (reward.tracking_full), and look whether "
                          "the clips really differ (`calm motion draw`)",
                          most->second, others, most->first)
            : std::string(),
        lines);
  return lines;
}

}  // namespace calm
