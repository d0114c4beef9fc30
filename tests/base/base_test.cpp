#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <numeric>

#include "base/error.h"
#include "base/file.h"
#include "base/math.h"
#include "base/progress.h"
#include "base/rng.h"
#include "base/settings.h"
#include "base/threads.h"

namespace calm {

struct InnerSettings {
  float gain = 1.5f;
};
template <class Visitor>
void visit(Visitor& v, InnerSettings& s) {
  v("gain", s.gain);
}
struct OuterSettings {
  int count = 3;
  std::vector<int> sizes = {1, 2};
  InnerSettings inner;
};
template <class Visitor>
void visit(Visitor& v, OuterSettings& s) {
  v("count", s.count);
  v("sizes", s.sizes);
  v("inner", s.inner);
}

namespace {

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Settings, LeavesDefaultsAndReadsWhatIsGiven) {
  OuterSettings s;
  read_settings(s, YAML::Load("{sizes: [4, 5, 6], inner: {gain: 2}}"), "test");
  EXPECT_EQ(s.count, 3);
  EXPECT_EQ(s.sizes, (std::vector<int>{4, 5, 6}));
  EXPECT_EQ(s.inner.gain, 2.0f);
}

TEST(Settings, UnknownKeyNamesTheNearest) {
  OuterSettings s;
  const auto text = message_of([&] { read_settings(s, YAML::Load("inner:\n  gian: 2\n"), "file.yaml"); });
  EXPECT_NE(text.find("gian"), std::string::npos) << text;
  EXPECT_NE(text.find("`gain`"), std::string::npos) << text;
  EXPECT_NE(text.find("line 2"), std::string::npos) << text;
}

TEST(Settings, WrongTypeIsNamed) {
  OuterSettings s;
  const auto text = message_of([&] { read_settings(s, YAML::Load("count: many"), "file.yaml"); });
  EXPECT_NE(text.find("`count` cannot be `many`"), std::string::npos) << text;
}

TEST(Settings, WrittenAndReadAgainAreTheSame) {
  OuterSettings s;
  s.count = 7, s.inner.gain = 0.1f;
  OuterSettings again;
  read_settings(again, YAML::Load(settings_to_yaml(s)), "test");
  EXPECT_EQ(again.count, 7);
  EXPECT_EQ(again.inner.gain, 0.1f);
}

TEST(Settings, StartFromAnotherFile) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "calm_base_test";
  std::filesystem::create_directories(folder);
  write_file_atomic(folder / "first.yaml", "count: 5\ninner: {gain: 2}\n");
  write_file_atomic(folder / "second.yaml", "base: first.yaml\ncount: 6\n");
  const auto s = load_settings<OuterSettings>(folder / "second.yaml");
  EXPECT_EQ(s.count, 6);
  EXPECT_EQ(s.inner.gain, 2.0f);

  write_file_atomic(folder / "circle.yaml", "base: circle.yaml\n");
  EXPECT_NE(message_of([&] { load_settings<OuterSettings>(folder / "circle.yaml"); }).find("circle"),
            std::string::npos);
  write_file_atomic(folder / "odd.yaml", "count: 1\nbase: [a]\n");
  EXPECT_NE(message_of([&] { load_settings<OuterSettings>(folder / "odd.yaml"); }).find("line 2"), std::string::npos);
  write_file_atomic(folder / "lost.yaml", "base: none.yaml\n");
  EXPECT_NE(message_of([&] { load_settings<OuterSettings>(folder / "lost.yaml"); }).find("none.yaml"),
            std::string::npos);
}

TEST(Rng, StreamsAreRepeatableAndApart) {
  Rng a(1, 2), b(1, 2), c(1, 3);
  bool differ = false;
  for (int i = 0; i < 100; ++i) {
    const auto x = a.next_u32();
    EXPECT_EQ(x, b.next_u32());
    differ = differ || x != c.next_u32();
  }
  EXPECT_TRUE(differ);
  Rng resumed;
  resumed.set_state(a.state());
  for (int i = 0; i < 9; ++i) EXPECT_EQ(a.next_u32(), resumed.next_u32());
}

TEST(Rng, KnownAnswer) {
  // Random123's known-answer vector for philox4x32-10 with counter and key all zero
  Rng rng(0, 0);
  EXPECT_EQ(rng.next_u32(), 0x6627e8d5u);
  EXPECT_EQ(rng.next_u32(), 0xe169c58du);
  EXPECT_EQ(rng.next_u32(), 0xbc57ac4cu);
  EXPECT_EQ(rng.next_u32(), 0x9b00dbd8u);
}

TEST(Rng, MomentsOfTheDistributions) {
  Rng rng(5);
  double sum = 0.0, squares = 0.0, uniform = 0.0;
  constexpr int kDraws = 200000;
  for (int i = 0; i < kDraws; ++i) {
    const double x = rng.normal();
    sum += x, squares += x * x, uniform += rng.uniform();
    const int k = rng.below(7);
    ASSERT_TRUE(k >= 0 && k < 7);
  }
  EXPECT_NEAR(sum / kDraws, 0.0, 0.01);
  EXPECT_NEAR(squares / kDraws, 1.0, 0.02);
  EXPECT_NEAR(uniform / kDraws, 0.5, 0.005);
}

TEST(Threads, EveryIndexOnceWhateverTheNumber) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 20; ++round) {
      std::vector<int> hits(101, 0);
      pool.parallel_for(101, 3, [&](int i, int worker) {
        ASSERT_LT(worker, threads);
        ++hits[i];
      });
      EXPECT_EQ(std::accumulate(hits.begin(), hits.end(), 0), 101);
      EXPECT_EQ(*std::ranges::max_element(hits), 1);
    }
  }
}

TEST(Threads, AnExceptionReachesTheCaller) {
  ThreadPool pool(3);
  EXPECT_THROW(pool.parallel_for(50, 1,
                                 [](int i, int) {
                                   if (i == 17) throw Error("seventeen");
                                 }),
               Error);
  std::atomic<int> count = 0;
  pool.parallel_for(10, 1, [&](int, int) { ++count; });
  EXPECT_EQ(count, 10);
}

TEST(File, WritesWholeOrNotAtAll) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "calm_file_test";
  std::filesystem::remove_all(folder);
  write_file_atomic(folder / "deep" / "a.txt", "one");
  EXPECT_EQ(read_file(folder / "deep" / "a.txt"), "one");
  write_file_atomic(folder / "deep" / "a.txt", "two");
  EXPECT_EQ(read_file(folder / "deep" / "a.txt"), "two");
  EXPECT_THROW(read_file(folder / "deep" / "a.txt", 2), Error);
  EXPECT_THROW(read_file(folder / "none"), Error);
  EXPECT_THROW(read_file(folder), Error);
  // a folder stands where the file should go: the error leaves nothing behind
  std::filesystem::create_directories(folder / "taken" / "x");
  EXPECT_THROW(write_file_atomic(folder / "taken", "three"), Error);
  EXPECT_FALSE(std::filesystem::exists(folder / "taken.tmp"));
}

TEST(File, AFullDiskIsOneErrorAndLosesNothing) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full on this system";
  const auto folder = std::filesystem::path(testing::TempDir()) / "calm_full_test";
  std::filesystem::remove_all(folder);
  write_file_atomic(folder / "a.txt", "old");
  std::filesystem::create_symlink("/dev/full", folder / "a.txt.tmp");
  EXPECT_THROW(write_file_atomic(folder / "a.txt", "new"), Error);
  EXPECT_EQ(read_file(folder / "a.txt"), "old");
}

TEST(Math, ExponentialMapThereAndBack) {
  Rng rng(3);
  for (int i = 0; i < 200; ++i) {
    Vec3 v(rng.uniform(-1.0f, 1.0f), rng.uniform(-1.0f, 1.0f), rng.uniform(-1.0f, 1.0f));
    v *= rng.uniform(0.0f, 3.1f) / v.norm();
    EXPECT_LT((exp_map_from_quat(quat_from_exp_map(v)) - v).norm(), 2e-5f * (1.0f + v.norm()));
    Quat q = quat_from_exp_map(v);
    q.coeffs() *= -1.0f;  // the same rotation
    EXPECT_LT((exp_map_from_quat(q) - v).norm(), 2e-5f * (1.0f + v.norm()));
  }
  EXPECT_EQ(exp_map_from_quat(quat_from_exp_map(Vec3::Zero())).norm(), 0.0f);
}

TEST(Math, HeadingIsTheYawOfForward) {
  const Quat turned = quat_about_z(0.7f) * quat_from_exp_map(Vec3(0.0f, 0.5f, 0.0f));
  EXPECT_NEAR(heading(turned), 0.7f, 1e-5f);
  EXPECT_NEAR(heading(inverse_heading(turned) * turned), 0.0f, 1e-5f);
}

TEST(Progress, DurationsReadWell) {
  EXPECT_EQ(format_duration(12.2), "12 s");
  EXPECT_EQ(format_duration(200), "3 min 20 s");
  EXPECT_EQ(format_duration(3720), "1 h 02 min");
}

}  // namespace
}  // namespace calm
