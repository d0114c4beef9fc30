// The event files are read back with a reader of the format as TensorFlow documents it, checksums included.
#include "learn/tensorboard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <limits>
#include <optional>
#include <protozero/pbf_reader.hpp>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace calm {
namespace {

namespace fs = std::filesystem;

struct Event {
  double wall_time = 0.0;
  int64_t step = 0;
  std::string version, tag;
  std::optional<float> value;
};

Event parse_event(std::string_view bytes) {
  Event event;
  protozero::pbf_reader reader(bytes.data(), bytes.size());
  while (reader.next()) switch (reader.tag()) {
      case 1:
        event.wall_time = reader.get_double();
        break;
      case 2:
        event.step = reader.get_int64();
        break;
      case 3:
        event.version = reader.get_string();
        break;
      case 5: {
        protozero::pbf_reader summary = reader.get_message();
        while (summary.next(1)) {
          protozero::pbf_reader value = summary.get_message();
          while (value.next())
            if (value.tag() == 1)
              event.tag = value.get_string();
            else if (value.tag() == 2)
              event.value = value.get_float();
            else
              value.skip();
        }
        break;
      }
      default:
        reader.skip();
    }
  return event;
}

template <class T>
T number(std::string_view bytes) {
  T value{};
  EXPECT_GE(bytes.size(), sizeof(T));
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

std::vector<Event> read_events(const fs::path& path) {
  const std::string file = read_file(path);
  std::string_view rest = file;
  std::vector<Event> events;
  while (!rest.empty()) {
    EXPECT_GE(rest.size(), 16u);
    const auto length = number<uint64_t>(rest);
    EXPECT_EQ(number<uint32_t>(rest.substr(8)), masked_crc32c(rest.substr(0, 8)));
    if (rest.size() < 16 || length > rest.size() - 16) {
      ADD_FAILURE() << "a record runs past the end";
      break;
    }
    const std::string_view data = rest.substr(12, length);
    EXPECT_EQ(number<uint32_t>(rest.substr(12 + length)), masked_crc32c(data));
    events.push_back(parse_event(data));
    rest.remove_prefix(16 + length);
  }
  return events;
}

class TensorBoardTest : public testing::Test {
 protected:
  ~TensorBoardTest() override { fs::remove_all(folder_); }
  const fs::path folder_ = fs::temp_directory_path() / fmt::format("calm-events-test-{}", ::getpid());
};

TEST(MaskedCrc, AgreesWithPublishedChecks) {
  // CRC-32C of "123456789" is e3069283 (the check value of the catalogue), of 32 zero bytes 8a9136aa (RFC 3720)
  const auto masked = [](uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u; };
  EXPECT_EQ(masked_crc32c("123456789"), masked(0xE3069283u));
  EXPECT_EQ(masked_crc32c(std::string(32, '\0')), masked(0x8A9136AAu));
}

TEST_F(TensorBoardTest, ScalarsComeBackAsWritten) {
  const double before =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count() - 1.0;
  EventWriter writer(folder_ / "run");
  writer.scalar("low_level/reward", 0.25f, 0);
  writer.scalar("low_level/reward", -3.5f, int64_t{1} << 40);
  writer.scalar("loss", std::numeric_limits<float>::infinity(), 7);
  writer.flush();

  EXPECT_THAT(writer.path().filename().string(), testing::StartsWith("events.out.tfevents."));
  const std::vector<Event> events = read_events(writer.path());
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].version, "brain.Event:2");
  EXPECT_FALSE(events[0].value);
  EXPECT_EQ(events[1].tag, "low_level/reward");
  EXPECT_EQ(events[1].value, 0.25f);
  EXPECT_EQ(events[1].step, 0);
  EXPECT_EQ(events[2].value, -3.5f);
  EXPECT_EQ(events[2].step, int64_t{1} << 40);
  EXPECT_EQ(events[3].tag, "loss");
  EXPECT_EQ(events[3].value, std::numeric_limits<float>::infinity());
  for (const Event& event : events) {
    EXPECT_GT(event.wall_time, before);
    EXPECT_LT(event.wall_time, before + 60.0);
  }
}

TEST_F(TensorBoardTest, EachStartHasItsOwnFileLaterNamedLater) {
  EventWriter first(folder_);
  first.scalar("a", 1.0f, 1);
  first.flush();
  EventWriter second(folder_);
  second.scalar("a", 2.0f, 2);
  second.flush();
  EXPECT_LT(first.path().string(), second.path().string());
  EXPECT_EQ(read_events(first.path()).at(1).value, 1.0f);
  EXPECT_EQ(read_events(second.path()).at(1).value, 2.0f);
}

TEST_F(TensorBoardTest, FolderThatCannotBeMadeIsAnError) {
  write_file_atomic(folder_ / "file", "not a folder");
  EXPECT_THROW(EventWriter(folder_ / "file" / "run"), Error);
}

}  // namespace
}  // namespace calm
