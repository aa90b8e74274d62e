// Prepares the weights of a repformer layer.
#include "cpu/stages/repformer_weights.h"

#include "cpu/vector/gemm.h"
#include "model/folding.h"

namespace dpa2md {
namespace DPA2MD_ISA {

namespace {

Tensor heads_transposed(const Tensor& t) {
  if (t.empty()) return t;
  const std::int64_t heads = t.shape[0], rows = t.shape[1], cols = t.shape[2];
  Tensor out{{heads, cols, rows}, std::vector<double>(t.data.size())};
  for (std::int64_t h = 0; h < heads; ++h) {
    const std::int64_t at = h * rows * cols;
    for (std::int64_t a = 0; a < rows; ++a) {
      for (std::int64_t b = 0; b < cols; ++b) out.data[at + b * rows + a] = t.data[at + a * cols + b];
    }
  }
  return out;
}

Tensor without_row_means(Tensor t, int width) {
  dpa2md::without_row_means(&t.data, width);
  return t;
}

}  // namespace

template <class R>
RepformerWeights<R> repformer_weights(const Repformer& f, int l) {
  const RepformerLayer& m = f.layers[l];
  const FoldedLayer folded = fold_layer(f, l);
  RepformerWeights<R> w;
  w.g1_alpha = R(folded.g1_alpha), w.g2_alpha = R(folded.g2_alpha);
  w.h2_alpha = R(folded.h2_alpha), w.h2_scale = R(folded.h2_scale);
  w.scale_self = cast<R>(folded.scale_self);
  w.scale_conv = cast<R>(folded.scale_conv);
  w.scale_mlp = cast<R>(folded.scale_mlp);
  w.scale_attn1 = cast<R>(folded.scale_attn1);
  w.mlp.prepare(m.linear1.w, &m.linear1.b);
  if (f.g1_out_mlp) w.self.prepare(m.g1_self.w, &m.g1_self.b);
  if (f.has_conv) {
    w.conv = cast<R>(folded.conv);
    w.conv_t.resize(w.conv.size());
    transpose(f.g2_dim, f.g1_dim, w.conv.data(), f.g1_dim, w.conv_t.data(), f.g2_dim);
  }
  if (f.has_g1_attn) {
    w.attn1_query.prepare(folded.attn1_query, nullptr);
    w.attn1_value.prepare(folded.attn1_value, &m.attn1_head.b);
  }
  if (l + 1 == f.nlayers) return w;

  w.scale_linear2 = cast<R>(folded.scale_linear2);
  w.scale_g1g1 = cast<R>(folded.scale_g1g1);
  w.scale_attn2 = cast<R>(folded.scale_attn2);
  w.linear2.prepare(m.linear2.w, &m.linear2.b);
  if (f.has_g1g1) w.g1g1.prepare(m.g1g1, nullptr);
  w.attn2_map = cast<R>(folded.attn2_map);
  w.attn2_map_t = cast<R>(heads_transposed(folded.attn2_map));
  if (f.has_g2_attn) {
    const Tensor value = without_row_means(folded.attn2_value, f.g2_dim);
    w.attn2_value = cast<R>(value);
    w.attn2_value_t = cast<R>(heads_transposed(value));
    w.attn2_bias = cast<R>(without_row_means(m.attn2_head.b, f.g2_dim));
    w.ln_w = cast<R>(m.ln_w);
    w.ln_b = cast<R>(m.ln_b);
  }
  if (f.update_h2) w.h2_head = cast<R>(m.attn2_h2_head);
  return w;
}

template RepformerWeights<float> repformer_weights(const Repformer&, int);
template RepformerWeights<double> repformer_weights(const Repformer&, int);

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
