// make_test_policy MJCF POLICY: writes the policies of test_policy.h for a character, for the browser tests: POLICY,
// and high_level.safetensors beside it.
#include <cstdio>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "play/test_policy.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    fmt::print(stderr, "usage: make_test_policy MJCF POLICY\n");
    return 2;
  }
  try {
    const calm::Character character = calm::load_character(argv[1]);
    const std::filesystem::path path = argv[2];
    calm::write_file_atomic(path, calm::serialise_safetensors(calm::make_test_policy(character, argv[1])));
    calm::write_file_atomic(path.parent_path() / "high_level.safetensors",
                            calm::serialise_safetensors(calm::make_test_high_level_policy(calm::load_policy(path))));
  } catch (const calm::Error& e) {
    fmt::print(stderr, "make_test_policy: {}\n", e.what());
    return 1;
  }
  return 0;
}
