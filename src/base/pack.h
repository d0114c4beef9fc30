// Plain values as bytes, one after another, for saving a state within a checkpoint. Reading checks every length.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "base/error.h"

namespace calm {

class Packer {
 public:
  template <class T>
  void put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  template <class T>
  void put_array(std::span<const T> values) {
    put<uint64_t>(values.size());
    bytes.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  }
  std::string bytes;
};

// `bytes` must outlive it. Throws Error where they do not fit.
class Unpacker {
 public:
  explicit Unpacker(const std::string& bytes) : bytes_(bytes) {}
  template <class T>
  T get() {
    T value;
    take(&value, sizeof(T));
    return value;
  }
  template <class T>
  void get_array(std::vector<T>& values, bool resize = false) {
    const auto n = get<uint64_t>();
    if (n > bytes_.size() / sizeof(T) || (!resize && n != values.size())) bad();
    values.resize(n);
    take(values.data(), n * sizeof(T));
  }
  void finish() const {
    if (at_ != bytes_.size()) bad();
  }

 private:
  [[noreturn]] static void bad() { fail("saved environments do not fit: other number of environments or character"); }
  void take(void* out, size_t n) {
    if (n > bytes_.size() - at_) bad();
    std::memcpy(out, bytes_.data() + at_, n);
    at_ += n;
  }
  const std::string& bytes_;
  size_t at_ = 0;
};

}  // namespace calm
