// Pictures of characters, drawn off-screen by MuJoCo's renderer on OSMesa (no display, no GPU), and line charts.
// For people who would rather look than read: clips, training results, evaluation.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "character/state.h"

namespace calm {

struct Image {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;  // (height x width x 3), top row first
};

void save_png(const Image& image, const std::filesystem::path& path);  // Error if it cannot be written

// Several moments in one world, the camera side-on so that all are seen (a strip of frames). Rows of `states` may be
// spread along x by the caller. Throws Error where rendering is not built in or cannot start.
Image draw_states(const Character& character, std::span<const CharacterState> states, int width, int height);

// Rows of equally sized images below each other, each with a caption on its left (may be empty).
Image stack_images(std::span<const Image> rows, int columns);

struct Curve {
  std::string name;
  std::vector<double> x, y;
};
struct Chart {
  std::string title, x_label, y_label;
  std::vector<Curve> curves;
  bool log_y = false;
};
// A grid of charts as one PNG, drawn by gnuplot; Error names the package where gnuplot is not installed.
void save_charts(std::span<const Chart> charts, int columns, const std::filesystem::path& path);

}  // namespace calm
