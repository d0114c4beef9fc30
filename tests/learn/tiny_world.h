// What the tests of learning share: the human, its generated clips, and the preset for tests on one thread.
#pragma once

#include "base/settings.h"
#include "learn/low_level_trainer.h"

namespace calm {

inline const Character& human() {
  static const Character character = load_character(CALM_SOURCE_DIR "/assets/characters/human.xml");
  return character;
}

inline const MotionLibrary& generated() {
  static const MotionLibrary library(human(), load_motions(human(), "builtin:"));
  return library;
}

inline LowLevelSettings tiny() {
  auto settings = load_settings<LowLevelSettings>(CALM_SOURCE_DIR "/configs/low_level/tiny.yaml");
  settings.threads = 1;
  settings.device = "cpu";
  return settings;
}

}  // namespace calm
