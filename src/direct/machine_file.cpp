#include "direct/machine_file.h"

#include <yaml-cpp/yaml.h>

#include <map>
#include <set>
#include <sstream>

#include "base/error.h"
#include "base/settings.h"

namespace calm {

namespace {

namespace fs = std::filesystem;

constexpr int kMostStates = 1000, kMostFiles = 200;  // of a machine with all that it nests

// Reads a file and those that it nests into one list of states. Mistakes are collected, so that a user sees them all.
class Loader {
 public:
  Loader(const Policy& policy, std::vector<std::string>& mistakes) : policy_(policy), mistakes_(mistakes) {
    for (const NamedLatent& latent : policy.latents) clips_.push_back(latent.name);
  }

  Machine load(const fs::path& path) {
    Machine machine;
    const YAML::Node node = load_yaml(path);
    const Part part = read(path, node, "", machine);
    if (!mistakes_.empty()) return machine;
    machine.name = name_of(path, node);
    machine.start = part.start;
    if (const YAML::Node clip = node["get_up"]; clip.IsDefined())
      machine.get_up_clip = clip_of(path, clip);
    else
      machine.get_up_clip = std::max(0, policy_.latent_index("stand"));
    connect(machine);
    if (mistakes_.empty()) check_reach(path, machine);
    return machine;
  }

 private:
  // What a file has become: its states lie in the machine's list.
  struct Part {
    int start = 0;
    std::vector<int> states;
  };
  struct Pending {  // a transition whose end is known once all states are
    int from;
    std::string to, prefix, text;
    std::vector<Condition> when;
    fs::path path;
    int line;
  };

  static int line(const YAML::Node& node) { return node.Mark().is_null() ? 1 : node.Mark().line + 1; }
  template <class... T>
  void mistake(const fs::path& path, int line, fmt::format_string<T...> text, T&&... args) {
    mistakes_.push_back(fmt::format("{}:{}: {}", path.string(), line, fmt::format(text, std::forward<T>(args)...)));
  }
  static std::string name_of(const fs::path& path, const YAML::Node& node) {
    const YAML::Node name = node["machine"];
    return name.IsDefined() && name.IsScalar() ? name.Scalar() : path.stem().string();
  }
  static std::string text_of(const YAML::Node& node) { return node.IsScalar() ? node.Scalar() : std::string(); }

  void check_keys(const fs::path& path, const YAML::Node& node, const std::vector<std::string>& known) {
    for (const auto& entry : node) {
      const std::string key = text_of(entry.first);
      if (std::ranges::find(known, key) == known.end())
        mistake(path, line(entry.first), "unknown key `{}`; did you mean `{}`?", key, nearest_name(key, known));
    }
  }

  int clip_of(const fs::path& path, const YAML::Node& node) {
    const int index = policy_.latent_index(text_of(node));
    if (index < 0)
      mistake(path, line(node),
              "the policy knows no clip `{}`; did you mean `{}`? (`calm latent near POLICY` lists them)", text_of(node),
              nearest_name(text_of(node), clips_));
    return std::max(index, 0);
  }

  Part read(const fs::path& path, const YAML::Node& node, const std::string& prefix, Machine& machine) {
    Part part;
    const auto canonical = fs::weakly_canonical(path).string();
    if (!open_.insert(canonical).second) {
      mistake(path, 1, "machines nest one another in a circle; take one of the `machine:` states out");
      return part;
    }
    if (++files_ > kMostFiles) {
      mistake(path, 1, "more than {} machines nested in all; take some out", kMostFiles);
      return part;
    }
    if (!node.IsMap()) {
      mistake(path, 1, "expected `machine:`, `start:` and `states:`");
      open_.erase(canonical);
      return part;
    }
    check_keys(path, node, {"machine", "start", "get_up", "states"});
    const YAML::Node states = node["states"];
    if (!states.IsDefined() || !states.IsMap() || states.size() == 0) {
      mistake(path, line(node),
              "has no `states:`; name at least one, as `states: {{stand: {{act: stand, final: true}}}}`");
      open_.erase(canonical);
      return part;
    }
    std::set<std::string> names;
    for (const auto& entry : states) {
      const std::string name = text_of(entry.first);
      if (name.empty() || name.find('/') != std::string::npos)
        mistake(path, line(entry.first), "a state's name must not be empty nor hold `/`; rename `{}`", name);
      else if (!names.insert(name).second)
        mistake(path, line(entry.first), "there are two states `{}`; rename one", name);
      else if (static_cast<int>(machine.states.size()) >= kMostStates)
        mistake(path, line(entry.first), "more than {} states in all; split the machine", kMostStates);
      else
        read_state(path, entry.first, entry.second, prefix, machine, part);
    }
    const YAML::Node start = node["start"];
    if (!start.IsDefined())
      mistake(path, line(node), "has no `start:`; name the state that it begins in, as `start: {}`", *names.begin());
    else if (!names.contains(text_of(start)))
      mistake(path, line(start), "`start` names no state `{}`; did you mean `{}`?", text_of(start),
              nearest_name(text_of(start), {names.begin(), names.end()}));
    else
      part.start = entry_[prefix + text_of(start)];
    open_.erase(canonical);
    return part;
  }

  void read_state(const fs::path& path, const YAML::Node& key, const YAML::Node& node, const std::string& prefix,
                  Machine& machine, Part& part) {
    const std::string name = text_of(key);
    if (!node.IsMap()) {
      mistake(path, line(key),
              "state `{}` must say what to do: `act: CLIP`, `move: {{style: CLIP, toward: target}}`, "
              "`turn: {{left: CLIP, right: CLIP}}` or `machine: FILE`",
              name);
      return;
    }
    check_keys(path, node, {"act", "move", "turn", "machine", "until", "final"});
    int kinds = 0;
    for (const char* kind : {"act", "move", "turn", "machine"}) kinds += node[kind].IsDefined();
    if (kinds != 1) {
      mistake(path, line(key), "state `{}` has {} of `act`, `move`, `turn` and `machine`; give it one", name, kinds);
      return;
    }
    const bool final = node["final"].IsDefined() && text_of(node["final"]) == "true";
    const YAML::Node until = node["until"];
    const bool leaves = until.IsDefined() && until.IsSequence() && until.size() > 0;
    if (until.IsDefined() && !until.IsSequence())
      mistake(path, line(until), "`until` must be a list: `until: [{{when: time > 2 s, go: STATE}}]`");
    else if (final && leaves)
      mistake(path, line(until), "state `{}` is final and has `until`; take one of them out", name);
    else if (!final && !leaves)
      mistake(path, line(key),
              "state `{}` has no way out; add `until: [{{when: clip finished, go: STATE}}]`, or "
              "`final: true` if it is to stay there",
              name);

    if (node["machine"].IsDefined()) {
      nest(path, key, node, prefix, machine, part);
      return;
    }
    MachineState state;
    state.name = prefix + name, state.line = line(key), state.final = final;
    if (const YAML::Node act = node["act"]; act.IsDefined()) {
      state.kind = MachineState::Kind::kAct, state.clip = clip_of(path, act);
      state.seconds = policy_.latents[state.clip].duration;
    } else if (const YAML::Node move = node["move"]; move.IsDefined()) {
      state.kind = MachineState::Kind::kMove;
      read_move(path, move, state);
    } else {
      state.kind = MachineState::Kind::kTurn;
      read_turn(path, node["turn"], state);
    }
    const int index = static_cast<int>(machine.states.size());
    machine.states.push_back(state);
    entry_[prefix + name] = index;
    part.states.push_back(index);
    if (leaves) read_transitions(path, until, prefix, {index}, state, false);
  }

  // States of another file under this one's name. The outer state's transitions hold in each of them, before their own;
  // `machine finished` in those that are final there.
  void nest(const fs::path& path, const YAML::Node& key, const YAML::Node& node, const std::string& prefix,
            Machine& machine, Part& part) {
    const std::string name = text_of(key);
    const fs::path file = path.parent_path() / text_of(node["machine"]);
    YAML::Node inner;
    try {
      inner = load_yaml(file);
    } catch (const Error& e) {
      mistake(path, line(node["machine"]), "cannot read the nested machine: {}", e.what());
      return;
    }
    const auto first = machine.states.size();
    const Part nested = read(file, inner, prefix + name + "/", machine);
    if (first == machine.states.size()) return;
    entry_[prefix + name] = nested.start;
    std::vector<int> all, finals;
    for (auto i = static_cast<int>(first); i < static_cast<int>(machine.states.size()); ++i) {
      all.push_back(i);
      if (machine.states[i].final) finals.push_back(i);
    }
    part.states.insert(part.states.end(), all.begin(), all.end());
    const bool is_final = node["final"].IsDefined() && text_of(node["final"]) == "true";
    if (!is_final)
      for (const int i : finals) machine.states[i].final = false;
    if (const YAML::Node until = node["until"]; until.IsDefined() && until.IsSequence())
      for (const auto& transition : until) {
        const bool finished = transition.IsMap() && text_of(transition["when"]) == "machine finished";
        if (finished && finals.empty())
          mistake(path, line(transition), "`machine finished` never holds: {} has no final state", file.string());
        MachineState acting;  // in which a clip can finish
        acting.kind = MachineState::Kind::kAct;
        YAML::Node one(YAML::NodeType::Sequence);
        one.push_back(transition);
        read_transitions(path, one, prefix, finished ? finals : all, acting, true);
      }
  }

  void read_destination(const fs::path& path, const YAML::Node& node, MachineState& state) {
    const YAML::Node toward = node["toward"], away = node["away"], direction = node["direction"], ahead = node["ahead"];
    const int count = toward.IsDefined() + away.IsDefined() + direction.IsDefined() + ahead.IsDefined();
    if (count != 1) {
      mistake(path, line(node),
              "say one way to go: `toward: target`, `toward: [X, Y]` in m, `away: target`, "
              "`direction: 90 deg` or `ahead: true`");
      return;
    }
    if (toward.IsDefined() && toward.IsSequence() && toward.size() == 2) {
      state.destination.kind = Destination::Kind::kPlace;
      try {
        state.destination.place = {toward[0].as<float>(), toward[1].as<float>()};
      } catch (const YAML::Exception&) {
        mistake(path, line(toward), "a place is two numbers in m: `toward: [3.0, -1.5]`");
      }
    } else if (toward.IsDefined()) {
      if (text_of(toward) != "target")
        mistake(path, line(toward), "`toward` must be `target` or a place `[X, Y]`, not `{}`", text_of(toward));
    } else if (away.IsDefined()) {
      state.destination.kind = Destination::Kind::kAway;
      if (text_of(away) != "target") mistake(path, line(away), "`away` must be `target`, not `{}`", text_of(away));
    } else if (direction.IsDefined()) {
      state.destination.kind = Destination::Kind::kDirection;
      state.destination.angle = number_with_unit(path, line(direction), text_of(direction), Condition::What::kAngle);
    } else {
      state.destination.kind = Destination::Kind::kAhead;
    }
  }

  void read_move(const fs::path& path, const YAML::Node& node, MachineState& state) {
    if (!node.IsMap() || !node["style"].IsDefined()) {
      mistake(path, line(node), "`move` needs a style: `move: {{style: CLIP, toward: target}}`");
      return;
    }
    check_keys(path, node, {"style", "toward", "away", "direction", "ahead", "speed"});
    state.clip = clip_of(path, node["style"]);
    if (const YAML::Node speed = node["speed"]; speed.IsDefined())
      state.speed = number_with_unit(path, line(speed), text_of(speed), Condition::What::kSpeed);
    read_destination(path, node, state);
  }

  void read_turn(const fs::path& path, const YAML::Node& node, MachineState& state) {
    if (!node.IsMap() || !node["left"].IsDefined() || !node["right"].IsDefined()) {
      mistake(path, line(node),
              "`turn` needs a clip for each side: `turn: {{left: CLIP, right: CLIP, toward: target}}`");
      return;
    }
    check_keys(path, node, {"left", "right", "toward", "away", "direction"});
    state.clip = clip_of(path, node["left"]), state.clip_right = clip_of(path, node["right"]);
    read_destination(path, node, state);
  }

  // "0.9 m", "45 deg", "0.8 rad", "2 s", "1.5 m/s".
  float number_with_unit(const fs::path& path, int at, const std::string& text, Condition::What what) {
    std::istringstream in(text);
    float value = 0.0f;
    std::string unit, rest;
    if (!(in >> value) || !std::isfinite(value)) {
      mistake(path, at, "`{}` is not a number with a unit, as `0.9 m`, `45 deg`, `2 s` or `1.5 m/s`", text);
      return 0.0f;
    }
    in >> unit >> rest;
    const char* wanted = what == Condition::What::kDistance ? "m"
                         : what == Condition::What::kTime   ? "s"
                         : what == Condition::What::kSpeed  ? "m/s"
                                                            : "deg";
    if (what == Condition::What::kAngle && unit == "rad" && rest.empty()) return value;
    if (unit != wanted || !rest.empty()) {
      mistake(path, at, "`{}`: the unit must be {}{}; write `{} {}`", text, wanted,
              what == Condition::What::kAngle ? " or rad" : "", value, wanted);
      return 0.0f;
    }
    return what == Condition::What::kAngle ? value * kPi / 180.0f : value;
  }

  void read_transitions(const fs::path& path, const YAML::Node& list, const std::string& prefix,
                        const std::vector<int>& from, const MachineState& state, bool before_others) {
    for (const auto& node : list) {
      if (!node.IsMap() || !node["when"].IsDefined() || !node["go"].IsDefined()) {
        mistake(path, line(node), "a transition is `{{when: CONDITION, go: STATE}}`");
        continue;
      }
      check_keys(path, node, {"when", "go"});
      const std::string text = text_of(node["when"]);
      std::vector<Condition> when;
      for (size_t at = 0; at <= text.size();) {
        const size_t end = std::min(text.find(" and ", at), text.size());
        read_condition(path, line(node["when"]), text.substr(at, end - at), state, when);
        at = end + 5;
      }
      for (const int i : from) {
        const Pending pending{i, text_of(node["go"]), prefix, text, when, path, line(node["go"])};
        before_others ? outer_.push_back(pending) : pending_.push_back(pending);
      }
    }
  }

  void read_condition(const fs::path& path, int at, const std::string& text, const MachineState& state,
                      std::vector<Condition>& when) {
    std::istringstream in(text);
    std::string first, second;
    in >> first >> second;
    using What = Condition::What;
    static const std::map<std::string, What> measured = {
        {"distance", What::kDistance}, {"angle", What::kAngle}, {"time", What::kTime}, {"speed", What::kSpeed}};
    static const std::map<std::string, What> plain = {
        {"clip finished", What::kClipFinished}, {"target down", What::kTargetDown},
        {"target leans", What::kTargetLeans},   {"upright", What::kUpright},
        {"machine finished", What::kAlways},    {"always", What::kAlways}};
    Condition condition;
    if (const auto it = measured.find(first); it != measured.end()) {
      condition.what = it->second;
      if (second != "<" && second != ">") {
        mistake(path, at, "`{}`: compare with < or >, as `{} < {}`", text, first,
                first == "distance" ? "0.9 m"
                : first == "angle"  ? "20 deg"
                : first == "time"   ? "2 s"
                                    : "0.5 m/s");
        return;
      }
      condition.greater = second == ">";
      std::string rest;
      std::getline(in, rest);
      condition.value = number_with_unit(path, at, rest, it->second);
    } else if (first == "event") {
      condition.what = What::kEvent, condition.event = second;
      if (second.empty()) mistake(path, at, "`event` needs a name: `when: event stop`");
    } else {
      const std::string both = second.empty() ? first : first + " " + second;
      const auto found = plain.find(both);
      if (found == plain.end()) {
        std::vector<std::string> names = {"distance < 0.9 m", "angle < 20 deg", "time > 2 s", "speed < 0.5 m/s",
                                          "event NAME"};
        for (const auto& [name, what] : plain) names.push_back(name);
        mistake(path, at, "unknown condition `{}`; did you mean `{}`?", text, nearest_name(text, names));
        return;
      }
      condition.what = found->second;
      if (condition.what == What::kClipFinished && state.kind != MachineState::Kind::kAct)
        mistake(path, at, "`clip finished` holds only in a state with `act`; use `time > 2 s` here");
    }
    when.push_back(condition);
  }

  void connect(Machine& machine) {
    outer_.insert(outer_.end(), pending_.begin(), pending_.end());
    for (const Pending& p : outer_) {
      const auto to = entry_.find(p.prefix + p.to);
      if (to == entry_.end()) {
        std::vector<std::string> names;
        for (const auto& [name, index] : entry_)
          if (name.starts_with(p.prefix)) names.push_back(name.substr(p.prefix.size()));
        mistake(p.path, p.line, "`go` names no state `{}`; did you mean `{}`?", p.to, nearest_name(p.to, names));
        continue;
      }
      machine.states[p.from].transitions.push_back({p.when, to->second, p.text});
    }
  }

  void check_reach(const fs::path& path, const Machine& machine) {
    std::set<int> reached = {machine.start};
    std::vector<int> open = {machine.start};
    while (!open.empty()) {
      const int at = open.back();
      open.pop_back();
      for (const Transition& t : machine.states[at].transitions)
        if (reached.insert(t.to).second) open.push_back(t.to);
    }
    for (size_t i = 0; i < machine.states.size(); ++i)
      if (!reached.contains(static_cast<int>(i)))
        mistake(path, machine.states[i].line, "state `{}` is never reached; add a transition `go: {}`, or take it out",
                machine.states[i].name, machine.states[i].name);
  }

  const Policy& policy_;
  std::vector<std::string>& mistakes_;
  std::vector<std::string> clips_;
  std::set<std::string> open_;        // files being read, against circles
  std::map<std::string, int> entry_;  // where a name leads to; a nested machine's to its start
  std::vector<Pending> outer_, pending_;
  int files_ = 0;  // read
};

}  // namespace

Machine load_machine(const fs::path& path, const Policy& policy) {
  std::vector<std::string> mistakes;
  Machine machine = Loader(policy, mistakes).load(path);
  if (!mistakes.empty())
    fail("{}{}", mistakes.front(),
         mistakes.size() > 1 ? fmt::format(" (and {} more: calm fsm check)", mistakes.size() - 1) : "");
  return machine;
}

std::vector<std::string> check_machine(const fs::path& path, const Policy& policy) {
  std::vector<std::string> mistakes;
  try {
    Loader(policy, mistakes).load(path);
  } catch (const Error& e) {
    mistakes.emplace_back(e.what());
  }
  return mistakes;
}

std::string to_dot(const Machine& machine, const Policy& policy, int current) {
  const auto quoted = [](const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
    return out + "\"";
  };
  std::string out = fmt::format(
      "digraph {} {{\n  rankdir=LR; node [shape=box, style=rounded, fontname=Helvetica]; "
      "edge [fontname=Helvetica, fontsize=10];\n  begin [shape=point];\n",
      quoted(machine.name));
  for (size_t i = 0; i < machine.states.size(); ++i) {
    const MachineState& s = machine.states[i];
    const std::string& clip = policy.latents[s.clip].name;
    const std::string does = s.kind == MachineState::Kind::kAct ? "acts " + clip
                             : s.kind == MachineState::Kind::kMove
                                 ? "moves like " + clip
                                 : "turns: " + clip + " or " + policy.latents[s.clip_right].name;
    out += fmt::format("  s{} [label={}{}{}];\n", i, quoted(s.name + "\n" + does), s.final ? ", peripheries=2" : "",
                       static_cast<int>(i) == current ? ", penwidth=3" : "");
  }
  out += fmt::format("  begin -> s{};\n", machine.start);
  for (size_t i = 0; i < machine.states.size(); ++i)
    for (const Transition& t : machine.states[i].transitions)
      out += fmt::format("  s{} -> s{} [label={}];\n", i, t.to, quoted(t.text));
  return out + "}\n";
}

}  // namespace calm
