#include "base/stop_signals.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>

namespace calm {
namespace {

void wait_for(const StopSignals& stop) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (!stop.requested() && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

TEST(StopSignals, AreNotedAndFallOnNoThreadThatComputes) {
  const StopSignals stop;
  std::atomic<bool> blocked = false;
  std::thread worker([&] {
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, nullptr, &mask);
    blocked = sigismember(&mask, SIGINT) == 1 && sigismember(&mask, SIGTERM) == 1;
  });
  worker.join();
  EXPECT_TRUE(blocked);
  EXPECT_FALSE(stop.requested());
  kill(getpid(), SIGINT), kill(getpid(), SIGINT);  // as `timeout` sends it
  wait_for(stop);
  EXPECT_TRUE(stop.requested());
}

TEST(StopSignals, AnotherLaterEndsTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const StopSignals stop;
        kill(getpid(), SIGTERM);
        wait_for(stop);
        std::this_thread::sleep_for(std::chrono::milliseconds(1200));
        kill(getpid(), SIGTERM);
        std::this_thread::sleep_for(std::chrono::seconds(5));
      },
      ::testing::ExitedWithCode(128 + SIGTERM), "");
}

TEST(StopSignals, WhatWasBeforeIsAfter) {
  struct sigaction before {
  }, after{};
  sigaction(SIGINT, nullptr, &before);
  { const StopSignals stop; }
  sigaction(SIGINT, nullptr, &after);
  EXPECT_EQ(before.sa_handler, after.sa_handler);
  sigset_t mask;
  pthread_sigmask(SIG_BLOCK, nullptr, &mask);
  EXPECT_EQ(sigismember(&mask, SIGINT), 0);
}

}  // namespace
}  // namespace calm
