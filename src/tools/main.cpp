// The `calm` command: parses the command line and hands over to a verb. Any Error becomes one line and exit code 1;
// what a verb prints on stdout is its result alone, all else goes to stderr.
#include <fmt/ranges.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <exception>

#include "base/error.h"
#include "base/settings.h"
#include "tools/commands.h"

namespace {

// An error may quote a file that nobody has vouched for: one line, no control characters, and an end.
int report(std::string message, int exit_code = 1) {
  constexpr size_t kMaxBytes = 1500;
  if (message.size() > kMaxBytes) message = message.substr(0, kMaxBytes) + "...";
  for (char& c : message)
    if (static_cast<unsigned char>(c) < ' ' || c == 127) c = ' ';
  fmt::print(stderr, "calm: {}\n", message);
  return exit_code;
}

// One line: what is wrong with the command line, the nearest name that is known, where help is.
int report_command_line(const CLI::App* app, const CLI::Error& e) {
  std::string command = app->get_name();
  while (!app->get_subcommands().empty()) {
    app = app->get_subcommands().front();
    command += " " + app->get_name();
  }
  std::vector<std::string> verbs, options;
  for (const CLI::App* sub : app->get_subcommands([](const CLI::App*) { return true; }))
    verbs.push_back(sub->get_name());
  for (const CLI::Option* option : app->get_options()) options.push_back(option->get_name());

  std::string what = e.what();
  if (const auto extra = app->remaining(true); !extra.empty()) {
    const std::string& word = extra.front();
    const auto& known = word.starts_with("-") ? options : verbs;
    what = known.empty() ? fmt::format("`{}` is one argument too many", word)
                         : fmt::format("there is no `{}`; did you mean `{}`?", word, calm::nearest_name(word, known));
  } else if (e.get_exit_code() == static_cast<int>(CLI::ExitCodes::RequiredError) && !verbs.empty()) {
    what = fmt::format("a verb is missing: {}", fmt::join(verbs, ", "));
  }
  return report(fmt::format("{} (see {} --help)", what, command), 2);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("CALM: teaches a physically simulated character to move like recorded people, and lets you direct it.",
               "calm");
  app.require_subcommand(1);
  app.set_version_flag("--version", "calm 0.1.0");

  calm::add_character_command(app);
  calm::add_motion_command(app);
#ifdef CALM_WITH_LEARN
  calm::add_train_command(app);
  calm::add_eval_command(app);
  calm::add_latent_command(app);
#endif
  calm::add_fsm_command(app);
  calm::add_bench_command(app);
  calm::add_verify_command(app);
#ifdef CALM_WITH_PLAY
  calm::add_play_command(app);
  calm::add_record_command(app);
#endif

  spdlog::set_default_logger(spdlog::stderr_color_mt("calm"));
  spdlog::set_pattern("%H:%M:%S %^%l%$ %v");
  try {
    app.parse(argc, argv);
  } catch (const CLI::RuntimeError& e) {
    return e.get_exit_code();  // the verb has told its findings
  } catch (const CLI::ParseError& e) {
    return e.get_exit_code() == 0 ? app.exit(e) : report_command_line(&app, e);
  } catch (const calm::Error& e) {
    return report(e.what());
  } catch (const std::bad_alloc&) {
    return report("out of memory; use fewer environments or a smaller configuration");
  } catch (const std::exception& e) {
    return report(fmt::format("unexpected error: {}", e.what()));
  }
  return 0;
}
