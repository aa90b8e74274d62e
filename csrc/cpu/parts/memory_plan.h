// The buffers of a step with their sizes, so that their sum is known before any grows.
#pragma once

#include <vector>

#include "cpu/vector/memory.h"

namespace dpa2md {
namespace DPA2MD_ISA {

class MemoryPlan {
 public:
  template <class T>
  void add(Buffer<T>* buffer, std::size_t size) {
    needed_ += size * sizeof(T), held_ += buffer->size() * sizeof(T);
    needs_.push_back({buffer, size, [](void* b, std::size_t n) { static_cast<Buffer<T>*>(b)->resize(n); }});
  }
  std::size_t needed() const { return needed_; }  // bytes
  std::size_t held() const { return held_; }      // bytes, before resize()
  void resize() const {
    for (const Need& need : needs_) need.resize(need.buffer, need.size);
  }

 private:
  struct Need {
    void* buffer;
    std::size_t size;
    void (*resize)(void*, std::size_t);
  };
  std::vector<Need> needs_;
  std::size_t needed_ = 0, held_ = 0;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
