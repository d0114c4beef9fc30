// `calm fsm` checks and draws state machines; `calm run` plays one headless.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/progress.h"
#include "direct/machine_file.h"
#include "direct/stage.h"
#include "draw/draw.h"
#include "env/task_table.h"
#include "tools/commands.h"
#include "tools/paths.h"
#include "tools/policy_files.h"

namespace calm {

namespace {

struct FsmOptions {
  std::string machine, policy = "assets/policies/human", out;
};

void check(const FsmOptions& options) {
  const PolicyFiles files = open_policy(own_or_given(options.policy), "");
  const auto mistakes = check_machine(own_or_given(options.machine), files.policy);
  for (const std::string& line : mistakes) fmt::print("{}\n", line);
  if (!mistakes.empty()) throw CLI::RuntimeError(1);
  const Machine machine = load_machine(own_or_given(options.machine), files.policy);
  fmt::print("{}: {} states, no mistakes\n", options.machine, machine.states.size());
}

void draw(const FsmOptions& options) {
  const PolicyFiles files = open_policy(own_or_given(options.policy), "");
  save_graph(to_dot(load_machine(own_or_given(options.machine), files.policy), files.policy), options.out);
  fmt::print("{}\n", options.out);
}

struct RunOptions {
  std::string machine, policy = "assets/policies/human", high, target = "pillar", sim = "simd", character, png;
  double seconds = 20.0, distance = 5.0;
  std::vector<std::string> events;  // TIME:NAME
  int episodes = 1, seed = 1, threads = 0;
  bool json = false;
};

struct Event {
  double time;
  std::string name;
};

std::vector<Event> parse_events(const std::vector<std::string>& texts) {
  std::vector<Event> events;
  for (const std::string& text : texts) {
    const size_t colon = text.find(':');
    try {
      size_t end = 0;
      const double time = std::stod(text.substr(0, colon), &end);
      if (colon == std::string::npos || end != colon || colon + 1 == text.size() || !(time >= 0.0))
        throw std::invalid_argument("");
      events.push_back({time, text.substr(colon + 1)});
    } catch (const std::logic_error&) {
      fail("--event {}: write SECONDS:NAME, as 4.5:stop", text);
    }
  }
  return events;
}

void run(const RunOptions& options) {
  const PolicyFiles files = open_policy(own_or_given(options.policy), options.character);
  const HighLevelPolicy high = load_high_level_policy(
      options.high.empty() ? files.path.parent_path() : own_or_given(options.high), files.policy);
  const Machine machine = load_machine(own_or_given(options.machine), files.policy);
  const auto events = parse_events(options.events);
  const TargetKind kind = options.target == "pillar"  ? TargetKind::kPillar
                          : options.target == "place" ? TargetKind::kPlace
                                                      : TargetKind::kNone;
  const PhysicsSettings physics = physics_of_policy(files.policy);
  const float dt = 1.0f / physics.control_rate;
  ThreadPool pool(options.threads);
  std::vector<Prop> props;
  if (kind == TargetKind::kPillar) props.push_back(strike_pillar());
  Actors actors(files.policy, files.character, physics, options.sim, options.episodes, pool, props);
  Director director(actors, high);
  Stage stage(actors, director, machine, kind, dt);
  for (int i = 0; i < options.episodes; ++i) {
    Rng rng(static_cast<uint64_t>(options.seed), static_cast<uint64_t>(i));
    const float bearing = rng.uniform(-kPi, kPi), far = static_cast<float>(options.distance);
    stage.start(i, rng.uniform(-kPi, kPi), far * Vec2(std::cos(bearing), std::sin(bearing)));
  }

  const int steps = static_cast<int>(std::lround(options.seconds / dt));
  std::vector<int> falls(options.episodes, 0), ended(options.episodes, -1), struck(options.episodes, -1);
  std::vector<CharacterState> frames;
  nlohmann::ordered_json log = nlohmann::json::array();
  if (!options.json) fmt::print("   0.00 s  {}\n", machine.states[machine.start].name);
  Progress progress("run", steps, "control steps");
  for (int step = 0; step < steps; ++step) {
    for (const Event& event : events)
      if (std::lround(event.time / dt) == step)
        for (int i = 0; i < stage.size(); ++i) stage.send(i, event.name);
    std::vector<int> before(options.episodes);
    for (int i = 0; i < stage.size(); ++i) before[i] = stage.place(i).state;
    stage.step();
    for (int i = 0; i < stage.size(); ++i) {
      if (stage.transition(i) == "fallen") ++falls[i];
      if (machine.states[stage.place(i).state].final && ended[i] < 0) ended[i] = step;
      if (kind == TargetKind::kPillar && struck[i] < 0 && stage.senses(i).target_up < 0.2f) struck[i] = step;
    }
    if (const std::string& why = stage.transition(0); !why.empty()) {
      const Senses senses = stage.senses(0);
      const double time = (step + 1) * static_cast<double>(dt);
      const std::string from = machine.states[before[0]].name, to = machine.states[stage.place(0).state].name;
      if (options.json)
        log.push_back({{"time_s", time}, {"from", from}, {"to", to}, {"why", why}});
      else
        fmt::print("{:7.2f} s  {} -> {}  ({}); {:.2f} m from the target, {:.2f} m/s\n", time, from,
                   stage.place(0).getting_up ? "get up" : to, why, (senses.target - senses.pos).norm(), senses.speed);
    }
    if (!options.png.empty() && step % std::max(1, steps / 12) == 0) {
      CharacterState state(files.character);
      const auto view = actors.view(0);
      RootState root{view.pos(0), view.rot(0), Vec3::Zero(), Vec3::Zero()};
      std::copy_n(view.dof_pos, state.dof_pos.size(), state.dof_pos.begin());
      forward_kinematics(files.character, root, state);
      frames.push_back(state);
    }
    progress.update(step + 1);
  }
  if (!frames.empty()) save_png(draw_states(files.character, frames, 1600, 500), options.png);
  int done = 0, down = 0, fell = 0;
  for (int i = 0; i < options.episodes; ++i) done += ended[i] >= 0, down += struck[i] >= 0, fell += falls[i] > 0;
  const double n = options.episodes;
  if (options.json) {
    nlohmann::ordered_json out = {{"machine", machine.name},
                                  {"episodes", options.episodes},
                                  {"reached_the_end", done / n},
                                  {"struck_down", down / n},
                                  {"fell", fell / n},
                                  {"transitions", log}};
    fmt::print("{}\n", out.dump(2));
    return;
  }
  if (options.episodes > 1)
    fmt::print(
        "of {} characters {:.0f} % reached a final state, {:.0f} % struck the pillar down, {:.0f} % fell on the way\n",
        options.episodes, 100 * done / n, 100 * down / n, 100 * fell / n);
}

}  // namespace

void add_fsm_command(CLI::App& app) {
  auto* fsm = app.add_subcommand("fsm", "state machines: check them, draw them (docs/state_machines.md)");
  fsm->require_subcommand(1);
  const auto options = std::make_shared<FsmOptions>();
  auto* lint = fsm->add_subcommand("check", "name every mistake, with its line and what to write instead");
  auto* picture = fsm->add_subcommand("draw", "a picture of states and transitions");
  for (auto* sub : {lint, picture}) {
    sub->add_option("machine", options->machine, "YAML file")->required();
    sub->add_option("--policy", options->policy, "whose clips it names")->capture_default_str();
  }
  picture->add_option("--out", options->out, "file to write, .png or .svg")->required();
  lint->callback([options] { check(*options); });
  picture->callback([options] { draw(*options); });

  auto* play = app.add_subcommand("run", "play a state machine headless, with a log of its transitions");
  const auto run_options = std::make_shared<RunOptions>();
  play->add_option("machine", run_options->machine, "YAML file")->required();
  play->add_option("--policy", run_options->policy, "low-level policy")->capture_default_str();
  play->add_option("--high", run_options->high,
                   "high-level policy of the task `directed`; beside the policy by default");
  play->add_option("--target", run_options->target, "what it goes for")
      ->check(CLI::IsMember({"pillar", "place", "none"}))
      ->capture_default_str();
  play->add_option("--distance", run_options->distance, "m to the target, in a random direction")
      ->check(CLI::Range(0.0, 1000.0))
      ->capture_default_str();
  play->add_option("--seconds", run_options->seconds, "to play")->check(CLI::Range(0.1, 1e6))->capture_default_str();
  play->add_option("--event", run_options->events, "SECONDS:NAME, sent from outside at that time");
  play->add_option("--episodes", run_options->episodes, "characters side by side; the first is told of")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  play->add_option("--png", run_options->png, "also draw moments of the first character");
  play->add_option("--sim", run_options->sim, "simulation backend")->capture_default_str();
  play->add_option("--character", run_options->character, "MJCF file; the policy's by default");
  play->add_option("--seed", run_options->seed, "of starts")->capture_default_str();
  play->add_option("--threads", run_options->threads, "threads (0: all cores)")->check(CLI::Range(0, 1024));
  play->add_flag("--json", run_options->json, "print JSON");
  play->callback([run_options] { run(*run_options); });
}

}  // namespace calm
