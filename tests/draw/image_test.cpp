// PNG files, grids of images and charts: what is written is read back and looked at pixel by pixel.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "draw/draw.h"

namespace calm {
namespace {

namespace fs = std::filesystem;

class ImageTest : public testing::Test {
 protected:
  ImageTest() : folder_(fs::temp_directory_path() / fmt::format("calm-image-test-{}", ::getpid())) {
    fs::create_directories(folder_);
  }
  ~ImageTest() override { fs::remove_all(folder_); }
  fs::path file(const std::string& name) const { return folder_ / name; }

 private:
  fs::path folder_;
};

Image one_colour(int width, int height, uint8_t r, uint8_t g, uint8_t b) {
  Image image{width, height, {}};
  for (int i = 0; i < width * height; ++i) image.rgb.insert(image.rgb.end(), {r, g, b});
  return image;
}

std::array<int, 3> pixel(const Image& image, int x, int y) {
  const uint8_t* p = &image.rgb[static_cast<size_t>(3 * (y * image.width + x))];
  return {p[0], p[1], p[2]};
}

int dark_pixels(const Image& image, int x0, int x1) {
  int count = 0;
  for (int y = 0; y < image.height; ++y)
    for (int x = x0; x < x1; ++x) count += pixel(image, x, y)[0] < 128;
  return count;
}

TEST_F(ImageTest, PngComesBackAsWritten) {
  Image image{5, 3, {}};
  for (int i = 0; i < 45; ++i) image.rgb.push_back(static_cast<uint8_t>(37 * i));
  save_png(image, file("a.png"));
  const Image back = load_png(file("a.png"));
  EXPECT_EQ(back.width, 5);
  EXPECT_EQ(back.height, 3);
  EXPECT_EQ(back.rgb, image.rgb);
  EXPECT_FALSE(fs::exists(file("a.png.tmp")));
}

TEST_F(ImageTest, BadImagesAndFilesAreRefused) {
  EXPECT_THROW(save_png(Image{}, file("b.png")), Error);
  EXPECT_THROW(save_png(Image{4, 4, std::vector<uint8_t>(47)}, file("b.png")), Error);
  EXPECT_FALSE(fs::exists(file("b.png")));
  EXPECT_THROW(load_png(file("missing.png")), Error);
  save_png(one_colour(40, 40, 1, 2, 3), file("c.png"));
  const std::string bytes = read_file(file("c.png"));
  write_file_atomic(file("c.png"), std::string_view(bytes).substr(0, bytes.size() / 2));
  EXPECT_THROW(load_png(file("c.png")), Error);
  write_file_atomic(file("c.png"), "not a picture");
  EXPECT_THROW(load_png(file("c.png")), Error);
}

TEST_F(ImageTest, GridKeepsImagesInTheirCells) {
  const std::vector<Image> images = {one_colour(20, 10, 255, 0, 0), one_colour(20, 10, 0, 255, 0),
                                     one_colour(20, 10, 0, 0, 255)};
  const Image grid = stack_images(images, 2);
  ASSERT_GE(grid.width, 40);
  ASSERT_GE(grid.height, 20);
  EXPECT_THAT(pixel(grid, 0, 0), testing::ElementsAre(255, 0, 0));
  EXPECT_THAT(pixel(grid, grid.width - 1, 9), testing::ElementsAre(0, 255, 0));
  EXPECT_THAT(pixel(grid, 19, grid.height - 1), testing::ElementsAre(0, 0, 255));
  EXPECT_THAT(pixel(grid, grid.width - 1, grid.height - 1), testing::ElementsAre(255, 255, 255));
  EXPECT_THROW(stack_images(images, 0), Error);
  EXPECT_THROW(stack_images({}, 1), Error);
}

TEST_F(ImageTest, CaptionsStandLeftOfTheirRow) {
  const std::vector<Image> images = {one_colour(60, 40, 255, 255, 255), one_colour(60, 40, 255, 255, 255)};
  const std::vector<std::string> captions = {"", "it's `date` $(x) {a}_b"};
  const Image grid = stack_images(images, 1, captions);
  ASSERT_GT(grid.width, 60);
  Image upper = grid, lower = grid;
  upper.height = grid.height / 2;
  lower.rgb.erase(lower.rgb.begin(), lower.rgb.begin() + 3 * upper.height * grid.width);
  lower.height = grid.height - upper.height;
  EXPECT_EQ(dark_pixels(upper, 0, grid.width - 60), 0);
  EXPECT_GT(dark_pixels(lower, 0, grid.width - 60), 50);
  EXPECT_THROW(stack_images(images, 1, std::vector<std::string>(3)), Error);
}

TEST_F(ImageTest, ChartsShowTheirCurvesInColour) {
  Chart chart{"it's a \"title\"\\ {x}^2\n`id`", "step", "value", {{"falling", {}, {}}}, true};
  for (int i = 0; i < 1000; ++i) {
    chart.curves[0].x.push_back(i);
    chart.curves[0].y.push_back(i % 100 == 7 ? std::numeric_limits<double>::quiet_NaN() : std::exp(-0.01 * i));
  }
  const std::vector<Chart> charts = {chart, Chart{"nothing yet", "", "", {}, false}};
  save_charts(charts, 2, file("charts.png"));
  const Image image = load_png(file("charts.png"));
  EXPECT_GT(image.width, 2 * image.height);
  // the first palette colour, only in the left half
  const auto blue_in = [&](int x0, int x1) {
    int count = 0;
    for (int y = 0; y < image.height; ++y)
      for (int x = x0; x < x1; ++x) {
        const auto [r, g, b] = pixel(image, x, y);
        count += b > r + 80 && b > g + 30;
      }
    return count;
  };
  EXPECT_GT(blue_in(0, image.width / 2), 300);
  EXPECT_EQ(blue_in(image.width / 2, image.width), 0);
}

TEST_F(ImageTest, BadChartsAreRefused) {
  EXPECT_THROW(save_charts(std::vector<Chart>(), 1, file("d.png")), Error);
  const std::vector<Chart> uneven = {{"", "", "", {{"c", {1.0, 2.0}, {1.0}}}, false}};
  EXPECT_THROW(save_charts(uneven, 1, file("d.png")), Error);
  EXPECT_FALSE(fs::exists(file("d.png")));
}

TEST_F(ImageTest, MissingGnuplotIsNamedWithItsPackage) {
  const std::string path = std::getenv("PATH");
  ::setenv("PATH", "/nowhere", 1);
  std::string said;
  try {
    save_charts(std::vector<Chart>(1), 1, file("e.png"));
  } catch (const Error& error) {
    said = error.what();
  }
  ::setenv("PATH", path.c_str(), 1);
  EXPECT_THAT(said, testing::HasSubstr("gnuplot-nox"));
}

TEST_F(ImageTest, BarsHeatMapsAndPointsShareAPicture) {
  const BarChart bars{"bars", "share", {"a <b>", "it's"}, {0.5, 0.9}, {0.4, 0.8}, {0.6, 1.0}, 0.1, "chance"};
  const HeatMap map{"map", "asked", "taken", {"one", "two"}, {"one", "two", "three"}, {1, 0, 0, 0.2, 0.3, 0.5}};
  const ScatterChart points{"points", {{"left", {0, 0.1}, {0, 1}}, {"none", {}, {}}, {"right", {2}, {1}}}};
  const std::vector<AnyChart> all = {bars, map, points, Chart{"lines", "x", "y", {{"line", {0, 1}, {1, 2}}}, false}};
  save_charts(all, 2, file("kinds.png"), 500, 300);
  const Image image = load_png(file("kinds.png"));
  EXPECT_EQ(image.width, 1000);
  EXPECT_EQ(image.height, 600);

  // bars upper left, the map's cells upper right, points lower left, each in the first colour, and none of them in the
  // margin
  const auto blue_in = [&](int x0, int x1, int y0, int y1) {
    int count = 0;
    for (int y = y0; y < y1; ++y)
      for (int x = x0; x < x1; ++x) {
        const auto [r, g, b] = pixel(image, x, y);
        count += b > r + 80 && b > g + 30;
      }
    return count;
  };
  EXPECT_GT(blue_in(0, 500, 0, 300), 5000);
  EXPECT_GT(blue_in(500, 1000, 0, 300), 5000);
  EXPECT_GT(blue_in(0, 500, 300, 600), 20);
  EXPECT_EQ(blue_in(0, 60, 0, 300), 0);

  const auto refused = [&](const AnyChart& chart) {
    EXPECT_THROW(save_charts(std::vector<AnyChart>{chart}, 1, file("f.png")), Error);
    EXPECT_FALSE(fs::exists(file("f.png")));
  };
  BarChart uneven_bars = bars;
  uneven_bars.high.pop_back();
  refused(uneven_bars);
  uneven_bars = bars;
  uneven_bars.low.clear();
  refused(uneven_bars);
  refused(BarChart{"bars", "share", {"a"}, {std::nan("")}, {}, {}, {}, ""});
  HeatMap uneven_map = map;
  uneven_map.values.pop_back();
  refused(uneven_map);
  refused(ScatterChart{"points", {{"left", {0}, {0, 1}}}});
  refused(ScatterChart{"points", {}});
}

TEST_F(ImageTest, ManyNamesOddOnesAndSinglesAreDrawn) {
  constexpr int kMany = 70;
  BarChart bars{"bars", "m", {}, {}, {}, {}, {}, ""};
  ScatterChart points{"points", {}};
  for (int i = 0; i < kMany; ++i) {
    bars.labels.push_back(i == 3 ? "it's `date` {x}^2 größe " + std::string(300, 'w') : fmt::format("name_{}", i));
    bars.values.push_back(i % 5 == 0 ? std::numeric_limits<double>::quiet_NaN() : i - 10.0);
    points.groups.push_back({bars.labels.back(), {1.0}, {1.0}});  // all at one place
  }
  const HeatMap map{"map", "", "", bars.labels, bars.labels, std::vector<double>(kMany * kMany, 1.0)};
  save_charts(std::vector<AnyChart>{bars, map, points}, 3, file("many.png"));
  EXPECT_EQ(load_png(file("many.png")).width, 3 * 640);

  // a map of one cell is all of its colour
  save_charts(std::vector<AnyChart>{HeatMap{"one", "", "", {"a"}, {"b"}, {1.0}}}, 1, file("one.png"), 300, 200);
  EXPECT_THAT(pixel(load_png(file("one.png")), 120, 100), testing::ElementsAre(0x00, 0x72, 0xb2));
}

}  // namespace
}  // namespace calm
