// Charts and captions by gnuplot, graphs by Graphviz. Text goes into gnuplot's script as single quoted strings without
// markup, so that a name from a file can do nothing but be shown.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/file.h"
#include "draw/draw.h"
#include "draw/drawing_program.h"

namespace calm {

namespace fs = std::filesystem;

namespace {

// Text as gnuplot's single-quoted string, control characters made spaces.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') out += '\'';
    out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  }
  return out + "'";
}

// Runs gnuplot on commands that draw a page of width x height pixels; returns the PNG's bytes.
std::string run_gnuplot(const std::string& commands, int width, int height, int font_size) {
  // no user or system start-up file has a say in how our charts look
  return run_drawing_program({"gnuplot", "charts", "gnuplot-nox"}, [&](const fs::path& script,
                                                                       const fs::path& picture) {
    write_file_atomic(script, fmt::format("set encoding utf8\n"
                                          "set terminal pngcairo noenhanced rounded font 'DejaVu Sans,{}' size {},{} "
                                          "background rgb '#ffffff'\n"
                                          "set output {}\n{}\nunset output\n",
                                          font_size, width, height, quoted(picture.string()), commands));
    return std::vector<std::string>{"--default-settings", script.string()};
  });
}

// Okabe and Ito's colours, told apart by everyone; yellow is left out, it is lost on white.
constexpr std::array<const char*, 7> kColours = {"0072b2", "d55e00", "009e73", "cc79a7", "e69f00", "56b4e9", "555555"};

// The same colour for text, which is thin and needs to be darker.
std::string darker(const std::string& colour) {
  const unsigned long rgb = std::stoul(colour, nullptr, 16);
  const auto part = [&](int shift) { return (rgb >> shift & 0xff) * 7 / 10; };
  return fmt::format("{:02x}{:02x}{:02x}", part(16), part(8), part(0));
}

constexpr size_t kLongCurve = 200;

struct Points {
  std::vector<double> x, y;
};

Points drawable(const Curve& curve, bool log_y) {
  if (curve.x.size() != curve.y.size())
    fail("curve {}: {} x values but {} y values", curve.name, curve.x.size(), curve.y.size());
  Points points;
  for (size_t i = 0; i < curve.x.size(); ++i) {
    if (!std::isfinite(curve.x[i]) || !std::isfinite(curve.y[i]) || (log_y && curve.y[i] <= 0.0)) continue;
    points.x.push_back(curve.x[i]);
    points.y.push_back(curve.y[i]);
  }
  return points;
}

// Mean over a window centred on each point, cut off at the ends.
Points moving_average(const Points& points) {
  const size_t count = points.y.size(), half = std::max<size_t>(1, count / 100);
  std::vector<double> sum(count + 1, 0.0);
  std::partial_sum(points.y.begin(), points.y.end(), sum.begin() + 1);
  Points out{points.x, std::vector<double>(count)};
  for (size_t i = 0; i < count; ++i) {
    const size_t first = i - std::min(i, half), end = std::min(count, i + half + 1);
    out.y[i] = (sum[end] - sum[first]) / static_cast<double>(end - first);
  }
  return out;
}

std::string data_block(const std::string& name, const Points& points) {
  std::string out = fmt::format("${} << END\n", name);
  // more points than pixels show nothing more
  const size_t stride = points.x.size() / 4000 + 1;
  for (size_t i = 0; i < points.x.size(); i += stride) out += fmt::format("{:.9g} {:.9g}\n", points.x[i], points.y[i]);
  return out + "END\n";
}

// Where a chart stands, in pixels from the page's lower left corner.
struct Cell {
  double x, y, width, height, page_width, page_height;

  std::string at(double px, double py) const {
    return fmt::format("screen {:.6f},{:.6f}", px / page_width, py / page_height);
  }
};

// The rectangle that a chart's axes enclose, pixels of the page.
struct Frame {
  double left, right, bottom, top;
};

// The cell less these margins.
Frame frame_within(const Cell& cell, double left, double right, double bottom, double top) {
  return {cell.x + left, cell.x + cell.width - right, cell.y + bottom, cell.y + cell.height - top};
}

// The command that puts the axes there.
std::string margins(const Cell& cell, const Frame& frame) {
  return fmt::format(
      "set lmargin at screen {:.6f}\nset rmargin at screen {:.6f}\nset bmargin at screen {:.6f}\n"
      "set tmargin at screen {:.6f}\n",
      frame.left / cell.page_width, frame.right / cell.page_width, frame.bottom / cell.page_height,
      frame.top / cell.page_height);
}

constexpr double kTitleHeight = 54.0;  // pixels above a frame, as gnuplot leaves above a line chart

// A character of UTF-8 begins with this byte.
bool begins_character(char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }

// A name that leaves room for the chart.
std::string shortened(const std::string& name) {
  size_t end = 0;
  for (int characters = 0; end < name.size(); ++end)
    if (begins_character(name[end]) && ++characters > 32) return name.substr(0, end) + "…";
  return name;
}

// Pixels that text takes, at most, nearly: gnuplot tells nobody what it has measured.
double text_width(const std::string& text, double points) {
  return 0.78 * points * static_cast<double>(std::ranges::count_if(text, begins_character));
}

// Data and plot command of one chart; `index` keeps the data names apart.
std::string chart_commands(const Chart& chart, size_t index, const Cell&) {
  std::string data, plot;
  const auto add = [&](const std::string& item) { plot += (plot.empty() ? "plot " : ", ") + item; };
  size_t shown = 0;
  for (size_t c = 0; c < chart.curves.size(); ++c) {
    const Points points = drawable(chart.curves[c], chart.log_y);
    const std::string name = fmt::format("d{}_{}", index, c), colour = kColours[c % kColours.size()];
    const std::string title = chart.curves[c].name.empty() || chart.curves[c].name == chart.title
                                  ? "notitle"
                                  : "title " + quoted(chart.curves[c].name);
    if (points.x.empty()) continue;
    ++shown;
    data += data_block(name, points);
    if (points.x.size() > kLongCurve) {
      data += data_block(name + "m", moving_average(points));
      add(fmt::format("${} with lines lw 1 lc rgb '#b8{}' notitle", name, colour));
      add(fmt::format("${}m with lines lw 2.2 lc rgb '#{}' {}", name, colour, title));
    } else if (points.x.size() <= 12) {
      // few points: show where they are, a single one would be no line at all
      add(fmt::format("${} with linespoints lw 2.2 pt 7 ps 0.8 lc rgb '#{}' {}", name, colour, title));
    } else {
      add(fmt::format("${} with lines lw 2.2 lc rgb '#{}' {}", name, colour, title));
    }
  }
  std::string out = data;
  out += fmt::format("set title {}\nset xlabel {}\nset ylabel {}\n", quoted(chart.title), quoted(chart.x_label),
                     quoted(chart.y_label));
  out += chart.log_y && shown ? "set logscale y\nset format y '%g'\n" : "unset logscale y\nset format y '%.4g'\n";
  if (!shown) {
    // an empty frame says more than a missing one
    out += "set xrange [0:1]\nset yrange [0:1]\nset label 1 'no data' at graph 0.5,0.5 center tc rgb '#999999'\n";
    out += "plot NaN notitle\nunset label 1\n";
  } else {
    out += "set autoscale noextend\n" + plot + "\n";
  }
  return out;
}

// Names in the place of an axis' numbers.
struct AxisNames {
  std::vector<std::string> names;
  double points;   // size of their font
  double longest;  // pixels
};

// In as large a print as leaves them apart, where all of them have `room` pixels.
AxisNames fit_names(const std::vector<std::string>& names, double room) {
  AxisNames fitted{{}, std::clamp(room / static_cast<double>(names.size()) / 1.35, 4.5, 10.0), 0.0};
  for (const std::string& name : names) {
    fitted.names.push_back(shortened(name));
    fitted.longest = std::max(fitted.longest, text_width(fitted.names.back(), fitted.points));
  }
  return fitted;
}

std::string name_tics(const char* axis, const AxisNames& fitted, bool upright) {
  std::string out = fmt::format("set {}tics {} scale 0 font 'DejaVu Sans,{:.1f}' (", axis,
                                upright ? "rotate by 90 right" : "norotate", fitted.points);
  for (size_t i = 0; i < fitted.names.size(); ++i)
    out += fmt::format("{}{} {}", i ? ", " : "", quoted(fitted.names[i]), i);
  return out + ")\n";
}

std::string chart_commands(const BarChart& chart, size_t index, const Cell& cell) {
  const size_t count = chart.values.size();
  const bool intervals = !chart.low.empty();
  if (chart.labels.size() != count || chart.low.size() != chart.high.size() || (intervals && chart.low.size() != count))
    fail("chart {}: {} labels, {} values, {} lower and {} upper bounds", chart.title, chart.labels.size(), count,
         chart.low.size(), chart.high.size());
  if (std::ranges::none_of(chart.values, [](double v) { return std::isfinite(v); }))
    fail("chart {}: there is no bar to draw", chart.title);

  double least = 0.0, most = 0.0;
  const auto show = [&](double v) {
    if (std::isfinite(v)) least = std::min(least, v), most = std::max(most, v);
  };
  std::string out = fmt::format("$b{} << END\n", index);
  for (size_t i = 0; i < count; ++i) {
    const double value = chart.values[i], low = intervals ? chart.low[i] : value,
                 high = intervals ? chart.high[i] : value;
    show(value), show(low), show(high);
    out += fmt::format("{} {:.9g} {:.9g} {:.9g}\n", i, value, low, high);
  }
  if (chart.line) show(*chart.line);
  if (least == most) most = 1.0;

  const double left = 80.0, right = 24.0, room = cell.width - left - right;
  const AxisNames names = fit_names(chart.labels, room);
  const bool upright = names.longest > room / static_cast<double>(count) - 6.0,
             key = chart.line && !chart.line_label.empty();
  const double bottom = std::min(20.0 + (upright ? names.longest : 14.0) + (key ? 24.0 : 0.0), 0.55 * cell.height);
  const Frame frame = frame_within(cell, left, right, bottom, kTitleHeight);
  out += fmt::format(
      "END\nset title {}\nset ylabel {}\n{}{}set offsets 0,0,0,0\nset xrange [-0.7:{}]\nset yrange [{:.9g}:{:.9g}]\n"
      "unset grid\nset grid ytics back lt 1 lw 1 lc rgb '#e4e4e4'\nset style fill solid 0.8 noborder\n"
      "set boxwidth 0.7\nset key at {} center center samplen 3\nplot $b{} using 1:2 with boxes lc rgb '#{}' notitle",
      quoted(chart.title), quoted(chart.y_label), margins(cell, frame), name_tics("x", names, upright),
      static_cast<double>(count) - 0.3, 1.05 * least, 1.05 * most,
      cell.at(0.5 * (frame.left + frame.right), cell.y + 14.0), index, kColours[0]);
  // arrows with flat heads, as gnuplot's own error bars are broken by the point in their middle
  if (intervals)
    out += fmt::format(
        ", $b{} using 1:3:(0):($4-$3) with vectors heads size screen {:.6f},90 lc rgb '#333333' lw 1.2 "
        "notitle",
        index, 4.0 / cell.page_width);
  if (chart.line)
    out += fmt::format(", {:.9g} with lines dt 2 lw 1.5 lc rgb '#{}' {}", *chart.line, kColours[1],
                       key ? "title " + quoted(chart.line_label) : "notitle");
  return out + "\n";
}

std::string chart_commands(const HeatMap& chart, size_t index, const Cell& cell) {
  if (chart.values.size() != chart.rows.size() * chart.columns.size() || chart.values.empty())
    fail("chart {}: {} values for {} rows and {} columns", chart.title, chart.values.size(), chart.rows.size(),
         chart.columns.size());
  std::string out = fmt::format("$h{} << END\n", index);
  for (size_t r = 0; r < chart.rows.size(); ++r) {
    for (size_t c = 0; c < chart.columns.size(); ++c)
      out += fmt::format("{:.4g} ", std::clamp(chart.values[r * chart.columns.size() + c], 0.0, 1.0));
    out += '\n';
  }
  // names take their share of the cell first, those of the columns by a guess at what the rows' will leave
  const double right = 64.0;
  const AxisNames columns = fit_names(chart.columns, 0.75 * (cell.width - right));
  const double bottom = std::min(34.0 + columns.longest, 0.45 * cell.height);
  const AxisNames rows = fit_names(chart.rows, cell.height - bottom - kTitleHeight);
  const Frame frame = frame_within(cell, std::min(32.0 + rows.longest, 0.45 * cell.width), right, bottom, kTitleHeight);
  const double middle_x = 0.5 * (frame.left + frame.right), middle_y = 0.5 * (frame.bottom + frame.top);
  out += fmt::format(
      "END\nset title {}\nunset xlabel\nunset ylabel\n"
      "set label 1 {} at {} center textcolor rgb '#333333'\nset label 2 {} at {} center rotate textcolor rgb "
      "'#333333'\n",
      quoted(chart.title), quoted(chart.column_label), cell.at(middle_x, cell.y + 12.0), quoted(chart.row_label),
      cell.at(cell.x + 12.0, middle_y));
  out += margins(cell, frame) + name_tics("x", columns, true) + name_tics("y", rows, false);
  out += fmt::format(
      "unset grid\nset xrange [-0.5:{}]\nset yrange [{}:-0.5]\nset cbrange [0:1]\n"
      "set colorbox user origin {} size screen {:.6f},{:.6f} noborder\n"
      "set cbtics 0,0.5,1 scale 0 offset -0.8,0 textcolor rgb '#333333'\n"
      "set palette defined (0 '#f4f6f8', 0.02 '#dbe9f3', 1 '#{}')\nset style fill solid noborder\n"
      // boxes, as gnuplot has no image of a single row or column
      "plot $h{} matrix using 1:2:(0.5):(0.5):3 with boxxyerror fc palette notitle\n",
      static_cast<double>(chart.columns.size()) - 0.5, static_cast<double>(chart.rows.size()) - 0.5,
      cell.at(frame.right + 14.0, middle_y - 50.0), 10.0 / cell.page_width, 100.0 / cell.page_height, kColours[0],
      index);
  return out;
}

// A label of a scatter chart, pixels of the page.
struct Name {
  double x, y, width;  // its middle

  bool hides(const Name& other, double height) const {
    return 2.0 * std::abs(x - other.x) < width + other.width && std::abs(y - other.y) < height;
  }
};

// The place for a name nearest to where it belongs that hides none of those placed and does not leave the frame; where
// it belongs if there is none within eight lines.
Name free_place(const Name& wanted, const std::vector<Name>& placed, const Frame& frame, double height) {
  std::vector<Name> places;
  for (int up = -8; up <= 8; ++up)
    for (int across = -3; across <= 3; ++across)
      places.push_back({wanted.x + across * wanted.width / 3.0, wanted.y + up * height, wanted.width});
  std::ranges::stable_sort(places, {}, [&](const Name& p) { return std::hypot(p.x - wanted.x, p.y - wanted.y); });
  for (const Name& place : places)
    if (place.x - 0.5 * place.width >= frame.left && place.x + 0.5 * place.width <= frame.right &&
        place.y - height >= frame.bottom && place.y + height <= frame.top &&
        std::ranges::none_of(placed, [&](const Name& other) { return place.hides(other, height); }))
      return place;
  return wanted;
}

std::string chart_commands(const ScatterChart& chart, size_t index, const Cell& cell) {
  std::vector<Points> groups;
  constexpr double kFar = std::numeric_limits<double>::infinity();
  double left = kFar, right = -kFar, bottom = kFar, top = -kFar;
  for (const ScatterGroup& group : chart.groups) {
    const Points& points = groups.emplace_back(drawable(Curve{group.name, group.x, group.y}, false));
    for (const double x : points.x) left = std::min(left, x), right = std::max(right, x);
    for (const double y : points.y) bottom = std::min(bottom, y), top = std::max(top, y);
  }
  if (left > right) fail("chart {}: there is no point to draw", chart.title);

  // one scale for both axes, and room for names at the edges
  const Frame frame = frame_within(cell, 14.0, 14.0, 14.0, kTitleHeight);
  const double width = frame.right - frame.left, height = frame.top - frame.bottom;
  double scale = std::min(0.88 * width / (right - left), 0.92 * height / (top - bottom));  // pixels a unit
  if (!std::isfinite(scale)) scale = 1.0;
  const double middle_x = 0.5 * (left + right), middle_y = 0.5 * (bottom + top);
  const auto page_x = [&](double x) { return 0.5 * (frame.left + frame.right) + scale * (x - middle_x); };
  const auto page_y = [&](double y) { return 0.5 * (frame.bottom + frame.top) + scale * (y - middle_y); };

  // faint spokes from a group's mean show which points are its own, as there are fewer colours than groups
  constexpr std::array<int, 5> kShapes = {7, 5, 9, 13, 11};
  const double font = std::clamp(std::sqrt(width * height / static_cast<double>(groups.size())) / 18.0, 6.0, 10.0),
               line = 1.6 * font;
  std::string data, spokes, points_plot, names;
  std::vector<Name> placed;
  for (size_t g = 0; g < groups.size(); ++g) {
    const Points& points = groups[g];
    if (points.x.empty()) continue;
    const double count = static_cast<double>(points.x.size());
    const double x = std::accumulate(points.x.begin(), points.x.end(), 0.0) / count,
                 y = std::accumulate(points.y.begin(), points.y.end(), 0.0) / count;
    const std::string block = fmt::format("s{}_{}", index, g), colour = kColours[g % kColours.size()];
    data += data_block(block, points);
    spokes += fmt::format(
        "{}${} using ({:.9g}):({:.9g}):($1-{:.9g}):($2-{:.9g}) with vectors nohead lw 1 lc rgb "
        "'#c8{}' notitle",
        spokes.empty() ? "plot " : ", ", block, x, y, x, y, colour);
    points_plot += fmt::format(", ${} with points pt {} ps {} lc rgb '#60{}' notitle", block,
                               kShapes[g / kColours.size() % kShapes.size()], points.x.size() > 1 ? 0.6 : 1.2, colour);
    const std::string label = shortened(chart.groups[g].name);
    const Name wanted{page_x(x), page_y(y) + 0.9 * line, text_width(label, 1.08 * font)};
    const Name name = placed.emplace_back(free_place(wanted, placed, frame, line));
    if (std::abs(name.y - wanted.y) > line || 2.0 * std::abs(name.x - wanted.x) > wanted.width)
      names += fmt::format("set arrow from {} to {} nohead back lw 1 lc rgb '#80{}'\n", cell.at(page_x(x), page_y(y)),
                           cell.at(name.x, name.y), colour);
    names +=
        fmt::format("set label {} {} at {} center front boxed font 'DejaVu Sans Bold,{:.1f}' textcolor rgb '#{}'\n",
                    g + 1, quoted(label), cell.at(name.x, name.y), font, darker(colour));
  }
  return data +
         fmt::format(
             "set title {}\nunset xlabel\nunset ylabel\nunset xtics\nunset ytics\nset offsets 0,0,0,0\n"
             "set border 15 lc rgb '#dddddd' lw 1\nset style textbox opaque noborder fillcolor rgb '#70ffffff' "
             "margins 0.3,0.3\nset xrange [{:.9g}:{:.9g}]\nset yrange [{:.9g}:{:.9g}]\n",
             quoted(chart.title), middle_x - 0.5 * width / scale, middle_x + 0.5 * width / scale,
             middle_y - 0.5 * height / scale, middle_y + 0.5 * height / scale) +
         margins(cell, frame) + names + spokes + points_plot + "\n";
}

// What every kind of chart starts from, whatever the one before has set.
constexpr const char* kStyle =
    "unset label\nunset arrow\nunset logscale\nset autoscale\nunset colorbox\nset bmargin\nset tmargin\n"
    "set border 3 lc rgb '#777777' lw 1\n"
    "unset xtics\nunset ytics\n"
    "set xtics nomirror out scale 0.6 norotate autofreq font '' textcolor rgb '#333333'\n"
    "set ytics nomirror out scale 0.6 norotate autofreq font '' textcolor rgb '#333333'\n"
    "set grid back lt 1 lw 1 lc rgb '#e4e4e4'\n"
    "set title font 'DejaVu Sans Bold,13' textcolor rgb '#222222' offset 0,-0.3\n"
    "set xlabel textcolor rgb '#333333' offset 0,0.4\nset ylabel textcolor rgb '#333333' offset 1,0\n"
    "set key bmargin center horizontal reverse Left samplen 1.4 height 1.2 textcolor rgb '#333333' noenhanced\n"
    "set format x '%.4g'\nset format y '%.4g'\nset offsets 0,0,graph 0.05,graph 0.05\nset lmargin 11\nset rmargin 3\n";

}  // namespace

void save_charts(std::span<const AnyChart> charts, int columns, const fs::path& path, int width, int height) {
  if (charts.empty() || columns < 1)
    fail("{}: a grid of {} charts in {} columns cannot be drawn", path.string(), charts.size(), columns);
  const int count = static_cast<int>(charts.size());
  columns = std::min(columns, count);
  const int rows = (count + columns - 1) / columns;
  std::string commands = fmt::format("set multiplot layout {},{}\n", rows, columns);
  for (int i = 0; i < count; ++i) {
    const Cell cell{static_cast<double>(i % columns * width),
                    static_cast<double>((rows - 1 - i / columns) * height),
                    static_cast<double>(width),
                    static_cast<double>(height),
                    static_cast<double>(columns * width),
                    static_cast<double>(rows * height)};
    const auto draw = [&](const auto& chart) { return chart_commands(chart, static_cast<size_t>(i), cell); };
    commands += kStyle + std::visit(draw, charts[static_cast<size_t>(i)]);
  }
  commands += "unset multiplot\n";
  write_file_atomic(path, run_gnuplot(commands, columns * width, rows * height, 11));
}

void save_charts(std::span<const Chart> charts, int columns, const fs::path& path) {
  save_charts(std::vector<AnyChart>(charts.begin(), charts.end()), columns, path);
}

// A column of text, one caption in the middle of each row of that height, as wide as the longest needs.
Image caption_column(std::span<const std::string> captions, int row_height, int gap) {
  size_t longest = 0;
  for (const std::string& caption : captions) longest = std::max(longest, caption.size());
  const int width = std::clamp(static_cast<int>(longest) * 9 + 24, 60, 400);
  const int rows = static_cast<int>(captions.size()), height = rows * row_height + (rows - 1) * gap;
  std::string commands =
      "unset border\nunset tics\nunset key\nset margins 0,0,0,0\nset xrange [0:1]\nset yrange [0:1]\n";
  for (int i = 0; i < rows; ++i)
    commands += fmt::format("set label {} {} at screen 0.5,{:.6f} center textcolor rgb '#333333'\n", i + 1,
                            quoted(captions[static_cast<size_t>(i)]),
                            1.0 - (i * (row_height + gap) + 0.5 * row_height) / height);
  const Scratch scratch;
  const fs::path picture = scratch.path() / "captions.png";
  write_file_atomic(picture, run_gnuplot(commands + "plot NaN\n", width, height, 12));
  return load_png(picture);
}

void save_graph(const std::string& dot, const fs::path& path) {
  const std::string format = path.extension() == ".svg" ? "-Tsvg" : "-Tpng";
  write_file_atomic(
      path, run_drawing_program({"dot", "graphs", "graphviz"}, [&](const fs::path& script, const fs::path& picture) {
        write_file_atomic(script, dot);
        return std::vector<std::string>{format, "-o", picture.string(), script.string()};
      }));
}

}  // namespace calm
