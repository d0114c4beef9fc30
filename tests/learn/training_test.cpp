// The trainer as users meet it: it learns, and a resumed run is the unbroken run.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <filesystem>

#include "base/error.h"
#include "learn/evaluate.h"
#include "learn/losses.h"
#include "learn/motion_table.h"
#include "learn/tiny_world.h"

namespace calm {
namespace {

// Every number that an iteration depends on, as bytes.
std::string everything(const LowLevelTrainer& trainer) { return serialise_safetensors(trainer.export_model()); }

void expect_resume_is_exact(LowLevelSettings settings) {
  LowLevelTrainer straight(settings, human(), generated());
  for (int i = 0; i < 3; ++i) straight.iterate();
  const std::string checkpoint = straight.save();
  for (int i = 0; i < 3; ++i) straight.iterate();

  LowLevelTrainer resumed(settings, human(), generated());
  resumed.load(checkpoint, "test");
  EXPECT_EQ(resumed.iteration(), 3);
  for (int i = 0; i < 3; ++i) resumed.iterate();
  EXPECT_EQ(straight.samples(), resumed.samples());
  EXPECT_TRUE(everything(straight) == everything(resumed));
  EXPECT_EQ(straight.stats().at("reward"), resumed.stats().at("reward"));
}

TEST(Training, ResumedIsBitwiseTheUnbrokenRun) { expect_resume_is_exact(tiny()); }

TEST(Training, ResumedIsBitwiseTheUnbrokenRunWithOverlap) {
  auto settings = tiny();
  settings.overlap = true;
  expect_resume_is_exact(settings);
}

TEST(Training, ResumesWithFallsAndRecoveries) {
  auto settings = tiny();
  settings.env.reset_from_clip = 0.5f, settings.env.reset_fallen = 0.2f, settings.env.recover_in_place = 0.5f;
  settings.env.latent_steps_min = 2, settings.env.latent_steps_max = 9, settings.env.episode_steps = 40;
  expect_resume_is_exact(settings);
}

TEST(Training, SeedsDiffer) {
  auto settings = tiny();
  LowLevelTrainer one(settings, human(), generated());
  settings.seed = 2;
  LowLevelTrainer two(settings, human(), generated());
  EXPECT_FALSE(everything(one) == everything(two));
}

constexpr int kIterations = 50;

// How well a trainer follows the clips it starts from: means over its first and its last few iterations.
// After a few iterations: what `--from` takes of a policy and its encoder alone.
SafeTensors short_policy(const MotionLibrary& library, int iterations) {
  LowLevelTrainer trainer(tiny(), human(), library);
  for (int i = 0; i < iterations; ++i) trainer.iterate();
  SafeTensors policy = trainer.export_policy();
  policy.tensors.merge(trainer.export_encoder().tensors);
  return policy;
}

std::vector<Clip> all_but_the_last() {
  std::vector<Clip> clips;
  for (int c = 0; c + 1 < generated().num_clips(); ++c) clips.push_back(generated().clip(c));
  return clips;
}

std::pair<double, double> tracking_over(LowLevelTrainer& trainer, int iterations) {
  constexpr int kShare = 8;
  double first = 0.0, last = 0.0;
  for (int i = 0; i < iterations; ++i) {
    trainer.iterate();
    const double tracking = trainer.stats().at("tracking");
    if (i < kShare) first += tracking / kShare;
    if (i >= iterations - kShare) last += tracking / kShare;
  }
  return {first, last};
}

TEST(Training, TinyPresetLearns) {
  LowLevelTrainer trainer(tiny(), human(), generated());
  const auto [first, last] = tracking_over(trainer, kIterations);
  // how well it follows the clips it starts from must rise clearly; 0.35 to 0.44 when this was written
  EXPECT_GT(last, first + 0.03) << first << " -> " << last;
  EXPECT_GT(trainer.stats().at("accuracy_clips"), 0.5);
}

// Where simulation and learning share a GPU.
TEST(Training, LearnsOnAGpu) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU, and a LibTorch with CUDA";
  auto settings = tiny();
  settings.device = "cuda", settings.backend = "auto";
  LowLevelTrainer trainer(settings, human(), generated());
  const auto [first, last] = tracking_over(trainer, kIterations);
  EXPECT_GT(last, first + 0.03) << first << " -> " << last;

  // a checkpoint goes on there
  const std::string checkpoint = trainer.save();
  LowLevelTrainer resumed(settings, human(), generated());
  resumed.load(checkpoint, "test");
  resumed.iterate();
  EXPECT_EQ(resumed.iteration(), kIterations + 1);
  EXPECT_NEAR(resumed.stats().at("tracking"), last, 0.1);
}

TEST(Training, StartsFromAnotherRunsModel) {
  LowLevelTrainer first(tiny(), human(), generated());
  for (int i = 0; i < 2; ++i) first.iterate();
  const SafeTensors model = first.export_model();
  auto settings = tiny();
  settings.seed = 7;
  LowLevelTrainer second(settings, human(), generated());
  second.start_from(model, "test");
  const SafeTensors ours = second.export_model(), theirs = first.export_model();
  for (const auto& [name, tensor] : theirs.tensors) {
    const auto& mine = ours.tensors.at(name).data;
    ASSERT_EQ(mine.size(), tensor.data.size());
    for (size_t i = 0; i < mine.size(); ++i)
      ASSERT_NEAR(mine[i], tensor.data[i], 1e-3f * (1.0f + std::abs(tensor.data[i]))) << name;
  }
  second.iterate();
  SafeTensors lacking = model;
  lacking.tensors.erase("actor.body.0.bias");
  EXPECT_THROW(second.start_from(lacking, "test"), Error);
  settings.network.actor_hidden = {32};
  EXPECT_THROW(LowLevelTrainer(settings, human(), generated()).start_from(model, "test"), Error);
}

// From a policy and its encoder alone; all but the actor and the critic stay bit for bit.
TEST(Training, TeachesToGetUpAndKeepsTheRest) {
  const SafeTensors policy = short_policy(generated(), 3);

  auto settings = tiny();
  settings.env.reset_fallen = 0.5f, settings.env.recovery_score = true;
  settings.update.keep_weight = 1.0f;
  const auto keep_loss_after = [&](float weight) {
    settings.update.keep_weight = weight;
    LowLevelTrainer second(settings, human(), generated());
    second.start_from(policy, "test");
    const SafeTensors before = second.export_model();
    for (int i = 0; i < 8; ++i) second.iterate();
    const SafeTensors after = second.export_model();
    for (const char* name : {"encoder.0.weight", "feature_norm.mean", "obs_norm.inv_std", "latents",
                             "kept.body.0.weight", "discriminator.body.0.weight"})
      EXPECT_EQ(after.tensors.at(name).data, before.tensors.at(name).data) << name;
    EXPECT_NE(after.tensors.at("actor.body.0.weight").data, before.tensors.at("actor.body.0.weight").data);
    const std::string checkpoint = second.save();
    LowLevelTrainer resumed(settings, human(), generated());
    resumed.load(checkpoint, "test");
    EXPECT_EQ(resumed.export_model().tensors.at("kept.body.0.weight").data,
              after.tensors.at("kept.body.0.weight").data);
    return second.stats().at("keep_loss");
  };
  EXPECT_LT(keep_loss_after(10.0f), 0.5 * keep_loss_after(1e-6f));
}

// All clips but one to start with, then that too: it is learnt, with a latent apart from the others, and theirs stay.
TEST(Training, TeachesNewClipsAndKeepsTheRest) {
  const MotionLibrary fewer(human(), all_but_the_last());
  const SafeTensors policy = short_policy(fewer, 3);

  auto settings = tiny();
  settings.update.keep_weight = 1.0f, settings.update.new_clips = true;
  settings.warm_start.steps = 0;
  settings.env.reset_fallen = settings.env.recover_in_place = 0.0f;
  LowLevelTrainer second(settings, human(), generated());
  second.start_from(policy, "test");
  for (int i = 0; i < 4; ++i) second.iterate();
  EXPECT_GT(second.stats().at("tracking"), 0.1);
  const SafeTensors after = second.export_model();
  EXPECT_NE(after.tensors.at("actor.body.0.weight").data, policy.tensors.at("actor.body.0.weight").data);
  const auto& latents = after.tensors.at("latents").data;
  const auto& known = policy.tensors.at("latents").data;
  ASSERT_EQ(latents.size() / known.size(), 1u);
  const int size = settings.network.latent_size, count = static_cast<int>(known.size()) / size;
  const auto row = [size](const std::vector<float>& v, int i) {
    return Eigen::Map<const Eigen::VectorXf>(v.data() + static_cast<std::ptrdiff_t>(i) * size, size);
  };
  for (int i = 0; i < count; ++i) {
    EXPECT_GT(row(latents, i).dot(row(known, i)), 0.99f) << i;
    EXPECT_LT(row(latents, i).dot(row(latents, count)), 0.8f) << i;
  }

  // a checkpoint knows which clips those are
  LowLevelTrainer resumed(settings, human(), generated());
  resumed.load(second.save(), "test");
  second.iterate(), resumed.iterate();
  EXPECT_EQ(everything(resumed), everything(second));

  // what cannot be: nothing new, and a new clip before known ones
  EXPECT_THROW(LowLevelTrainer(settings, human(), fewer).start_from(policy, "test"), Error);
  std::vector<Clip> clips = all_but_the_last();
  std::ranges::reverse(clips);
  clips.insert(clips.begin(), generated().clip(generated().num_clips() - 1));
  const MotionLibrary reversed(human(), std::move(clips));
  EXPECT_THROW(LowLevelTrainer(settings, human(), reversed).start_from(policy, "test"), Error);
  settings.update.keep_weight = 0.0f;
  EXPECT_THROW(validate(settings), Error);
}

TEST(Training, HoldsWeaklyFirstWhereTheSettingsSaySo) {
  auto settings = tiny();
  settings.update.keep_weight = 1.0f, settings.update.keep_weight_start = 0.1f, settings.update.new_clips = true;
  settings.update.keep_from = 1.0, settings.update.keep_to = 2.0;
  settings.warm_start.steps = 0;
  const MotionLibrary fewer(human(), all_but_the_last());
  LowLevelTrainer second(settings, human(), generated());
  second.start_from(short_policy(fewer, 1), "test");
  second.iterate();
  EXPECT_NEAR(second.stats().at("keep_weight"), 0.1, 1e-6);
  second.iterate();
  EXPECT_NEAR(second.stats().at("keep_weight"), 1.0, 1e-6);
}

// Far from where a sample was drawn its ratio has no bound; its loss and gradient must have one.
TEST(PpoActorLoss, IsFiniteHoweverFarThePolicyHasMoved) {
  const auto old_neglogp = torch::tensor({500.0f, 500.0f, 1.0f});
  auto neglogp = torch::tensor({-500.0f, -500.0f, 1.1f}).requires_grad_();
  const auto loss = ppo_actor_loss(old_neglogp, neglogp, torch::tensor({-2.0f, 1.0f, -1.0f}),
                                   torch::tensor({1.0f, 0.0f, 1.0f}), 0.2f);
  loss.backward();
  EXPECT_TRUE(std::isfinite(loss.item<float>()));
  EXPECT_NEAR(loss.item<float>(), 0.5f * (20.0f + std::exp(-0.1f)), 1e-3f);
  EXPECT_EQ(neglogp.grad()[0].item<float>(), 0.0f);
  EXPECT_NE(neglogp.grad()[2].item<float>(), 0.0f);
}

TEST(Training, DamagedCheckpointIsOneError) {
  LowLevelTrainer trainer(tiny(), human(), generated());
  trainer.iterate();
  const std::string good = trainer.save();
  for (const std::string& bad : {std::string(), std::string("not an archive"), good.substr(0, good.size() / 2)})
    EXPECT_THROW(trainer.load(bad, "checkpoint.pt"), Error);
}

TEST(Training, SettingsThatCannotWorkAreNamed) {
  auto settings = tiny();
  settings.update.minibatch = 1 << 20;
  EXPECT_THROW(validate(settings), Error);
  settings = tiny();
  settings.network.encoder_stride = 0;
  EXPECT_THROW(validate(settings), Error);
  settings = tiny();
  settings.device = "tpu";
  EXPECT_THROW(LowLevelTrainer(settings, human(), generated()), Error);
}

TEST(Training, PaperPresetIsTheSpecification) {
  // the defaults are the specification's; the file repeats them, so loading must change nothing but what is not of it
  auto paper = load_settings<LowLevelSettings>(CALM_SOURCE_DIR "/configs/low_level/paper.yaml");
  LowLevelSettings defaults;
  paper.character = defaults.character;
  paper.checkpoint_minutes = defaults.checkpoint_minutes, paper.eval_minutes = defaults.eval_minutes;
  paper.env.fallen_bank = defaults.env.fallen_bank;
  EXPECT_EQ(settings_to_yaml(paper), settings_to_yaml(defaults));
}

TEST(Training, PolicyFileActsAsTheActor) {
  LowLevelTrainer trainer(tiny(), human(), generated());
  trainer.iterate();
  const Policy policy = parse_policy(serialise_safetensors(trainer.export_policy()), "test");
  check_policy_fits(policy, human(), "test");
  ASSERT_EQ(policy.latents.size(), static_cast<size_t>(generated().num_clips()));
  for (const auto& latent : policy.latents) EXPECT_NEAR(latent.z.norm(), 1.0f, 1e-5f);
  const Eigen::VectorXf obs = Eigen::VectorXf::LinSpaced(human().observation_size(), -1.0f, 1.0f);
  const auto action = policy.act(obs, policy.latents[0].z);
  EXPECT_EQ(action.size(), human().num_dofs);
  EXPECT_TRUE(action.allFinite());
  EXPECT_LE(action.cwiseAbs().maxCoeff(), 1.0f);
}

TEST(MotionTable, GatheredWindowsAreTheLibrarysOwn) {
  const float dt = 1.0f / 30.0f;
  const MomentTable moments(generated(), dt);
  const MotionTable table(moments, torch::kCPU);
  const int size = human().motion_feature_size();
  Rng rng(7);
  for (int i = 0; i < 50; ++i) {
    const int clip = rng.below(generated().num_clips());
    const Window window{clip, snap_to_moment(rng.uniform() * generated().clip(clip).length(), dt)};
    std::vector<float> expected(10 * static_cast<size_t>(size));
    generated().window_features(window, 10, dt, expected.data());
    const auto got =
        table.gather(table.features(), torch::tensor(std::vector<int64_t>{moments.moment(window)}), 10).contiguous();
    // velocities are those of the earlier frame, so a moment on a frame may fall on either side by rounding; the poses
    // must agree
    for (int frame = 0; frame < 10; ++frame)
      for (int k = 0; k < 7; ++k)
        EXPECT_NEAR(got.data_ptr<float>()[frame * size + k], expected[static_cast<size_t>(frame) * size + k], 2e-3f);
  }
}

TEST(Evaluate, AClipIsNearestToItself) {
  // an untrained policy falls: shares must be shares, chance one over the clips
  LowLevelTrainer trainer(tiny(), human(), generated());
  const Policy policy = parse_policy(serialise_safetensors(trainer.export_policy()), "test");
  ThreadPool pool(2);
  EvalSettings settings;
  settings.episodes_per_clip = 1, settings.seconds = 3.0f;
  const auto one = evaluate_low_level(policy, human(), generated(), {}, "mujoco", settings, pool);
  EXPECT_EQ(one.clips.size(), static_cast<size_t>(generated().num_clips()));
  EXPECT_NEAR(one.chance, 1.0 / generated().num_clips(), 1e-12);
  EXPECT_GE(one.stays_up, 0.0);
  EXPECT_LE(one.stays_up, 1.0);
  ThreadPool single(1);
  const auto again = evaluate_low_level(policy, human(), generated(), {}, "mujoco", settings, single);
  for (size_t i = 0; i < one.clips.size(); ++i) EXPECT_EQ(one.clips[i].own_distance, again.clips[i].own_distance);
}

}  // namespace
}  // namespace calm
