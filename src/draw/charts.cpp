// Line charts and captions by gnuplot. It runs on a script in a folder of its own and not at the end of a pipe: a pipe
// to a program that is missing or ends early would raise SIGPIPE in a training. Text goes into the script as single
// quoted strings without markup, so that a name from a file can do nothing but be shown.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "base/file.h"
#include "draw/draw.h"

extern char** environ;

namespace calm {

namespace fs = std::filesystem;

namespace {

// A folder in the temporary directory, removed at the end.
class Scratch {
 public:
  Scratch() {
    std::string name = (fs::temp_directory_path() / "calm-gnuplot-XXXXXX").string();
    if (!::mkdtemp(name.data())) fail("{}: cannot be made: {}", name, std::strerror(errno));
    path_ = name;
  }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

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
  const Scratch scratch;
  const fs::path script = scratch.path() / "script", picture = scratch.path() / "picture.png",
                 log = scratch.path() / "log";
  write_file_atomic(script, fmt::format("set encoding utf8\n"
                                        "set terminal pngcairo noenhanced rounded font 'DejaVu Sans,{}' size {},{} "
                                        "background rgb '#ffffff'\n"
                                        "set output {}\n{}\nunset output\n",
                                        font_size, width, height, quoted(picture.string()), commands));

  // no user or system start-up file has a say in how our charts look
  std::string program = "gnuplot", option = "--default-settings", argument = script.string();
  std::array<char*, 4> argv = {program.data(), option.data(), argument.data(), nullptr};
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, 1, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&files, 1, 2);
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, program.c_str(), &files, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  if (error == ENOENT)
    fail("gnuplot, which draws the charts, is not installed; install the Debian package gnuplot-nox");
  if (error) fail("gnuplot cannot be started: {}", std::strerror(error));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0)
    if (errno != EINTR) fail("gnuplot was lost: {}", std::strerror(errno));
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || !fs::exists(picture)) {
    std::string said = fs::exists(log) ? read_file(log, size_t{1} << 20) : std::string();
    std::replace(said.begin(), said.end(), '\n', ' ');
    fail("gnuplot failed: {}", said.empty() ? "it said nothing" : said.substr(0, 400));
  }
  return read_file(picture, size_t{1} << 28);
}

// Okabe and Ito's colours, told apart by everyone; yellow is left out, it is lost on white.
constexpr std::array<const char*, 7> kColours = {"0072b2", "d55e00", "009e73", "cc79a7", "e69f00", "56b4e9", "555555"};

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

// Data and plot command of one chart; `index` keeps the data names apart.
std::string chart_commands(const Chart& chart, size_t index) {
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

// Labels of an axis in the place of numbers, those of many in small print.
std::string label_tics(const char* axis, const std::vector<std::string>& labels, bool upright) {
  std::string out = fmt::format("set {}tics {} scale 0 font 'DejaVu Sans,{}' (", axis,
                                upright ? "rotate by 90 right" : "", labels.size() > 16 ? 8 : 10);
  for (size_t i = 0; i < labels.size(); ++i) out += fmt::format("{}{} {}", i ? ", " : "", quoted(labels[i]), i);
  return out + ")\n";
}

std::string titles(const std::string& title, const std::string& x_label, const std::string& y_label) {
  return fmt::format("set title {}\nset xlabel {}\nset ylabel {}\n", quoted(title), quoted(x_label), quoted(y_label));
}

std::string chart_commands(const BarChart& chart, size_t index) {
  const size_t count = chart.values.size();
  const bool intervals = !chart.low.empty();
  if (chart.labels.size() != count || (intervals && (chart.low.size() != count || chart.high.size() != count)))
    fail("chart {}: {} labels, {} values, {} lower and {} upper bounds", chart.title, chart.labels.size(), count,
         chart.low.size(), chart.high.size());
  std::string out = fmt::format("$b{} << END\n", index);
  for (size_t i = 0; i < count; ++i)
    out += fmt::format("{} {:.9g} {:.9g} {:.9g}\n", i, chart.values[i], intervals ? chart.low[i] : 0.0,
                       intervals ? chart.high[i] : 0.0);
  out += "END\n" + titles(chart.title, "", chart.y_label) + label_tics("x", chart.labels, count > 4);
  out += fmt::format(
      "set xrange [-0.7:{}]\nset yrange [0:*]\nset style fill solid 0.8 noborder\nset boxwidth 0.7\n"
      "plot $b{} using 1:2 with boxes lc rgb '#{}' notitle",
      static_cast<double>(count) - 0.3, index, kColours[0]);
  if (intervals) out += fmt::format(", $b{} using 1:2:3:4 with yerrorbars lc rgb '#333333' lw 1.2 pt 0 notitle", index);
  if (chart.line)
    out += fmt::format(", {:.9g} with lines dt 2 lw 1.5 lc rgb '#{}' title {}", *chart.line, kColours[1],
                       quoted(chart.line_label));
  return out + "\n";
}

std::string chart_commands(const HeatMap& chart, size_t index) {
  if (chart.values.size() != chart.rows.size() * chart.columns.size() || chart.values.empty())
    fail("chart {}: {} values for {} rows and {} columns", chart.title, chart.values.size(), chart.rows.size(),
         chart.columns.size());
  std::string out = fmt::format("$h{} << END\n", index);
  for (size_t r = 0; r < chart.rows.size(); ++r) {
    for (size_t c = 0; c < chart.columns.size(); ++c)
      out += fmt::format("{:.4g} ", std::clamp(chart.values[r * chart.columns.size() + c], 0.0, 1.0));
    out += '\n';
  }
  out += "END\n" + titles(chart.title, chart.column_label, chart.row_label);
  out += label_tics("x", chart.columns, true) + label_tics("y", chart.rows, false);
  out += fmt::format(
      "unset grid\nset lmargin 20\nset xrange [-0.5:{}]\nset yrange [{}:-0.5]\nset cbrange [0:1]\n"
      "set palette defined (0 '#f4f6f8', 0.02 '#dbe9f3', 1 '#{}')\nplot $h{} matrix with image notitle\n",
      static_cast<double>(chart.columns.size()) - 0.5, static_cast<double>(chart.rows.size()) - 0.5, kColours[0],
      index);
  return out;
}

std::string chart_commands(const ScatterChart& chart, size_t index) {
  std::string data, plot, labels;
  for (size_t g = 0; g < chart.groups.size(); ++g) {
    const ScatterGroup& group = chart.groups[g];
    const Points points = drawable(Curve{group.name, group.x, group.y}, false);
    if (points.x.empty()) continue;
    const std::string name = fmt::format("s{}_{}", index, g), colour = kColours[g % kColours.size()];
    data += data_block(name, points);
    plot += fmt::format("{}${} with points pt 7 ps {} lc rgb '#80{}' notitle", plot.empty() ? "plot " : ", ", name,
                        points.x.size() > 1 ? 0.5 : 1.2, colour);
    const double count = static_cast<double>(points.x.size());
    labels += fmt::format(
        "set label {} {} at {:.9g},{:.9g} center offset 0,0.7 front font 'DejaVu Sans Bold,10' "
        "textcolor rgb '#{}'\n",
        g + 1, quoted(group.name), std::accumulate(points.x.begin(), points.x.end(), 0.0) / count,
        std::accumulate(points.y.begin(), points.y.end(), 0.0) / count, colour);
  }
  if (plot.empty()) fail("chart {}: there is no point to draw", chart.title);
  return data + titles(chart.title, "", "") + labels +
         "unset xtics\nunset ytics\nset size ratio -1\nset offsets graph 0.08,graph 0.08,graph 0.05,graph 0.05\n" +
         plot + "\n";
}

// What every kind of chart starts from, whatever the one before has set.
constexpr const char* kStyle =
    "unset label\nunset logscale\nset size noratio\nset autoscale\nunset colorbox\n"
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
  for (size_t i = 0; i < charts.size(); ++i)
    commands += kStyle + std::visit([i](const auto& chart) { return chart_commands(chart, i); }, charts[i]);
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

}  // namespace calm
