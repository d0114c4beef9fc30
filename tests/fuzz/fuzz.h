// A small fuzzer: damages valid inputs and feeds them to a reader, which must either take or refuse them (Error),
// quickly and without taking much memory.
//
// The damaged inputs are a function of the fuzz test's name and their index alone, so a failure repeats. They are read
// in a forked child: a crash costs the child, and the parent tells which input did it and writes it to a file.
// Why not libFuzzer: it is clang's, and what is found must fail the ordinary test run of any compiler.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace calm::fuzz {

struct FuzzInput {
  std::string name;                              // of the fuzz test
  std::vector<std::string> seeds;                // valid inputs; the reader must accept them as they are
  std::vector<std::string> words;                // words of the format, thrown in now and then; may be empty
  std::function<void(const std::string&)> read;  // throws Error to refuse
  int max_seconds = 0;                           // of processor time an input may take; 0: the usual
};

// Damaged version number `index` of the seeds.
std::string damaged_input(const FuzzInput& input, uint64_t index);

// Reads damaged inputs for so long. What went wrong, empty if nothing did.
std::string find_fault(const FuzzInput& input, double seconds);

// The same for CALM_FUZZ_SECONDS (default 2), into GoogleTest.
void run_fuzz(const FuzzInput& input);

}  // namespace calm::fuzz
