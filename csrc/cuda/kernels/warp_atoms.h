// Kernels with a warp for an atom.
#pragma once

#if defined(__CUDACC__)

#include "cuda/kernels/repformer_pair_attention.h"

namespace dpa2md {
namespace gpu {

// Shared memory, known as such to the compiler.
__device__ inline Scratch shared_scratch() {
  extern __shared__ __align__(16) char shared[];
  return Scratch(shared);
}

// The activations of published models: what others need would take registers from these.
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

struct WarpAtoms {
  static constexpr bool kWarpAtoms = true;
  int begin = 0, end = 0;  // atoms
  int warps = 1;           // of a block

  // f(atom) by a warp for every atom of the item
  template <class F>
  __device__ void each_atom(const ThreadBlock& b, int item, F f) const {
    const int i = begin + item * warps + b.warp;
    if (i < end) f(i);
  }
};

}  // namespace gpu
}  // namespace dpa2md

#endif
