#include "base/progress.h"

#include <fmt/format.h>

#include <cstdio>

namespace calm {

std::string format_duration(double seconds) {
  const long s = static_cast<long>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{} h {:02} min", s / 3600, s / 60 % 60);
  if (s >= 60) return fmt::format("{} min {:02} s", s / 60, s % 60);
  return fmt::format("{} s", s);
}

Progress::Progress(std::string what, double total, std::string unit, double interval_s, double done_before)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      total_(total),
      interval_s_(interval_s),
      done_before_(done_before) {}

double Progress::elapsed_s() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

void Progress::update(double done, const std::string& extra, bool force) {
  const auto now = Clock::now();
  if (!force && std::chrono::duration<double>(now - last_).count() < interval_s_) return;
  last_ = now;
  const double rate = (done - done_before_) / std::max(elapsed_s(), 1e-9);
  const std::string left = rate > 0.0 ? format_duration((total_ - done) / rate) : "?";
  fmt::print(stderr, "{} {:5.1f} %  {:.0f} of {:.0f} {}  {:.0f} {}/s  {} left{}{}\n", what_, 100.0 * done / total_,
             done, total_, unit_, rate, unit_, left, extra.empty() ? "" : "  ", extra);
}

}  // namespace calm
