// The binary motion library. Layout, little-endian (docs/formats.md):
//   8 bytes "CALMLIB\0", u32 version, u32 CRC-32 of the payload, u64 bytes of the payload, the payload:
//   u64 character hash, string character name, u32 clips, per clip:
//     string name, u32 tags, tags as strings, string source, f32 weight, f32 frames per second, u32 frames,
//     arrays root_pos, body_rot, root_vel, root_ang_vel, dof_vel.
// A string is u32 bytes and its UTF-8, an array u64 numbers and its f32.
// Reading takes no length at its word: every one is held against the bytes that are left before memory is taken.
#include <bit>
#include <boost/crc.hpp>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "motion/library.h"

namespace calm {

namespace {

static_assert(std::endian::native == std::endian::little, "numbers are copied as they lie in the file");

constexpr std::string_view kMagic("CALMLIB\0", 8);
constexpr uint32_t kVersion = 1;
constexpr size_t kHeaderBytes = 24;

uint32_t checksum(std::string_view bytes) {
  boost::crc_32_type crc;
  crc.process_bytes(bytes.data(), bytes.size());
  return crc.checksum();
}

class Writer {
 public:
  template <class T>
  void number(T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  void string(const std::string& text) {
    number(static_cast<uint32_t>(text.size()));
    bytes += text;
  }
  void array(const std::vector<float>& values) {
    number(static_cast<uint64_t>(values.size()));
    bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  }
  std::string bytes;
};

class Reader {
 public:
  Reader(std::string_view bytes, std::string path) : left_(bytes), path_(std::move(path)) {}

  size_t left() const { return left_.size(); }
  std::string_view take(size_t n) {
    if (n > left_.size()) damaged("it ends too early");
    const auto taken = left_.substr(0, n);
    left_.remove_prefix(n);
    return taken;
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string string() { return std::string(take(number<uint32_t>())); }
  std::vector<float> array(uint64_t expected) {
    const auto count = number<uint64_t>();
    if (count != expected) damaged(fmt::format("an array of {} numbers where {} are needed", count, expected));
    if (count > left_.size() / sizeof(float)) damaged("it ends too early");
    const auto taken = take(count * sizeof(float));
    std::vector<float> values(count);
    if (count > 0) std::memcpy(values.data(), taken.data(), taken.size());
    return values;
  }
  [[noreturn]] void damaged(const std::string& what) const {
    fail("{}: is not a whole motion library: {}; make it again with `calm motion import`", path_, what);
  }

 private:
  std::string_view left_;
  std::string path_;
};

Clip read_clip(const Character& character, Reader& in) {
  Clip clip;
  clip.name = in.string();
  const auto tags = in.number<uint32_t>();
  if (tags > in.left() / sizeof(uint32_t)) in.damaged("it ends too early");
  for (uint32_t t = 0; t < tags; ++t) clip.tags.push_back(in.string());
  clip.source = in.string();
  clip.weight = in.number<float>();
  clip.fps = in.number<float>();
  const auto frames = in.number<uint32_t>();
  if (frames < 1 || frames > in.left()) in.damaged(fmt::format("a clip of {} frames", frames));
  if (!(clip.fps > 0.0f) || !std::isfinite(clip.fps) || !(clip.weight >= 0.0f) || !std::isfinite(clip.weight))
    in.damaged("a clip's weight or frame rate is no such number");
  clip.num_frames = static_cast<int>(frames);
  const uint64_t n = frames;
  clip.root_pos = in.array(3 * n);
  clip.body_rot = in.array(4 * n * character.bodies.size());
  clip.root_vel = in.array(3 * n);
  clip.root_ang_vel = in.array(3 * n);
  clip.dof_vel = in.array(n * static_cast<uint64_t>(character.num_dofs));
  return clip;
}

}  // namespace

void save_library(const MotionLibrary& library, const std::filesystem::path& path) {
  Writer payload;
  payload.number(library.character().hash);
  payload.string(library.character().name);
  payload.number(static_cast<uint32_t>(library.num_clips()));
  for (int i = 0; i < library.num_clips(); ++i) {
    const Clip& clip = library.clip(i);
    payload.string(clip.name);
    payload.number(static_cast<uint32_t>(clip.tags.size()));
    for (const std::string& tag : clip.tags) payload.string(tag);
    payload.string(clip.source);
    payload.number(clip.weight);
    payload.number(clip.fps);
    payload.number(static_cast<uint32_t>(clip.num_frames));
    for (const auto* values : {&clip.root_pos, &clip.body_rot, &clip.root_vel, &clip.root_ang_vel, &clip.dof_vel})
      payload.array(*values);
  }

  Writer file;
  file.bytes.append(kMagic);
  file.number(kVersion);
  file.number(checksum(payload.bytes));
  file.number(static_cast<uint64_t>(payload.bytes.size()));
  write_file_atomic(path, file.bytes + payload.bytes);
}

std::vector<Clip> load_library_clips(const Character& character, const std::filesystem::path& path) {
  const std::string bytes = read_file(path);
  if (!std::string_view(bytes).starts_with(kMagic)) fail("{}: is not a motion library", path.string());

  // header
  Reader header(std::string_view(bytes).substr(kMagic.size()), path.string());
  const auto version = header.number<uint32_t>();
  if (version != kVersion)
    fail("{}: motion library version {}; this program reads version {}", path.string(), version, kVersion);
  const auto crc = header.number<uint32_t>();
  const auto size = header.number<uint64_t>();
  if (size != header.left()) header.damaged(fmt::format("{} bytes where {} are announced", header.left(), size));
  const std::string_view payload = std::string_view(bytes).substr(kHeaderBytes);
  if (checksum(payload) != crc) header.damaged("its checksum is wrong");

  // clips
  Reader in(payload, path.string());
  const auto hash = in.number<uint64_t>();
  const std::string name = in.string();
  if (hash != character.hash)
    fail("{}: made for character `{}` (hash {:016x}), not for `{}` ({:016x}); import the clips for this character",
         path.string(), name, hash, character.name, character.hash);
  const auto count = in.number<uint32_t>();
  std::vector<Clip> clips;
  for (uint32_t i = 0; i < count; ++i) clips.push_back(read_clip(character, in));
  if (in.left() > 0) in.damaged(fmt::format("{} bytes follow the last clip", in.left()));
  return clips;
}

}  // namespace calm
