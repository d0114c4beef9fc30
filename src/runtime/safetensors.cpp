#include "runtime/safetensors.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"

namespace calm {

namespace {

constexpr size_t kMaxHeaderBytes = size_t{32} << 20;

// Elements of `shape`, or an Error when the product does not fit `max`.
size_t checked_count(const std::vector<int64_t>& shape, size_t max, const std::string& name, const std::string& where) {
  size_t count = 1;
  for (const int64_t n : shape) {
    if (n < 0 || (n > 0 && count > max / static_cast<size_t>(n)))
      fail("{}: tensor `{}` has a shape larger than the file", where, name);
    count *= static_cast<size_t>(n);
  }
  return count;
}

}  // namespace

const Tensor& SafeTensors::at(const std::string& name, const std::string& where) const {
  const auto it = tensors.find(name);
  if (it == tensors.end()) fail("{}: tensor `{}` is missing", where, name);
  return it->second;
}

SafeTensors parse_safetensors(const std::string& bytes, const std::string& where) {
  uint64_t header_size = 0;
  if (bytes.size() < 8) fail("{}: is not a safetensors file (shorter than 8 bytes)", where);
  std::memcpy(&header_size, bytes.data(), 8);
  if (header_size > bytes.size() - 8 || header_size > kMaxHeaderBytes)
    fail("{}: is not a safetensors file, or is cut off (its header would take {} of {} bytes)", where, header_size,
         bytes.size());
  const size_t data_begin = 8 + static_cast<size_t>(header_size), data_size = bytes.size() - data_begin;

  // nesting is bounded here, as the JSON library recurses
  int depth = 0;
  const auto bounded = [&depth](int, nlohmann::json::parse_event_t event, nlohmann::json&) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start || event == Event::array_start) ++depth;
    if (event == Event::object_end || event == Event::array_end) --depth;
    if (depth > 8) throw Error("nested too deeply");
    return true;
  };

  SafeTensors out;
  try {
    const auto header =
        nlohmann::json::parse(bytes.begin() + 8, bytes.begin() + static_cast<std::ptrdiff_t>(data_begin), bounded);
    if (!header.is_object()) fail("{}: safetensors header is not an object", where);
    size_t covered = 0;
    for (const auto& [name, entry] : header.items()) {
      if (name == "__metadata__") {
        for (const auto& [key, value] : entry.items()) out.metadata[key] = value.get<std::string>();
        continue;
      }
      if (entry.at("dtype") != "F32")
        fail("{}: tensor `{}` is {}, only F32 is read", where, name, entry.at("dtype").dump());
      Tensor tensor;
      tensor.shape = entry.at("shape").get<std::vector<int64_t>>();
      const auto offsets = entry.at("data_offsets").get<std::vector<uint64_t>>();
      const size_t count = checked_count(tensor.shape, data_size / sizeof(float), name, where);
      if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data_size ||
          offsets[1] - offsets[0] != count * sizeof(float))
        fail("{}: tensor `{}` does not lie inside the file or does not fit its shape", where, name);
      covered += count * sizeof(float);
      if (covered > data_size) fail("{}: tensors overlap", where);
      tensor.data.resize(count);
      if (count) std::memcpy(tensor.data.data(), bytes.data() + data_begin + offsets[0], count * sizeof(float));
      out.tensors.emplace(name, std::move(tensor));
    }
  } catch (const nlohmann::json::exception& e) {
    fail("{}: damaged safetensors header: {}", where, e.what());
  }
  return out;
}

SafeTensors load_safetensors(const std::filesystem::path& path) {
  return parse_safetensors(read_file(path), path.string());
}

std::string serialise_safetensors(const SafeTensors& file) {
  nlohmann::ordered_json header;
  if (!file.metadata.empty()) header["__metadata__"] = file.metadata;
  uint64_t offset = 0;
  for (const auto& [name, tensor] : file.tensors) {
    const uint64_t end = offset + tensor.data.size() * sizeof(float);
    header[name] = {{"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // tensors start aligned, as the format asks
  const uint64_t size = text.size();
  std::string bytes(reinterpret_cast<const char*>(&size), 8);
  bytes += text;
  for (const auto& [name, tensor] : file.tensors)
    bytes.append(reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size() * sizeof(float));
  return bytes;
}

}  // namespace calm
