// The device for the backend: memory and launches. The host compiler gets the emulated device.
#pragma once

#include <algorithm>
#include <cstddef>
#include <list>
#include <utility>
#include <vector>

#include "model/model_file.h"

#if defined(__CUDACC__)
#include "cuda/host/launches.h"
#else
#include "cuda/host/emulated_device.h"
#endif

namespace dpa2md {
namespace DPA2MD_GPU {

// Memory of the device. Grows to its high-water mark and then stays; contents are lost when it grows.
class Storage {
 public:
  Storage() = default;
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  ~Storage() { release(data_, capacity_); }

  // The capacity for `bytes`: a twentieth more, at most 32 MB, since the number of pairs varies from step to
  // step.
  static std::size_t with_room(std::size_t bytes) {
    return bytes + std::min(bytes / 20, std::size_t{32} << 20);
  }
  // The capacity after resize_bytes(bytes).
  std::size_t grown_to(std::size_t bytes) const { return bytes > capacity_ ? with_room(bytes) : capacity_; }

  void clear() {
    release(std::exchange(data_, nullptr), std::exchange(capacity_, 0));
    bytes_ = 0;
  }
  void resize_bytes(std::size_t bytes) {
    if (bytes > capacity_) {
      clear();
      data_ = allocate(with_room(bytes));
      capacity_ = with_room(bytes);
    }
    bytes_ = bytes;
  }
  std::size_t capacity() const { return capacity_; }

 protected:
  void* data_ = nullptr;
  std::size_t bytes_ = 0, capacity_ = 0;
};

// An array in it.
template <class T>
class Buffer : public Storage {
 public:
  void resize(std::size_t n) { resize_bytes(n * sizeof(T)); }
  void upload(const T* from, std::size_t n) {
    resize(n);
    if (n) copy_to_device(data_, from, n * sizeof(T));
  }
  void upload(const std::vector<T>& from) { upload(from.data(), from.size()); }
  void download(T* to, std::size_t n) const {
    if (n) copy_to_host(to, data_, n * sizeof(T));
  }
  T* data() const { return static_cast<T*>(data_); }
  std::size_t size() const { return bytes_ / sizeof(T); }
};

// Memory of the host that the device reads and writes, too.
template <class T>
class HostBuffer {
 public:
  HostBuffer() = default;
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;
  ~HostBuffer() { release_host(data_); }

  void resize(std::size_t n) {
    if (n <= capacity_) return;
    release_host(std::exchange(data_, nullptr));
    capacity_ = 0;
    data_ = static_cast<T*>(allocate_host(n * sizeof(T)));
    capacity_ = n;
  }
  T* data() const { return data_; }

 private:
  T* data_ = nullptr;
  std::size_t capacity_ = 0;
};

// The model's arrays in the backend's precision, uploaded once. Null for an empty one.
template <class T>
class WeightStore {
 public:
  const T* put(const std::vector<double>& values) {
    if (values.empty()) return nullptr;
    const std::vector<T> cast(values.begin(), values.end());
    return put_array(cast.data(), cast.size());
  }
  const T* put(const Tensor& t) { return put(t.data); }
  template <class U>
  const U* put_array(const U* from, std::size_t n) {
    bytes_.emplace_back();
    bytes_.back().upload(reinterpret_cast<const char*>(from), n * sizeof(U));
    return reinterpret_cast<const U*>(bytes_.back().data());
  }
  std::size_t capacity() const {
    std::size_t sum = 0;
    for (const Buffer<char>& b : bytes_) sum += b.capacity();
    return sum;
  }

 private:
  std::list<Buffer<char>> bytes_;
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
