#include "tools/commands.h"

namespace calm {

void add_bench_command(CLI::App& app) {
  auto* bench = app.add_subcommand("bench", "measure speed");
  bench->require_subcommand(1);
  add_bench_sim_command(*bench);
#ifdef CALM_WITH_LEARN
  add_bench_train_command(*bench);
#endif
}

}  // namespace calm
