// Pictures of characters, drawn off-screen by MuJoCo's renderer on OSMesa (no display, no GPU), and charts.
// For people who would rather look than read: clips, training results, evaluation.
//
// Errors: Error where rendering is not built in or cannot start, a file cannot be read or written, gnuplot is missing.
// Files are written beside and renamed. Threads: a Renderer belongs to one thread at a time; the functions are free.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "character/state.h"

namespace calm {

struct Image {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;  // (height x width x 3), top row first
};

void save_png(const Image& image, const std::filesystem::path& path);  // Error if it cannot be written
Image load_png(const std::filesystem::path& path);                     // alpha is laid on white; at most 16384 a side

// Where the picture is taken from. Degrees as MuJoCo counts them: azimuth 90 looks along +y, so that x runs to the
// right; more than 90 comes round to the front of a character that faces +x. A negative elevation looks down.
struct Camera {
  float azimuth = 96.0f;
  float elevation = -12.0f;
  float distance = 0.0f;        // to look_at, m; 0: as near as shows all states with a margin
  std::optional<Vec3> look_at;  // none: the middle of the picture is the middle of all states
};

// Follows one character, for the frames of a video: looks at a fixed height beside the root, so that rising and falling
// are seen, and at a fixed distance, so that nothing breathes.
Camera follow_camera(const Character& character, const CharacterState& state);

// Draws many pictures of one size with one context. Owns it; refers to nothing of the caller's.
class Renderer {
 public:
  Renderer(int width, int height);  // pixels, each in [1, 8192]
  ~Renderer();
  Renderer(const Renderer&) = delete;
  Renderer& operator=(const Renderer&) = delete;

  // All states in one world: a checker floor (squares of 0.5 m, corners at multiples of that), one sun with shadows.
  Image draw(const Character& character, std::span<const CharacterState> states, const Camera& camera = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Several moments in one world, the camera side-on so that all are seen (a strip of frames). Rows of `states` may be
// spread along x by the caller. Throws Error where rendering is not built in or cannot start.
Image draw_states(const Character& character, std::span<const CharacterState> states, int width, int height,
                  const Camera& camera = {});

// One state seen by the follow camera. For many frames keep a Renderer instead: starting one costs most of the time.
Image draw_scene(const Character& character, const CharacterState& state, int width, int height);

// The default pose from the front, the side and behind, side by side, as PNG.
void draw_character(const Character& character, const std::filesystem::path& path);

// A grid of images, row by row, `columns` in each; a cell is as large as the largest image. With captions (one per grid
// row, or none), each row has its caption on its left, set by gnuplot.
Image stack_images(std::span<const Image> images, int columns, std::span<const std::string> captions = {});

struct Curve {
  std::string name;
  std::vector<double> x, y;  // as long as each other; points that are not finite are left out
};
struct Chart {
  std::string title, x_label, y_label;
  std::vector<Curve> curves;
  bool log_y = false;  // points with y <= 0 are left out
};

// Bars from zero, one a label, with intervals where given (low, high: empty or as many as values) and a line across.
struct BarChart {
  std::string title, y_label;
  std::vector<std::string> labels;
  std::vector<double> values, low, high;
  std::optional<double> line;
  std::string line_label;
};

// Cells coloured by their values in [0, 1]. Names need some 10 pixels of the picture each to be read.
struct HeatMap {
  std::string title, row_label, column_label;
  std::vector<std::string> rows, columns;
  std::vector<double> values;  // (rows x columns)
};

// Points in groups, each with spokes from its mean and its name there, or as near as leaves all names apart; both axes
// of one scale.
struct ScatterGroup {
  std::string name;
  std::vector<double> x, y;
};
struct ScatterChart {
  std::string title;
  std::vector<ScatterGroup> groups;
};

using AnyChart = std::variant<Chart, BarChart, HeatMap, ScatterChart>;

// A grid of charts as one PNG, drawn by gnuplot, each width x height pixels; Error names the package where gnuplot is
// not installed, or the chart whose lengths disagree. A long curve (over 200 points) is drawn pale, with its moving
// average over 2 % of its points on top.
void save_charts(std::span<const AnyChart> charts, int columns, const std::filesystem::path& path, int width = 640,
                 int height = 420);
void save_charts(std::span<const Chart> charts, int columns, const std::filesystem::path& path);

// A graph in Graphviz's language as PNG, or as SVG by the path's ending; Error as above.
void save_graph(const std::string& dot, const std::filesystem::path& path);

}  // namespace calm
