#include "base/stop_signals.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <ctime>

#include "base/error.h"

namespace calm {

namespace {

std::atomic<double> requested_at = 0.0;  // s; 0: not yet
static_assert(std::atomic<double>::is_always_lock_free);

void take_note(int signal) {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  const double seconds = static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
  if (requested_at == 0.0) requested_at = seconds;
  // one press may come twice: to the program and to its group
  if (seconds - requested_at > 1.0) _exit(128 + signal);
}

}  // namespace

StopSignals::StopSignals() {
  requested_at = 0.0;
  if (pipe(wake_) != 0) fail("signals: no pipe can be made; too many files are open");
  struct sigaction action {};
  action.sa_handler = take_note;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, &interrupt_), sigaction(SIGTERM, &action, &terminate_);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT), sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, &before_);
  sleeper_ = std::thread([this, signals] {
    pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
    char nothing;
    (void)!read(wake_[0], &nothing, 1);  // until the pipe is closed
  });
}

StopSignals::~StopSignals() {
  close(wake_[1]);
  sleeper_.join();
  close(wake_[0]);
  sigaction(SIGINT, &interrupt_, nullptr), sigaction(SIGTERM, &terminate_, nullptr);
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

bool StopSignals::requested() const { return requested_at != 0.0; }

}  // namespace calm
