// One file, readable top to bottom: set-up, rollout, returns, update, saving. The run folder and the loop around
// iterations are in train_low_level.cpp.
//
// Exact savings that change no result: each distinct window of a minibatch is encoded once; value(t+1) serves as the
// next value except where the latent changed or the episode ended; windows are kept as a moment's index and gathered
// from a table; a latent passes through a network's style branch once, not once for each row it is in force in; the
// gradient penalty is written out layer by layer, without a second autograd graph.
#include "learn/low_level_trainer.h"

#include <spdlog/spdlog.h>
#include <torch/torch.h>

#include <array>
#include <chrono>
#include <future>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "base/settings.h"
#ifdef CALM_WITH_CUDA
#include "env/cuda/cuda_env.h"
#endif
#include "features/features.h"
#include "learn/dense.h"
#include "learn/losses.h"
#include "learn/motion_table.h"
#include "learn/normaliser.h"
#include "learn/trainer_tools.h"
#include "runtime/safetensors.h"

namespace calm {

namespace {

torch::Device choose_device(const std::string& name) {
  if (name == "cpu" || (name == "auto" && !torch::cuda::is_available())) return torch::kCPU;
  if (name != "cuda" && name != "auto") fail("device: `{}` is none of auto, cpu, cuda", name);
  if (!torch::cuda::is_available()) fail("device: cuda was asked for, but LibTorch finds no CUDA device");
  return torch::kCUDA;
}

bool has_backend(const char* name) {
  const auto all = available_backends();
  return std::ranges::find(all, name) != all.end();
}

// Networks of the same layers.
void copy_parameters(const torch::nn::Module& from, torch::nn::Module& to) {
  const torch::NoGradGuard no_grad;
  const auto source = from.parameters();
  auto target = to.parameters();
  for (size_t i = 0; i < source.size(); ++i) target[i].copy_(source[i]);
}

// Of rollout and update; with overlap each has its own.
int all_threads(const LowLevelSettings& s) {
  return s.threads > 0 ? s.threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}
int rollout_threads(const LowLevelSettings& s) { return s.overlap ? std::max(1, all_threads(s) - 1) : all_threads(s); }
int update_threads(const LowLevelSettings& s) { return s.overlap ? 1 : all_threads(s); }

// 0 until `from`, 1 from `to` on, straight in between.
double ramp(double samples, double from, double to) {
  return std::clamp((samples - from) / std::max(to - from, 1.0), 0.0, 1.0);
}

float log_sigma_at(const NetworkSettings& n, double samples) {
  if (n.narrow_to <= 0.0) return n.log_sigma;
  return n.log_sigma + static_cast<float>(ramp(samples, n.narrow_from, n.narrow_to)) * (n.log_sigma_end - n.log_sigma);
}

// A policy that learns new clips: samples over which what it begins with is let go.
constexpr double kTaughtSamples = 1e6;

float keep_weight_at(const UpdateSettings& u, double samples) {
  if (u.keep_to <= 0.0) return u.keep_weight;
  return u.keep_weight_start +
         static_cast<float>(ramp(samples, u.keep_from, u.keep_to)) * (u.keep_weight - u.keep_weight_start);
}

// Share of the episodes that could follow their clip which do.
double follow_share(const LowLevelSettings& settings, double samples) {
  const RewardSettings& reward = settings.reward;
  if (reward.tracking_weight <= 0.0f || settings.update.keep_weight > 0.0f) return 0.0;
  if (reward.tracking_fade <= 0.0) return 1.0;
  return ramp(-samples, -reward.tracking_fade, -reward.tracking_full);  // it falls
}

}  // namespace

void validate(const LowLevelSettings& s) {
  const int batch = s.num_envs * s.horizon;
  if (s.num_envs < 2) fail("settings: num_envs {} must be at least 2", s.num_envs);
  if (s.horizon < 2) fail("settings: horizon {} must be at least 2", s.horizon);
  if (s.update.minibatch < 1 || s.update.minibatch > batch)
    fail("settings: update.minibatch {} must lie in [1, {}] (num_envs x horizon)", s.update.minibatch, batch);
  if (s.update.discriminator_minibatch < 2 || s.update.discriminator_minibatch > s.update.minibatch)
    fail("settings: update.discriminator_minibatch {} must lie in [2, update.minibatch]",
         s.update.discriminator_minibatch);
  if (s.update.replay_size < s.update.discriminator_minibatch)
    fail("settings: update.replay_size {} must be at least update.discriminator_minibatch", s.update.replay_size);
  if (s.network.encoder_stride < 1 || s.network.encoder_stride > s.env.encoder_frames)
    fail("settings: network.encoder_stride {} must lie in [1, env.encoder_frames]", s.network.encoder_stride);
  for (const auto* hidden : {&s.network.style_hidden, &s.network.actor_hidden, &s.network.critic_hidden,
                             &s.network.discriminator_hidden, &s.network.encoder_hidden})
    for (const int size : *hidden)
      if (size < 1 || size > 65536) fail("settings: network: a hidden layer cannot have {} units", size);
  if (s.network.latent_size < 2) fail("settings: network.latent_size {} must be at least 2", s.network.latent_size);
  if (!(s.samples > 0.0)) fail("settings: samples must be positive");
  if (s.update.keep_weight > 0.0f && !s.env.recovery_score && !s.update.new_clips)
    fail(
        "settings: update.keep_weight leaves nothing to learn but getting up, which needs env.recovery_score: true, "
        "and update.new_clips");
  if (s.update.new_clips && !(s.update.keep_weight > 0.0f))
    fail("settings: update.new_clips needs update.keep_weight above 0, which holds the clips that are known");
}

struct LowLevelTrainer::Impl {
  Impl(const LowLevelSettings& settings, const Character& character, const MotionLibrary& library);

  // What the rollout leaves for the update. T steps, N environments; rows are t * N + env. On the learner's device.
  struct Rollout {
    torch::Tensor obs;             // (T N, O) raw
    torch::Tensor actions, means;  // (T N, A)
    torch::Tensor neglogp;         // (T N)
    torch::Tensor mask;            // (T N) 1: acted stochastically
    torch::Tensor windows;         // (T N, frames f) discriminator windows after the step, raw
    torch::Tensor window_id;       // (T N) int64, which distinct encoder window is in force
    torch::Tensor dones, falls;    // (T N)
    torch::Tensor tracking;        // (T N), negative where it says nothing
    torch::Tensor moments;         // (W) int64 newest moments of the distinct encoder windows
    // observations after the step where the latent changed or the episode ended
    torch::Tensor end_row, end_obs;  // (E) int64, (E, O)
    torch::Tensor last_obs;          // (N, O) after the last step
    // filled by rewards_and_returns
    torch::Tensor normalised_obs;       // (T N, O)
    torch::Tensor advantages, returns;  // (T N)

    // what a checkpoint must hold of a rollout that waits for its update
    std::vector<std::pair<const char*, torch::Tensor*>> tensors() {
      return {{"obs", &obs},         {"actions", &actions},   {"means", &means},         {"neglogp", &neglogp},
              {"mask", &mask},       {"windows", &windows},   {"window_id", &window_id}, {"dones", &dones},
              {"falls", &falls},     {"tracking", &tracking}, {"moments", &moments},     {"end_row", &end_row},
              {"end_obs", &end_obs}, {"last_obs", &last_obs}};
    }
  };

  // The policy as it was when a rollout began: what the rollout's thread may read while the update changes the rest.
  struct Behaviour {
    std::shared_ptr<StyledNet> actor;
    std::shared_ptr<MlpNet> encoder;
    Normaliser obs_norm;
    torch::Tensor table;  // (moments, f) normalised
    float log_sigma = 0.0f;
  };

#ifdef CALM_WITH_CUDA
  bool on_gpu() const { return cuda_env != nullptr; }
  BatchEnv::Counts counts() const { return cuda_env ? cuda_env->counts() : env->counts(); }
#else
  bool on_gpu() const { return false; }
  BatchEnv::Counts counts() const { return env->counts(); }
#endif
  void warm_start();
  void refresh_behaviour();
  Rollout rollout();
  Rollout rollout_on_gpu();
  void rewards_and_returns();
  void update();
  void update_keeping();
  void learn_from(int clip);
  // (T N) of the rollout, 1: under the latent of a clip to learn.
  torch::Tensor rows_of_new() const { return of_new.index_select(0, data.moments).index_select(0, data.window_id); }
  void start_new_clips(const SafeTensors& file, const std::string& where);
  void part_new_clips();
  void step_optimiser();
  void adapt_actor_rate(double kl);
  void update_normalisers();

  torch::Tensor encode(const MlpNet& net, const torch::Tensor& normalised, const torch::Tensor& moments) const;
  torch::Tensor encode(const torch::Tensor& moments) const { return encode(*encoder, table_normalised, moments); }
  torch::Tensor value(const torch::Tensor& normalised_obs, const torch::Tensor& z) const {
    return value_norm.denormalise(critic->forward(normalised_obs, z).squeeze(1));
  }
  torch::Tensor normalised_windows(const torch::Tensor& raw) const {
    const int64_t f = feature_norm.mean().size(0);
    return feature_norm.normalise(raw.reshape({-1, f})).reshape(raw.sizes());
  }
  std::vector<std::pair<std::string, torch::Tensor>> parameters() const;
  void add_parts(const TrainParts& p) {
    parts.physics += p.physics, parts.features += p.features, parts.inference += p.inference;
    parts.losses += p.losses, parts.optimiser += p.optimiser;
  }

  // Random numbers of the update, on the learner's device. A processor's are the same on every machine; a GPU draws its
  // own, seeded anew in each iteration.
  torch::Tensor draw_below(int64_t count, int64_t n);  // (count) int64 in [0, n)
  torch::Tensor draw_uniform(int64_t count);           // (count) in [0, 1)
  torch::Tensor draw_order(int64_t count);             // (count) int64, a permutation

  struct ClipBatch {
    torch::Tensor features;       // (n, frames f) normalised discriminator windows
    torch::Tensor moments, near;  // (n) int64 encoder windows they lie in, and ones at most half a second apart
    torch::Tensor other;          // (n) int64 row whose latent is of another motion; -1: there is none
  };
  ClipBatch draw_clip_batch(int n);

  LowLevelSettings settings;
  const Character& character;
  const MotionLibrary& library;
  torch::Device device;
  std::string backend;
  ThreadPool pool;
  std::unique_ptr<Simulator> simulator;
  std::unique_ptr<BatchEnv> env;
#ifdef CALM_WITH_CUDA
  std::unique_ptr<CudaEnv> cuda_env;  // where simulation and learning share a GPU; `env` then only saves and restores
  torch::Tensor latent_moments;       // (N) int64 of the latents in force
#endif
  int clip_batches = 0;  // drawn in this iteration
  const MomentTable& clip_moments;
  MotionTable table;
  torch::Tensor table_normalised;

  std::shared_ptr<StyledNet> actor, discriminator;
  std::shared_ptr<MlpNet> critic, encoder;
  std::shared_ptr<StyledNet> kept;    // with update.keep_weight: the actor as it was
  std::shared_ptr<StyledNet> learnt;  // with update.new_clips: the actor as it was at keep_from samples
  bool has_learnt = false;
  int first_new = -1;          // with update.new_clips: the first clip to learn
  torch::Tensor of_new;        // (moments) 1: of a clip to learn
  torch::Tensor kept_latents;  // (moments, L) as they were
  std::unique_ptr<Behaviour> behaviour;
  std::array<torch::Tensor, 4> flat;  // parameters of actor, critic, discriminator, encoder
  std::unique_ptr<torch::optim::Adam> optimiser;
  Normaliser obs_norm, feature_norm, value_norm;
  float actor_rate;
  float log_sigma;  // of the exploration noise, now

  torch::Tensor replay_windows, replay_moments;  // (capacity, frames f) raw; (capacity) int64
  int64_t replay_count = 0;

  std::vector<float> exploration;
  Rng rng, rollout_rng;
  Rollout data;              // the rollout that the next update learns from
  TrainParts rollout_parts;  // of the rollout in flight
  int64_t iteration = 0;
  double samples = 0.0;
  std::map<std::string, double> stats;
  TrainParts parts;
};

LowLevelTrainer::Impl::Impl(const LowLevelSettings& s, const Character& c, const MotionLibrary& l)
    : settings(s),
      character(c),
      library(l),
      device(choose_device(s.device)),
      backend(s.backend != "auto"                       ? s.backend
              : device.is_cuda() && has_backend("cuda") ? "cuda"
                                                        : "simd"),
      pool(rollout_threads(s)),
      simulator(make_simulator(backend, c, s.physics, s.num_envs, pool)),
      env(std::make_unique<BatchEnv>(c, l, *simulator, pool, s.env, s.physics, static_cast<uint64_t>(s.seed))),
      clip_moments(env->moments()),
      table(clip_moments, device),
      obs_norm(c.observation_size(), device),
      feature_norm(c.motion_feature_size(), device),
      value_norm(1, device),
      actor_rate(s.update.learning_rate * s.update.actor_rate),
      log_sigma(s.network.log_sigma),
      exploration(exploration_probabilities(s.num_envs)),
      rng(static_cast<uint64_t>(s.seed), 0x1ea4ull),
      rollout_rng(static_cast<uint64_t>(s.seed), 0xac7ull) {
  keep_freed_memory();
  set_math_threads(update_threads(s));
  const NetworkSettings& n = s.network;
  const int f = c.motion_feature_size(), o = c.observation_size();
  const int encoder_frames = (s.env.encoder_frames + n.encoder_stride - 1) / n.encoder_stride;

  // networks, from our own random stream so that a seed means the same everywhere
  auto style_sizes = mlp_sizes(n.latent_size, n.style_hidden, n.style_size);
  actor = std::make_shared<StyledNet>(o, style_sizes, n.actor_hidden, c.num_dofs);
  discriminator = std::make_shared<StyledNet>(f * s.env.discriminator_frames, style_sizes, n.discriminator_hidden, 1);
  critic = std::make_shared<MlpNet>(mlp_sizes(o + n.latent_size, n.critic_hidden, 1));
  encoder = std::make_shared<MlpNet>(mlp_sizes(f * encoder_frames, n.encoder_hidden, n.latent_size));
  Rng init(static_cast<uint64_t>(s.seed), 0x1417ull);
  for (const MlpNet* net : {&actor->style(), &actor->body(), &discriminator->style(), &discriminator->body(),
                            static_cast<const MlpNet*>(critic.get()), static_cast<const MlpNet*>(encoder.get())})
    init_default(*net, init);
  init_uniform(actor->style().layers().back(), 1.0f, init);
  init_uniform(discriminator->style().layers().back(), 1.0f, init);
  init_uniform(discriminator->body().layers().back(), 1.0f, init);
  init_uniform(encoder->layers().back(), 0.1f, init);
  behaviour = std::make_unique<Behaviour>(
      Behaviour{std::make_shared<StyledNet>(o, style_sizes, n.actor_hidden, c.num_dofs),
                std::make_shared<MlpNet>(mlp_sizes(f * encoder_frames, n.encoder_hidden, n.latent_size)),
                obs_norm,
                {},
                s.network.log_sigma});
  {
    const torch::NoGradGuard no_grad;
    actor->body().layers().back()->weight.mul_(n.actor_last_layer);
  }
  if (s.update.keep_weight > 0.0f) {
    kept = std::make_shared<StyledNet>(o, style_sizes, n.actor_hidden, c.num_dofs);
    learnt = s.update.new_clips ? std::make_shared<StyledNet>(o, style_sizes, n.actor_hidden, c.num_dofs) : nullptr;
    for (const auto& net : {kept, learnt}) {
      if (!net) continue;
      net->to(device);
      for (auto& parameter : net->parameters()) parameter.set_requires_grad(false);
    }
  }
  for (auto* module :
       {static_cast<torch::nn::Module*>(actor.get()), static_cast<torch::nn::Module*>(critic.get()),
        static_cast<torch::nn::Module*>(discriminator.get()), static_cast<torch::nn::Module*>(encoder.get()),
        static_cast<torch::nn::Module*>(behaviour->actor.get()),
        static_cast<torch::nn::Module*>(behaviour->encoder.get())})
    module->to(device);

  flat = {flatten(*actor), flatten(*critic), flatten(*discriminator), flatten(*encoder)};

  // one optimiser, a group a network so that their rates can differ
  const UpdateSettings& u = s.update;
  std::vector<torch::optim::OptimizerParamGroup> groups;
  const std::array<float, 4> rates = {u.actor_rate, u.critic_rate, u.discriminator_rate, u.encoder_rate};
  for (size_t i = 0; i < flat.size(); ++i)
    groups.emplace_back(std::vector<torch::Tensor>{flat[i]},
                        std::make_unique<torch::optim::AdamOptions>(u.learning_rate * rates[i]));
  optimiser = std::make_unique<torch::optim::Adam>(groups, torch::optim::AdamOptions(u.learning_rate));

  // normalisers start from the clips, not from nothing: features from every moment, observations from drawn states
  feature_norm.update(table.features());
  CharacterState state(c);
  auto clip_obs = torch::empty({4096, o});
  for (int i = 0; i < 4096; ++i) {
    const int clip = library.sampler().sample_clip(rng);
    library.state(clip, rng.uniform() * library.clip(clip).length(), state);
    write_observation(c, state.view(), clip_obs[i].data_ptr<float>());
  }
  obs_norm.update(clip_obs.to(device));

  replay_windows = torch::empty({u.replay_size, f * s.env.discriminator_frames}, device);
  replay_moments = torch::zeros({u.replay_size}, torch::TensorOptions(torch::kInt64).device(device));
  env->reset_all();
#ifdef CALM_WITH_CUDA
  if (auto* gpu = dynamic_cast<CudaSimulator*>(simulator.get()); gpu && device.is_cuda())
    cuda_env = std::make_unique<CudaEnv>(*env, *gpu, exploration);
#endif
  if (device.is_cuda()) at::globalContext().setAllowTF32CuBLAS(true);  // ten bits of mantissa are enough to learn from
}

torch::Tensor LowLevelTrainer::Impl::encode(const MlpNet& net, const torch::Tensor& normalised,
                                            const torch::Tensor& moments) const {
  const auto windows = table.gather(
      normalised, moments,
      (settings.env.encoder_frames + settings.network.encoder_stride - 1) / settings.network.encoder_stride,
      settings.network.encoder_stride);
  return normalise_rows(net.forward(windows));
}

// Supervised: from a clip's state under the latent of a window that holds it, the PD targets that lead to the clip's
// next state. A drive lags by kd / kp seconds, hence the target runs ahead by as much.
void LowLevelTrainer::Impl::warm_start() {
  const WarmStartSettings& w = settings.warm_start;
  const float dt = 1.0f / settings.physics.control_rate;
  const int64_t moments = table.features().size(0), O = character.observation_size(), A = character.num_dofs;

  // observations and targets at every moment, once
  auto obs = torch::empty({moments, O}), targets = torch::empty({moments, A});
  CharacterState state(character);
  for (int64_t m = 0; m < moments; ++m) {
    const int clip = clip_moments.clip_of(m);
    const float time = clip_moments.time_of(m);
    library.state(clip, time, state);
    write_observation(character, state.view(), obs[m].data_ptr<float>());
    library.state(clip, time + dt, state);
    float* target = targets[m].data_ptr<float>();
    for (int d = 0; d < A; ++d) {
      const float lead = character.kp[d] > 0.0f ? character.kd[d] / character.kp[d] : 0.0f;
      const float position = state.dof_pos[d] + lead * state.dof_vel[d];
      target[d] = std::clamp((position - character.action_offset[d]) / character.action_scale[d], -1.0f, 1.0f);
    }
  }

  spdlog::info("warm start: {} supervised steps", w.steps);
  table_normalised = feature_norm.normalise(table.features());
  const auto obs_normalised = obs_norm.normalise(obs.to(device));
  targets = targets.to(device);
  torch::optim::Adam adam(std::vector<torch::Tensor>{flat[0], flat[3]}, torch::optim::AdamOptions(w.learning_rate));
  const int64_t span = static_cast<int64_t>(settings.env.encoder_frames - 1) * kMomentsPerStep;
  std::vector<int64_t> now(w.minibatch), newest(w.minibatch);
  auto noise = torch::empty({w.minibatch, O});
  for (int step = 0; step < w.steps; ++step) {
    for (int i = 0; i < w.minibatch; ++i) {
      now[i] = rng.below(static_cast<int>(moments));
      newest[i] =
          std::min(clip_moments.last_of(clip_moments.clip_of(now[i])), now[i] + rng.below(static_cast<int>(span)));
    }
    float* n = noise.data_ptr<float>();
    for (int64_t i = 0; i < noise.numel(); ++i) n[i] = w.observation_noise * rng.uniform(-1.7f, 1.7f);
    const auto index = torch::tensor(now).to(device);
    const auto z = encode(torch::tensor(newest).to(device));
    const auto mean = actor->forward(obs_normalised.index_select(0, index) + noise.to(device), z);
    const auto loss =
        (mean - targets.index_select(0, index)).square().sum(1).mean() +
        settings.update.encoder_weight * settings.update.uniformity_weight *
            uniformity_loss(z.narrow(0, 0, std::min<int64_t>(w.minibatch, 256)));  // grows with its square
    for (auto& parameters : flat) parameters.mutable_grad().zero_();
    loss.backward();
    adam.step();
  }
}

void LowLevelTrainer::Impl::refresh_behaviour() {
  const torch::NoGradGuard no_grad;
  table_normalised = feature_norm.normalise(table.features());
  behaviour->table = table_normalised;
  behaviour->obs_norm = obs_norm;
  behaviour->log_sigma = log_sigma;
  copy_parameters(*actor, *behaviour->actor);
  copy_parameters(*encoder, *behaviour->encoder);
}

// Simulates `horizon` control steps everywhere; no gradients. Touches only the environments, the behaviour and its own
// random stream, so that it may run beside an update.
LowLevelTrainer::Impl::Rollout LowLevelTrainer::Impl::rollout() {
  const torch::NoGradGuard no_grad;
  if (settings.overlap) set_math_threads(1);  // a thread has its own number
  Rollout out;
  TrainParts& spent = rollout_parts;
  spent = {};
  const int64_t T = settings.horizon, N = settings.num_envs, O = character.observation_size(), A = character.num_dofs;
  const int64_t K = static_cast<int64_t>(settings.env.discriminator_frames) * character.motion_feature_size();
  const auto floats = torch::kFloat32;
  auto obs = torch::empty({T * N, O}, floats), actions = torch::empty({T * N, A}, floats);
  auto means = torch::empty({T * N, A}, floats), mask = torch::empty({T * N}, floats);
  auto windows = torch::empty({T * N, K}, floats), window_id = torch::empty({T * N}, torch::kInt64);
  auto dones = torch::empty({T * N}, floats), falls = torch::empty({T * N}, floats);
  auto tracking = torch::empty({T * N}, floats);
  std::vector<int64_t> moments, end_row;
  std::vector<float> end_obs;

  // every latent in force is encoded anew, as the encoder has changed since
  std::vector<int64_t> current(N);
  for (int64_t e = 0; e < N; ++e) current[e] = e, moments.push_back(clip_moments.moment(env->windows()[e]));
  const auto style_of_new = [&](size_t begin) {
    const auto fresh =
        torch::tensor(std::vector<int64_t>(moments.begin() + static_cast<std::ptrdiff_t>(begin), moments.end()));
    return behaviour->actor->embed(encode(*behaviour->encoder, behaviour->table, fresh.to(device)));
  };
  auto styles = style_of_new(0);

  const float sigma = std::exp(behaviour->log_sigma);
  auto noise = torch::empty({N, A}, floats);
  for (int64_t t = 0; t < T; ++t) {
    double start = now_s();
    float* row_mask = mask.data_ptr<float>() + t * N;
    std::copy_n(env->observations().data(), N * O, obs.data_ptr<float>() + t * N * O);
    std::copy_n(current.data(), N, window_id.data_ptr<int64_t>() + t * N);

    // act: the mean, plus noise where this environment explores in this step
    const auto style = styles.index_select(0, torch::tensor(current).to(device));
    const auto mean =
        behaviour->actor->forward_styled(behaviour->obs_norm.normalise(obs.narrow(0, t * N, N).to(device)), style)
            .to(torch::kCPU);
    float* eps = noise.data_ptr<float>();
    for (int64_t e = 0; e < N; ++e) {
      row_mask[e] = rollout_rng.uniform() < exploration[e] ? 1.0f : 0.0f;
      for (int64_t a = 0; a < A; ++a) eps[e * A + a] = row_mask[e] != 0.0f ? sigma * rollout_rng.normal() : 0.0f;
    }
    means.narrow(0, t * N, N).copy_(mean);
    actions.narrow(0, t * N, N).copy_(mean + noise);
    spent.inference += now_s() - start;

    // simulate
    start = now_s();
    const double physics_before = env->physics_seconds();
    env->step({actions.data_ptr<float>() + t * N * A, static_cast<size_t>(N * A)});
    const double physics = env->physics_seconds() - physics_before;
    spent.physics += physics;
    std::copy_n(env->discriminator_windows().data(), N * K, windows.data_ptr<float>() + t * N * K);
    std::copy_n(env->tracking().data(), N, tracking.data_ptr<float>() + t * N);
    const std::vector<float> after(env->observations().begin(), env->observations().end());
    for (int64_t e = 0; e < N; ++e) {
      falls.data_ptr<float>()[t * N + e] = env->terminated()[e];
      dones.data_ptr<float>()[t * N + e] = env->terminated()[e] || env->truncated()[e];
    }
    env->reset_finished();

    // new latents; the state before a reset or change is kept for the value after the step
    const size_t known = moments.size();
    for (int64_t e = 0; e < N; ++e) {
      if (!env->window_changed()[e]) continue;
      end_row.push_back(t * N + e);
      end_obs.insert(end_obs.end(), after.begin() + e * O, after.begin() + (e + 1) * O);
      current[e] = static_cast<int64_t>(moments.size());
      moments.push_back(clip_moments.moment(env->windows()[e]));
    }
    spent.features += now_s() - start - physics;
    start = now_s();
    if (moments.size() > known) styles = torch::cat({styles, style_of_new(known)});
    spent.inference += now_s() - start;
  }

  out.obs = obs.to(device), out.actions = actions.to(device), out.means = means.to(device);
  out.mask = mask.to(device), out.windows = windows.to(device), out.window_id = window_id.to(device);
  out.dones = dones.to(device), out.falls = falls.to(device), out.tracking = tracking.to(device);
  out.moments = torch::tensor(moments).to(device);
  out.end_row = torch::tensor(end_row, torch::kInt64).to(device);
  out.end_obs = torch::tensor(end_obs).reshape({static_cast<int64_t>(end_row.size()), O}).to(device);
  out.last_obs = torch::from_blob(const_cast<float*>(env->observations().data()), {N, O}).clone().to(device);
  out.neglogp = neg_log_prob(out.actions, out.means, behaviour->log_sigma);
  return out;
}

// The same where nothing leaves the GPU but how many latents have changed in a step.
LowLevelTrainer::Impl::Rollout LowLevelTrainer::Impl::rollout_on_gpu() {
#ifdef CALM_WITH_CUDA
  const torch::NoGradGuard no_grad;
  Rollout out;
  TrainParts& spent = rollout_parts;
  spent = {};
  const int64_t T = settings.horizon, N = settings.num_envs, O = character.observation_size(), A = character.num_dofs;
  const int64_t K = static_cast<int64_t>(settings.env.discriminator_frames) * character.motion_feature_size();
  const auto floats = torch::TensorOptions(torch::kFloat32).device(device), longs = floats.dtype(torch::kInt64);
  out.obs = torch::empty({T * N, O}, floats), out.actions = torch::empty({T * N, A}, floats);
  out.means = torch::empty({T * N, A}, floats), out.mask = torch::empty({T * N}, floats);
  out.windows = torch::empty({T * N, K}, floats), out.window_id = torch::empty({T * N}, longs);
  out.dones = torch::empty({T * N}, floats), out.falls = torch::empty({T * N}, floats);
  out.tracking = torch::empty({T * N}, floats);
  const auto after = torch::empty({N, O}, floats), changed = torch::empty({N}, floats.dtype(torch::kUInt8));
  const auto observations = torch::from_blob(const_cast<float*>(cuda_env->observations()), {N, O}, floats);
  if (!latent_moments.defined()) latent_moments = torch::tensor(cuda_env->window_moments()).to(device);

  // every latent in force is encoded anew, as the encoder has changed since
  std::vector<torch::Tensor> moments = {latent_moments.clone()}, end_row, end_obs;
  const auto style_of = [&](const torch::Tensor& fresh) {
    return behaviour->actor->embed(encode(*behaviour->encoder, behaviour->table, fresh));
  };
  auto styles = style_of(latent_moments);
  const auto current = torch::arange(N, longs);
  int64_t known = N;

  const float sigma = std::exp(behaviour->log_sigma);
  auto elapsed = [start = now_s()]() mutable {
    CudaSimulator::wait();
    const double before = std::exchange(start, now_s());
    return start - before;
  };
  for (int64_t t = 0; t < T; ++t) {
    const auto row = [&](torch::Tensor& rows) { return rows.narrow(0, t * N, N); };
    row(out.obs).copy_(observations);
    row(out.window_id).copy_(current);
    row(out.means).copy_(
        behaviour->actor->forward_styled(behaviour->obs_norm.normalise(observations), styles.index_select(0, current)));
    const auto actions = row(out.actions);
    cuda_env->explore(row(out.means).data_ptr<float>(), sigma, actions.data_ptr<float>(),
                      row(out.mask).data_ptr<float>());
    spent.inference += elapsed();

    const env_kernels::StepRows rows = {row(out.windows).data_ptr<float>(),  after.data_ptr<float>(),
                                        row(out.tracking).data_ptr<float>(), row(out.falls).data_ptr<float>(),
                                        row(out.dones).data_ptr<float>(),    changed.data_ptr<uint8_t>(),
                                        latent_moments.data_ptr<int64_t>()};
    cuda_env->simulate(actions.data_ptr<float>());
    spent.physics += elapsed();
    cuda_env->observe(rows);
    cuda_env->reset(rows);
    spent.features += elapsed();

    // new latents; the state before a reset or change is kept for the value after the step
    const auto ended = torch::nonzero(changed).squeeze(1);
    if (const int64_t fresh = ended.size(0); fresh > 0) {
      end_row.push_back(ended + t * N);
      end_obs.push_back(after.index_select(0, ended));
      moments.push_back(latent_moments.index_select(0, ended));
      current.index_copy_(0, ended, torch::arange(known, known + fresh, longs));
      known += fresh;
      styles = torch::cat({styles, style_of(moments.back())});
    }
    spent.inference += elapsed();
  }
  out.moments = torch::cat(moments);
  out.end_row = end_row.empty() ? torch::empty({0}, longs) : torch::cat(end_row);
  out.end_obs = end_obs.empty() ? torch::empty({0, O}, floats) : torch::cat(end_obs);
  out.last_obs = observations.clone();
  out.neglogp = neg_log_prob(out.actions, out.means, behaviour->log_sigma);
  return out;
#else
  fail("training: this build has no CUDA");
#endif
}

torch::Tensor LowLevelTrainer::Impl::draw_below(int64_t count, int64_t n) {
  if (device.is_cuda()) return torch::randint(n, {count}, torch::TensorOptions(torch::kInt64).device(device));
  auto out = torch::empty({count}, torch::kInt64);
  auto* numbers = out.data_ptr<int64_t>();
  for (int64_t i = 0; i < count; ++i) numbers[i] = rng.below(static_cast<int>(n));
  return out;
}

torch::Tensor LowLevelTrainer::Impl::draw_uniform(int64_t count) {
  if (device.is_cuda()) return torch::rand({count}, torch::TensorOptions(device));
  auto out = torch::empty({count}, torch::kFloat32);
  auto* numbers = out.data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) numbers[i] = rng.uniform();
  return out;
}

torch::Tensor LowLevelTrainer::Impl::draw_order(int64_t count) {
  if (device.is_cuda()) return torch::randperm(count, torch::TensorOptions(torch::kInt64).device(device));
  auto out = torch::arange(count, torch::kInt64);
  auto* numbers = out.data_ptr<int64_t>();
  for (int64_t i = count - 1; i > 0; --i) std::swap(numbers[i], numbers[rng.below(static_cast<int>(i + 1))]);
  return out;
}

void LowLevelTrainer::Impl::rewards_and_returns() {
  const torch::NoGradGuard no_grad;
  const double start = now_s();
  const int64_t T = settings.horizon, N = settings.num_envs;
  const auto z_table = encode(data.moments);
  const auto z = z_table.index_select(0, data.window_id);
  data.normalised_obs = obs_norm.normalise(data.obs);

  // A rollout that was simulated beside the last update is one update old. PPO's trust region must lie round the policy
  // as it is now, not as it was: otherwise half of the samples are clipped before the first step, and nothing is learnt
  // from them (Hilton et al. 2021, proximal policy apart from behaviour policy; the importance weight between the two,
  // near one, is left out).
  if (settings.overlap && !on_gpu()) {
    data.means = actor->forward_styled(data.normalised_obs, actor->embed(z_table).index_select(0, data.window_id));
    data.neglogp = neg_log_prob(data.actions, data.means, log_sigma);
  }

  // reward: how real the discriminator finds the window under the latent in force
  const float w = settings.reward.tracking_weight;
  const auto tracked = (data.tracking >= 0.0f).to(torch::kFloat32);
  torch::Tensor style, rewards;
  if (kept) {
    // how nearly it stands while it recovers; else it does what is kept, which is as good as standing
    rewards = torch::where(data.tracking >= 0.0f, data.tracking, torch::ones_like(data.tracking));
  } else {
    const auto styles = discriminator->embed(z_table).index_select(0, data.window_id);
    std::vector<torch::Tensor> logits;
    const int64_t block = device.is_cpu() ? kDenseBlock : N;
    for (int64_t begin = 0; begin < T * N; begin += block) {
      const int64_t rows = std::min(block, T * N - begin);
      logits.push_back(discriminator->forward_styled(normalised_windows(data.windows.narrow(0, begin, rows)),
                                                     styles.narrow(0, begin, rows)));
    }
    style = discriminator_reward(torch::cat(logits).squeeze(1), settings.reward.discriminator_scale);
    rewards = style * (1.0f - w * tracked) + w * tracked * settings.reward.discriminator_scale * data.tracking;
  }

  // values; the next value is the next row's but where the latent changed or the episode ended
  const auto values = value(data.normalised_obs, z);
  const auto last_z = z_table.index_select(0, data.window_id.narrow(0, (T - 1) * N, N));
  auto next_values = torch::cat({values.narrow(0, N, (T - 1) * N), value(obs_norm.normalise(data.last_obs), last_z)});
  if (data.end_row.size(0) > 0) {
    const auto end_z = z.index_select(0, data.end_row);
    next_values.index_copy_(0, data.end_row, value(obs_norm.normalise(data.end_obs), end_z));
  }
  next_values = next_values * (1.0f - data.falls);

  torch::Tensor advantages, returns;
  compute_gae(rewards.reshape({T, N}), values.reshape({T, N}), next_values.reshape({T, N}), data.dones.reshape({T, N}),
              settings.update.gamma, settings.update.lambda, advantages, returns);
  advantages = advantages.reshape({-1});
  data.returns = returns.reshape({-1});

  // normalised over the samples that count
  if (kept) data.mask = data.mask * tracked;
  const auto count = data.mask.sum().clamp_min(1.0f);
  const auto mean = (advantages * data.mask).sum() / count;
  const auto std = ((advantages - mean).square() * data.mask).sum().div(count).sqrt();
  data.advantages = (advantages - mean) / (std + 1e-5f);
  if (settings.update.advantage_clip > 0.0f)
    data.advantages = data.advantages.clamp(-settings.update.advantage_clip, settings.update.advantage_clip);

  const auto explained = 1.0f - (data.returns - values).square().mean() / data.returns.var().clamp_min(1e-8f);
  stats["reward"] = rewards.mean().item<double>();
  if (!kept) {
    stats["style_reward"] = style.mean().item<double>();
    stats["style_reward_spread"] = style.std().item<double>();
  }
  stats["tracking"] = ((data.tracking * tracked).sum() / tracked.sum().clamp_min(1.0f)).item<double>();
  if (of_new.defined()) {
    const auto follows = tracked * rows_of_new();
    stats["follows_new"] = ((data.tracking * follows).sum() / follows.sum().clamp_min(1.0f)).item<double>();
  }
  stats["value_explained"] = explained.item<double>();
  stats["action_size"] = data.means.abs().mean().item<double>();
  stats["falls_per_s"] = data.falls.mean().item<double>() * settings.physics.control_rate;
  parts.inference += now_s() - start;
}

LowLevelTrainer::Impl::ClipBatch LowLevelTrainer::Impl::draw_clip_batch(int n) {
  const auto longs = torch::TensorOptions(torch::kInt64).device(device);
  auto newest = torch::empty({n}, longs);
  ClipBatch batch;
  batch.moments = torch::empty({n}, longs), batch.near = torch::empty({n}, longs),
  batch.other = torch::empty({n}, longs);
  const float apart = settings.update.alignment_seconds;
  int64_t *out_newest = newest.data_ptr<int64_t>(), *moments = batch.moments.data_ptr<int64_t>();
  int64_t *near = batch.near.data_ptr<int64_t>(), *other = batch.other.data_ptr<int64_t>();
#ifdef CALM_WITH_CUDA
  if (cuda_env) {
    const uint64_t stream = (static_cast<uint64_t>(iteration) << 40) + (static_cast<uint64_t>(clip_batches++) << 24);
    cuda_env->draw_clip_rows(apart, static_cast<uint64_t>(settings.seed) ^ 0xc11bull, stream, n, out_newest, moments,
                             near, other);
    batch.features = table.gather(table_normalised, newest, settings.env.discriminator_frames);
    return batch;
  }
#endif
  std::vector<int64_t> rows(4 * static_cast<size_t>(n));
  if (device.is_cuda()) out_newest = rows.data(), moments = out_newest + n, near = moments + n, other = near + n;
  const EpisodeRules rules = env->rules();
  std::vector<int> clips(n);
  for (int i = 0; i < n; ++i) {
    const ClipRow row = rules.draw_clip_row(apart, rng);
    clips[i] = row.clip, out_newest[i] = row.newest, moments[i] = row.moment, near[i] = row.near, other[i] = -1;
  }
  // another motion: a row of the batch drawn from another clip
  if (library.num_clips() > 1)
    for (int i = 0; i < n; ++i)
      for (int attempt = 0; attempt < 32 && other[i] < 0; ++attempt) {
        const int j = rng.below(n);
        if (clips[j] != clips[i]) other[i] = j;
      }
  if (device.is_cuda()) {
    const auto all = torch::tensor(rows).to(device).reshape({4, n});
    newest = all[0], batch.moments = all[1], batch.near = all[2], batch.other = all[3];
  }
  batch.features = table.gather(table_normalised, newest, settings.env.discriminator_frames);
  return batch;
}

void LowLevelTrainer::Impl::update() {
  const UpdateSettings& u = settings.update;
  const int64_t rows = data.obs.size(0), B = u.minibatch, D = u.discriminator_minibatch;
  const auto targets = value_norm.normalise(data.returns);
  std::vector<torch::Tensor> kl_last_pass;
  std::map<std::string, std::vector<torch::Tensor>> values;  // read once at the end: a GPU would be waited for
  const bool beside = device.is_cpu() && all_threads(settings) > 1;

  for (int pass = 0; pass < u.passes; ++pass) {
    const auto order = draw_order(rows);
    for (int64_t begin = 0; begin + B <= rows; begin += B) {
      const double start = now_s();
      const auto index = order.narrow(0, begin, B);
      const auto fake_index = index.narrow(0, 0, D);

      // latents: each distinct window of the rows once, and those of clips; with gradients, which the discriminator's
      // go without
      const ClipBatch clips = draw_clip_batch(static_cast<int>(D));
      const auto unique = torch::_unique2(data.window_id.index_select(0, index), true, true, false);
      const auto& latent_of_row = std::get<1>(unique);
      const auto latents =
          encode(torch::cat({data.moments.index_select(0, std::get<0>(unique)), clips.moments, clips.near}));
      const int64_t distinct = latents.size(0) - 2 * D;
      const auto row_latents = latents.narrow(0, 0, distinct);
      const auto z = row_latents.index_select(0, latent_of_row);
      const auto clip_z = latents.narrow(0, distinct, D), near_z = latents.narrow(0, distinct + D, D);

      // discriminator: simulated and replayed windows, and clip windows with another motion's latent, against clips.
      // Latents come without gradients, so its losses share nothing with the others and run beside them.
      const auto picks = draw_below(replay_count > 0 ? D : 0, std::max<int64_t>(replay_count, 1));
      torch::Tensor negatives = torch::empty({0}, torch::kInt64);  // rows of the clip batch
      if (u.negatives) negatives = torch::nonzero(clips.other >= 0).squeeze(1);
      for (auto& parameters : flat) parameters.mutable_grad().zero_();
      auto judged =
          std::async(beside ? std::launch::async : std::launch::deferred,
                     [&, fake_z = z.narrow(0, 0, D).detach(), clip_z = clip_z.detach()] {
                       set_math_threads(update_threads(settings));
                       std::vector<torch::Tensor> fake = {normalised_windows(data.windows.index_select(0, fake_index))};
                       std::vector<torch::Tensor> fake_latents = {fake_z};
                       if (picks.size(0) > 0) {
                         fake.push_back(normalised_windows(replay_windows.index_select(0, picks)));
                         const torch::NoGradGuard no_grad;
                         const auto windows = torch::_unique2(replay_moments.index_select(0, picks), true, true, false);
                         fake_latents.push_back(encode(std::get<0>(windows)).index_select(0, std::get<1>(windows)));
                       }
                       if (negatives.size(0) > 0) {
                         fake.push_back(clips.features.index_select(0, negatives));
                         fake_latents.push_back(clip_z.index_select(0, clips.other.index_select(0, negatives)));
                       }
                       auto losses = discriminator_losses(*discriminator, torch::cat(fake), torch::cat(fake_latents),
                                                          clips.features, clip_z, u.discriminator);
                       (u.discriminator_weight * losses.total).backward();
                       return losses;
                     });

      // policy and value
      const auto obs = data.normalised_obs.index_select(0, index);
      const auto mean = actor->forward_styled(obs, actor->embed(row_latents).index_select(0, latent_of_row));
      const auto value = critic->forward(obs, z).squeeze(1);
      const auto neglogp = neg_log_prob(data.actions.index_select(0, index), mean, log_sigma);
      const auto old_mean = data.means.index_select(0, index);
      const auto actor_loss =
          ppo_actor_loss(data.neglogp.index_select(0, index), neglogp, data.advantages.index_select(0, index),
                         data.mask.index_select(0, index), u.clip);
      const auto value_loss = (value - targets.index_select(0, index)).square().mean();
      const auto bounds = bound_loss(mean).mean();

      const auto alignment = alignment_loss(clip_z, near_z);
      const auto uniformity = uniformity_loss(clip_z);
      const auto loss = actor_loss + u.value_weight * value_loss + u.bound_weight * bounds +
                        u.encoder_weight * (alignment + u.uniformity_weight * uniformity);
      loss.backward();
      const DiscriminatorLosses d = judged.get();
      parts.losses += now_s() - start;

      step_optimiser();

      // what happened, for the curves
      const torch::NoGradGuard no_grad;
      const auto add = [&values](const char* name, const torch::Tensor& of_step) {
        values[name].push_back(of_step.detach());
      };
      const double inverse_variance = std::exp(-2.0 * log_sigma);
      const auto kl = 0.5 * inverse_variance * (mean - old_mean).square().sum(1).mean();
      if (pass == u.passes - 1) kl_last_pass.push_back(kl);
      add("kl", kl);
      add("actor_loss", actor_loss), add("value_loss", value_loss), add("bound_loss", bounds);
      add("discriminator_loss", d.prediction), add("gradient_penalty", d.gradient_penalty);
      add("alignment", alignment), add("uniformity", uniformity);
      const auto below = (d.fake_logits < 0.0f).to(torch::kFloat32);
      add("accuracy_simulated", below.narrow(0, 0, D).mean());
      add("accuracy_clips", (d.clip_logits > 0.0f).to(torch::kFloat32).mean());
      if (negatives.size(0) > 0)
        add("accuracy_negatives", below.narrow(0, below.size(0) - negatives.size(0), negatives.size(0)).mean());
    }
  }
  const auto mean_of = [](const std::vector<torch::Tensor>& all) { return torch::stack(all).mean().item<double>(); };
  for (const auto& [name, all] : values) stats[name] = mean_of(all);
  adapt_actor_rate(mean_of(kl_last_pass));
}

void LowLevelTrainer::Impl::step_optimiser() {
  const double start = now_s();
  clip_gradients(*optimiser, settings.update.max_gradient_norm);
  optimiser->step();
  parts.optimiser += now_s() - start;
}

// kl: of the last pass, as measured.
void LowLevelTrainer::Impl::adapt_actor_rate(double kl) {
  if (settings.update.target_kl > 0.0f) {
    actor_rate = adapted_rate(actor_rate, kl, settings.update.target_kl);
    set_rate(*optimiser, 0, actor_rate);
  }
  stats["actor_rate"] = actor_rate;
}

// The clips from this one on are to be learnt, and the others are known.
void LowLevelTrainer::Impl::learn_from(int clip) {
  first_new = clip;
  if (clip < 0) return;
  of_new = torch::zeros({table.features().size(0)}, torch::TensorOptions(device));
  of_new.narrow(0, clip_moments.view().first[clip], of_new.size(0) - clip_moments.view().first[clip]).fill_(1.0f);
  env->set_first_new(clip);
}

// Of the policy or model that training starts from.
void LowLevelTrainer::Impl::start_new_clips(const SafeTensors& file, const std::string& where) {
  const std::vector<NamedLatent> known = read_latents(file, settings.network.latent_size, where);
  const auto knows = [&known](const Clip& clip) {
    return std::ranges::find(known, clip.name, &NamedLatent::name) != known.end();
  };
  int first = library.num_clips();
  while (first > 0 && !knows(library.clip(first - 1))) --first;
  if (first == library.num_clips())
    fail("{}: knows `{}`, the last of the motions; give the new clips at the end of the list", where,
         library.clip(first - 1).name);
  for (int c = 0; c < first; ++c)
    if (!knows(library.clip(c)))
      fail("{}: does not know `{}`, which comes before known clips; give the new clips at the end of the list", where,
           library.clip(c).name);
  learn_from(first);
  part_new_clips();
  env->reset_all();
#ifdef CALM_WITH_CUDA
  if (cuda_env) cuda_env->upload(), latent_moments = torch::Tensor();
#endif
}

// An encoder may give a new clip the latent of a known one that it is like, under which the policy could not tell the
// two apart. It learns, supervised, to keep the latents of two clips apart by an angle where one is new, near windows
// of each together, and all latents of known clips where they are.
void LowLevelTrainer::Impl::part_new_clips() {
  constexpr int kSteps = 1500, kBatch = 512;
  constexpr float kCosine = 0.6f;  // of two clips at most: as like as a style's own windows may be, and no more
  constexpr float kHold = 20.0f;
  const torch::AutoGradMode gradients(true);
  table_normalised = feature_norm.normalise(table.features());
  torch::Tensor before;
  {
    const torch::NoGradGuard no_grad;
    before = encode(torch::arange(table.features().size(0), torch::TensorOptions(torch::kInt64).device(device)));
  }
  kept_latents = before;
  const auto clip_of_moment =
      torch::from_blob(const_cast<int*>(clip_moments.view().clip_of), {before.size(0)}, torch::kInt32).to(device);
  torch::optim::Adam adam(std::vector<torch::Tensor>{flat[3]}, torch::optim::AdamOptions(3e-4));
  for (int step = 0; step < kSteps; ++step) {
    const ClipBatch batch = draw_clip_batch(kBatch);
    const auto z = encode(batch.moments), near_z = encode(batch.near);
    const auto clip = clip_of_moment.index_select(0, batch.moments), is_new = of_new.index_select(0, batch.moments);
    const auto apart = (clip.unsqueeze(0) != clip.unsqueeze(1)).to(torch::kFloat32) *
                       torch::max(is_new.unsqueeze(0), is_new.unsqueeze(1));
    const auto too_near = ((z.matmul(z.t()) - kCosine).clamp_min(0.0f).square() * apart).sum() / kBatch;
    const auto moved = (z - before.index_select(0, batch.moments)).square().sum(1) * (1.0f - is_new);
    const auto loss = too_near + alignment_loss(z, near_z) + kHold * moved.mean();
    flat[3].mutable_grad().zero_();
    loss.backward();
    adam.step();
    if (step == kSteps - 1) {
      const torch::NoGradGuard no_grad;
      spdlog::info("latents of new clips parted; those of known clips moved by {:.3f} (root mean square)",
                   (moved.sum() / (1.0f - is_new).sum().clamp_min(1.0f)).sqrt().item<float>());
    }
  }
  flat[3].mutable_grad().zero_();
}

// Teaches to get up, or new clips, and nothing else: PPO where an episode recovers or follows one; elsewhere the actor
// is held to what it did before, by the divergence of its actions from those of the actor that training started from.
// Encoder, normalisers and discriminator stay as they were, and so do the clips' latents.
void LowLevelTrainer::Impl::update_keeping() {
  const UpdateSettings& u = settings.update;
  const int64_t rows = data.obs.size(0), B = u.minibatch;
  const auto targets = value_norm.normalise(data.returns);
  const double inverse_variance = std::exp(-2.0 * log_sigma);
  if (learnt && !has_learnt && u.keep_to > 0.0 && samples >= u.keep_from) {
    copy_parameters(*actor, *learnt);
    has_learnt = true;
    spdlog::info("what it has learnt is held too from here on");
  }
  // what is held, and how firmly
  torch::Tensor z_table, kept_mean, known;
  {
    const torch::NoGradGuard no_grad;
    z_table = encode(data.moments);
    const auto kept_z = kept_latents.defined() ? kept_latents.index_select(0, data.moments) : z_table;
    kept_mean = kept->forward_styled(data.normalised_obs, kept->embed(kept_z).index_select(0, data.window_id));
    known = (data.tracking < 0.0f).to(torch::kFloat32);
    if (of_new.defined()) {
      const auto follows = (1.0f - known) * rows_of_new();
      if (has_learnt) {
        const auto mean =
            learnt->forward_styled(data.normalised_obs, learnt->embed(z_table).index_select(0, data.window_id));
        kept_mean = torch::where(follows.unsqueeze(1) > 0.5f, mean, kept_mean);
      }
      // a new clip is at first acted out as what it was taken for before latents were parted, and departs from that
      const double held = has_learnt ? 1.0 : std::clamp(1.5 - samples / kTaughtSamples, 0.0, 1.0);
      known = known + follows * static_cast<float>(held);
    }
  }
  const float keep_weight = keep_weight_at(u, samples);
  stats["keep_weight"] = keep_weight;
  std::map<std::string, std::vector<torch::Tensor>> values;
  for (int pass = 0; pass < u.passes; ++pass) {
    const auto order = draw_order(rows);
    for (int64_t begin = 0; begin + B <= rows; begin += B) {
      const double start = now_s();
      const auto index = order.narrow(0, begin, B);
      for (auto& parameters : flat) parameters.mutable_grad().zero_();
      const auto unique = torch::_unique2(data.window_id.index_select(0, index), true, true, false);
      const auto row_latents = z_table.index_select(0, std::get<0>(unique));
      const auto obs = data.normalised_obs.index_select(0, index);
      const auto mean = actor->forward_styled(obs, actor->embed(row_latents).index_select(0, std::get<1>(unique)));
      const auto value = critic->forward(obs, row_latents.index_select(0, std::get<1>(unique))).squeeze(1);
      const auto neglogp = neg_log_prob(data.actions.index_select(0, index), mean, log_sigma);
      const auto actor_loss =
          ppo_actor_loss(data.neglogp.index_select(0, index), neglogp, data.advantages.index_select(0, index),
                         data.mask.index_select(0, index), u.clip);
      const auto value_loss = (value - targets.index_select(0, index)).square().mean();
      const auto keeps = known.index_select(0, index);
      const auto strayed = 0.5 * inverse_variance * (mean - kept_mean.index_select(0, index)).square().sum(1);
      const auto keep_loss = (strayed * keeps).sum() / keeps.sum().clamp_min(1.0f);
      const auto bounds = bound_loss(mean).mean();
      (actor_loss + u.value_weight * value_loss + u.bound_weight * bounds + keep_weight * keep_loss).backward();
      parts.losses += now_s() - start;
      step_optimiser();

      const torch::NoGradGuard no_grad;
      const auto kl = 0.5 * inverse_variance * (mean - data.means.index_select(0, index)).square().sum(1).mean();
      if (pass == u.passes - 1) values["kl_last_pass"].push_back(kl);
      for (const auto& [name, of_step] : {std::pair{"kl", kl},
                                          {"actor_loss", actor_loss},
                                          {"value_loss", value_loss},
                                          {"bound_loss", bounds},
                                          {"keep_loss", keep_loss}})
        values[name].push_back(of_step.detach());
    }
  }
  const auto mean_of = [&](const char* name) { return torch::stack(values[name]).mean().item<double>(); };
  for (const char* name : {"kl", "actor_loss", "value_loss", "bound_loss", "keep_loss"}) stats[name] = mean_of(name);
  adapt_actor_rate(mean_of("kl_last_pass"));
  value_norm.update(data.returns.unsqueeze(1));
  value_norm.cap_count(20.0 * static_cast<double>(rows));
}

// After the update, so that the rollout's and the update's statistics are the same; duplicates count.
void LowLevelTrainer::Impl::update_normalisers() {
  const torch::NoGradGuard no_grad;
  const int64_t rows = data.obs.size(0), f = feature_norm.mean().size(0);
  obs_norm.update(data.obs);
  feature_norm.update(data.windows.narrow(1, 0, f));  // newest frames
  feature_norm.update(table.features().index_select(0, draw_below(rows, table.features().size(0))));
  value_norm.update(data.returns.unsqueeze(1));
  // values move with the discriminator: a long memory would hold them back
  value_norm.cap_count(20.0 * static_cast<double>(rows));

  // replay: everything until full, then a share, in random places
  const int64_t capacity = replay_windows.size(0), room = std::min(capacity - replay_count, rows);
  const auto longs = torch::TensorOptions(torch::kInt64).device(device);
  const auto kept = torch::nonzero(draw_uniform(rows - room) < settings.update.replay_keep).squeeze(1) + room;
  const auto from = torch::cat({torch::arange(room, longs), kept});
  const auto to =
      torch::cat({torch::arange(replay_count, replay_count + room, longs), draw_below(kept.size(0), capacity)});
  replay_count += room;
  replay_windows.index_copy_(0, to, data.windows.index_select(0, from));
  replay_moments.index_copy_(0, to, data.moments.index_select(0, data.window_id.index_select(0, from)));
}

std::vector<std::pair<std::string, torch::Tensor>> LowLevelTrainer::Impl::parameters() const {
  std::vector<std::pair<std::string, torch::Tensor>> all;
  const auto add = [&all](const std::string& prefix, const torch::nn::Module& net) {
    for (const auto& item : net.named_parameters()) all.emplace_back(prefix + "." + item.key(), item.value());
  };
  add("actor", *actor), add("critic", *critic), add("discriminator", *discriminator), add("encoder", *encoder);
  if (kept) add("kept", *kept);
  if (learnt) add("learnt", *learnt);
  return all;
}

LowLevelTrainer::LowLevelTrainer(const LowLevelSettings& settings, const Character& character,
                                 const MotionLibrary& library)
    : impl_((validate(settings), std::make_unique<Impl>(settings, character, library))) {}
LowLevelTrainer::~LowLevelTrainer() = default;

double LowLevelTrainer::samples() const { return impl_->samples; }
int64_t LowLevelTrainer::iteration() const { return impl_->iteration; }
const std::map<std::string, double>& LowLevelTrainer::stats() const { return impl_->stats; }
const TrainParts& LowLevelTrainer::parts() const { return impl_->parts; }

void LowLevelTrainer::iterate() {
  Impl& t = *impl_;
  const auto before = t.counts();
  t.clip_batches = 0;
  if (t.device.is_cuda()) torch::manual_seed((static_cast<uint64_t>(t.settings.seed) << 32) + t.iteration);
  if (t.iteration == 0 && t.settings.warm_start.steps > 0) t.warm_start();
  const bool first = !t.data.obs.defined();
  t.log_sigma = log_sigma_at(t.settings.network, t.samples);
  t.stats["follow_share"] = follow_share(t.settings, t.samples);
  t.env->set_follow_share(t.stats["follow_share"]);
  const bool overlap = t.settings.overlap && !t.on_gpu();  // a GPU has one queue
  if (first || !overlap) {
    t.refresh_behaviour();
    t.data = t.on_gpu() ? t.rollout_on_gpu() : t.rollout();
  }
  // with overlap the next rollout is simulated while this one is learnt from
  std::future<Impl::Rollout> next;
  TrainParts first_parts = t.rollout_parts;
  if (overlap) {
    if (!first) first_parts = {};
    t.refresh_behaviour();
    next = std::async(std::launch::async, [&t] { return t.rollout(); });
  }
  t.rewards_and_returns();
  if (t.kept) {
    t.update_keeping();
  } else {
    t.update();
    const double start = now_s();
    t.update_normalisers();
    t.parts.losses += now_s() - start;
  }
  if (next.valid()) {
    t.data = next.get();
    t.add_parts(t.rollout_parts);
  }
  t.add_parts(first_parts);
  t.samples += static_cast<double>(t.settings.horizon) * t.settings.num_envs;
  ++t.iteration;

  const auto after = t.counts();
  if (after.episodes > before.episodes) {
    const double episodes = static_cast<double>(after.episodes - before.episodes);
    t.stats["episode_steps"] = static_cast<double>(after.episode_steps - before.episode_steps) / episodes;
    t.stats["falls_share"] = static_cast<double>(after.falls - before.falls) / episodes;
  }
  t.stats["diverged"] = static_cast<double>(t.simulator->num_diverged());
  if (!std::isfinite(t.stats["actor_loss"]) || (!t.kept && !std::isfinite(t.stats["discriminator_loss"])))
    fail("training: losses are not finite at iteration {}; lower update.learning_rate and resume from the checkpoint",
         t.iteration);
}

SafeTensors LowLevelTrainer::export_model() const {
  const Impl& t = *impl_;
  SafeTensors file;
  for (const auto& [name, tensor] : t.parameters()) file.tensors[name] = to_runtime(tensor);
  file.tensors["obs_norm.mean"] = to_runtime(t.obs_norm.mean());
  file.tensors["obs_norm.inv_std"] = to_runtime(t.obs_norm.inv_std());
  file.tensors["feature_norm.mean"] = to_runtime(t.feature_norm.mean());
  file.tensors["feature_norm.inv_std"] = to_runtime(t.feature_norm.inv_std());
  file.tensors["value_norm.mean"] = to_runtime(t.value_norm.mean());
  file.tensors["value_norm.inv_std"] = to_runtime(t.value_norm.inv_std());
  file.metadata["format"] = "calm.low_level";
  file.metadata["version"] = "1";
  file.metadata["character"] = t.character.name;
  file.metadata["character_mjcf"] = t.settings.character;
  file.metadata["character_hash"] = fmt::format("{:016x}", t.character.hash);
  file.metadata["settings"] = settings_to_yaml(t.settings);
  const int stride = t.settings.network.encoder_stride;
  file.metadata["encoder_frames"] = std::to_string((t.settings.env.encoder_frames + stride - 1) / stride);
  file.metadata["encoder_stride"] = std::to_string(stride);
  file.metadata["samples"] = fmt::format("{:.0f}", t.samples);

  // latents of the clips by name: of the 2 s window at a clip's middle
  const torch::NoGradGuard no_grad;
  Impl& mutable_t = *impl_;
  mutable_t.table_normalised = t.feature_norm.normalise(t.table.features());
  const float dt = 1.0f / t.settings.physics.control_rate;
  std::vector<int64_t> moments;
  nlohmann::json clips = nlohmann::json::array();
  for (int c = 0; c < t.library.num_clips(); ++c) {
    const Clip& clip = t.library.clip(c);
    const float half = 0.5f * static_cast<float>(t.settings.env.encoder_frames - 1) * dt;
    const float newest = std::min(clip.length(), 0.5f * clip.length() + half);
    moments.push_back(t.clip_moments.moment({c, snap_to_moment(newest, dt)}));
    clips.push_back({{"name", clip.name}, {"tags", clip.tags}, {"duration", clip.length()}});
  }
  file.tensors["latents"] = to_runtime(t.encode(torch::tensor(moments).to(t.device)));
  file.metadata["clips"] = clips.dump();
  return file;
}

SafeTensors LowLevelTrainer::export_policy() const {
  SafeTensors file = export_model();
  std::erase_if(file.tensors, [](const auto& item) {
    const std::string& name = item.first;
    return !name.starts_with("actor.") && !name.starts_with("obs_norm.") && name != "latents";
  });
  return file;
}

SafeTensors LowLevelTrainer::export_encoder() const {
  SafeTensors file = export_model();
  std::erase_if(file.tensors, [](const auto& item) {
    return !item.first.starts_with("encoder.") && !item.first.starts_with("feature_norm.");
  });
  file.metadata["format"] = "calm.encoder";
  file.metadata.erase("clips"), file.metadata.erase("settings");
  return file;
}

std::map<std::string, SafeTensors> LowLevelTrainer::export_files() const {
  return {{"model.safetensors", export_model()},
          {"policy.safetensors", export_policy()},
          {"encoder.safetensors", export_encoder()}};
}

void LowLevelTrainer::start_from(const SafeTensors& file, const std::string& where) {
  Impl& t = *impl_;
  const torch::NoGradGuard no_grad;
  const auto tensor_of = [&](const std::string& name) {
    const Tensor& from = file.at(name, where);
    return torch::from_blob(const_cast<float*>(from.data.data()), from.shape, torch::kFloat32)
        .to(t.device, false, true);
  };
  // a policy comes without what only training needs
  const bool is_policy = !file.tensors.contains("value_norm.mean");
  for (auto& [name, tensor] : t.parameters()) {
    if (name.starts_with("kept.") || name.starts_with("learnt.")) continue;
    if (is_policy && (name.starts_with("critic.") || name.starts_with("discriminator."))) continue;
    const auto value = tensor_of(name);
    if (value.sizes() != tensor.sizes())
      fail("{}: `{}` has another size than the settings' network; start from a model of the same sizes", where, name);
    tensor.copy_(value);
  }
  // as if this many rows had been seen: enough to start with, few enough to follow what comes
  constexpr double kRows = 1e6;
  const auto read_norm = [&](const std::string& name, Normaliser& norm) {
    const auto mean = tensor_of(name + ".mean"), inv_std = tensor_of(name + ".inv_std");
    if (mean.numel() != norm.mean().numel()) fail("{}: `{}` has another size; it is of another character", where, name);
    const auto variance = inv_std.to(torch::kFloat64).square().reciprocal() - 1e-5;
    norm.set_state(
        {torch::full({1}, kRows, torch::kFloat64), mean.to(torch::kFloat64), variance.clamp_min(0.0) * kRows});
  };
  read_norm("obs_norm", t.obs_norm), read_norm("feature_norm", t.feature_norm);
  if (!is_policy) read_norm("value_norm", t.value_norm);
  if (t.kept) copy_parameters(*t.actor, *t.kept);
  if (!t.settings.update.new_clips) return;
  t.start_new_clips(file, where);
  const auto latents = read_latents(export_model(), t.settings.network.latent_size, where);
  const auto first = latents.begin() + t.first_new;
  for (auto learnt = first; learnt != latents.end(); ++learnt) {
    const auto cosine = [&](const NamedLatent& other) {
      return other.name == learnt->name ? -1.0f : other.z.dot(learnt->z);
    };
    const auto nearest = std::ranges::max_element(latents, {}, cosine);
    spdlog::info("learns `{}`; nearest clip `{}`, cosine {:.2f}", learnt->name, nearest->name, cosine(*nearest));
  }
}

std::string LowLevelTrainer::save() const {
  const Impl& t = *impl_;
  torch::serialize::OutputArchive archive;
  for (const auto& [name, tensor] : t.parameters()) archive.write(name, tensor.detach());
  torch::serialize::OutputArchive adam;
  t.optimiser->save(adam);
  archive.write("optimiser", adam);
  write_normaliser(archive, "obs_norm", t.obs_norm), write_normaliser(archive, "feature_norm", t.feature_norm);
  write_normaliser(archive, "value_norm", t.value_norm);
  archive.write("replay_windows", t.replay_windows.narrow(0, 0, t.replay_count).clone());
  archive.write("replay_moments", t.replay_moments.narrow(0, 0, t.replay_count).clone());
#ifdef CALM_WITH_CUDA
  if (t.cuda_env) t.cuda_env->download();
#endif
  archive.write("env", bytes_to_tensor(t.env->save()));
  std::vector<int64_t> streams;
  for (const auto& state : {t.rng.state(), t.rollout_rng.state()})
    for (const uint64_t word : {state.seed, state.stream, state.count}) streams.push_back(static_cast<int64_t>(word));
  archive.write("rng", torch::tensor(streams));
  const bool waiting = t.settings.overlap && !t.on_gpu() && t.data.obs.defined();
  archive.write("rollout_waits", torch::tensor(std::vector<int64_t>{waiting}));
  if (waiting)
    for (auto [name, tensor] : impl_->data.tensors()) archive.write(std::string("rollout.") + name, *tensor);
  archive.write("progress", torch::tensor(std::vector<double>{static_cast<double>(t.iteration), t.samples,
                                                              static_cast<double>(t.actor_rate)},
                                          torch::kFloat64));
  archive.write("parts", torch::tensor(std::vector<double>{t.parts.physics, t.parts.features, t.parts.inference,
                                                           t.parts.losses, t.parts.optimiser},
                                       torch::kFloat64));
  archive.write("kept_latents", t.kept_latents.defined() ? t.kept_latents : torch::empty({0}));
  archive.write("new_clips", torch::tensor(std::vector<int64_t>{t.first_new, t.has_learnt}));
  archive.write("character_hash", bytes_to_tensor(fmt::format("{:016x}", t.character.hash)));
  std::ostringstream out;
  archive.save_to(out);
  return std::move(out).str();
}

void LowLevelTrainer::load(const std::string& bytes, const std::string& where) {
  Impl& t = *impl_;
  const torch::NoGradGuard no_grad;
  try {
    torch::serialize::InputArchive archive;
    std::istringstream in(bytes);
    archive.load_from(in, t.device);
    const auto read = [&archive](const std::string& name) { return read_tensor(archive, name); };
    torch::Tensor value = read("character_hash");
    if (tensor_to_bytes(value.to(torch::kCPU)) != fmt::format("{:016x}", t.character.hash))
      fail("{}: was trained with another version of the character {}", where, t.settings.character);
    for (auto& [name, tensor] : t.parameters()) {
      value = read(name);
      if (value.sizes() != tensor.sizes()) fail("{}: `{}` has another size; were the settings changed?", where, name);
      tensor.copy_(value);
    }
    torch::serialize::InputArchive adam;
    archive.read("optimiser", adam);
    t.optimiser->load(adam);
    read_normaliser(archive, "obs_norm", t.obs_norm), read_normaliser(archive, "feature_norm", t.feature_norm);
    read_normaliser(archive, "value_norm", t.value_norm);
    value = read("new_clips").to(torch::kCPU);
    if (value.numel() != 2) fail("{}: is of another version of this program", where);
    const int64_t first_new = value.data_ptr<int64_t>()[0];
    t.has_learnt = value.data_ptr<int64_t>()[1] != 0;
    if (first_new < -1 || first_new >= t.library.num_clips()) fail("{}: is of other motions", where);
    t.learn_from(static_cast<int>(first_new));
    value = read("kept_latents");
    if (first_new >= 0 && value.numel() != t.of_new.size(0) * t.settings.network.latent_size)
      fail("{}: is of other motions", where);
    t.kept_latents = first_new >= 0 ? value : torch::Tensor();
    value = read("replay_windows");
    t.replay_count = value.size(0);
    if (t.replay_count > t.replay_windows.size(0)) fail("{}: replay buffer is larger than update.replay_size", where);
    t.replay_windows.narrow(0, 0, t.replay_count).copy_(value);
    value = read("replay_moments");
    t.replay_moments.narrow(0, 0, t.replay_count).copy_(value);
    value = read("env");
    t.env->restore(tensor_to_bytes(value.to(torch::kCPU)));
#ifdef CALM_WITH_CUDA
    if (t.cuda_env) t.cuda_env->upload(), t.latent_moments = torch::Tensor();
#endif
    value = read("rng");
    value = value.to(torch::kCPU);
    if (value.numel() != 6) fail("{}: is of another version of this program", where);
    const auto* r = value.data_ptr<int64_t>();
    t.rng.set_state({static_cast<uint64_t>(r[0]), static_cast<uint64_t>(r[1]), static_cast<uint64_t>(r[2])});
    t.rollout_rng.set_state({static_cast<uint64_t>(r[3]), static_cast<uint64_t>(r[4]), static_cast<uint64_t>(r[5])});
    value = read("rollout_waits");
    t.data = {};
    if (value.to(torch::kCPU).data_ptr<int64_t>()[0])
      for (auto [name, tensor] : t.data.tensors()) *tensor = read(std::string("rollout.") + name);
    value = read("progress");
    value = value.to(torch::kCPU);
    t.iteration = static_cast<int64_t>(value.data_ptr<double>()[0]);
    t.samples = value.data_ptr<double>()[1];
    t.actor_rate = static_cast<float>(value.data_ptr<double>()[2]);
    // rates are settings, which may have been changed on purpose; the actor's is state where it is adapted
    const UpdateSettings& u = t.settings.update;
    if (u.target_kl <= 0.0f) t.actor_rate = u.learning_rate * u.actor_rate;
    const std::array<float, 4> rates = {t.actor_rate, u.learning_rate * u.critic_rate,
                                        u.learning_rate * u.discriminator_rate, u.learning_rate * u.encoder_rate};
    for (size_t i = 0; i < rates.size(); ++i) set_rate(*t.optimiser, i, rates[i]);
    value = read("parts");
    value = value.to(torch::kCPU);
    const auto* p = value.data_ptr<double>();
    t.parts = {p[0], p[1], p[2], p[3], p[4]};
  } catch (const c10::Error& e) {
    fail("{}: is damaged or not a checkpoint of this program: {}", where, e.what_without_backtrace());
  }
}

}  // namespace calm
