// Memory of a GPU, owned by an object. No header of CUDA is needed to include this. Errors of CUDA are thrown as Error.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>

namespace calm {

struct DeviceMemoryDeleter {
  void operator()(void* memory) const;
};

namespace device_memory {
void* take(size_t bytes);  // zeroed
// Wait for what was queued before; the memory of both may be used again when they return.
void upload(void* to, const void* from, size_t bytes);
void download(void* to, const void* from, size_t bytes);
}  // namespace device_memory

template <class T>
class DeviceArray {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  DeviceArray() = default;
  explicit DeviceArray(size_t count) : memory_(static_cast<T*>(device_memory::take(count * sizeof(T)))), size_(count) {}
  explicit DeviceArray(std::span<const T> values) : DeviceArray(values.size()) { upload(values); }

  T* data() const { return memory_.get(); }
  size_t size() const { return size_; }

  // As many values as the array has.
  void upload(std::span<const T> values) { device_memory::upload(data(), values.data(), values.size_bytes()); }
  void download(std::span<T> values) const { device_memory::download(values.data(), data(), values.size_bytes()); }

 private:
  std::unique_ptr<T[], DeviceMemoryDeleter> memory_;
  size_t size_ = 0;
};

}  // namespace calm
