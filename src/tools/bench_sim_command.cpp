// Speed of the simulation backends on the same states and targets.
//
// A backend alone in a closed loop would meet states of its own making: one that falls sooner would be timed lying
// down. So the states are recorded first, as snapshots: the reduced state of every environment and the PD targets of
// the control steps that follow. Each backend then gets each snapshot, makes one step that is not timed (the solver
// starts from nothing) and is timed over the rest. Backends take turns snapshot by snapshot: the machine's noise hits
// all alike. A GPU is timed twice: as the seam has it, copies to and fro included, and as "cuda_on_device", with
// targets and reports staying in its memory.
#include <fmt/format.h>
#include <mujoco/mujoco.h>
#include <yaml-cpp/yaml.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "base/progress.h"
#include "base/rng.h"
#include "base/settings.h"
#include "features/features.h"
#include "motion/library.h"
#include "sim/fall.h"
#include "sim/simulator.h"
#ifdef CALM_WITH_CUDA
#include "sim/cuda/cuda_simulator.h"
#endif
#include "tools/commands.h"
#include "tools/machine.h"
#include "tools/paths.h"
#include "tools/policy_files.h"

namespace calm {

namespace {

constexpr int kTimedSteps = 4;  // of a snapshot, after one that is not timed
constexpr const char* kOwnPolicy = "assets/policies/human";

struct BenchSimOptions {
  std::string character, backends = "simd,mujoco", policy, motions;
  int envs = 512, threads = 0, steps = 32;
  double slow_seconds = 10.0;  // of a backend's timed steps, after which it takes no more snapshots
  uint64_t seed = 1;
  bool no_self_collision = false, json = false;
};

// One environment's state, and the targets of the steps that follow.
struct Record {
  RootState root;
  std::vector<float> dof_pos, dof_vel;
  std::vector<float> targets;  // (1 + timed steps x dof)
};

// As many records as there are environments.
using Snapshot = std::vector<Record>;

struct Recording {
  std::vector<Snapshot> snapshots;
  std::string states;
};

// A policy in closed loop, with the clips that it knows.
struct PolicyLoop {
  Policy policy;
  std::optional<MotionLibrary> library;
  std::vector<int> clips, latents;  // of library, of policy; those that both know
  PhysicsSettings physics;
};

struct Contestant {
  std::string name;
  std::unique_ptr<Simulator> simulator;
  bool on_device = false;
};

struct Timing {
  double seconds = 0.0, contacts = 0.0, residual = 0.0, worst_residual = 0.0, iterations = 0.0;
  int64_t steps = 0;  // control steps of all environments
};

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> out;
  std::istringstream in(list);
  for (std::string name; std::getline(in, name, ',');)
    if (!name.empty()) out.push_back(name);
  if (out.empty()) fail("--backend: names no backend");
  return out;
}

// PD targets of an action.
void to_targets(const Character& character, const float* action, float* targets) {
  for (int d = 0; d < character.num_dofs; ++d)
    targets[d] = character.action_offset[d] + character.action_scale[d] * action[d];
}

Record record_of(const BatchState& state, int env) {
  const CharacterStateView view = state.view(env);
  Record record;
  record.root = {view.pos(0), view.rot(0), view.vel(0), view.ang_vel(0)};
  record.dof_pos.assign(view.dof_pos, view.dof_pos + state.num_dofs);
  record.dof_vel.assign(view.dof_vel, view.dof_vel + state.num_dofs);
  return record;
}

// The policy of --policy, or the committed one where it was trained on this character; its clips where they are at
// hand, else generated ones of the same names.
std::optional<PolicyLoop> open_loop(const BenchSimOptions& options, const Character& character) {
  const std::filesystem::path path = own_or_given(options.policy.empty() ? kOwnPolicy : options.policy);
  if (options.policy.empty()) {
    if (!std::filesystem::exists(path)) return std::nullopt;
    if (load_policy(path).character_hash != character.hash) return std::nullopt;
  }
  const PolicyFiles files = open_policy(path, options.character);
  PolicyLoop loop{.policy = files.policy, .library = {}, .clips = {}, .latents = {}, .physics = {}};
  try {
    if (const YAML::Node root = YAML::Load(loop.policy.settings); root.IsMap() && root["physics"])
      read_settings(loop.physics, root["physics"], path.string());
  } catch (const YAML::Exception& e) {
    fail("{}: its settings are not YAML: {}", path.string(), e.what());
  }
  const auto take = [&](const std::string& motions) {
    loop.library.emplace(character, load_motions(character, motions));
    for (int c = 0; c < loop.library->num_clips(); ++c)
      if (const int latent = loop.policy.latent_index(loop.library->clip(c).name); latent >= 0)
        loop.clips.push_back(c), loop.latents.push_back(latent);
  };
  if (!options.motions.empty()) {
    take(options.motions);
  } else {
    try {
      take(find_policy_motions(files, {}));
    } catch (const Error& e) {
      fmt::print(stderr, "bench sim: the policy's clips are not at hand ({}); generated ones instead\n", e.what());
      take("builtin:");
    }
  }
  if (loop.latents.empty()) {
    // its latents from standing, then
    loop.library.reset();
    for (size_t l = 0; l < loop.policy.latents.size(); ++l) loop.latents.push_back(static_cast<int>(l));
    if (loop.latents.empty()) return std::nullopt;
  }
  return loop;
}

class Recorder {
 public:
  Recorder(const Character& character, const PhysicsSettings& physics, const std::string& backend,
           const BenchSimOptions& options, ThreadPool& pool)
      : character_(character),
        pool_(pool),
        standing_(default_state(character)),
        wanted_(static_cast<size_t>(options.envs) * std::max(1, options.steps / kTimedSteps)),
        envs_(std::min(options.envs, kMostEnvs)),
        simulator_(make_simulator(backend, character, physics, envs_, pool)),
        per_snapshot_(options.envs),
        targets_(static_cast<size_t>(envs_) * character.num_dofs) {
    for (int e = 0; e < envs_; ++e) rngs_.emplace_back(options.seed, static_cast<uint64_t>(e));
  }

  // Environments that have been up for a second, and stay up over what is recorded.
  Recording of_policy(const PolicyLoop& loop) {
    constexpr int kUp = 30, kApart = 3;  // control steps up before; between records of an environment
    std::vector<int> age(envs_, 0), which(envs_);
    Eigen::MatrixXf actions(character_.num_dofs, envs_);
    const auto start = [&](int e) {
      Rng& r = rngs_[e];
      which[e] = r.below(static_cast<int>(loop.latents.size())), age[e] = 0;
      if (!loop.library) {
        simulator_->set_state(e, standing_.root(), standing_.dof_pos, standing_.dof_vel);
        return;
      }
      CharacterState state(character_);
      const int clip = loop.clips[which[e]];
      loop.library->state(clip, r.uniform() * loop.library->clip(clip).length(), state);
      simulator_->set_state(e, state.root(), state.dof_pos, state.dof_vel);
    };
    for (int e = 0; e < envs_; ++e) start(e);
    const auto act = [&] {
      pool_.parallel_for(envs_, 2, [&](int e, int) {
        Eigen::VectorXf obs(character_.observation_size());
        write_observation(character_, simulator_->state().view(e), obs.data());
        actions.col(e) = loop.policy.act(obs, loop.policy.latents[loop.latents[which[e]]].z);
        to_targets(character_, actions.col(e).data(), targets_.data() + static_cast<size_t>(e) * character_.num_dofs);
      });
    };
    const auto down = [&](int e) {
      return simulator_->state().diverged[e] || (age[e] > 2 && touches_while_low(character_, simulator_->state(), e));
    };
    collect("policy states", kUp, kApart, act, [&](int e) {
      if (!down(e)) return ++age[e] > kUp;
      start(e);
      return false;
    });
    return finish("policy");
  }

  // Its drives hold the default pose; a little noise in the targets keeps it from lying in a fixed point.
  Recording standing() {
    constexpr float kNoise = 0.02f;  // of an action
    constexpr int kUp = 20, kApart = 3;
    std::vector<int> age(envs_, 0);
    stand();
    const auto act = [&] {
      for (int e = 0; e < envs_; ++e)
        for (int d = 0; d < character_.num_dofs; ++d)
          targets_[static_cast<size_t>(e) * character_.num_dofs + d] =
              character_.default_dof_pos[d] + kNoise * character_.action_scale[d] * rngs_[e].normal();
    };
    collect("standing states", kUp, kApart, act, [&](int e) {
      if (age[e] < 2 * kUp && !touches_while_low(character_, simulator_->state(), e)) return ++age[e] > kUp / 2;
      simulator_->set_state(e, standing_.root(), standing_.dof_pos, standing_.dof_vel);
      age[e] = 0;
      return false;
    });
    return finish("standing");
  }

  Recording random_actions() {
    constexpr int kBefore = 60, kApart = 3;
    stand();
    const auto act = [&] {
      std::vector<float> action(character_.num_dofs);
      for (int e = 0; e < envs_; ++e) {
        for (float& a : action) a = rngs_[e].uniform(-1.0f, 1.0f);
        to_targets(character_, action.data(), targets_.data() + static_cast<size_t>(e) * character_.num_dofs);
      }
    };
    collect("random actions", kBefore, kApart, act, [&](int e) { return !simulator_->state().diverged[e]; });
    return finish("random");
  }

 private:
  static constexpr int kMostEnvs = 512;  // that are recorded from; more environments take records of other times

  void stand() {
    for (int e = 0; e < envs_; ++e) simulator_->set_state(e, standing_.root(), standing_.dof_pos, standing_.dof_vel);
  }

  // act fills the targets of the next step; fine, once a step for each environment, says whether it may be recorded.
  // After `before` steps, records of all that stay fine over their targets, and `apart` steps until the next.
  template <class Act, class Fine>
  void collect(const std::string& what, int before, int apart, const Act& act, const Fine& fine) {
    const size_t dofs = character_.num_dofs;
    // a character that never stays up is recorded as it is, rather than never
    const int64_t patience = before + 40 * static_cast<int64_t>(wanted_ / envs_ + 1) * (apart + kTimedSteps + 1);
    Progress progress("bench sim: recording " + what, static_cast<double>(wanted_), "states");
    records_.clear();
    std::vector<std::optional<Record>> open;
    std::vector<uint8_t> is_fine(envs_, 0);
    for (int64_t step = 0; records_.size() < wanted_; ++step) {
      const bool impatient = step > patience;
      const int64_t phase = step - before < 0 ? -1 : (step - before) % (kTimedSteps + 1 + apart);
      if (phase == 0) {
        open.assign(envs_, {});
        for (int e = 0; e < envs_; ++e)
          if (is_fine[e] || impatient) open[e] = record_of(simulator_->state(), e);
      }
      act();
      if (phase >= 0 && phase <= kTimedSteps)
        for (int e = 0; e < envs_; ++e)
          if (open[e])
            open[e]->targets.insert(open[e]->targets.end(), targets_.data() + e * dofs,
                                    targets_.data() + (e + 1) * dofs);
      simulator_->step(targets_);
      for (int e = 0; e < envs_; ++e) {
        is_fine[e] = fine(e);
        if (!is_fine[e] && !impatient && phase >= 0 && phase <= kTimedSteps) open[e].reset();
      }
      if (phase == kTimedSteps)
        for (std::optional<Record>& record : open)
          if (record && records_.size() < wanted_) records_.push_back(std::move(*record));
      progress.update(static_cast<double>(records_.size()));
    }
  }

  Recording finish(const std::string& states) {
    Recording recording{.snapshots = {}, .states = states};
    for (size_t first = 0; first + per_snapshot_ <= records_.size(); first += per_snapshot_)
      recording.snapshots.emplace_back(
          std::make_move_iterator(records_.begin() + static_cast<long>(first)),
          std::make_move_iterator(records_.begin() + static_cast<long>(first + per_snapshot_)));
    return recording;
  }

  const Character& character_;
  ThreadPool& pool_;
  CharacterState standing_;
  size_t wanted_;
  int envs_;
  std::unique_ptr<Simulator> simulator_;
  size_t per_snapshot_;
  std::vector<float> targets_;
  std::vector<Rng> rngs_;
  std::vector<Record> records_;
};

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Of the last step, `times` over.
void count_solver(const BatchState& s, int times, Timing& timing) {
  for (int e = 0; e < s.num_envs; ++e) {
    timing.contacts += times * s.num_contacts[e], timing.iterations += times * s.solver_iterations[e];
    timing.residual += times * s.solver_residual[e];
    timing.worst_residual = std::max<double>(timing.worst_residual, s.solver_residual[e]);
  }
}

// One backend on one snapshot.
void time_snapshot(const Contestant& contestant, const Snapshot& snapshot, Timing& timing) {
  Simulator& simulator = *contestant.simulator;
  const int envs = simulator.state().num_envs;
  const size_t dofs = simulator.state().num_dofs;
  for (int e = 0; e < envs; ++e) simulator.set_state(e, snapshot[e].root, snapshot[e].dof_pos, snapshot[e].dof_vel);
  std::vector<float> targets((kTimedSteps + 1) * envs * dofs);
  for (int step = 0; step <= kTimedSteps; ++step)
    for (int e = 0; e < envs; ++e)
      std::copy_n(snapshot[e].targets.data() + step * dofs, dofs, targets.data() + (step * envs + e) * dofs);
  timing.steps += static_cast<int64_t>(kTimedSteps) * envs;
#ifdef CALM_WITH_CUDA
  if (contestant.on_device) {
    auto& gpu = static_cast<CudaSimulator&>(simulator);
    const DeviceArray<float> there(targets);
    gpu.step_on_device(there.data());
    CudaSimulator::wait();
    const double begin = now_s();
    for (int step = 1; step <= kTimedSteps; ++step) gpu.step_on_device(there.data() + step * envs * dofs);
    CudaSimulator::wait();
    timing.seconds += now_s() - begin;
    count_solver(simulator.state(), kTimedSteps, timing);
    return;
  }
#endif
  for (int step = 0; step <= kTimedSteps; ++step) {
    const double begin = now_s();
    simulator.step({targets.data() + step * envs * dofs, envs * dofs});
    if (step == 0) continue;
    timing.seconds += now_s() - begin;
    count_solver(simulator.state(), 1, timing);
  }
}

nlohmann::ordered_json measure(const Recording& recording, const std::vector<Contestant>& contestants,
                               const PhysicsSettings& physics, const BenchSimOptions& options) {
  std::vector<Timing> timings(contestants.size());
  Progress progress("bench sim: timing, " + recording.states + " states",
                    static_cast<double>(recording.snapshots.size()), "snapshots");
  for (size_t s = 0; s < recording.snapshots.size(); ++s) {
    for (size_t c = 0; c < contestants.size(); ++c)
      if (timings[c].seconds < options.slow_seconds) time_snapshot(contestants[c], recording.snapshots[s], timings[c]);
    progress.update(static_cast<double>(s + 1));
  }
  nlohmann::ordered_json out;
  for (size_t c = 0; c < contestants.size(); ++c) {
    const Timing& t = timings[c];
    const std::string& name = contestants[c].name;
    const auto steps = static_cast<double>(t.steps);
    out["control_steps_per_s"][name] = steps / t.seconds;
    if (c == 0) out["mean_contacts"] = t.contacts / steps;
    out["solver_residual"][name] = {{"mean", t.residual / steps}, {"max", t.worst_residual}};
    out["iterations"][name] = t.iterations / steps / physics.substeps;  // a substep
  }
  return out;
}

std::optional<double> ratio_to_mujoco(const nlohmann::ordered_json& part, const std::string& first) {
  const auto& rates = part["control_steps_per_s"];
  if (first == "mujoco" || !rates.contains("mujoco")) return std::nullopt;
  return rates[first].get<double>() / rates["mujoco"].get<double>();
}

void print(const nlohmann::ordered_json& out, const std::string& first) {
  for (const char* kind : {"policy_states", "random_actions"}) {
    const auto& part = out[kind];
    const std::string states =
        kind == std::string("policy_states") ? out["states"].get<std::string>() + " states" : "random actions";
    fmt::print("{}: {:.1f} contacts in the mean\n", states, part["mean_contacts"].get<double>());
    for (const auto& [name, rate] : part["control_steps_per_s"].items())
      fmt::print("  {:14} {:>10.0f} control steps/s  {:4.1f} iterations a substep  residual {:.1e}, at most {:.1e}\n",
                 name, rate.get<double>(), part["iterations"][name].get<double>(),
                 part["solver_residual"][name]["mean"].get<double>(),
                 part["solver_residual"][name]["max"].get<double>());
    if (const auto ratio = ratio_to_mujoco(part, first)) fmt::print("  {} over mujoco: {:.1f}\n", first, *ratio);
  }
}

void bench_sim(const BenchSimOptions& options) {
  const Character character = load_character(own_or_given(options.character));
  const std::vector<std::string> backends = split(options.backends);
  ThreadPool pool(options.threads);
  const std::optional<PolicyLoop> loop = open_loop(options, character);
  PhysicsSettings physics = loop ? loop->physics : PhysicsSettings{};
  if (options.no_self_collision) physics.self_collision = false;
  std::vector<Contestant> contestants;
  for (const std::string& backend : backends) {
    contestants.push_back({backend, make_simulator(backend, character, physics, options.envs, pool)});
    if (backend == "cuda")
      contestants.push_back({"cuda_on_device", make_simulator(backend, character, physics, options.envs, pool), true});
  }

  const std::string fastest = available_backends().front();
  const Recording policy_states = [&] {
    Recorder recorder(character, physics, fastest, options, pool);
    return loop ? recorder.of_policy(*loop) : recorder.standing();
  }();
  const Recording random_actions = Recorder(character, physics, fastest, options, pool).random_actions();

  nlohmann::ordered_json out;
  out["policy_states"] = measure(policy_states, contestants, physics, options);
  out["random_actions"] = measure(random_actions, contestants, physics, options);
  out["envs"] = options.envs, out["threads"] = pool.size();
  out["states"] = policy_states.states;
  out["machine"] = {{"processor", processor()},
                    {"cores", std::thread::hardware_concurrency()},
                    {"mujoco", mj_versionString()},
                    {"compiler", __VERSION__}};
  if (const auto ratio = ratio_to_mujoco(out["policy_states"], backends[0])) out["ratio"] = *ratio;
  if (options.json)
    fmt::print("{}\n", out.dump(2));
  else
    print(out, backends[0]);
}

}  // namespace

void add_bench_sim_command(CLI::App& bench) {
  auto* sim = bench.add_subcommand(
      "sim", "simulation backends: control steps a second on the same states, of a policy and of random actions");
  const auto options = std::make_shared<BenchSimOptions>();
  sim->add_option("--character", options->character, "MJCF file")->required();
  sim->add_option("--backend", options->backends,
                  "simulation backends, separated by commas; the first is compared "
                  "with mujoco")
      ->capture_default_str();
  sim->add_option("--envs", options->envs, "environments")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  sim->add_option("--policy", options->policy,
                  "policy folder whose states are recorded; the repository's where it fits the character, else the "
                  "character stands");
  sim->add_option("--motions", options->motions, "the policy's clips, as for eval");
  sim->add_option("--steps", options->steps, "control steps timed, four a snapshot; a slow backend may make fewer")
      ->check(CLI::Range(kTimedSteps, 100000))
      ->capture_default_str();
  sim->add_option("--threads", options->threads, "threads (0: all cores)")->check(CLI::Range(0, 1024));
  sim->add_option("--seed", options->seed, "of starts and random actions")->capture_default_str();
  sim->add_flag("--no-self-collision", options->no_self_collision, "bodies of the character pass through each other");
  sim->add_flag("--json", options->json, "print JSON");
  sim->callback([options] { bench_sim(*options); });
}

}  // namespace calm
