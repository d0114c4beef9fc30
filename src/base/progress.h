// Progress of long work as plain lines on stderr: what, how far, rate, time left. (`indicators` is in no registry that
// we install from, see docs/decisions/progress-bars.md; lines also read well in a log file.)
#pragma once

#include <chrono>
#include <string>

namespace calm {

// "1 h 02 min", "3 min 20 s", "12 s".
std::string format_duration(double seconds);

class Progress {
 public:
  // total: units of work; unit: their name for the rate. Lines at most every `interval_s`.
  Progress(std::string what, double total, std::string unit, double interval_s = 2.0, double done_before = 0.0);

  // Work done so far, in units; `extra` is appended to the line. Prints when a line is due (or `force`).
  void update(double done, const std::string& extra = {}, bool force = false);

  double elapsed_s() const;

 private:
  using Clock = std::chrono::steady_clock;
  std::string what_, unit_;
  double total_, interval_s_, done_before_;
  Clock::time_point start_ = Clock::now(), last_ = start_;
};

}  // namespace calm
