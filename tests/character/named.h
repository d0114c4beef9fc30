// The characters that tests run over: ours by name, and each test's own MJCF with every odd thing in it.
#pragma once

#include <string>

#include "character/character.h"

namespace calm {

// "oddities" is that MJCF.
inline Character character_named(const std::string& name, const char* oddities) {
  if (name == "oddities") return parse_character(oddities, "", "oddities");
  return load_character(std::filesystem::path(CALM_SOURCE_DIR) / "assets/characters" / (name + ".xml"));
}

}  // namespace calm
