// What the files of a pair step share.
#pragma once

#include "cpu_backend.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// The g2 attention of one atom's neighbours among themselves; rows of n numbers are padded to `np` columns.
template <class T>
struct CpuBackend<T>::PairAttention {
  int n, np;
  T* hh;       // (n, np) h2_j . h2_k
  T* g2_t;     // (g2, np)
  T* query;    // (head, n, g2) g2 M
  T* logit;    // (head, n, np) before gate and shift
  T* prob;     // (head, n, np) softmax
  T* map;      // (head, n, np) the attention map A
  T* applied;  // (head, n, g2) A g2
  T* norm;     // (n, g2) layer norm's normalised input
  T* rstd;     // (n)
  T* out;      // (n, g2) layer norm's output

  std::size_t square() const { return static_cast<std::size_t>(n) * np; }
};

// Gradients that the pair updates of one atom add to; hh is scratch of the attention.
template <class T>
struct CpuBackend<T>::PairGradient {
  T *g2, *h2, *sw, *hh;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
