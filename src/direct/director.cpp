#include "direct/director.h"

#include "base/error.h"
#include "env/tasks.h"

namespace calm {

namespace {

// The point at t of the shortest way over the sphere; where two lie opposite each other, any way does.
Eigen::VectorXf arc(const Eigen::VectorXf& a, const Eigen::VectorXf& b, float t) {
  const Eigen::VectorXf mixed = (1.0f - t) * a + t * b;
  const float norm = mixed.norm();
  return norm > 1e-4f ? Eigen::VectorXf(mixed / norm) : b;
}

}  // namespace

Director::Director(Actors& actors, const HighLevelPolicy& high, const DirectorSettings& settings)
    : actors_(actors),
      high_(high),
      settings_(settings),
      speeds_(actors.policy().latents.size(), 1.0f),
      doing_(actors.size()) {
  if (high.task != "directed")
    fail("director: the high-level policy was trained for the task `{}`; directing needs `directed`", high.task);
  for (size_t i = 0; i < high.styles.size(); ++i)
    if (const int clip = actors.policy().latent_index(high.styles[i]); clip >= 0) speeds_[clip] = high.speeds[i];
}

void Director::forget(int i) { doing_[i] = {}; }

void Director::direct(std::span<const Command> commands) {
  const Policy& policy = actors_.policy();
  const Eigen::Index obs = actors_.observations().cols();
  std::vector<int> deciding;
  for (int i = 0; i < actors_.size(); ++i) {
    Doing& doing = doing_[i];
    const Command& command = commands[i];
    if (doing.steps == 0 || doing.command.kind != command.kind || doing.command.clip != command.clip) {
      doing.from = doing.steps == 0 ? policy.latents[command.clip].z : Eigen::VectorXf(actors_.latent(i).transpose());
      doing.to = policy.latents[command.clip].z;
      doing.steps = 0;
    }
    doing.command = command;
    if (command.kind == Command::Kind::kMove) {
      if (doing.steps % high_.decision_steps == 0) deciding.push_back(i);
    } else if (doing.steps < std::max(1, settings_.blend_steps)) {
      const float t = static_cast<float>(doing.steps + 1) / static_cast<float>(std::max(1, settings_.blend_steps));
      actors_.set_latent(i, arc(doing.from, doing.to, t));
    }
    ++doing.steps;
  }
  if (deciding.empty()) return;

  RowMatrix inputs(deciding.size(), obs + high_.goal_size + policy.latent_size);
  for (size_t k = 0; k < deciding.size(); ++k) {
    const int i = deciding[k];
    const Command& command = doing_[i].command;
    auto row = inputs.row(static_cast<Eigen::Index>(k));
    row.head(obs) = actors_.observations().row(i);
    const DirectedTarget target = {command.direction, command.speed > 0.0f ? command.speed : speed_of(command.clip)};
    write_directed_goal(Quat(actors_.view(i).rot(0)), target, row.data() + obs);
    row.tail(policy.latent_size) = policy.latents[command.clip].z.transpose();
  }
  const RowMatrix z = high_.latents(inputs);
  for (size_t k = 0; k < deciding.size(); ++k)
    actors_.set_latent(deciding[k], z.row(static_cast<Eigen::Index>(k)).transpose());
}

}  // namespace calm
