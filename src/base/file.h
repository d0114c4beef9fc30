// Whole-file reading with a size limit, and writing that leaves either the old file or the new one.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace calm {

// The file's bytes. Throws Error if it cannot be read, is not a regular file, or is larger than max_bytes.
std::string read_file(const std::filesystem::path& path, size_t max_bytes = size_t{1} << 30);

// Writes beside (path + ".tmp"), flushes to disk and renames. Throws Error (no space, no permission) and then
// leaves what was at `path` as it was. Makes missing parent directories.
void write_file_atomic(const std::filesystem::path& path, std::string_view bytes);

}  // namespace calm
