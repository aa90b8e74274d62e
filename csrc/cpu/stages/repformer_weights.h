// The weights of a repformer layer, and the gradients by them.
#pragma once

#include "cpu/parts/gradients.h"
#include "cpu/parts/linear.h"
#include "cpu/parts/net.h"
#include "cpu/parts/tables.h"
#include "model/model.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// Weights that stages on plain and on dual numbers share.
template <class R>
struct RepformerWeights {
  // The update x' = alpha x + sum_i scale_i * x_i, whatever the update style.
  R g1_alpha, g2_alpha, h2_alpha, h2_scale;
  Buffer<R> scale_self, scale_conv, scale_mlp, scale_attn1;  // (g1_dim)
  Buffer<R> scale_linear2, scale_g1g1, scale_attn2;          // (g2_dim)
  Linear<R> mlp, self, linear2, g1g1;                        // linear1, g1_self_mlp, linear2, proj_g1g1g2
  Buffer<R> conv, conv_t;                // (g2_dim, g1_dim), either direction of proj_g1g2, and transposed
  Linear<R> attn1_query;                 // per head Wq Wk^T / sqrt(nd): g1 -> (head, g1)
  Linear<R> attn1_value;                 // per head Wv Wo: (head, g1) -> g1, with head_map's bias
  Buffer<R> attn2_map, attn2_map_t;      // (head, g2, g2): Wq Wk^T / sqrt(hidden), and transposed
  Buffer<R> attn2_value, attn2_value_t;  // (head, g2, g2): Wv Wo, without the mean of each row
  Buffer<R> attn2_bias, ln_w, ln_b;      // (g2); the bias without its mean
  Buffer<R> h2_head;                     // (head)
};

// Gradients by a layer's folded weights (model/folding.h), and by those that are not folded. Null: there is
// no such weight.
template <class R>
struct RepformerGradients {
  RowGradient<R>*mlp = nullptr, *self = nullptr, *attn1_query = nullptr, *attn1_value = nullptr;
  GroupSums *scale_self = nullptr, *scale_conv = nullptr, *scale_mlp = nullptr, *scale_attn1 = nullptr;
  GroupSums *scale_linear2 = nullptr, *scale_g1g1 = nullptr, *scale_attn2 = nullptr, *scale_h2 = nullptr;
  GroupSums *conv = nullptr, *linear2 = nullptr, *linear2_bias = nullptr, *g1g1 = nullptr;
  GroupSums *attn2_map = nullptr, *attn2_value = nullptr, *attn2_bias = nullptr;
  GroupSums *ln_w = nullptr, *ln_b = nullptr, *h2_head = nullptr;
};

// The weights of layer l, folded (model/folding.h).
template <class R>
RepformerWeights<R> repformer_weights(const Repformer& f, int l);

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
