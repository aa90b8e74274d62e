// The threads of a block on the host, for tests: fibers that hand over at every barrier and nowhere else. A
// missing barrier then shows as a wrong result, above all when the order of the threads is turned round.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"

namespace dpa2md {
namespace gpu_emulated {

class Team {
 public:
  // threads < 0: the last thread runs first
  explicit Team(int threads) : count_(std::abs(threads)), reverse_(threads < 0) {
    warps_.resize(count_);
    slots_.resize(count_);
    if (count_ == 1) return;
    fibers_.resize(count_);
    for (Fiber& f : fibers_) f.stack = std::make_unique<char[]>(kStack);
  }
  int threads() const { return count_; }

  // work(t) as every thread of one block, in warps of `lanes`. A warp runs as far as it can before another
  // one does.
  void run(int lanes, const std::function<void(int)>& work) {
    if (count_ == 1) return work(0);
    work_ = &work;
    for (Fiber& f : fibers_) {
      f.done = false;
      getcontext(&f.context);
      f.context.uc_stack.ss_sp = f.stack.get();
      f.context.uc_stack.ss_size = kStack;
      f.context.uc_link = &scheduler_;
      const auto self = reinterpret_cast<std::uintptr_t>(this);
      makecontext(&f.context, reinterpret_cast<void (*)()>(&Team::start), 2,
                  static_cast<unsigned>(self >> 32), static_cast<unsigned>(self));
    }
    for (int left = count_; left > 0;) {
      const long before = progress_;
      for (int k = 0; k < count_; k += lanes) {
        for (long last = -1; last != progress_;) {
          last = progress_;
          for (int l = 0; l < lanes; ++l) left -= resume(reverse_ ? count_ - 1 - k - l : k + l);
        }
      }
      if (left > 0 && progress_ == before) {
        throw Error("the threads of an emulated block wait for each other without end.");
      }
    }
  }

  void sync() {
    if (count_ > 1) wait(&block_, count_);
  }
  bool any(bool x) {
    if (count_ == 1) return x;
    slots_[current_] = x;
    sync();
    x = std::any_of(slots_.begin(), slots_.end(), [](double y) { return y != 0; });
    sync();
    return x;
  }
  template <class T, class F>
  T over_lanes(int warp, int lane, int lanes, T x, F combine) {
    if (lanes == 1) return x;
    slots_[warp * lanes + lane] = static_cast<double>(x);
    wait(&warps_[warp], lanes);
    T out = static_cast<T>(slots_[warp * lanes]);
    for (int k = 1; k < lanes; ++k) out = combine(out, static_cast<T>(slots_[warp * lanes + k]));
    wait(&warps_[warp], lanes);
    return out;
  }
  template <class T>
  T sum_before(int warp, int lane, int lanes, T x) {
    if (lanes == 1) return T(0);
    slots_[warp * lanes + lane] = static_cast<double>(x);
    wait(&warps_[warp], lanes);
    T out = 0;
    for (int k = 0; k < lane; ++k) out += static_cast<T>(slots_[warp * lanes + k]);
    wait(&warps_[warp], lanes);
    return out;
  }
  void sync_lanes(int warp, int lanes) {
    if (lanes > 1) wait(&warps_[warp], lanes);
  }

 private:
  static constexpr std::size_t kStack = 256 * 1024;
  struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    bool done = true;
  };
  struct Barrier {
    int arrived = 0;
    long generation = 0;
  };

  static void start(unsigned high, unsigned low) {
    auto* self = reinterpret_cast<Team*>(static_cast<std::uintptr_t>(high) << 32 | low);
    (*self->work_)(self->current_);
    self->fibers_[self->current_].done = true;
  }
  // Whether the thread has finished now.
  bool resume(int thread) {
    Fiber& f = fibers_[current_ = thread];
    if (f.done) return false;
    swapcontext(&scheduler_, &f.context);
    progress_ += f.done;
    return f.done;
  }
  void wait(Barrier* b, int size) {
    const long generation = b->generation;
    ++progress_;
    if (++b->arrived == size) b->arrived = 0, ++b->generation;
    while (b->generation == generation) swapcontext(&fibers_[current_].context, &scheduler_);
  }

  int count_, current_ = 0;
  bool reverse_;
  long progress_ = 0;
  const std::function<void(int)>* work_ = nullptr;
  ucontext_t scheduler_;
  std::vector<Fiber> fibers_;
  std::vector<Barrier> warps_;
  std::vector<double> slots_;
  Barrier block_;
};

}  // namespace gpu_emulated
}  // namespace dpa2md
