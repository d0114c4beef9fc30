// PNG through libpng's simplified interface, and putting pictures together.
#include <png.h>

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "draw/draw.h"

namespace calm {

void save_png(const Image& image, const std::filesystem::path& path) {
  if (image.width < 1 || image.height < 1 ||
      image.rgb.size() != size_t{3} * static_cast<size_t>(image.width) * static_cast<size_t>(image.height))
    fail("{}: an image of {} x {} pixels with {} bytes cannot be written", path.string(), image.width, image.height,
         image.rgb.size());
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = PNG_FORMAT_RGB;
  // the bound is known before compressing, so one pass does
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(png);
  std::string bytes(size, '\0');
  if (!png_image_write_to_memory(&png, bytes.data(), &size, 0, image.rgb.data(), 0, nullptr))
    fail("{}: cannot be written as PNG: {}", path.string(), png.message);
  bytes.resize(size);
  write_file_atomic(path, bytes);
}

Image load_png(const std::filesystem::path& path) {
  const std::string bytes = read_file(path, size_t{1} << 28);
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  if (!png_image_begin_read_from_memory(&png, bytes.data(), bytes.size()))
    fail("{}: is not a PNG that can be read: {}", path.string(), png.message);
  constexpr png_uint_32 kMaxSide = 16384;
  if (png.width > kMaxSide || png.height > kMaxSide) {
    png_image_free(&png);
    fail("{}: {} x {} pixels, more than {} a side", path.string(), png.width, png.height, kMaxSide);
  }
  png.format = PNG_FORMAT_RGB;
  Image image{static_cast<int>(png.width), static_cast<int>(png.height), {}};
  image.rgb.resize(PNG_IMAGE_SIZE(png));
  const png_color white{255, 255, 255};
  if (!png_image_finish_read(&png, &white, image.rgb.data(), 0, nullptr))
    fail("{}: is a damaged PNG: {}", path.string(), png.message);
  return image;
}

// Copies `part` into `whole` with its top left corner at (x, y); it fits.
static void paste(const Image& part, int x, int y, Image& whole) {
  for (int row = 0; row < part.height; ++row) {
    const auto from = part.rgb.begin() + static_cast<ptrdiff_t>(3) * row * part.width;
    std::copy(from, from + static_cast<ptrdiff_t>(3) * part.width,
              whole.rgb.begin() + static_cast<ptrdiff_t>(3) * ((y + row) * static_cast<ptrdiff_t>(whole.width) + x));
  }
}

Image caption_column(std::span<const std::string> captions, int row_height, int gap);  // charts.cpp

Image stack_images(std::span<const Image> images, int columns, std::span<const std::string> captions) {
  if (columns < 1 || images.empty()) fail("a grid of {} images in {} columns cannot be made", images.size(), columns);
  const int count = static_cast<int>(images.size());
  const int rows = (count + columns - 1) / columns;
  if (!captions.empty() && captions.size() != static_cast<size_t>(rows))
    fail("{} captions for {} rows of images; give one a row", captions.size(), rows);
  columns = std::min(columns, count);
  constexpr int kGap = 6;  // pixels of white between the cells
  int cell_width = 0, cell_height = 0;
  for (const Image& image : images) {
    cell_width = std::max(cell_width, image.width);
    cell_height = std::max(cell_height, image.height);
  }

  Image caption;
  const bool captioned = std::any_of(captions.begin(), captions.end(), [](const auto& text) { return !text.empty(); });
  if (captioned) caption = caption_column(captions, cell_height, kGap);

  Image whole;
  whole.width = caption.width + columns * cell_width + (columns - 1) * kGap;
  whole.height = rows * cell_height + (rows - 1) * kGap;
  whole.rgb.assign(size_t{3} * static_cast<size_t>(whole.width) * static_cast<size_t>(whole.height), 255);
  if (captioned) paste(caption, 0, 0, whole);
  for (int i = 0; i < count; ++i)
    paste(images[static_cast<size_t>(i)], caption.width + i % columns * (cell_width + kGap),
          i / columns * (cell_height + kGap), whole);
  return whole;
}

}  // namespace calm
