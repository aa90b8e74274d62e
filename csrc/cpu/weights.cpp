// The model's weights in the order and precision of the stages.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "cpu/cpu_backend.h"
#include "model/folding.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
void Panels<T>::pack(int rows, int columns, const T* from) {
  constexpr int panel = 2 * lanes<T>();
  in = rows, out = columns;
  w.resize(static_cast<std::size_t>(in) * out);
  T* to = w.data();
  for (int c = 0; c < out; c += panel) {
    for (int r = 0; r < in; ++r) to = std::copy_n(from + r * out + c, std::min(panel, out - c), to);
  }
}

// Rows of the weight in stretches that stay in the first cache for all tiles.
template <class T>
void Panels<T>::multiply(int rows, const T* x, int ldx, T* y, int ldy, bool add) const {
  constexpr int panel = 2 * lanes<T>(), stretch = 128;
  for (int c = 0; c < out; c += panel) {
    const int columns = std::min(panel, out - c);
    const T* b = w.data() + static_cast<std::size_t>(c) * in;
    for (int r = 0; r < in; r += stretch) {
      gemm(rows, columns, std::min(stretch, in - r), plain(x + r, ldx),
           b + static_cast<std::size_t>(r) * columns, columns, y + c, ldy, add || r > 0);
    }
  }
}

template <class T>
void Linear<T>::prepare(const Tensor& weight, const Tensor* bias) {
  const int in = static_cast<int>(weight.shape[0]), out = static_cast<int>(weight.shape[1]);
  const Buffer<T> plain_order = cast<T>(weight);
  Buffer<T> transposed_order;
  transposed_order.resize(plain_order.size());
  transpose(in, out, plain_order.data(), out, transposed_order.data(), in);
  w.pack(in, out, plain_order.data());
  wt.pack(out, in, transposed_order.data());
  if (bias) b = cast<T>(*bias);
}

template <class T>
void Linear<T>::forward(int rows, const T* x, int ldx, T* y, int ldy) const {
  for (int r = 0; r < rows && !b.empty(); ++r)
    std::copy(b.data(), b.data() + w.out, y + static_cast<std::size_t>(r) * ldy);
  w.multiply(rows, x, ldx, y, ldy, !b.empty());
}

template <class T>
void Linear<T>::backward(int rows, const T* dy, int ldy, T* dx, int ldx, bool add) const {
  wt.multiply(rows, dy, ldy, dx, ldx, add);
}

namespace {

// The rows of a weight that reads D (DeePMD-kit: (ng, axis), here (axis, ng)) in the order of this backend.
Tensor repinit_rows(const Model& m, Tensor weight) {
  const int ng = m.repinit.ng, axis = m.repinit_axis;
  const std::size_t width = static_cast<std::size_t>(weight.shape[1]);
  const std::vector<double> from = weight.data;
  for (int g = 0; g < ng; ++g) {
    for (int a = 0; a < axis; ++a) {
      std::copy_n(from.begin() + (g * axis + a) * width, width, weight.data.begin() + (a * ng + g) * width);
    }
  }
  return weight;
}

// Rows of `columns` numbers, each padded with zeros to whole vectors.
template <class T>
Buffer<T> cast_padded(const Tensor& t, int columns) {
  Buffer<T> out;
  const std::size_t rows = t.data.size() / columns, np = padded(columns, lanes<T>());
  out.resize(rows * np);
  out.zero(0, rows * np);
  for (std::size_t r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) out[r * np + c] = static_cast<T>(t.data[r * columns + c]);
  }
  return out;
}

// A compressed model's table (rows, ng, 6) as (rows, 6, padded ng).
template <class T>
Buffer<T> coefficients_by_power(const Embedding& e) {
  const std::size_t np = padded(e.ng, lanes<T>()), rows = e.table.coefficients.data.size() / (6 * e.ng);
  Buffer<T> out;
  out.resize(rows * 6 * np);
  out.zero(0, out.size());
  const double* from = e.table.coefficients.data.data();
  for (std::size_t r = 0; r < rows; ++r) {
    for (int m = 0; m < e.ng; ++m) {
      for (int k = 0; k < 6; ++k) out[(r * 6 + k) * np + m] = T(*from++);
    }
  }
  return out;
}

// The three-body gate summed over both orders of two types, rows padded for the tables.
template <class T>
Buffer<T> both_orders(const Model& m) {
  const int nt = m.ntypes(), ng = m.three_body.ng, np = padded(ng, kTripleLanes);
  const std::vector<double>& gate = m.three_body.strip_table.data;
  Buffer<T> out;
  out.resize(static_cast<std::size_t>(nt) * nt * np);
  out.zero(0, out.size());
  for (std::size_t a = 0; a < static_cast<std::size_t>(nt); ++a) {
    for (std::size_t b = 0; b < static_cast<std::size_t>(nt); ++b) {
      for (int c = 0; c < ng; ++c)
        out[(a * nt + b) * np + c] = T(gate[(a * nt + b) * ng + c] + gate[(b * nt + a) * ng + c]);
    }
  }
  return out;
}

}  // namespace

template <class T>
void CpuBackend<T>::prepare() {
  const Model& m = model_;
  types_ = cast<T>(m.type_embedding);
  const auto embedding = [](const Embedding& e, EmbeddingWeights<T>* w) {
    if (!e.net.empty()) w->net.prepare(e.net);
    w->gate = cast_padded<T>(e.strip_table, e.ng);
    if (!e.table.empty()) w->compressed = coefficients_by_power<T>(e);
  };
  embedding(m.repinit, &w_repinit_);
  if (!m.repinit.table.empty()) make_room_for_units(0);
  w_repinit_.empty = cast_padded<T>(fold_empty_slots(m), m.repinit.ng);
  repinit_width_ = m.repinit.ng * m.repinit_axis;
  env_repinit_.block = &m.repinit;
  if (!m.is_dpa2) {
    Net net = m.fitting.net;
    net.layers[0].w = repinit_rows(m, net.layers[0].w);
    w_fitting_.prepare(net);
    return;
  }
  w_fitting_.prepare(m.fitting.net);
  if (m.has_three_body) {
    embedding(m.three_body, &w_three_);
    if (m.three_body.strip) w_three_.both = both_orders<T>(m);
    repinit_width_ += m.three_body.ng;
    env_three_.block = &m.three_body;
  }
  env_repformer_.block = &m.repformer;
  env_repformer_.direct = m.repformer.direct_dist;
  if (!m.g1_transform.empty()) w_transform_.prepare(repinit_rows(m, m.g1_transform), nullptr);
  w_tebd_ = cast<T>(fold_tebd(m));
  w_g2_embd_ = cast<T>(m.repformer.g2_embd.w);
  b_g2_embd_ = cast<T>(m.repformer.g2_embd.b);
  layers_ = new RepformerWeights<T>[m.repformer.nlayers];
  for (int l = 0; l < m.repformer.nlayers; ++l) prepare_repformer_layer(l);
}

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

// The layer norm would take them away.
Tensor without_row_means(Tensor t, int width) {
  for (auto row = t.data.begin(); row != t.data.end(); row += width) {
    const double mean = std::accumulate(row, row + width, 0.0) / width;
    for (int c = 0; c < width; ++c) row[c] -= mean;
  }
  return t;
}

}  // namespace

template <class T>
void CpuBackend<T>::prepare_repformer_layer(int l) {
  const Repformer& f = rep();
  const RepformerLayer& m = f.layers[l];
  const FoldedLayer folded = fold_layer(f, l);
  RepformerWeights<T>& w = layers_[l];
  w.g1_alpha = T(folded.g1_alpha), w.g2_alpha = T(folded.g2_alpha);
  w.h2_alpha = T(folded.h2_alpha), w.h2_scale = T(folded.h2_scale);
  w.scale_self = cast<T>(folded.scale_self);
  w.scale_conv = cast<T>(folded.scale_conv);
  w.scale_mlp = cast<T>(folded.scale_mlp);
  w.scale_attn1 = cast<T>(folded.scale_attn1);
  w.mlp.prepare(m.linear1.w, &m.linear1.b);
  if (f.g1_out_mlp) w.self.prepare(m.g1_self.w, &m.g1_self.b);
  if (f.has_conv) {
    w.conv = cast<T>(folded.conv);
    w.conv_t.resize(w.conv.size());
    transpose(f.g2_dim, f.g1_dim, w.conv.data(), f.g1_dim, w.conv_t.data(), f.g2_dim);
  }
  if (f.has_g1_attn) {
    w.attn1_query.prepare(folded.attn1_query, nullptr);
    w.attn1_value.prepare(folded.attn1_value, &m.attn1_head.b);
  }
  if (l + 1 == f.nlayers) return;

  w.scale_linear2 = cast<T>(folded.scale_linear2);
  w.scale_g1g1 = cast<T>(folded.scale_g1g1);
  w.scale_attn2 = cast<T>(folded.scale_attn2);
  w.linear2.prepare(m.linear2.w, &m.linear2.b);
  if (f.has_g1g1) w.g1g1.prepare(m.g1g1, nullptr);
  w.attn2_map = cast<T>(folded.attn2_map);
  w.attn2_map_t = cast<T>(heads_transposed(folded.attn2_map));
  if (f.has_g2_attn) {
    const Tensor value = without_row_means(folded.attn2_value, f.g2_dim);
    w.attn2_value = cast<T>(value);
    w.attn2_value_t = cast<T>(heads_transposed(value));
    w.attn2_bias = cast<T>(without_row_means(m.attn2_head.b, f.g2_dim));
    w.ln_w = cast<T>(m.ln_w);
    w.ln_b = cast<T>(m.ln_b);
  }
  if (f.update_h2) w.h2_head = cast<T>(m.attn2_h2_head);
}

template struct Panels<float>;
template struct Panels<double>;
template struct Linear<float>;
template struct Linear<double>;
template void CpuBackend<float>::prepare();
template void CpuBackend<double>::prepare();

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
