#include "learn/paper_measures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <regex>

#include "base/error.h"
#include "base/file.h"
#include "env/actors.h"
#include "learn/directed_measures.h"
#include "learn/motion_classifier.h"
#include "learn/motion_distance.h"
#include "learn/paper_report.h"
#include "learn/tiny_world.h"
#include "play/test_policy.h"
#include "runtime/high_level_policy.h"

namespace calm {
namespace {

TEST(Estimate, IntervalsAreThoseOfTheTextbooks) {
  const Estimate share = share_of(81, 263);  // Wilson's, worked by hand
  EXPECT_NEAR(share.value, 0.3080, 1e-4);
  EXPECT_NEAR(share.low, 0.2553, 2e-4);
  EXPECT_NEAR(share.high, 0.3662, 2e-4);
  EXPECT_EQ(share_of(10, 10).high, 1.0);
  EXPECT_GT(share_of(10, 10).low, 0.6);
  const Estimate mean = mean_of({1.0, 2.0, 3.0, 4.0});
  EXPECT_DOUBLE_EQ(mean.value, 2.5);
  EXPECT_NEAR(mean.high - mean.value, 1.96 * std::sqrt(5.0 / 3.0 / 4.0), 1e-12);
}

TEST(FisherConcentration, IsScatterWithinOverBetween) {
  Eigen::MatrixXd a(2, 2), b(2, 2);
  a << 1, 0.5, 1, -0.5;
  b << -1, 0.5, -1, -0.5;
  // within: 0.25 each; between: 1 each
  EXPECT_DOUBLE_EQ(fisher_concentration({a, b}), 0.25);
  EXPECT_TRUE(std::isinf(fisher_concentration({a, a})));
}

TEST(DistanceByBody, FindsTheStretchOfTheClipAndTheBodyThatIsOff) {
  Eigen::MatrixXf clip(40, 6);
  for (int f = 0; f < 40; ++f)
    for (int i = 0; i < 6; ++i) clip(f, i) = std::sin(0.2f * static_cast<float>(f) + static_cast<float>(i));
  Eigen::MatrixXf motion = clip.middleRows(7, 20);
  EXPECT_NEAR(distance_by_body(motion, clip, 10)[0], 0.0, 1e-6);
  motion.col(5).array() += 0.05f;
  const auto apart = distance_by_body(motion, clip, 10);
  EXPECT_NEAR(apart[0], 0.0, 1e-6);
  EXPECT_NEAR(apart[1], 0.05, 1e-5);
  EXPECT_EQ(distance_by_body(motion.topRows(0), clip, 10)[0], 0.0);
}

TEST(InceptionScore, IsTheNumberOfClassesAtMostAndOneAtLeast) {
  EXPECT_NEAR(inception_score(Eigen::MatrixXd::Identity(7, 7)), 7.0, 1e-9);
  EXPECT_NEAR(inception_score(Eigen::MatrixXd::Constant(5, 4, 0.25)), 1.0, 1e-9);
  Eigen::MatrixXd one = Eigen::MatrixXd::Zero(6, 3);
  one.col(1).setOnes();  // sure, but of one thing only
  EXPECT_NEAR(inception_score(one), 1.0, 1e-9);
}

TEST(MotionClassifier, NamesHeldOutWindowsAndNotOneThatStandsStill) {
  const float dt = 1.0f / 30.0f;
  const std::vector<int> groups = MotionDistance(generated(), dt, 30).groups(kNearDuplicate);
  const MotionClassifier classifier(generated(), groups, dt, {.steps = 400});
  EXPECT_GE(classifier.held_out_accuracy(), 0.95);
  // a motion of a clip is named after it; every window's probabilities sum to one
  const int clip = generated().clip_index("raise_arms"), size = human().motion_feature_size();
  ASSERT_GE(clip, 0);
  MotionClassifier::Rows rows(static_cast<int>(generated().clip(clip).length() / dt), size);
  for (int f = 0; f < rows.rows(); ++f)
    generated().window_features({clip, static_cast<float>(f) * dt}, 1, dt, rows.row(f).data());
  const Eigen::MatrixXd p = classifier.probabilities(rows);
  ASSERT_GT(p.rows(), 5);
  for (int w = 0; w < p.rows(); ++w) EXPECT_NEAR(p.row(w).sum(), 1.0, 1e-5);
  Eigen::Index named = 0;
  p.array().max(1e-6).log().matrix().colwise().mean().maxCoeff(&named);
  EXPECT_EQ(named, groups[clip]);
  EXPECT_EQ(classifier.probabilities(rows.topRows(3)).rows(), 0);
}

TEST(MotionEncoder, EncodesAsTheTrainerDid) {
  LowLevelTrainer trainer(tiny(), human(), generated());
  trainer.iterate();
  const auto folder = std::filesystem::path(testing::TempDir()) / "encoder_test";
  std::filesystem::create_directories(folder);
  write_file_atomic(folder / "policy.safetensors", serialise_safetensors(trainer.export_policy()));
  EXPECT_THROW(load_encoder(folder, load_policy(folder)), Error);
  write_file_atomic(folder / "encoder.safetensors", serialise_safetensors(trainer.export_encoder()));
  const Policy policy = load_policy(folder);
  const MotionEncoder encoder = load_encoder(folder, policy);
  const float dt = 1.0f / 30.0f, half = 0.5f * 59.0f * dt;
  for (int c = 0; c < generated().num_clips(); ++c) {
    const float length = generated().clip(c).length(), newest = std::min(length, 0.5f * length + half);
    std::vector<float> window(static_cast<size_t>(encoder.frames) * human().motion_feature_size());
    generated().window_features({c, snap_to_moment(newest, dt)}, encoder.frames,
                                static_cast<float>(encoder.stride) * dt, window.data());
    EXPECT_NEAR(encoder.encode(window.data()).dot(policy.latents[c].z), 1.0f, 1e-4f) << generated().clip(c).name;
  }
  const std::string good = read_file(folder / "encoder.safetensors");
  for (const size_t size : {size_t{0}, size_t{7}, good.size() / 2, good.size() - 1}) {
    write_file_atomic(folder / "encoder.safetensors", good.substr(0, size));
    EXPECT_THROW(load_encoder(folder, policy), Error);
  }
  std::filesystem::remove_all(folder);
}

// A high-level policy that acts out the style and steers nowhere: whole rollouts, few of them.
TEST(DirectedMeasures, TellStylesFromSteering) {
  const Policy policy = load_policy(CALM_SOURCE_DIR "/assets/policies/human");
  const auto high = parse_high_level_policy(serialise_safetensors(make_test_high_level_policy(policy)), "test", policy);
  std::vector<Clip> clips;
  for (const NamedLatent& latent : policy.latents) {  // any motion will do but for the transitions' distances
    clips.push_back(generated().clip(generated().clip_index(latent.name == "walk" ? "walk" : "stand")));
    clips.back().name = latent.name;
  }
  const MotionLibrary library(human(), clips);
  ThreadPool pool(2);
  DirectedSettings few;
  few.styles = {"walk"}, few.strikes = {"kick_right"}, few.stays = {"stand"}, few.episodes = 8;
  const auto measure = [&](const DirectedSettings& settings) {
    return measure_directing(policy, high, nullptr, human(), library, physics_of_policy(policy), "simd", settings,
                             pool);
  };
  const DirectedMeasures m = measure(few);
  ASSERT_EQ(m.styled_heading.size(), 1u);
  EXPECT_GT(m.styled_heading[0].style_score, 0.95);                    // it is the style
  EXPECT_LT(std::abs(m.styled_heading[0].heading_cosine.value), 0.7);  // and goes anywhere
  EXPECT_LT(std::abs(m.styled_heading[0].heading_cosine_with_turns.value), 0.7);
  EXPECT_GE(m.styled_heading[0].stays_up.value, 0.8);
  ASSERT_EQ(m.strike.size(), 1u);
  EXPECT_LE(m.strike[0].strict.value, m.strike[0].loose.value);
  EXPECT_LT(m.location[0].strict.value, 0.7);  // walking straight seldom comes by
  EXPECT_GT(m.transitions.count, 1000);
  few.styles = {"fly"};
  EXPECT_THROW(measure(few), Error);
}

TEST(PaperMeasures, AreSharesOfAPolicyThatKnowsNothingAndRepeat) {
  LowLevelTrainer trainer(tiny(), human(), generated());
  const Policy policy = parse_policy(serialise_safetensors(trainer.export_policy()), "test");
  ThreadPool pool(2);
  const PaperMeasureSettings few = {.episodes_per_clip = 1, .falls = 4, .pushes = 4, .interpolations = 3};
  const auto measure = [&] {
    return measure_as_the_paper(policy, nullptr, human(), generated(), tiny().physics, "simd", few, pool);
  };
  const PaperMeasures m = measure();
  EXPECT_FALSE(m.fisher.has_value());
  EXPECT_GE(m.classifier_held_out, 0.95);
  EXPECT_LT(m.still_named_right, 0.3);
  for (const Estimate& share : {m.classifier_top1, m.classifier_top3, m.nearest_clip, m.stays_up, m.gets_up_within_4s,
                                m.push_recovery, m.box_recovery, m.interpolation_stays_up}) {
    EXPECT_LE(0.0, share.low);
    EXPECT_LE(share.low, share.value);
    EXPECT_LE(share.value, share.high);
    EXPECT_LE(share.high, 1.0);
  }
  EXPECT_GE(m.classifier_top3.value, m.classifier_top1.value);
  EXPECT_LE(m.gets_up_within_4s.value, 0.5);  // it cannot
  EXPECT_GT(m.inception_of_clips, 0.7 * m.classes);
  EXPECT_GE(m.inception, 1.0);
  EXPECT_EQ(m.named_as.rows(), generated().num_clips());
  for (Eigen::Index c = 0; c < m.named_as.rows(); ++c) EXPECT_LE(m.named_as.row(c).sum(), 1.0 + 1e-9);
  ASSERT_EQ(m.body_distance.size(), human().bodies.size());
  for (const double d : m.body_distance) EXPECT_TRUE(d > 0.0 && d < 2.0) << d;

  // in all three forms; a name from a file stays text
  PaperMeasures named = m;
  named.clips[0] = "<script>";
  ReportContext context{"a policy", "simd", few, {}};
  EXPECT_FALSE(report_json(named, context).contains("styled_heading"));  // without a high-level policy
  context.directed = DirectedMeasures{};
  context.directed->styled_heading.push_back(
      {"walk", 0.9, share_of(9, 10), share_of(7, 10), 1.1, 0.1, share_of(10, 10)});
  context.directed->strike.push_back({"walk", "kick", share_of(8, 10), share_of(7, 10)});
  context.directed->location.push_back({"walk", "stand", share_of(6, 10), share_of(5, 10)});
  context.directed->transitions = share_of(9, 10);
  const auto json = report_json(named, context);
  for (const char* key : {"fisher", "inception", "inception_of_clips", "controllability", "stays_up", "get_up",
                          "push_recovery", "foot_slide", "jerk_ratio", "interpolation_smoothness", "body_distance"})
    EXPECT_TRUE(json.contains(key)) << key;
  for (const MeasureDefinition& d : measure_definitions()) {
    // a list's first: styled_heading.style_score is styled_heading[0].style_score
    const std::string key =
        std::regex_replace(d.key, std::regex("^(styled_heading|state_machines\\.[a-z]+)\\."), "$1.0.");
    const auto at = nlohmann::ordered_json::json_pointer("/" + std::regex_replace(key, std::regex("\\."), "/"));
    EXPECT_TRUE(json.contains(at)) << d.key;
    EXPECT_THAT(report_text(named, context), testing::HasSubstr(d.name));
  }
  const auto page = std::filesystem::path(testing::TempDir()) / "report.html";
  write_report_page(named, context, page);
  const std::string html = read_file(page);
  EXPECT_THAT(html, testing::HasSubstr("&lt;script&gt;"));
  EXPECT_THAT(html, testing::Not(testing::HasSubstr("<script>")));
  EXPECT_THAT(html, testing::HasSubstr("data:image/png;base64,iVBOR"));
  std::filesystem::remove(page);

  const PaperMeasures again = measure();
  EXPECT_EQ(m.inception, again.inception);
  EXPECT_EQ(m.jerk_ratio, again.jerk_ratio);
  EXPECT_EQ(m.stays_up.value, again.stays_up.value);
}

}  // namespace
}  // namespace calm
