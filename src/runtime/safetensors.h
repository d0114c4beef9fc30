// safetensors: 8 bytes of header length, a JSON header, raw little-endian tensors.
// Reading trusts nothing: header length, shapes, offsets and overlaps are checked against the file's size first.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace calm {

struct Tensor {
  std::vector<int64_t> shape;
  std::vector<float> data;  // row-major
};

struct SafeTensors {
  std::map<std::string, std::string> metadata;
  std::map<std::string, Tensor> tensors;

  const Tensor& at(const std::string& name, const std::string& where) const;  // Error if missing
};

// F32 tensors only (others are refused by name). Throws Error.
SafeTensors load_safetensors(const std::filesystem::path& path);
SafeTensors parse_safetensors(const std::string& bytes, const std::string& where);
std::string serialise_safetensors(const SafeTensors& file);

}  // namespace calm
