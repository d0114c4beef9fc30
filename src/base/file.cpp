#include "base/file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "base/error.h"

namespace calm {

namespace fs = std::filesystem;

std::string read_file(const fs::path& path, size_t max_bytes) {
  std::error_code ec;
  const auto status = fs::status(path, ec);
  if (!fs::exists(status)) fail("{}: no such file", path.string());
  if (!fs::is_regular_file(status)) fail("{}: is not a regular file", path.string());
  const auto size = fs::file_size(path, ec);
  if (ec) fail("{}: {}", path.string(), ec.message());
  if (size > max_bytes) fail("{}: {} bytes, more than the {} accepted here", path.string(), size, max_bytes);
  std::ifstream in(path, std::ios::binary);
  std::string bytes(size, '\0');
  if (!in || !in.read(bytes.data(), static_cast<std::streamsize>(size)))
    fail("{}: cannot be read: {}", path.string(), std::strerror(errno));
  return bytes;
}

void write_file_atomic(const fs::path& path, std::string_view bytes) {
  std::error_code ec;
  if (path.has_parent_path()) fs::create_directories(path.parent_path(), ec);
  if (ec) fail("{}: cannot make the directory: {}", path.parent_path().string(), ec.message());
  const std::string beside = path.string() + ".tmp";
  const int fd = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) fail("{}: cannot be written: {}", beside, std::strerror(errno));
  size_t written = 0;
  int error = 0;
  while (written < bytes.size()) {
    const ssize_t n = ::write(fd, bytes.data() + written, bytes.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      error = n == 0 ? ENOSPC : errno;
      break;
    }
    written += static_cast<size_t>(n);
  }
  if (!error && ::fsync(fd) != 0) error = errno;
  if (::close(fd) != 0 && !error) error = errno;
  if (!error && ::rename(beside.c_str(), path.c_str()) != 0) error = errno;
  if (error) {
    ::unlink(beside.c_str());
    fail("{}: cannot be written: {}; the old file, if any, is as it was", path.string(), std::strerror(error));
  }
}

}  // namespace calm
