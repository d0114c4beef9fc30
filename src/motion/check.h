// What is wrong with a clip: feet that slide, floors that are pierced, jumps, limits exceeded.
//
// Input: a clip and its character. Output: findings with time and figures, each ok, warn or error, sorted as below.
// No finding is an exception; a clip whose arrays do not fit the character is one error finding.
#pragma once

#include <string>
#include <vector>

#include "motion/clip.h"

namespace calm {

enum class Severity { kOk, kWarn, kError };
const char* severity_name(Severity severity);  // "ok", "warn", "error"

// Above `warn` a finding is a warning, above `error` an error. The values sort captured from broken motion: the
// 160-odd clips that the project was built with stay below `error` unless something is visibly wrong with them.
struct Threshold {
  float warn, error;
};
struct CheckThresholds {
  Threshold slide_speed{0.20f, 0.60f};        // m/s, mean over the moments a foot stands
  Threshold penetration{0.03f, 0.10f};        // m, deepest point
  Threshold floating_s{1.0f, 3.0f};           // s on end without any point within floating_height of the floor
  float floating_height = 0.10f;              // m
  Threshold rotation_jump_deg{25.0f, 60.0f};  // deg in one frame that do not fit the frames around
  Threshold root_jump{0.04f, 0.15f};          // m in one frame that do not fit the frames around
  Threshold repeat_share{0.05f, 1.0f};        // of frames that repeat the one before amid motion
  Threshold limit_excess_deg{10.0f, 1e9f};    // deg beyond a joint's limit: never an error, the simulation holds it
  Threshold quaternion_norm{1e-3f, 1e-2f};    // |norm - 1|
  Threshold hinge_rest_deg{5.0f, 20.0f};      // deg of rotation that a hinge or a fixed body cannot hold
  float short_s = 0.35f;                      // s; shorter is a warning: an encoder window (2 s) then repeats one frame
};

struct Finding {
  std::string kind;  // "foot_sliding", "penetration", "floating", "jump", "repeats", "limits", "hinges", "finite",
                     // "quaternions", "length"
  Severity severity = Severity::kOk;
  std::string text;    // for people, with time and figures
  float value = 0.0f;  // what was compared with the thresholds
  float time = -1.0f;  // s, where it is worst; -1: nowhere in particular
};

struct ClipReport {
  std::string clip;
  float seconds = 0.0f, fps = 0.0f;
  std::vector<Finding> findings;  // one a kind, ok ones included

  Severity worst() const;
  const Finding* find(const std::string& kind) const;  // null if there is none
};

ClipReport check_clip(const Character& character, const Clip& clip, const CheckThresholds& thresholds = {});

}  // namespace calm
