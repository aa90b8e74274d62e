// Kernels with a warp per atom.
#pragma once

#if defined(__CUDACC__)

#include "cuda/kernels/repformer_pair_attention.h"

namespace dpa2md {
namespace gpu {

// Whether the warp kernels have the activation: those of published models, as others would cost registers.
inline bool warp_kernels_know(const Activation& a) {
  return a.kind == Activation::kTanh || a.kind == Activation::kSilut;
}
template <class F>
__device__ void dispatch_warp(const Activation& a, F&& f) {
  if (a.kind == Activation::kTanh) {
    f(ActivationTag<Activation::kTanh>{});
  } else {
    f(ActivationTag<Activation::kSilut>{});
  }
}

constexpr int kFewNeighbors = 32, kManyNeighbors = 48;  // of an atom, for which these kernels are made

struct WarpAtoms {
  static constexpr bool kWarpAtoms = true;
  int begin = 0, end = 0;                       // atoms
  int warps = 1;                                // of a block
  int blocks = 1;                               // of the launch; an item is a block
  const int *count = nullptr, *list = nullptr;  // crowded atoms (FillPairs), only these; null: all

  // Calls f(atom): each warp for its share of the atoms, or all warps of a block for the same atom.
  template <class F>
  __device__ void each_atom(const ThreadBlock& b, int item, F f) const {
    go(item * warps + b.warp, blocks * warps, f);
  }
  template <bool ALL, class F>
  __device__ void each_own_atom(const ThreadBlock& b, int item, F f) const {
    if constexpr (ALL) {
      go(item, blocks, f);
      return;
    }
    each_atom(b, item, f);
  }

 private:
  template <class F>
  __device__ void go(int first, int stride, F f) const {
    const int atoms = list ? *count : end - begin;
    for (int k = first; k < atoms; k += stride) {
      const int i = list ? list[k] : begin + k;
      if (begin <= i && i < end) f(i);
    }
  }
};

}  // namespace gpu
}  // namespace dpa2md

#endif
