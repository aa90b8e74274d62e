// The gated attention of g2 (update_g2_has_attn) and the h2 update that shares its map, forward and backward.
// Folded per head (model/folding.h): M = Wq Wk^T / sqrt(hidden), V = Wv Wo. With hh_jk = h2_j . h2_k and
// ww_jk = sw_j sw_k:
//   l = (g2 M) g2^T      p = softmax_k(z), z = (l [hh] + 20) ww - 20      A = p ww hh / sqrt(3)
//   out = layernorm(sum_h (A_h g2) V_h + b)      h2' = alpha h2 + s sum_h w_h A_h h2
// The factors of l and p are the same for all heads and computed once: z = l a + c, A = p m.
#pragma once

#include "cpu/stages/repformer_state.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
class RepformerSums;

// The g2 attention of one atom's neighbours among themselves; rows of n numbers are padded to `np` columns.
// The reverse sweep keeps every head's arrays, the forward one lets them share a place (strides of 0).
template <class T>
struct PairAttention {
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
struct PairGradient {
  T *g2, *h2, *sw;
};

template <class T>
class NeighborAttention {
 public:
  // sums: of gradients by weights, for dual numbers.
  NeighborAttention(RepformerState<T>* state, RepformerSums<T>* sums) : state_(*state), sums_(sums) {}
  // Adds the attention's update to g2 of the next layer; assigns its h2 (null without an h2 update).
  void forward(int l, const Neighborhood<T>& a, bool keep, PairAttention<T>* s, T* g2_out, T* h2_out,
               Arena& arena);
  // Everything but what becomes of the layer norm's input; assigns h2 of the next layer (null without an
  // update).
  void heads(int l, const Neighborhood<T>& a, bool keep, T* h2_out, PairAttention<T>* s, Arena& arena);
  // Adds to g's gradients; dh2_out is null without an h2 update. s: with all heads kept.
  void backward(int l, int i, const Neighborhood<T>& a, const PairAttention<T>& s, const T* dout,
                const T* dh2_out, PairGradient<T>* g, Arena& arena);

 private:
  void factors(const Neighborhood<T>& a, bool keep, PairAttention<T>* s, Arena& arena);
  void map(int l, int h, const Neighborhood<T>& a, PairAttention<T>* s);
  void softmax_rows(const PairAttention<T>& s, const T* logit, T* prob, T* map) const;
  void shared_totals(const PairAttention<T>& s, const T* logit, T* prob) const;
  T* shared_slopes(const PairAttention<T>& s, const T* mean, T* dsw, Arena& arena) const;
  void logits_backward(const PairAttention<T>& s, const T* mean, const T* slope, T* dmap) const;
  void rows_backward(const Neighborhood<T>& a, const PairAttention<T>& s, T* dmap, PairGradient<T>* g,
                     Arena& arena);
  void apply_to_g2(int l, int h, const Neighborhood<T>& a, PairAttention<T>* s, Arena& arena);
  void norm_backward(int l, const PairAttention<T>& s, const T* dout, T* dsum, Arena& arena);
  void apply_to_h2(int l, int h, const Neighborhood<T>& a, const PairAttention<T>& s, T* out);
  void apply_to_h2_backward(int l, int h, const Neighborhood<T>& a, const PairAttention<T>& s,
                            const T* dh2_out, T* dmap, T* dh2);

  RepformerState<T>& state_;
  RepformerSums<T>* sums_;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
