// State machines: what tick() does, and what is refused with which line and remedy.
#include "direct/machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fmt/ranges.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "direct/machine_file.h"

namespace calm {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

Policy policy_of(const std::vector<std::string>& clips) {
  Policy policy;
  policy.latent_size = static_cast<int>(clips.size());
  for (size_t i = 0; i < clips.size(); ++i)
    policy.latents.push_back(
        {clips[i],
         {},
         Eigen::VectorXf::Unit(static_cast<Eigen::Index>(clips.size()), static_cast<Eigen::Index>(i)),
         2.0f});
  return policy;
}

const Policy& clips() {
  static const Policy policy = policy_of({"stand", "walk", "sneak", "kick", "left", "right", "cheer"});
  return policy;
}

class MachineFile : public ::testing::Test {
 protected:
  MachineFile() : folder_(fs::temp_directory_path() / fmt::format("calm-machine-{}", ::getpid())) {
    fs::create_directories(folder_);
  }
  ~MachineFile() override { fs::remove_all(folder_); }
  fs::path write(const std::string& text, const std::string& name = "m.yaml") {
    std::ofstream(folder_ / name) << text;
    return folder_ / name;
  }
  std::string first_mistake(const std::string& text) {
    const auto mistakes = check_machine(write(text), clips());
    return mistakes.empty() ? "none" : mistakes.front();
  }
  fs::path folder_;
};

constexpr const char* kClassic = R"(machine: classic
start: turn
states:
  turn:
    turn: {left: left, right: right, toward: target}
    until:
      - {when: angle < 30 deg, go: approach}
  approach:
    move: {style: sneak, toward: target, speed: 0.5 m/s}
    until:
      - {when: distance < 1 m, go: kick}
  kick:
    act: kick
    until:
      - {when: target down, go: cheer}
      - {when: clip finished and distance > 1.2 m, go: turn}
  cheer:
    act: cheer
    final: true
)";

TEST_F(MachineFile, ReadsTheClassicOne) {
  const Machine m = load_machine(write(kClassic), clips());
  EXPECT_EQ(m.name, "classic");
  ASSERT_EQ(m.states.size(), 4u);
  EXPECT_EQ(m.states[m.start].name, "turn");
  EXPECT_EQ(m.states[1].kind, MachineState::Kind::kMove);
  EXPECT_FLOAT_EQ(m.states[1].speed, 0.5f);
  EXPECT_NEAR(m.states[0].transitions[0].when[0].value, kPi / 6.0f, 1e-5f);
  ASSERT_EQ(m.states[2].transitions[1].when.size(), 2u);
  EXPECT_TRUE(m.states[3].final);
}

TEST_F(MachineFile, PlaysTheClassicOne) {
  const Machine m = load_machine(write(kClassic), clips());
  Senses s;
  s.has_target = true, s.target = {0.0f, 3.0f};  // to the left
  MachinePlace at = begin(m);
  const auto step = [&] {
    const Tick t = tick(m, at, s);
    at = t.place, s.time += 1.0f / 30.0f;
    return t;
  };
  EXPECT_EQ(step().command.clip, clips().latent_index("left"));
  s.target = {0.0f, -3.0f};
  EXPECT_EQ(step().command.clip, clips().latent_index("right"));
  s.heading = -kPi / 2;
  const Tick walking = step();
  EXPECT_EQ(m.states[at.state].name, "approach");
  EXPECT_EQ(walking.why, "angle < 30 deg");
  EXPECT_EQ(walking.command.kind, Command::Kind::kMove);
  EXPECT_NEAR(walking.command.direction.y(), -1.0f, 1e-6f);
  EXPECT_FLOAT_EQ(walking.command.speed, 0.5f);
  s.pos = {0.0f, -2.5f};
  EXPECT_EQ(step().command.clip, clips().latent_index("kick"));
  for (int i = 0; i < 70; ++i) step();  // clip finished, but near: it goes on kicking
  EXPECT_EQ(m.states[at.state].name, "kick");
  s.target_up = 0.1f;
  step();
  EXPECT_EQ(m.states[at.state].name, "cheer");
  s.target_up = 1.0f, s.pos = {5.0f, 5.0f};
  for (int i = 0; i < 300; ++i) step();
  EXPECT_EQ(m.states[at.state].name, "cheer");
}

TEST_F(MachineFile, FallLeadsThroughGettingUpAndBack) {
  const Machine m = load_machine(write(kClassic), clips());
  Senses s;
  s.has_target = true, s.target = {3.0f, 0.0f};
  MachinePlace at = tick(m, begin(m), s).place;  // faces it: approaches
  EXPECT_EQ(m.states[at.state].name, "approach");
  s.fallen = true, s.upright = false, s.time = 1.0f;
  Tick t = tick(m, at, s);
  EXPECT_EQ(t.why, "fallen");
  EXPECT_EQ(t.command.clip, clips().latent_index("stand"));
  // it rises, sinks again, and stands for half a second at last
  for (const bool upright : {false, true, true, false})
    s.fallen = false, s.upright = upright, s.time += 0.1f, t = tick(m, t.place, s);
  EXPECT_TRUE(t.place.getting_up);
  s.upright = true;
  int steps = 0;
  for (; steps < 60 && t.place.getting_up; ++steps) s.time += 1.0f / 30.0f, t = tick(m, t.place, s);
  EXPECT_GE(steps, 15);
  EXPECT_LE(steps, 18);
  EXPECT_EQ(t.why, "got up");
  EXPECT_EQ(m.states[t.place.state].name, "approach");
  EXPECT_FLOAT_EQ(t.place.since, s.time);
}

TEST_F(MachineFile, TickIsPure) {
  const Machine m = load_machine(write(kClassic), clips());
  Senses s;
  s.has_target = true, s.target = {3.0f, 0.0f};
  const Tick a = tick(m, begin(m), s), b = tick(m, begin(m), s);
  EXPECT_EQ(a.place, b.place);
  EXPECT_EQ(a.why, b.why);
}

TEST_F(MachineFile, NestsMachinesAndTakesEvents) {
  write(
      "start: one\nstates:\n  one: {act: kick, until: [{when: time > 1 s, go: two}]}\n  two: {act: cheer, final: "
      "true}\n",
      "inner.yaml");
  const Machine m = load_machine(write(R"(start: fight
states:
  fight:
    machine: inner.yaml
    until:
      - {when: event stop, go: rest}
      - {when: machine finished, go: rest}
  rest:
    act: stand
    until: [{when: event go, go: fight}]
)"),
                                 clips());
  ASSERT_EQ(m.states.size(), 3u);
  EXPECT_EQ(m.states[m.start].name, "fight/one");
  Senses s;
  s.events = {"stop"};
  EXPECT_EQ(m.states[tick(m, begin(m), s).place.state].name, "rest");
  s.events = {"jump"};
  EXPECT_EQ(m.states[tick(m, begin(m), s).place.state].name, "fight/one");
  s.events.clear(), s.time = 1.1f;
  const Tick second = tick(m, begin(m), s);
  EXPECT_EQ(m.states[second.place.state].name, "fight/two");
  EXPECT_EQ(m.states[tick(m, second.place, s).place.state].name, "rest");
}

// Each mistake with its line and what to do about it.
struct Planted {
  const char *text, *line, *remedy;
};
class PlantedMistake : public MachineFile, public ::testing::WithParamInterface<Planted> {};

TEST_P(PlantedMistake, IsRefusedWithItsLineAndARemedy) {
  const std::string said = first_mistake(GetParam().text);
  EXPECT_THAT(said, HasSubstr(GetParam().line)) << said;
  EXPECT_THAT(said, HasSubstr(GetParam().remedy)) << said;
  EXPECT_THROW(load_machine(folder_ / "m.yaml", clips()), Error);
}

INSTANTIATE_TEST_SUITE_P(
    TenKindsAndMore, PlantedMistake,
    ::testing::Values(
        Planted{"start: a\nstates:\n  a: {act: kik, final: true}\n", ":3:", "did you mean `kick`"},
        Planted{"start: a\nstates:\n  a: {act: kick}\n", ":3:", "add `until:"},
        Planted{"start: a\nstates:\n  a: {act: kick, final: true}\n  b: {act: walk, final: true}\n",
                ":4:", "never reached; add a transition"},
        Planted{"start: a\nstates:\n  a: {act: kick, until: [{when: distance < 2 s, go: b}]}\n  b: {act: walk, final: "
                "true}\n",
                ":3:", "write `2 m`"},
        Planted{"start: a\nstates:\n  a:\n    act: kick\n    until:\n      - {when: clip finished, go: c}\n  bb: {act: "
                "walk, final: true}\n",
                ":6:", "did you mean `a`"},
        Planted{"start: aa\nstates:\n  a: {act: kick, final: true}\n", ":1:", "did you mean `a`"},
        Planted{"states:\n  a: {act: kick, final: true}\n", ":1:", "`start: a`"},
        Planted{"start: a\nstates:\n  a: {act: kick, untill: [], final: true}\n", ":3:", "did you mean `until`"},
        Planted{
            "start: a\nstates:\n  a: {act: kick, until: [{when: target gone, go: b}]}\n  b: {act: walk, final: true}\n",
            ":3:", "did you mean `target down`"},
        Planted{"start: a\nstates:\n  a: {act: kick, move: {style: walk, toward: target}, final: true}\n",
                ":3:", "give it one"},
        Planted{"start: a\nstates:\n  a: {move: {style: walk}, final: true}\n", ":3:", "toward: target"},
        Planted{"start: a\nstates:\n  a: {move: {style: walk, toward: there}, final: true}\n",
                ":3:", "must be `target`"},
        Planted{"start: a\nstates:\n  a: {act: kick, until: [{when: angle 20 deg, go: a}]}\n",
                ":3:", "compare with < or >"},
        Planted{"start: a\nstates:\n  a: {act: kick, until: [{when: time > soon, go: a}]}\n",
                ":3:", "is not a number with a unit"},
        Planted{"start: a\nstates:\n  a: {act: kick, final: true, until: [{when: always, go: a}]}\n",
                ":3:", "take one of them out"},
        Planted{"start: a\nstates:\n  a: {machine: m.yaml, final: true}\n", ":1:", "in a circle"},
        Planted{"start: a\nstates:\n  a: {machine: gone.yaml, final: true}\n", ":3:", "gone.yaml"},
        Planted{
            "start: a\nstates:\n  a: {move: {style: walk, toward: target}, until: [{when: clip finished, go: a}]}\n",
            ":3:", "use `time > 2 s`"},
        Planted{"start: a\nstates: []\n", ":1:", "has no `states:`"},
        Planted{"start: a\nstates:\n  a: [\n", ":", "yaml"}, Planted{"just text\n", ":1:", "expected"}));

TEST_F(MachineFile, NamesAllMistakesAtOnce) {
  const auto mistakes = check_machine(
      write("start: a\nstates:\n  a: {act: kik, until: [{when: time > 2 m, go: a}]}\n  b: {act: wlk, final: true}\n"),
      clips());
  EXPECT_EQ(mistakes.size(), 3u) << fmt::format("{}", fmt::join(mistakes, "\n"));
}

// The repository's machines stay within what the committed policy knows.
TEST(StateMachines, OfTheRepositoryHaveNoMistakes) {
  const fs::path root = CALM_SOURCE_DIR;
  const Policy policy = load_policy(root / "assets/policies/human");
  int count = 0;
  for (const auto& entry : fs::directory_iterator(root / "configs/state_machines")) {
    ++count;
    const auto mistakes = check_machine(entry.path(), policy);
    EXPECT_TRUE(mistakes.empty()) << fmt::format("{}", fmt::join(mistakes, "\n"));
  }
  EXPECT_GE(count, 10);
}

TEST(StateMachines, AreDrawnWithNamesQuoted) {
  Machine m;
  m.name = "a \"b\"";
  m.states.push_back({});
  m.states[0].name = "x\" [shape=none";
  EXPECT_THAT(to_dot(m, clips(), 0), HasSubstr("x\\\" [shape=none"));
}

}  // namespace
}  // namespace calm
