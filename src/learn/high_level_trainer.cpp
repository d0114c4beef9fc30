#include "learn/high_level_trainer.h"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>
#include <torch/torch.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "base/settings.h"
#include "base/stop_signals.h"
#include "learn/dense.h"
#include "learn/latent_map.h"
#include "learn/losses.h"
#include "learn/networks.h"
#include "learn/normaliser.h"
#include "learn/trainer_tools.h"
#include "runtime/high_level_policy.h"

namespace calm {

namespace {

constexpr int kStyleWindows = 32;  // of a clip, whose latents count as its style

// Along the floor, from the first frame to the last as the root goes, m/s.
float clip_speed(const MotionLibrary& library, int clip, const Character& character) {
  CharacterState state(character);
  constexpr int kParts = 20;
  const float length = library.clip(clip).length();
  float way = 0.0f;
  Vec3 before;
  for (int i = 0; i <= kParts; ++i) {
    library.state(clip, length * static_cast<float>(i) / kParts, state);
    const Vec3 now = state.view().pos(0);
    if (i > 0) way += (now - before).head<2>().norm();
    before = now;
  }
  return way / std::max(length, 1e-3f);
}

torch::Tensor tensor_of(const RowMatrix& rows) {
  return torch::from_blob(const_cast<float*>(rows.data()), {rows.rows(), rows.cols()}).clone();
}

}  // namespace

void validate(const HighLevelSettings& s) {
  if (s.num_envs < 1) fail("settings: num_envs {} must be at least 1", s.num_envs);
  if (s.horizon < 2) fail("settings: horizon {} must be at least 2", s.horizon);
  if (s.update.minibatch < 1 || s.update.minibatch > s.num_envs * s.horizon)
    fail("settings: update.minibatch {} must lie in [1, {}] (num_envs x horizon)", s.update.minibatch,
         s.num_envs * s.horizon);
  if (!(s.samples > 0.0)) fail("settings: samples must be positive");
  for (const float x : {s.network.reach, s.network.pull, s.network.gain})
    if (!(x > 0.0f && x < 20.0f)) fail("settings: network: reach, pull and gain must lie in (0, 20), not {}", x);
  if (s.network.output != "latent" && s.network.output != "clips")
    fail("settings: network.output `{}` is neither latent nor clips", s.network.output);
  for (const auto* hidden : {&s.network.actor_hidden, &s.network.critic_hidden})
    for (const int size : *hidden)
      if (size < 1 || size > 65536) fail("settings: network: a hidden layer cannot have {} units", size);
}

void find_styles(const HighLevelSettings& settings, const Policy& policy, const MotionEncoder* encoder,
                 const MotionLibrary& library, float dt, std::vector<Style>& styles,
                 std::vector<StyleLatents>& latents) {
  for (size_t i = 0; i < settings.styles.size(); ++i)
    if (policy.latent_index(settings.styles[i]) < 0)
      fail("styles: the policy knows no clip `{}`; `calm latent near POLICY` lists its clips", settings.styles[i]);
  const auto take = [&](int latent) {
    const NamedLatent& named = policy.latents[latent];
    const int clip = library.clip_index(named.name);
    if (clip < 0) fail("styles: clip `{}` is not among the motions; give those the policy was trained on", named.name);
    const float speed = clip_speed(library, clip, library.character());
    if (settings.styles.empty() && speed < settings.min_speed) return;
    StyleLatents style{named.z, named.z.transpose()};
    if (encoder != nullptr) {
      const Eigen::MatrixXf windows = encode_windows(*encoder, library, clip, dt);
      const auto count = std::min<Eigen::Index>(kStyleWindows, windows.rows());
      style.windows.resize(count + 1, named.z.size());
      for (Eigen::Index i = 0; i < count; ++i)
        style.windows.row(i) = windows.row(count > 1 ? i * (windows.rows() - 1) / (count - 1) : 0);
      style.windows.row(count) = named.z.transpose();
    }
    styles.push_back({latent, named.name, speed});
    latents.push_back(std::move(style));
  };
  if (!settings.styles.empty())
    for (const std::string& name : settings.styles) take(policy.latent_index(name));
  else
    for (size_t i = 0; i < policy.latents.size(); ++i) {
      // a path that bends is what it steers with, not a style
      const bool bends = std::ranges::count(policy.latents[i].tags, "bend") > 0;
      if (!bends && library.clip_index(policy.latents[i].name) >= 0) take(static_cast<int>(i));
    }
  if (styles.empty()) fail("styles: no clip moves at {} m/s; name them in `styles`", settings.min_speed);
}

struct HighLevelTrainer::Impl {
  Impl(const HighLevelSettings& s, const Task& t, const Policy& p, const MotionEncoder* encoder, const Character& c,
       const MotionLibrary& l, const PhysicsSettings& physics);

  // T decisions of N environments; rows are t * N + env.
  struct Rollout {
    torch::Tensor inputs, normalised;  // (T N, I)
    torch::Tensor actions, neglogp;    // (T N, L), (T N)
    torch::Tensor means;
    torch::Tensor rewards, dones, falls;
    torch::Tensor next_inputs;  // (T N, I) after the decision, before any reset
    torch::Tensor advantages, returns;
  };

  Rollout rollout();
  void returns(Rollout& data);
  void update(const Rollout& data);

  RowMatrix bases() const;  // (N x L)
  torch::Tensor value(const torch::Tensor& normalised) const {
    return value_norm.denormalise(critic->forward(normalised).squeeze(1));
  }

  HighLevelSettings settings;
  const Task& task;
  const Policy& policy;
  ThreadPool pool;
  std::vector<Style> styles;
  std::unique_ptr<Actors> actors;
  std::unique_ptr<TaskEnv> env;
  Eigen::VectorXf base;
  LatentOutput output;
  std::shared_ptr<MlpNet> actor, critic;
  torch::Tensor flat_actor, flat_critic;
  std::unique_ptr<torch::optim::Adam> optimiser;
  Normaliser input_norm, value_norm;
  float actor_rate;
  Rng rng;
  int64_t iteration = 0;
  double samples = 0.0;
  std::map<std::string, double> stats;
};

HighLevelTrainer::Impl::Impl(const HighLevelSettings& s, const Task& t, const Policy& p, const MotionEncoder* encoder,
                             const Character& c, const MotionLibrary& l, const PhysicsSettings& physics)
    : settings(s),
      task(t),
      policy(p),
      pool(s.threads),
      input_norm(1, torch::kCPU),
      value_norm(1, torch::kCPU),
      actor_rate(s.update.learning_rate),
      rng(static_cast<uint64_t>(s.seed), 0x417ull) {
  keep_freed_memory();
  set_math_threads(pool.size());
  const float dt = 1.0f / physics.control_rate;
  TaskWorld world;
  std::vector<StyleLatents> latents;
  if (task.styled) find_styles(s, policy, encoder, l, dt, world.styles, latents);
  if (task.name == "styled-heading" && world.styles.size() < 3)
    fail("task `styled-heading`: name three clips in `styles`: run, walk, crouched walk");
  styles = world.styles;
  if (task.styled) {
    base = Eigen::VectorXf::Unit(policy.latent_size, 0);
  } else {
    const int index = policy.latent_index(s.base_clip);
    if (index < 0) fail("settings: base_clip: the policy knows no clip `{}`; name one of its clips", s.base_clip);
    base = policy.latents[index].z;
  }
  actors = std::make_unique<Actors>(policy, c, physics, s.backend, s.num_envs, pool, task.props);
  env = std::make_unique<TaskEnv>(task, std::move(world), std::move(latents), l, *actors, pool, s.env, dt,
                                  static_cast<uint64_t>(s.seed));

  output = {s.network.output == "clips", s.network.reach, s.network.pull, s.network.gain,
            clip_latents(policy, s.network.tags)};
  if (output.of_clips && output.clips.rows() == 0)
    fail("settings: network.tags: no clip of the policy has the tag `{}`; leave them out to take all clips",
         fmt::join(s.network.tags, "` or `"));
  const int inputs = env->num_inputs();
  actor = std::make_shared<MlpNet>(mlp_sizes(inputs, s.network.actor_hidden, output.size(policy.latent_size)));
  critic = std::make_shared<MlpNet>(mlp_sizes(inputs, s.network.critic_hidden, 1));
  Rng init(static_cast<uint64_t>(s.seed), 0x1417ull);
  init_default(*actor, init), init_default(*critic, init);
  {
    const torch::NoGradGuard no_grad;
    actor->layers().back()->weight.mul_(s.network.actor_last_layer);
  }
  flat_actor = flatten(*actor), flat_critic = flatten(*critic);
  std::vector<torch::optim::OptimizerParamGroup> groups;
  for (const auto& flat : {flat_actor, flat_critic})
    groups.emplace_back(std::vector<torch::Tensor>{flat},
                        std::make_unique<torch::optim::AdamOptions>(s.update.learning_rate));
  optimiser = std::make_unique<torch::optim::Adam>(groups, torch::optim::AdamOptions(s.update.learning_rate));

  // the observation's statistics are the low-level policy's; goals and styles start from what resets draw
  input_norm = Normaliser(inputs, torch::kCPU);
  env->reset_all();
  input_norm.update(tensor_of(env->inputs()));
}

RowMatrix HighLevelTrainer::Impl::bases() const {
  RowMatrix out(env->size(), policy.latent_size);
  for (int e = 0; e < env->size(); ++e) out.row(e) = (task.styled ? env->style(e).z : base).transpose();
  return out;
}

HighLevelTrainer::Impl::Rollout HighLevelTrainer::Impl::rollout() {
  const torch::NoGradGuard no_grad;
  const int64_t T = settings.horizon, N = settings.num_envs, I = env->num_inputs();
  const int64_t L = output.size(policy.latent_size);
  Rollout out;
  out.inputs = torch::empty({T * N, I}), out.next_inputs = torch::empty({T * N, I});
  out.normalised = torch::empty({T * N, I});
  out.actions = torch::empty({T * N, L}), out.means = torch::empty({T * N, L});
  out.rewards = torch::empty({T * N}), out.dones = torch::empty({T * N}), out.falls = torch::empty({T * N});
  const float sigma = std::exp(settings.network.log_sigma);
  double task_sum = 0.0, style_sum = 0.0, successes = 0.0, ended = 0.0, fell = 0.0;
  RowMatrix actions(N, L);
  for (int64_t t = 0; t < T; ++t) {
    out.inputs.narrow(0, t * N, N).copy_(tensor_of(env->inputs()));
    out.normalised.narrow(0, t * N, N).copy_(input_norm.normalise(out.inputs.narrow(0, t * N, N).contiguous()));
    const auto mean = actor->forward(out.normalised.narrow(0, t * N, N));
    out.means.narrow(0, t * N, N).copy_(mean);
    const float* m = mean.data_ptr<float>();
    for (int64_t i = 0; i < N * L; ++i) actions.data()[i] = m[i] + sigma * rng.normal();
    out.actions.narrow(0, t * N, N).copy_(tensor_of(actions));
    env->decide(output.latents(actions, bases()));

    out.next_inputs.narrow(0, t * N, N).copy_(tensor_of(env->inputs()));
    for (int64_t e = 0; e < N; ++e) {
      const auto i = static_cast<size_t>(e);
      const float task_reward = env->task_reward()[i], style_reward = env->style_reward()[i];
      out.rewards.data_ptr<float>()[t * N + e] = settings.reward.task_weight * task_reward +
                                                 (task.styled ? settings.reward.style_weight * style_reward : 0.0f);
      out.falls.data_ptr<float>()[t * N + e] = env->fell()[i];
      out.dones.data_ptr<float>()[t * N + e] = env->fell()[i] || env->out_of_time()[i];
      task_sum += task_reward, style_sum += style_reward, successes += env->success()[i];
      ended += env->fell()[i] || env->out_of_time()[i], fell += env->fell()[i];
    }
    env->reset_finished();
  }
  out.neglogp = neg_log_prob(out.actions, out.means, settings.network.log_sigma);
  const auto count = static_cast<double>(T * N);
  stats["task_reward"] = task_sum / count, stats["success"] = successes / count;
  if (task.styled) stats["style_reward"] = style_sum / count;
  if (ended > 0.0) stats["falls_share"] = fell / ended;
  return out;
}

void HighLevelTrainer::Impl::returns(Rollout& data) {
  const torch::NoGradGuard no_grad;
  const int64_t T = settings.horizon, N = settings.num_envs;
  const auto values = value(data.normalised);
  // an episode that ran out of time, or whose target is drawn anew, goes on as far as the value is concerned
  const auto next_values = value(input_norm.normalise(data.next_inputs)) * (1.0f - data.falls);
  torch::Tensor advantages, returns;
  compute_gae(data.rewards.reshape({T, N}), values.reshape({T, N}), next_values.reshape({T, N}),
              data.dones.reshape({T, N}), settings.update.gamma, settings.update.lambda, advantages, returns);
  advantages = advantages.reshape({-1});
  data.returns = returns.reshape({-1});
  data.advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-5f);
  if (const float clip = settings.update.advantage_clip; clip > 0.0f)
    data.advantages = data.advantages.clamp(-clip, clip);
  stats["reward"] = data.rewards.mean().item<double>();
  stats["value_explained"] =
      1.0 - (data.returns - values).square().mean().item<double>() / std::max(data.returns.var().item<double>(), 1e-8);
  stats["action_size"] = data.means.abs().mean().item<double>();
}

void HighLevelTrainer::Impl::update(const Rollout& data) {
  const HighLevelUpdateSettings& u = settings.update;
  const int64_t rows = data.inputs.size(0), B = u.minibatch;
  const auto targets = value_norm.normalise(data.returns);
  const auto mask = torch::ones({B});
  const double inverse_variance = std::exp(-2.0 * settings.network.log_sigma);
  std::map<std::string, std::vector<torch::Tensor>> values;
  for (int pass = 0; pass < u.passes; ++pass) {
    auto order = torch::arange(rows, torch::kInt64);
    auto* numbers = order.data_ptr<int64_t>();
    for (int64_t i = rows - 1; i > 0; --i) std::swap(numbers[i], numbers[rng.below(static_cast<int>(i + 1))]);
    for (int64_t begin = 0; begin + B <= rows; begin += B) {
      const auto index = order.narrow(0, begin, B);
      flat_actor.mutable_grad().zero_(), flat_critic.mutable_grad().zero_();
      const auto inputs = data.normalised.index_select(0, index);
      const auto mean = actor->forward(inputs);
      const auto neglogp = neg_log_prob(data.actions.index_select(0, index), mean, settings.network.log_sigma);
      const auto actor_loss = ppo_actor_loss(data.neglogp.index_select(0, index), neglogp,
                                             data.advantages.index_select(0, index), mask, u.clip);
      const auto value_loss = (critic->forward(inputs).squeeze(1) - targets.index_select(0, index)).square().mean();
      const auto bounds = bound_loss(mean).mean();
      (actor_loss + u.value_weight * value_loss + u.bound_weight * bounds).backward();
      clip_gradients(*optimiser, u.max_gradient_norm);
      optimiser->step();

      const torch::NoGradGuard no_grad;
      const auto kl = 0.5 * inverse_variance * (mean - data.means.index_select(0, index)).square().sum(1).mean();
      if (pass == u.passes - 1) values["kl"].push_back(kl);
      for (const auto& [name, of_step] :
           {std::pair{"actor_loss", actor_loss}, {"value_loss", value_loss}, {"bound_loss", bounds}})
        values[name].push_back(of_step.detach());
    }
  }
  for (const auto& [name, all] : values) stats[name] = torch::stack(all).mean().item<double>();
  if (u.target_kl > 0.0f) {
    actor_rate = adapted_rate(actor_rate, stats["kl"], u.target_kl);
    set_rate(*optimiser, 0, actor_rate);
  }
  stats["actor_rate"] = actor_rate;
}

HighLevelTrainer::HighLevelTrainer(const HighLevelSettings& settings, const Task& task, const Policy& policy,
                                   const MotionEncoder* encoder, const Character& character,
                                   const MotionLibrary& library, const PhysicsSettings& physics)
    : impl_(
          (validate(settings), std::make_unique<Impl>(settings, task, policy, encoder, character, library, physics))) {}
HighLevelTrainer::~HighLevelTrainer() = default;

double HighLevelTrainer::samples() const { return impl_->samples; }
int64_t HighLevelTrainer::iteration() const { return impl_->iteration; }
const std::map<std::string, double>& HighLevelTrainer::stats() const { return impl_->stats; }

void HighLevelTrainer::iterate() {
  Impl& t = *impl_;
  auto data = t.rollout();
  t.returns(data);
  t.update(data);
  t.input_norm.update(data.inputs);
  t.value_norm.update(data.returns.unsqueeze(1));
  t.value_norm.cap_count(20.0 * static_cast<double>(data.returns.size(0)));
  t.samples += static_cast<double>(t.settings.horizon) * t.settings.num_envs;
  ++t.iteration;
  t.stats["diverged"] = static_cast<double>(t.actors->simulator().num_diverged());
  if (!std::isfinite(t.stats["actor_loss"]) || !std::isfinite(t.stats["value_loss"]))
    fail("training: losses are not finite at iteration {}; lower update.learning_rate and resume from the checkpoint",
         t.iteration);
}

SafeTensors HighLevelTrainer::export_policy() const {
  const Impl& t = *impl_;
  SafeTensors file;
  for (const auto& item : t.actor->named_parameters()) file.tensors["actor." + item.key()] = to_runtime(item.value());
  file.tensors["input_norm.mean"] = to_runtime(t.input_norm.mean());
  file.tensors["input_norm.inv_std"] = to_runtime(t.input_norm.inv_std());
  file.tensors["base"] = {{t.base.size()}, {t.base.data(), t.base.data() + t.base.size()}};
  file.metadata["format"] = "calm.high_level";
  file.metadata["version"] = "1";
  file.metadata["task"] = t.task.name;
  file.metadata["styled"] = t.task.styled ? "true" : "false";
  file.metadata["goal_size"] = std::to_string(t.task.goal_size);
  file.metadata["decision_steps"] = std::to_string(t.settings.env.decision_steps);
  file.metadata["output"] = t.settings.network.output;
  file.metadata["tags"] = nlohmann::json(t.settings.network.tags).dump();
  file.metadata["reach"] = fmt::format("{}", t.settings.network.reach);
  file.metadata["pull"] = fmt::format("{}", t.settings.network.pull);
  file.metadata["gain"] = fmt::format("{}", t.settings.network.gain);
  file.metadata["low_level_hash"] = fmt::format("{:016x}", policy_hash(t.policy));
  file.metadata["settings"] = settings_to_yaml(t.settings);
  file.metadata["samples"] = fmt::format("{:.0f}", t.samples);
  nlohmann::json styles = nlohmann::json::array();
  for (const Style& style : t.styles) styles.push_back({{"clip", style.name}, {"speed", style.speed}});
  file.metadata["styles"] = styles.dump();
  return file;
}

std::map<std::string, SafeTensors> HighLevelTrainer::export_files() const {
  return {{"high_level.safetensors", export_policy()}};
}

std::string HighLevelTrainer::save() const {
  const Impl& t = *impl_;
  torch::serialize::OutputArchive archive, adam;
  archive.write("actor", t.flat_actor.detach()), archive.write("critic", t.flat_critic.detach());
  t.optimiser->save(adam);
  archive.write("optimiser", adam);
  write_normaliser(archive, "input_norm", t.input_norm), write_normaliser(archive, "value_norm", t.value_norm);
  archive.write("env", bytes_to_tensor(t.env->save()));
  const auto stream = t.rng.state();
  archive.write(
      "rng", torch::tensor(std::vector<int64_t>{static_cast<int64_t>(stream.seed), static_cast<int64_t>(stream.stream),
                                                static_cast<int64_t>(stream.count)}));
  archive.write(
      "progress",
      torch::tensor(std::vector<double>{static_cast<double>(t.iteration), t.samples, t.actor_rate}, torch::kFloat64));
  archive.write("trained_for", bytes_to_tensor(fmt::format("{} {:016x}", t.task.name, policy_hash(t.policy))));
  std::ostringstream out;
  archive.save_to(out);
  return std::move(out).str();
}

void HighLevelTrainer::load(const std::string& bytes, const std::string& where) {
  Impl& t = *impl_;
  const torch::NoGradGuard no_grad;
  try {
    torch::serialize::InputArchive archive, adam;
    std::istringstream in(bytes);
    archive.load_from(in);
    if (tensor_to_bytes(read_tensor(archive, "trained_for")) !=
        fmt::format("{} {:016x}", t.task.name, policy_hash(t.policy)))
      fail("{}: was trained for another task or another low-level policy", where);
    for (const auto& [name, to] : {std::pair{"actor", t.flat_actor}, {"critic", t.flat_critic}}) {
      const auto value = read_tensor(archive, name);
      if (value.sizes() != to.sizes()) fail("{}: `{}` has another size; were the settings changed?", where, name);
      torch::Tensor(to).copy_(value);
    }
    archive.read("optimiser", adam);
    t.optimiser->load(adam);
    read_normaliser(archive, "input_norm", t.input_norm), read_normaliser(archive, "value_norm", t.value_norm);
    t.env->restore(tensor_to_bytes(read_tensor(archive, "env")));
    const auto stream = read_tensor(archive, "rng"), progress = read_tensor(archive, "progress");
    const auto* r = stream.data_ptr<int64_t>();
    t.rng.set_state({static_cast<uint64_t>(r[0]), static_cast<uint64_t>(r[1]), static_cast<uint64_t>(r[2])});
    const auto* p = progress.data_ptr<double>();
    t.iteration = static_cast<int64_t>(p[0]), t.samples = p[1];
    // rates are settings, which may have been changed on purpose; the actor's is state where it is adapted
    t.actor_rate = t.settings.update.target_kl > 0.0f ? static_cast<float>(p[2]) : t.settings.update.learning_rate;
    set_rate(*t.optimiser, 0, t.actor_rate), set_rate(*t.optimiser, 1, t.settings.update.learning_rate);
  } catch (const c10::Error& e) {
    fail("{}: is damaged or not a checkpoint of this program: {}", where, e.what_without_backtrace());
  }
}

void train_high_level(const HighLevelSettings& settings, const Task& task, const Policy& policy,
                      const MotionEncoder* encoder, const Character& character, const MotionLibrary& library,
                      const PhysicsSettings& physics, const std::filesystem::path& out, bool resume, double minutes) {
  check_run_folder(out, resume);
  const StopSignals stop;  // before any thread is started
  HighLevelTrainer trainer(settings, task, policy, encoder, character, library, physics);
  spdlog::info("task {}: {}; {} environments of {}", task.name, task.asks, settings.num_envs, character.name);

  TrainingRun run;
  run.out = out, run.verb = "high-level", run.settings_yaml = settings_to_yaml(settings);
  run.samples = settings.samples, run.unit = "decisions", run.checkpoint_minutes = settings.checkpoint_minutes;
  run.resume = resume, run.minutes = minutes;
  run.charts = {{"Reward", "a decision", {{"reward", "total"}}},
                {"Task and style", "in [0, 1]", {{"task_reward", "task"}, {"style_reward", "style"}}},
                {"Success and falls",
                 "share",
                 {{"success", "decisions that succeed"}, {"falls_share", "episodes that end in a fall"}}},
                {"Value explained", "share of variance", {{"value_explained", "explained"}}},
                {"KL divergence", "", {{"kl", "KL"}}},
                {"Action size", "", {{"action_size", "|mean action|"}}}};
  run.shown = {{"reward", "reward", 3},   {"task_reward", "task", 3},  {"style_reward", "style", 3},
               {"success", "success", 2}, {"falls_share", "falls", 2}, {"kl", "kl", 3}};
  run_training(
      trainer, run, [&stop] { return stop.requested(); }, [](auto&, double) {});
}

}  // namespace calm
