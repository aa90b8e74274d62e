// Declarations shared by the files of a pair step.
#pragma once

#include "cpu/stages/repformers.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// The g2 attention of one atom's neighbours among themselves; rows of n numbers are padded to `np` columns.
// The reverse sweep keeps every head's arrays, the forward one lets them share a place (strides of 0).
template <class T>
struct Repformers<T>::PairAttention {
  int n, np;
  std::size_t head_stride, query_stride;
  T* sw;                          // (np)
  T level;                        // slot_shares.h; 0: there are slots for all
  T *hh, *ww;                     // (n, np) h2_j . h2_k, sw_j sw_k
  T *logit_factor, *logit_shift;  // (n, np) z = logit factor + shift
  T* map_factor;                  // (n, np) A = prob factor
  T *g2_t, *h2_t;                 // (g2, np), (3, np)
  T* query;                       // (head, n, g2) g2 M
  T* logit;                       // (head, n, np)
  T* prob;                        // (head, n, np) softmax of z
  T *total, *empty;               // (np) scratch: a row's sum, and what empty slots add to it
  T* map;                         // (head, n, np) the attention map A
  T* applied;                     // (n, head, g2) A g2
  T* norm;                        // (n, g2) layer norm's normalised input
  T* rstd;                        // (n)

  std::size_t square() const { return static_cast<std::size_t>(n) * np; }
};

// Gradients that the pair updates of one atom add to.
template <class T>
struct Repformers<T>::PairGradient {
  T *g2, *h2, *sw;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
