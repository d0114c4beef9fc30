// Ctrl-C and SIGTERM as a question that long work asks now and then. Another, more than a second later, ends the
// program at once.
//
// The signals are blocked in the thread that makes this object and in those that it starts afterwards, and fall on a
// thread that sleeps. Handled by a thread that was in one of oneDNN's products they left a damaged heap (four of five
// runs, LibTorch 1.13, AVX-512; none where the products were OpenBLAS's), as if its generated code kept numbers where a
// handler's frame is laid. Construct it before threads that compute are started. One at a time.
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
