// Data set lists: which clips make a library, and what is done to them on the way in.
//
//   character: knight.xml            # optional: the list is refused for another character
//   root: ${CALM_MOTIONS}/cmu        # optional: folder that files are relative to; default: the list's own
//   joint_map: maps/cmu.yaml         # optional: for BVH entries; default: the map of the CMU clips
//   motions:
//     - file: 02_01.bvh              # .npy, .bvh, .calmlib of one clip, or builtin:stand for a generated one
//       weight: 2.0                  # relative probability; default 1
//       name: walk                   # unique; default: the file's stem
//       tags: [walk, forward]
//       start: 0.5                   # s; the part of the clip that is taken
//       end: 3.0
//       mirror: true                 # left and right changed over; the default name then ends in _mirrored
//       bend: -0.5                   # rad/s that the path turns more, to the left; the character leans into it
//       fps: 30                      # resampled; default: as the importer gives it
//
// Paths are relative to the list (files: to `root`). ${NAME} stands for an environment variable,
// ${NAME:-fallback} for one that may be unset.
// Errors: Error naming the list, the line and what to do.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "motion/clip.h"

namespace calm {

struct DatasetEntry {
  std::string file;  // path, or builtin:NAME
  float weight = 1.0f;
  std::string name;
  std::vector<std::string> tags;
  float start = 0.0f, end = 0.0f;  // s; an end of 0 is the clip's
  bool mirror = false;
  float bend = 0.0f;  // rad/s
  std::optional<float> fps;
  int line = 0;  // in the list
};

struct Dataset {
  std::filesystem::path path;       // the list
  std::string character;            // file name, empty: any
  std::filesystem::path joint_map;  // empty: the default map
  std::vector<DatasetEntry> entries;
};

Dataset load_dataset(const std::filesystem::path& path);

// The clips of a list; warnings of importers (may be null) are lines for people.
std::vector<Clip> load_dataset_clips(const Character& character, const Dataset& dataset,
                                     std::vector<std::string>* warnings);

}  // namespace calm
