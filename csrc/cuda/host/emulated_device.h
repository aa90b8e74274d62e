// The device of the emulated backend: memory of the host, blocks one after another. Fresh memory is filled
// with NaN, so that reading what was never written shows.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "cuda/block/block.h"
#include "engine/backend.h"
#include "engine/devices.h"

namespace dpa2md {
namespace gpu_emulated {

// A number from the environment.
inline long long wanted(const char* variable, long long otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::atoll(text) : otherwise;
}

inline std::atomic<std::size_t> allocated_bytes{0};

inline void* allocate_host(std::size_t bytes) {
  void* p = std::malloc(bytes);
  if (bytes && !p) throw std::bad_alloc();
  std::memset(p, 0xff, bytes);
  return p;
}
inline void release_host(void* p) { std::free(p); }
inline void* allocate(std::size_t bytes) {
  void* p = allocate_host(bytes);
  allocated_bytes += bytes;
  return p;
}
inline void release(void* p, std::size_t bytes) {
  release_host(p);
  allocated_bytes -= bytes;
}
// DPA2MD_EMULATED_MEMORY: bytes of the device (no end unless set).
inline std::size_t free_memory() {
  const auto all = static_cast<std::size_t>(wanted("DPA2MD_EMULATED_MEMORY", INT64_MAX));
  return all - std::min(all, allocated_bytes.load());
}
inline void copy_to_device(void* to, const void* from, std::size_t bytes) {
  if (bytes) std::memcpy(to, from, bytes);
}
inline void copy_to_device_later(void* to, const void* from, std::size_t bytes) {
  copy_to_device(to, from, bytes);
}
inline void copy_to_host(void* to, const void* from, std::size_t bytes) { copy_to_device(to, from, bytes); }
inline void zero(void* p, std::size_t bytes) {
  if (bytes) std::memset(p, 0, bytes);
}
inline void wait_for_device() {}
inline std::string device_name(int) { return "emulated"; }

// DPA2MD_EMULATED_GPUS: how many there are (1 unless set).
inline int count_gpus() { return static_cast<int>(wanted("DPA2MD_EMULATED_GPUS", 1)); }
inline void use_device(int number) { check_gpu_number(number, count_gpus()); }

// DPA2MD_EMULATED_THREADS: how many threads a block has (1 unless set); negative: the last one runs first.
inline Team& team() {
  const auto make = [] {
    const int threads = static_cast<int>(wanted("DPA2MD_EMULATED_THREADS", 1));
    if (threads == 0 || std::abs(threads) > 1024)
      throw Error("DPA2MD_EMULATED_THREADS is not a number of threads.");
    return std::make_unique<Team>(threads);
  };
  static thread_local std::unique_ptr<Team> t = make();
  return *t;
}

// DPA2MD_EMULATED_CHUNK: atoms of a chunk, a multiple of 16.
inline int chunk_atoms() { return static_cast<int>(wanted("DPA2MD_EMULATED_CHUNK", 65536)); }

// The interface of launches.h. Recorded launches run only at submit() or flush(), so that a missing wait
// shows.
class Launches {
 public:
  explicit Launches(int device) { use_device(device); }
  std::size_t slab_bytes(int, std::size_t) const { return 0; }  // all scratch is alike

  template <class Kernel>
  void launch(const Kernel& kernel, int begin, int end, std::size_t bytes, const char*) {
    if (begin == end) return;
    if (!recording_) return run(kernel, begin, end, bytes);
    recorded_.push_back([=] { run(kernel, begin, end, bytes); });
  }
  void record() {
    recorded_.clear();
    recording_ = true;
  }
  void submit() {
    recording_ = false;
    for (const auto& start : std::exchange(recorded_, {})) start();
  }
  void flush() { submit(); }
  void discard() { recording_ = false; }
  void measure(bool) {}
  std::vector<KernelTime> times() { return {}; }
  void fork() {}
  void aside(bool) {}
  void join() {}
  struct Order {};
  Order order() const { return {}; }
  void set_order(Order) {}
  void beside(bool) {}
  void join_beside() {}

 private:
  template <class Kernel>
  static void run(const Kernel& kernel, int begin, int end, std::size_t bytes) {
    constexpr int kLanes = 4;  // few, so that a small block has several warps
    Team& t = team();
    const int threads = t.threads(), lanes = threads % kLanes == 0 ? kLanes : 1;
    const std::unique_ptr<char, decltype(&std::free)> scratch(static_cast<char*>(std::malloc(bytes)),
                                                              &std::free);
    if constexpr (MayHaveNone<Kernel>::value) {
      if (kernel.none_left()) return;
    }
    for (int item = begin; item < end; ++item) {
      std::memset(scratch.get(), 0xff, bytes);
      t.run(lanes, [&](int thread) {
        const ThreadBlock b{thread, threads, thread % lanes, lanes, thread / lanes, threads / lanes, &t};
        kernel(b, item, Scratch(scratch.get()));
      });
    }
  }

  bool recording_ = false;
  std::vector<std::function<void()>> recorded_;
};

}  // namespace gpu_emulated
}  // namespace dpa2md
