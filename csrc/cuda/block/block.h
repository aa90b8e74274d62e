// A block of threads that works on one item (an atom, a group of atoms) at a time. The kernels of this
// directory are written against it, so that the same code runs on the device (nvcc) and on the host (any C++
// compiler, for tests: host/emulated_device.h).
#pragma once

#include <cstddef>

#include "base/activation.h"

#if defined(__CUDACC__)
#define DPA2MD_GPU gpu
#define DPA2MD_UNROLL _Pragma("unroll")
#define DPA2MD_NOINLINE __noinline__  // for long functions with many callers
#else
#define DPA2MD_GPU gpu_emulated
#define DPA2MD_UNROLL _Pragma("GCC unroll 4")
#define DPA2MD_NOINLINE
#include "cuda/emulation/fibers.h"
#endif
#define DPA2MD_KERNEL DPA2MD_DEVICE_TOO

namespace dpa2md {
namespace DPA2MD_GPU {

constexpr int kThreads = 128;  // of a block on the device
// Most threads of a block for an atom (as registers for three blocks allow), and for a group of atoms.
constexpr int kAtomThreads = 3 * kThreads, kDenseThreads = 512;
constexpr int kGroupLanes = 8;  // see group_sum

// Kernels with much work per item declare the threads of a block for launches with too few blocks for the
// device:
//   static constexpr int kMostThreads
template <class Kernel, class = void>
struct MostThreads {
  static constexpr int value = kThreads;
};
template <class Kernel>
struct MostThreads<Kernel, decltype(void(Kernel::kMostThreads))> {
  static constexpr int value = Kernel::kMostThreads;
};

// Kernels that often have no work test for it on the device:
//   bool none_left() const
// They get few blocks, which loop over the items if there is work.
template <class Kernel, class = void>
struct MayHaveNone {
  static constexpr bool value = false;
};
template <class Kernel>
struct MayHaveNone<Kernel, decltype(void(&Kernel::none_left))> {
  static constexpr bool value = true;
};

// Kernels with a warp for an atom, whose blocks may have any number of warps (warp_atoms.h):
//   static constexpr bool kWarpAtoms = true;
template <class Kernel, class = void>
struct HasWarpAtoms {
  static constexpr bool value = false;
};
template <class Kernel>
struct HasWarpAtoms<Kernel, decltype(void(Kernel::kWarpAtoms))> {
  static constexpr bool value = Kernel::kWarpAtoms;
};

// ... or several for an atom, and a block for each:
//   static constexpr int kWarpsOfAtom
template <class Kernel, class = void>
struct WarpsOfAtom {
  static constexpr int value = 1;
};
template <class Kernel>
struct WarpsOfAtom<Kernel, decltype(void(Kernel::kWarpsOfAtom))> {
  static constexpr int value = Kernel::kWarpsOfAtom;
};

// Blocks of a kernel that a multiprocessor must have registers for: three of kThreads unless it says
// otherwise
//   static constexpr int kMinBlocks
template <class Kernel, class = void>
struct MinBlocks {
  static constexpr int value = 3 * kThreads / MostThreads<Kernel>::value;
};
template <class Kernel>
struct MinBlocks<Kernel, decltype(void(Kernel::kMinBlocks))> {
  static constexpr int value = Kernel::kMinBlocks;
};

// Adds to a number atomically; returns its old value. Only for integers, whose sum does not depend on order.
DPA2MD_KERNEL inline int atomic_add(int* to, int n) {
#if defined(__CUDA_ARCH__)
  return atomicAdd(to, n);
#else
  const int before = *to;  // the emulated device runs one thread at a time
  *to += n;
  return before;
#endif
}

// Every thread of a block runs the same code; between two calls of sync() a thread must not read what another
// one writes. Lanes are the threads of one warp, which can add up without sync().
struct ThreadBlock {
  int thread, threads;
  int lane, lanes, warp, warps;
#if !defined(__CUDACC__)
  Team* team;
#endif

  DPA2MD_KERNEL void sync() const {
#if defined(__CUDA_ARCH__)
    __syncthreads();
#elif !defined(__CUDACC__)
    team->sync();
#endif
  }

  // Whether x holds for any thread of the block; a barrier.
  DPA2MD_KERNEL bool any(bool x) const {
#if defined(__CUDA_ARCH__)
    x = __syncthreads_or(x);
#elif !defined(__CUDACC__)
    x = team->any(x);
#endif
    return x;
  }

  // A barrier for the lanes of a warp.
  DPA2MD_KERNEL void sync_lanes() const {
#if defined(__CUDA_ARCH__)
    __syncwarp();
#elif !defined(__CUDACC__)
    team->sync_lanes(warp, lanes);
#endif
  }

  // Sum and maximum over the lanes of a warp; all of them call and get the result.
  template <class T>
  DPA2MD_KERNEL T lane_sum(T x) const {
    return over<32>(x, [](T a, T b) { return a + b; });
  }
  template <class T>
  DPA2MD_KERNEL T lane_max(T x) const {
    return over<32>(x, [](T a, T b) { return b > a ? b : a; });
  }
  // Reductions over groups of kGroupLanes lanes, several per warp, for short rows.
  DPA2MD_KERNEL int group_lanes() const { return lanes < kGroupLanes ? lanes : kGroupLanes; }
  DPA2MD_KERNEL int group_lane() const { return lane % group_lanes(); }
  template <class T>
  DPA2MD_KERNEL T group_sum(T x) const {
    return over<kGroupLanes>(x, [](T a, T b) { return a + b; });
  }
  template <class T>
  DPA2MD_KERNEL T group_max(T x) const {
    return over<kGroupLanes>(x, [](T a, T b) { return b > a ? b : a; });
  }

  // Sum over the lanes before this one; all of them call.
  template <class T>
  DPA2MD_KERNEL T lane_before(T x) const {
#if defined(__CUDA_ARCH__)
    T sum = x;
    for (int o = 1; o < 32; o *= 2) {
      const T y = __shfl_up_sync(0xffffffffu, sum, o);
      if (lane >= o) sum += y;
    }
    return sum - x;
#elif !defined(__CUDACC__)
    return team->sum_before(warp, lane, lanes, x);
#else
    return x;
#endif
  }

  // How many lanes have x, and how many of those before this one; all of them call.
  DPA2MD_KERNEL int lane_count(bool x, int* before) const {
#if defined(__CUDA_ARCH__)
    const unsigned who = __ballot_sync(0xffffffffu, x);
    *before = __popc(who & ((1u << lane) - 1));
    return __popc(who);
#else
    *before = lane_before(int(x));
    return lane_sum(int(x));
#endif
  }

  // f(k) for k = 0 … count-1, shared out among the threads; all have finished when it returns.
  template <class F>
  DPA2MD_KERNEL void each(int count, F f) const {
    for (int k = thread; k < count; k += threads) f(k);
    sync();
  }
  // f(k, row, column) for the numbers k of a matrix; no division where its rows fill warps.
  template <class F>
  DPA2MD_KERNEL void each_of(int rows, int width, F f) const {
    if (width >= lanes / 2) {
      for (int r = warp; r < rows; r += warps) {
        for (int c = lane; c < width; c += lanes) f(r * width + c, r, c);
      }
    } else {
      for (int k = thread; k < rows * width; k += threads) f(k, k / width, k % width);
    }
    sync();
  }
  // each() with a warp for every k.
  template <class F>
  DPA2MD_KERNEL void each_warp(int count, F f) const {
    for (int k = warp; k < count; k += warps) f(k);
    sync();
  }
  // each() with a group of lanes for every k. Groups without a k call f(k, false), since all lanes of a warp
  // must take part in reductions.
  template <class F>
  DPA2MD_KERNEL void each_group(int count, F f) const {
    const int groups = lanes / group_lanes();
    for (int k = warp * groups; k < count; k += warps * groups) {
      const int own = k + lane / group_lanes();
      f(own < count ? own : count - 1, own < count);
    }
    sync();
  }

 private:
  // Reduces x over WIDTH lanes; a warp of the emulated device has fewer lanes and is one group.
  template <int WIDTH, class T, class F>
  DPA2MD_KERNEL T over(T x, F combine) const {
#if defined(__CUDA_ARCH__)
    for (int o = WIDTH / 2; o > 0; o >>= 1) x = combine(x, __shfl_xor_sync(0xffffffffu, x, o));
#elif !defined(__CUDACC__)
    x = team->over_lanes(warp, lane, lanes, x, combine);
#endif
    return x;
  }
};

// Kernels that give a warp to each of many things (atoms, rows) take some of them as an item.
constexpr int kWarpItems = 4;
inline int warp_items(int count) { return (count + kWarpItems - 1) / kWarpItems; }
// f(k) by a warp for every k < count that belongs to the item
template <class F>
DPA2MD_KERNEL void each_of_item(const ThreadBlock& b, int item, int count, F f) {
  const int begin = item * kWarpItems, left = count - begin;
  b.each_warp(left < kWarpItems ? left : kWarpItems, [&](int k) { f(begin + k); });
}

// A stack of arrays for the work on one item: shared memory where it fits, else global memory. From a null
// pointer it only counts the bytes.
class Scratch {
 public:
  DPA2MD_KERNEL explicit Scratch(char* base) : base_(base) {}
  template <class T>
  DPA2MD_KERNEL T* take(std::size_t n) {
    char* p = base_ ? base_ + used_ : nullptr;
    used_ += (n * sizeof(T) + 15) / 16 * 16;
    return reinterpret_cast<T*>(p);
  }
  DPA2MD_KERNEL std::size_t used() const { return used_; }

 private:
  char* base_;
  std::size_t used_ = 0;
};

// A block's shared memory, which the compiler recognises as such; null on the host, which never runs a
// kernel.
DPA2MD_KERNEL inline char* shared_memory() {
#if defined(__CUDA_ARCH__)
  extern __shared__ __align__(16) char shared[];
  return shared;
#else
  return nullptr;
#endif
}
// The scratch of kernels that always fit into shared memory: the array itself, which the compiler knows not
// to be null.
DPA2MD_KERNEL inline Scratch in_shared(Scratch scratch) {
#if defined(__CUDA_ARCH__)
  extern __shared__ __align__(16) char shared[];
  return Scratch(shared);
#else
  return scratch;
#endif
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
