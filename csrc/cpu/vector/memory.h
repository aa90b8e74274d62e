// Buffers that live across steps and scratch that lives for one stage call. Both grow to their high-water
// mark and then stay: no allocation inside a step once sizes have settled.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "cpu/vector/simd.h"

namespace dpa2md {
namespace DPA2MD_ISA {

inline void* aligned_bytes(std::size_t bytes) {
  void* p = std::aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
  if (!p) throw std::bad_alloc();
  return p;
}

template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&& o) noexcept : data_(o.data_), size_(o.size_), capacity_(o.capacity_) {
    o.data_ = nullptr;
    o.size_ = o.capacity_ = 0;
  }
  Buffer& operator=(Buffer&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    std::swap(capacity_, o.capacity_);
    return *this;
  }
  ~Buffer() { std::free(data_); }

  // Contents are undefined afterwards. A tenth is left in reserve, so that a fluctuating count rarely
  // reallocates.
  void resize(std::size_t n) {
    if (n > capacity_) {
      std::free(data_);
      data_ = nullptr;
      size_ = capacity_ = 0;  // nothing is held if there is no memory
      data_ = static_cast<T*>(aligned_bytes((n + n / 10) * sizeof(T)));
      capacity_ = n + n / 10;
    }
    size_ = n;
  }
  void zero(std::size_t begin, std::size_t end) {
    if (begin < end) std::memset(data_ + begin, 0, (end - begin) * sizeof(T));
  }
  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0, capacity_ = 0;
};

// What numbers T meet: weights, type embeddings.
template <class T>
using Weights = Buffer<Real<T>>;

// A stack of scratch arrays for one thread. `Scope` gives back what was taken inside it.
class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() {
    for (int i = 0; i < slabs_; ++i) std::free(slab_[i].data);
  }

  void clear() { current_ = 0, used_ = 0; }
  template <class T>
  T* take(std::size_t n) {
    const std::size_t bytes = (n * sizeof(T) + 63) / 64 * 64;
    while (current_ < slabs_ && used_ + bytes > slab_[current_].size) ++current_, used_ = 0;
    if (current_ == slabs_) add(bytes);
    char* p = slab_[current_].data + used_;
    used_ += bytes;
    return reinterpret_cast<T*>(p);
  }
  template <class T>
  T* zeros(std::size_t n) {
    T* p = take<T>(n);
    std::memset(p, 0, n * sizeof(T));
    return p;
  }

  class Scope {
   public:
    explicit Scope(Arena& a) : arena_(a), current_(a.current_), used_(a.used_) {}
    ~Scope() { arena_.current_ = current_, arena_.used_ = used_; }

   private:
    Arena& arena_;
    int current_;
    std::size_t used_;
  };

 private:
  void add(std::size_t bytes) {  // slabs double, so a few dozen reach any size
    std::size_t size = slabs_ ? 2 * slab_[slabs_ - 1].size : std::size_t{1} << 18;
    while (size < bytes) size *= 2;
    slab_[slabs_].data = static_cast<char*>(aligned_bytes(size));
    slab_[slabs_++].size = size;
    used_ = 0;
  }

  struct Slab {
    char* data;
    std::size_t size;
  };
  Slab slab_[48];
  int slabs_ = 0, current_ = 0;
  std::size_t used_ = 0;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
