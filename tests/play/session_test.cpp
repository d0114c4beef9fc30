#include "play/session.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "play/play_fixture.h"

namespace calm {
namespace {

using testing::HasSubstr;

class SessionTest : public PlayTest {};

void run(Session& session, int ticks) {
  for (int i = 0; i < ticks; ++i) session.advance();
}

TEST_F(SessionTest, BeginsUprightAtRest) {
  const auto session = make_session();
  EXPECT_EQ(session->time(), 0.0);
  EXPECT_NEAR(session->statistics().root_height, character.stand_height, 1e-4);
  EXPECT_FALSE(session->statistics().fallen);
  EXPECT_EQ(session->statistics().resets, 0);
  EXPECT_EQ(policy.latents[session->clip()].name, "stand");
  EXPECT_FALSE(session->paused());
}

TEST_F(SessionTest, StandsForASecond) {
  const auto session = make_session();
  run(*session, 30);
  EXPECT_NEAR(session->time(), 1.0, 1e-6);
  EXPECT_GT(session->statistics().root_height, 0.8f * character.stand_height);
  EXPECT_EQ(session->statistics().falls, 0);
}

TEST_F(SessionTest, BlendsLatentsAlongTheNormalisedLine) {
  const auto session = make_session({.blend_steps = 10});
  session->select_clip("bend " + character.joints[0].name);
  EXPECT_EQ(session->latent()[0], 1.0f) << "the blend begins with the next tick";
  run(*session, 5);
  EXPECT_NEAR(session->latent().norm(), 1.0f, 1e-5);
  EXPECT_NEAR(session->latent()[0], std::sqrt(0.5f), 1e-5);
  EXPECT_NEAR(session->latent()[1], std::sqrt(0.5f), 1e-5);
  run(*session, 5);
  EXPECT_NEAR(session->latent()[1], 1.0f, 1e-5);
  run(*session, 5);
  EXPECT_NEAR(session->latent()[1], 1.0f, 1e-5);
}

TEST_F(SessionTest, BlendOfOppositeLatentsStaysUnit) {
  policy.latents[1].z = -policy.latents[0].z;
  const auto session = make_session({.blend_steps = 2});
  session->select_clip(1);
  for (int i = 0; i < 2; ++i) {
    session->tick();
    EXPECT_NEAR(session->latent().norm(), 1.0f, 1e-5);
  }
  EXPECT_EQ(session->latent()[0], -1.0f);
}

TEST_F(SessionTest, ClipChangesWhatTheCharacterDoes) {
  const int joint = character.joints[2].dof;
  const auto still = make_session(), told = make_session();
  told->select_clip("bend " + character.joints[2].name);
  run(*still, 25);
  run(*told, 25);
  EXPECT_GT(std::abs(told->state().dof_pos[joint] - still->state().dof_pos[joint]), 0.1f);
}

TEST_F(SessionTest, RefusesUnknownClip) {
  const auto session = make_session();
  try {
    session->select_clip("moonwalk");
    FAIL() << "took an unknown clip";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("moonwalk"));
  }
  EXPECT_EQ(session->clip(), 0);
}

TEST_F(SessionTest, AMachineDirectsItUntilAClipIsSelected) {
  const auto session = make_directed_session({.again_after = 0.5f});
  EXPECT_EQ(session->target_kind(), TargetKind::kNone);
  session->select_machine("act");
  EXPECT_EQ(session->machine(), 0);
  EXPECT_EQ(session->machine_state(), "begin");
  EXPECT_EQ(session->target_kind(), TargetKind::kPlace);
  const Vec3 first = session->target().pos;
  EXPECT_NEAR(first.head<2>().norm(), 4.0f, 1e-3);
  run(*session, 5);
  EXPECT_EQ(session->clip(), 1);
  run(*session, 5);
  EXPECT_EQ(session->machine_state(), "done");
  EXPECT_EQ(session->target().pos, first);
  run(*session, 16);  // then there is another target, and it begins anew
  EXPECT_NE(session->target().pos, first);
  EXPECT_EQ(session->machine_state(), "begin");
  session->select_clip("stand");
  EXPECT_EQ(session->machine(), -1);
  EXPECT_EQ(session->machine_state(), "");
  EXPECT_EQ(session->target_kind(), TargetKind::kNone);
  run(*session, 12);
  EXPECT_EQ(session->clip(), 0);
  EXPECT_NEAR(session->latent()[0], 1.0f, 1e-5);
}

TEST_F(SessionTest, APillarStandsWhereAMachineStrikes) {
  const auto session = make_directed_session();
  session->select_machine("strike");
  ASSERT_EQ(session->target_kind(), TargetKind::kPillar);
  run(*session, 30);
  const RootState pillar = session->target();
  EXPECT_NEAR(pillar.pos.head<2>().norm(), 4.0f, 0.01f);
  EXPECT_GT((pillar.rot * Vec3::UnitZ()).z(), 0.999f);
  EXPECT_EQ(session->machine_state(), "begin");
  session->reset();  // the machine starts anew, with another target
  EXPECT_NEAR(session->target().pos.head<2>().norm(), 4.0f, 0.01f);
  EXPECT_NE(session->target().pos, pillar.pos);
}

TEST_F(SessionTest, RefusesUnknownMachine) {
  const auto directed = make_directed_session(), undirected = make_session();
  for (const auto* session : {&directed, &undirected}) {
    EXPECT_THROW((*session)->select_machine("fly"), Error);
    EXPECT_EQ((*session)->machine(), -1);
  }
  EXPECT_TRUE(undirected->machines().empty());
}

TEST_F(SessionTest, PauseStandsStillAndStepsSingly) {
  const auto session = make_session();
  session->set_paused(true);
  const auto before = session->state().body_pos;
  EXPECT_FALSE(session->advance());
  EXPECT_EQ(session->state().body_pos, before);
  session->step_once();
  EXPECT_EQ(session->statistics().ticks, 1);
  EXPECT_TRUE(session->paused());
  EXPECT_FALSE(session->advance());
  session->set_paused(false);
  EXPECT_TRUE(session->advance());
  EXPECT_EQ(session->statistics().ticks, 2);
}

TEST_F(SessionTest, StepOncePausesARunningSession) {
  const auto session = make_session();
  session->step_once();
  EXPECT_TRUE(session->paused());
}

TEST_F(SessionTest, PushMovesTheRootAndDependsOnTheSeed) {
  const auto still = make_session(), a = make_session({.seed = 1}), b = make_session({.seed = 1}),
             c = make_session({.seed = 2});
  for (const auto* session : {&a, &b, &c}) (*session)->push();
  for (const auto* session : {&still, &a, &b, &c}) run(**session, 3);
  EXPECT_LT(still->statistics().root_speed, 0.2f);
  EXPECT_GT(a->statistics().root_speed, 0.3f);
  EXPECT_EQ(a->state().body_pos, b->state().body_pos);
  EXPECT_NE(a->state().body_pos, c->state().body_pos);
}

// Shoves it until it lies.
void topple(Session& session) {
  for (int i = 0; i < 300 && !session.statistics().fallen; ++i) {
    if (i % 3 == 0) session.push();
    session.advance();
  }
}

TEST_F(SessionTest, CountsAFallOnceAndResets) {
  const auto session = make_session({.push_speed = 4.0f});
  topple(*session);
  ASSERT_TRUE(session->statistics().fallen);
  run(*session, 30);
  EXPECT_EQ(session->statistics().falls, 1);
  EXPECT_GT(session->mean_speed(), 0.0f);
  const uint32_t epoch = session->epoch();
  session->reset();
  EXPECT_FALSE(session->statistics().fallen);
  EXPECT_EQ(session->statistics().resets, 1);
  EXPECT_EQ(session->statistics().falls, 1);
  EXPECT_NE(session->epoch(), epoch);
  EXPECT_NEAR(session->state().view(0).pos(0).z(), character.stand_height, 1e-4);
  EXPECT_EQ(session->state().view(0).pos(0).head<2>().norm(), 0.0f);
  EXPECT_EQ(session->statistics().root_speed, 0.0f);
}

TEST_F(SessionTest, AutoResetWaitsWhileItLies) {
  const auto off = make_session({.push_speed = 4.0f});
  const auto on = make_session({.push_speed = 4.0f, .auto_reset = true, .auto_reset_after = 1.0f});
  topple(*off);
  topple(*on);
  ASSERT_TRUE(off->statistics().fallen && on->statistics().fallen);
  run(*on, 20);
  EXPECT_EQ(on->statistics().resets, 0) << "too early";
  run(*on, 30);
  EXPECT_GE(on->statistics().resets, 1);
  run(*off, 50);
  EXPECT_EQ(off->statistics().resets, 0);
  EXPECT_TRUE(off->statistics().fallen);
}

TEST_F(SessionTest, TakesThePhysicsOfTheTraining) {
  policy.settings = "seed: 3\nenv:\n  physics:\n    substeps: 8\n";
  EXPECT_EQ(physics_of_policy(policy).substeps, 8);
  policy.settings = "physics: {control_rate: 60}\n";
  EXPECT_EQ(physics_of_policy(policy).control_rate, 60.0f);
  policy.settings = "{}";
  EXPECT_EQ(physics_of_policy(policy).substeps, PhysicsSettings{}.substeps);
  policy.settings = "physics: {substep: 8}\n";
  EXPECT_THROW(physics_of_policy(policy), Error);
  policy.settings = "a: [";
  EXPECT_THROW(physics_of_policy(policy), Error);
}

TEST_F(SessionTest, PolicyWithoutClipsPlays) {
  policy.latents.clear();
  const auto session = make_session();
  run(*session, 3);
  EXPECT_EQ(session->clip(), -1);
  EXPECT_EQ(session->statistics().ticks, 3);
}

}  // namespace
}  // namespace calm
