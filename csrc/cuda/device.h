// The device as the backend sees it: memory and launches. On the host compiler it is the emulated one.
#pragma once

#include <list>
#include <utility>
#include <vector>

#include "../model_file.h"

#if defined(__CUDACC__)
#include "runtime.h"
#else
#include "emulation.h"
#endif

namespace dpa2md {
namespace DPA2MD_GPU {

// An array on the device. Grows to its high-water mark and then stays; contents are lost when it grows.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { release(data_); }

  void resize(std::size_t n) {
    if (n > capacity_) {
      release(std::exchange(data_, nullptr));
      capacity_ = size_ = 0;
      data_ = static_cast<T*>(allocate((n + n / 10) * sizeof(T)));
      capacity_ = n + n / 10;
    }
    size_ = n;
  }
  void upload(const T* from, std::size_t n) {
    resize(n);
    if (n) copy_to_device(data_, from, n * sizeof(T));
  }
  void upload(const std::vector<T>& from) { upload(from.data(), from.size()); }
  void download(T* to, std::size_t n) const {
    if (n) copy_to_host(to, data_, n * sizeof(T));
  }
  T* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::size_t capacity() const { return capacity_; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0, capacity_ = 0;
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
  // Every (rows, columns) matrix of the tensor's last two axes as (columns, rows).
  const T* put_transposed(const Tensor& t) {
    if (t.empty()) return nullptr;
    const std::size_t rows = t.shape[t.shape.size() - 2], columns = t.shape.back(), size = rows * columns;
    std::vector<double> out(t.data.size());
    for (std::size_t m = 0; m < out.size(); m += size) {
      for (std::size_t r = 0; r < rows; ++r) {
        for (std::size_t c = 0; c < columns; ++c) out[m + c * rows + r] = t.data[m + r * columns + c];
      }
    }
    return put(out);
  }
  template <class U>
  const U* put_array(const U* from, std::size_t n) {
    bytes_.emplace_back();
    bytes_.back().upload(reinterpret_cast<const char*>(from), n * sizeof(U));
    return reinterpret_cast<const U*>(bytes_.back().data());
  }

 private:
  std::list<Buffer<char>> bytes_;
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
