// Holds a simulator's backend against MuJoCo and against laws of mechanics, on any character.
//
// Input: a character, the name of a backend. Output: a list of checks, each an error beside the tolerance that it may
// not exceed (verify.cpp says at each where the tolerance comes from). Nothing is known of the character but its file.
// Threads: one caller; the pool is the simulators'. Throws Error on an unknown backend.
#pragma once

#include "sim/simulator.h"

namespace calm {

struct Check {
  std::string name;
  double error = 0.0;  // relative unless the note says otherwise
  double tolerance = 0.0;
  bool ok = false;
  std::string note;  // what was compared, in a few words
};

std::vector<Check> verify_simulator(const Character& character, const std::string& backend, uint64_t seed,
                                    ThreadPool& pool);

}  // namespace calm
