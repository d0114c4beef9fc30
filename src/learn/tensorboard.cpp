// The two messages needed of TensorFlow's event.proto and summary.proto are written field by field; a schema compiler
// and its runtime would be out of proportion.
#include "learn/tensorboard.h"

#include <unistd.h>

#include <array>
#include <boost/crc.hpp>
#include <boost/endian/conversion.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <protozero/pbf_builder.hpp>

#include "base/error.h"

namespace calm {

namespace fs = std::filesystem;

namespace {

// Field numbers of the protocol buffers.
enum class EventField : protozero::pbf_tag_type { kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5 };
enum class SummaryField : protozero::pbf_tag_type { kValue = 1 };
enum class ValueField : protozero::pbf_tag_type { kTag = 1, kSimpleValue = 2 };

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

template <class T>
std::string little_endian(T value) {
  boost::endian::native_to_little_inplace(value);
  return {reinterpret_cast<const char*>(&value), sizeof(T)};
}

}  // namespace

uint32_t masked_crc32c(std::string_view bytes) {
  boost::crc_optimal<32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, true, true> crc;
  crc.process_bytes(bytes.data(), bytes.size());
  const uint32_t sum = crc.checksum();
  return ((sum >> 15) | (sum << 17)) + 0xA282EAD8u;
}

EventWriter::EventWriter(const fs::path& folder) {
  std::error_code ec;
  fs::create_directories(folder, ec);
  if (ec) fail("{}: cannot be made: {}", folder.string(), ec.message());
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0 || host[0] == '\0') std::strcpy(host.data(), "localhost");
  const std::string name =
      fmt::format("events.out.tfevents.{:010}.{}", static_cast<int64_t>(seconds_since_1970()), host.data());
  // two starts within one second must not write into one file
  for (int i = 0; !file_ && i < 1000; ++i) {
    path_ = folder / (i == 0 ? name : fmt::format("{}.{}", name, i));
    file_.reset(std::fopen(path_.c_str(), "wbxe"));
    if (!file_ && errno != EEXIST) break;
  }
  if (!file_) fail("{}: cannot be made: {}", path_.string(), std::strerror(errno));

  std::string event;
  protozero::pbf_builder<EventField> builder(event);
  builder.add_double(EventField::kWallTime, seconds_since_1970());
  builder.add_string(EventField::kFileVersion, "brain.Event:2");
  write_record(event);
  flush();
}

void EventWriter::scalar(std::string_view tag, float value, int64_t step) {
  std::string event;
  {
    // a message within a message is complete when its builder goes
    protozero::pbf_builder<EventField> builder(event);
    builder.add_double(EventField::kWallTime, seconds_since_1970());
    builder.add_int64(EventField::kStep, step);
    protozero::pbf_builder<SummaryField> summary(builder, EventField::kSummary);
    protozero::pbf_builder<ValueField> point(summary, SummaryField::kValue);
    point.add_string(ValueField::kTag, tag.data(), tag.size());
    point.add_float(ValueField::kSimpleValue, value);
  }
  write_record(event);
}

void EventWriter::write_record(std::string_view bytes) {
  const std::string length = little_endian(static_cast<uint64_t>(bytes.size()));
  std::string record = length + little_endian(masked_crc32c(length));
  record += bytes;
  record += little_endian(masked_crc32c(bytes));
  if (std::fwrite(record.data(), 1, record.size(), file_.get()) != record.size())
    fail("{}: cannot be written: {}", path_.string(), std::strerror(errno));
}

void EventWriter::flush() {
  if (std::fflush(file_.get()) != 0) fail("{}: cannot be written: {}", path_.string(), std::strerror(errno));
}

}  // namespace calm
