// Curves in TensorBoard's format: one file of events per start of a run, events.out.tfevents.<time>.<host>. TensorBoard
// reads all of a folder's files in the order of their names as one curve, so a resumed run adds a file.
//
// Output: TFRecords (length, its CRC, bytes, their CRC) holding protocol buffers `Event`. Buffered: flush to be seen.
// Owns the file. Errors: Error if the file cannot be made or written. Threads: one at a time.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace calm {

class EventWriter {
 public:
  explicit EventWriter(const std::filesystem::path& folder);  // made if it is missing

  // One point of the curve `tag` ("low_level/reward": TensorBoard groups by what is before the slash).
  void scalar(std::string_view tag, float value, int64_t step);

  void flush();

  const std::filesystem::path& path() const { return path_; }

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  void write_record(std::string_view bytes);

  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
};

// The checksum of TFRecord files: CRC-32C, rotated and offset so that a checksum of data that holds checksums is none.
uint32_t masked_crc32c(std::string_view bytes);

}  // namespace calm
