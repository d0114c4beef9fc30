// The verbs of the `calm` program, a file each. Each adds its subcommand with its options; the callback does the work
// and throws Error on bad input.
#pragma once

#include <CLI/CLI.hpp>

namespace calm {

void add_character_command(CLI::App& app);  // calm character info|draw
void add_motion_command(CLI::App& app);     // calm motion info|import|check|draw|generate
void add_fsm_command(CLI::App& app);        // calm fsm check|draw, calm run MACHINE
void add_verify_command(CLI::App& app);     // calm verify sim
void add_bench_command(CLI::App& app);      // calm bench sim|train
void add_bench_sim_command(CLI::App& bench);
#ifdef CALM_WITH_PLAY
void add_play_command(CLI::App& app);    // calm play POLICY
void add_record_command(CLI::App& app);  // calm record POLICY
#endif
#ifdef CALM_WITH_LEARN
void add_train_command(CLI::App& app);   // calm train low-level|high-level
void add_eval_command(CLI::App& app);    // calm eval low-level|paper
void add_latent_command(CLI::App& app);  // calm latent near|path|map
void add_bench_train_command(CLI::App& bench);
#endif

}  // namespace calm
