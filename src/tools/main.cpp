// The `calm` command: parses the command line and hands over to a verb. Any Error becomes one line and exit code 1.
#include <spdlog/spdlog.h>

#include <cstdio>
#include <exception>

#include "base/error.h"
#include "tools/commands.h"

int main(int argc, char** argv) {
  CLI::App app("CALM: teaches a physically simulated character to move like recorded people, and lets you direct it.",
               "calm");
  app.require_subcommand(1);
  app.set_version_flag("--version", "calm 0.1.0");
  app.failure_message(CLI::FailureMessage::simple);

  calm::add_character_command(app);
  calm::add_motion_command(app);
#ifdef CALM_WITH_LEARN
  calm::add_train_command(app);
  calm::add_eval_command(app);
  calm::add_bench_command(app);
#endif
#ifdef CALM_WITH_PLAY
  calm::add_play_command(app);
#endif

  spdlog::set_pattern("%H:%M:%S %^%l%$ %v");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e);
  } catch (const calm::Error& e) {
    fmt::print(stderr, "calm: {}\n", e.what());
    return 1;
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "calm: out of memory; use fewer environments or a smaller configuration\n");
    return 1;
  } catch (const std::exception& e) {
    fmt::print(stderr, "calm: unexpected error: {}\n", e.what());
    return 1;
  }
  return 0;
}
