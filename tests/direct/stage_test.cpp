// Characters under state machines, as they are simulated: commands reach the latents, falls lead through getting up,
// and random events for a long time leave nothing stuck.
#include "direct/stage.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "direct/machine_file.h"
#include "env/task_table.h"
#include "play/test_policy.h"

namespace calm {
namespace {

const Character& human() {
  static const Character character = load_character(CALM_SOURCE_DIR "/assets/characters/human.xml");
  return character;
}

const Policy& trained() {
  static const Policy policy = load_policy(CALM_SOURCE_DIR "/assets/policies/human");
  return policy;
}

// Steers nowhere, but acts out any style.
const HighLevelPolicy& acts_style() {
  static const HighLevelPolicy policy =
      parse_high_level_policy(serialise_safetensors(make_test_high_level_policy(trained())), "test", trained());
  return policy;
}

struct Play {
  Play(const std::string& machine_file, TargetKind kind, int count)
      : machine(load_machine(std::string(CALM_SOURCE_DIR "/configs/state_machines/") + machine_file, trained())),
        actors(trained(), human(), physics_of_policy(trained()), "simd", count, pool,
               kind == TargetKind::kPillar ? std::vector<Prop>{strike_pillar()} : std::vector<Prop>{}),
        director(actors, acts_style()),
        stage(actors, director, machine, kind, 1.0f / 30.0f) {}
  ThreadPool pool;
  Machine machine;
  Actors actors;
  Director director;
  Stage stage;
};

TEST(Director, ActsOutTheClipAndBlendsIntoTheNext) {
  Play play("classic.yaml", TargetKind::kPillar, 1);
  const int walk = trained().latent_index("walk"), sneak = trained().latent_index("sneak");
  std::vector<Command> commands(1);
  commands[0].clip = walk;
  for (int i = 0; i < 8; ++i) play.director.direct(commands), play.actors.step();
  EXPECT_NEAR(play.actors.latent(0).dot(trained().latents[walk].z), 1.0f, 1e-5f);
  commands[0].clip = sneak;
  play.director.direct(commands);
  const float first = play.actors.latent(0).dot(trained().latents[sneak].z);
  for (int i = 0; i < 5; ++i) play.director.direct(commands);
  EXPECT_LT(first, 0.9f);
  EXPECT_NEAR(play.actors.latent(0).dot(trained().latents[sneak].z), 1.0f, 1e-5f);
}

TEST(Director, MovesLikeTheStyleThatIsAskedFor) {
  Play play("classic.yaml", TargetKind::kPillar, 1);
  std::vector<Command> commands(1);
  commands[0].kind = Command::Kind::kMove, commands[0].clip = trained().latent_index("walk");
  play.stage.start(0, 0.0f, Vec2(9.0f, 0.0f));
  for (int i = 0; i < 90; ++i) play.director.direct(commands), play.actors.step();
  EXPECT_GT(play.actors.view(0).pos(0).head<2>().norm(), 1.5f);  // three seconds of walking
  EXPECT_FALSE(play.actors.fallen(0));
}

TEST(Director, RefusesAPolicyOfAnotherTask) {
  HighLevelPolicy other = acts_style();
  other.task = "reach";
  Play play("classic.yaml", TargetKind::kPillar, 1);
  EXPECT_THROW(Director(play.actors, other), Error);
}

TEST(Stage, WalksStraightIntoAPillarAheadAndKicksIt) {
  Play play("strike_walk.yaml", TargetKind::kPillar, 1);
  play.stage.start(0, 0.0f, Vec2(2.0f, 0.0f));
  bool kicked = false;
  for (int i = 0; i < 300; ++i) {
    play.stage.step();
    kicked |= play.machine.states[play.stage.place(0).state].name == "strike";
  }
  EXPECT_TRUE(kicked);
}

#if defined(__SANITIZE_ADDRESS__)
constexpr double kHours = 0.1;  // the sanitizers simulate at less than a fortieth of the speed
#else
constexpr double kHours = 10.0;
#endif

// Simulated hours: events of all names, pushes that fell, and targets that jump, at random times. A character is stuck
// if it lies for 30 s, or its machine stays in a state that it should leave.
TEST(Stage, RandomEventsForHoursNeverLeaveItStuck) {
  constexpr int kCharacters = 128;
  const int steps = static_cast<int>(kHours * 3600.0 * 30.0 / kCharacters);
  Play play("sparring.yaml", TargetKind::kPlace, kCharacters);
  Rng rng(5, 5);
  for (int i = 0; i < kCharacters; ++i) play.stage.start(i, rng.uniform(-kPi, kPi), Vec2(3.0f, 0.0f));
  std::vector<int> down(kCharacters, 0), entered(kCharacters, 0);
  int64_t falls = 0, got_up = 0, transitions = 0;
  int longest = 0;
  for (int step = 0; step < steps; ++step) {
    for (int i = 0; i < kCharacters; ++i) {
      const float draw = rng.uniform();
      if (draw < 0.004f) play.stage.send(i, draw < 0.002f ? "attack" : "nobody knows this");
      if (draw > 0.998f) {
        const Vec2 at = play.actors.view(i).pos(0).head<2>();
        play.stage.set_target(i, at + Vec2(rng.uniform(-3.0f, 3.0f), rng.uniform(-3.0f, 3.0f)));
      } else if (draw > 0.997f) {
        const float way = rng.uniform(-kPi, kPi);
        play.actors.simulator().push(i, 0, rng.uniform(2.0f, 8.0f) * Vec3(std::cos(way), std::sin(way), 0.2f));
      }
    }
    play.stage.step();
    for (int i = 0; i < kCharacters; ++i) {
      const auto view = play.actors.view(i);
      ASSERT_TRUE(view.pos(0).allFinite());
      const std::string& why = play.stage.transition(i);
      falls += why == "fallen", got_up += why == "got up", transitions += !why.empty();
      entered[i] = why.empty() ? entered[i] + 1 : 0;
      down[i] = play.stage.senses(i).upright ? 0 : down[i] + 1;
      longest = std::max(longest, down[i]);
      // put back on its feet and counted: what lies longer than 30 s does not get up any more
      ASSERT_LT(down[i], 900) << "character " << i << " lies since 30 s";
    }
  }
  EXPECT_GT(falls, 20.0 * kHours);
  EXPECT_GT(transitions, 100.0 * kHours);
  EXPECT_NEAR(static_cast<double>(got_up), static_cast<double>(falls), kCharacters);
  EXPECT_EQ(play.actors.simulator().num_diverged(), 0);
  RecordProperty("falls", static_cast<int>(falls));
  RecordProperty("longest_down_steps", longest);
}

}  // namespace
}  // namespace calm
