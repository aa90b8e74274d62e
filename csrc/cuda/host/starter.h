// Starts kernels for ranges of their items: finds the memory of their scratch, and the blocks of kernels with
// a warp per atom.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "cuda/host/device.h"
#include "cuda/kernels/dense.h"
#include "cuda/kernels/repformer_node_warp_backward.h"
#include "engine/stages.h"

namespace dpa2md {
namespace DPA2MD_GPU {

class Starter {
 public:
  explicit Starter(int device) : launches_(device) {}

  Launches& launches() { return launches_; }
  std::size_t capacity() const { return slab_.capacity(); }  // bytes of scratch in global memory
  bool sizing() const { return sizing_; }

  // Calls f, whose start() only reserve scratch and run no kernel.
  template <class F>
  void reserve_scratch(F f) {
    struct Sizing {
      Starter* own;
      Launches::Order order;
      ~Sizing() { own->sizing_ = false, own->launches_.set_order(std::move(order)); }
    };
    const Sizing sizing{this, launches_.order()};
    sizing_ = true;
    f();
  }

  // Starts a kernel for a range of its items (atoms, groups of atoms, rows, ...).
  template <class Kernel>
  void start(const Kernel& kernel, Range items, int most_neighbors = 0) {
    Scratch bytes(nullptr);
    kernel.arrays(&bytes, most_neighbors);
    const std::size_t slab = launches_.slab_bytes(items.size(), bytes.used());
    if (slab > slab_.capacity()) {
      launches_.flush();  // recorded launches point to the old slab
      slab_.resize(slab);
    }
    if (!sizing_)
      launches_.launch(kernel, items.begin, items.end, bytes.used(), slab ? slab_.data() : nullptr);
  }
  template <class Kernel>
  void start(const Kernel& kernel, int items) {
    start(kernel, Range{0, items});
  }
  template <class U>
  void clear(U* x, std::size_t size) {
    const Clear<U> kernel{static_cast<std::int64_t>(size), x};
    start(kernel, kernel.items());
  }
  // Runs what is recorded, and waits for it.
  void wait() {
    launches_.flush();
    wait_for_device();
  }

#if defined(__CUDACC__)
  // Starts a kernel with a warp per atom; returns false if its scratch does not fit into shared memory.
  template <class Kernel>
  bool start_warps(Kernel kernel, Range atoms) {
    kernel.begin = atoms.begin, kernel.end = atoms.end;
    constexpr int most = MostThreads<Kernel>::value / 32;
    const bool stays = most * 32 > kThreads;  // a persistent kernel: one block per multiprocessor
    kernel.warps = stays ? most : launches_.warps_for(atoms.size());
    kernel.blocks = (atoms.size() + kernel.warps - 1) / kernel.warps;
    if (WarpsOfAtom<Kernel>::value > 1)
      kernel.warps = WarpsOfAtom<Kernel>::value, kernel.blocks = atoms.size();
    if (stays) kernel.blocks = std::min(kernel.blocks, launches_.multiprocessors());
    if (kernel.list) kernel.blocks = std::min(kernel.blocks, 8 * launches_.multiprocessors());
    Scratch bytes(nullptr);
    kernel.arrays(&bytes, 0);
    if (bytes.used() > launches_.most_shared()) return false;
    start(kernel, Range{0, kernel.blocks});
    return true;
  }
  // Starts Kernel<tiles, warps>, chosen by the numbers of atoms and of their neighbours; `with` sets its
  // members. WARPS: the warps of a persistent block. crowded: the list of FillPairs, null if no atom is.
  template <template <int, int> class Kernel, int WARPS, class With>
  void start_by_neighbors(Range atoms, const int* crowded, With with) {
    const bool few = atoms.size() < 8 * launches_.multiprocessors();  // below, split blocks are as fast
    if (few || !start_warps(with(Kernel<2, WARPS>{}), atoms)) start_warps(with(Kernel<2, kSplit>{}), atoms);
    if (!crowded) return;
    auto kernel = with(Kernel<3, kSplit>{});
    kernel.count = crowded, kernel.list = crowded + 1;
    launches_.twin();
    start_warps(kernel, atoms);
  }
#endif

 private:
  Launches launches_;
  Buffer<char> slab_;    // scratch that does not fit into shared memory
  bool sizing_ = false;  // start() only reserves scratch, and runs no kernel
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
