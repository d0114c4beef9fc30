// Ctrl-C and SIGTERM as a question that long work asks now and then. Another, more than a second later, ends the
// program at once.
//
// The signals are blocked in the thread that makes this object and in those that it starts afterwards, and fall on a
// thread that sleeps: oneDNN's generated code keeps numbers below the stack pointer, where a handler's frame would
// overwrite them, and the program would go on with a damaged heap (seen with LibTorch 1.13 on a processor with
// AVX-512). Construct it before threads that compute are started. One at a time.
#pragma once

#include <csignal>
#include <thread>

namespace calm {

class StopSignals {
 public:
  StopSignals();
  ~StopSignals();  // the signals do again what they did before
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  bool requested() const;

 private:
  sigset_t before_{};
  struct sigaction interrupt_ {
  }, terminate_{};
  int wake_[2] = {-1, -1};  // a pipe
  std::thread sleeper_;
};

}  // namespace calm
