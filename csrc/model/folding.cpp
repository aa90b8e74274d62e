#include "model/folding.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <numeric>

#include "model/compressed_table.h"
#include "model/function_table.h"

namespace dpa2md {
namespace {

Tensor zeros(std::vector<std::int64_t> shape) {
  std::size_t size = 1;
  for (const auto s : shape) size *= static_cast<std::size_t>(s);
  return {std::move(shape), std::vector<double>(size, 0.0)};
}

// Column of channel c, head h in an output viewed as (channels, heads): the head runs fastest.
int head_fastest(int c, int h, int heads) { return c * heads + h; }

// The factors of one list of updates, handed out in the order of the original's update list.
class Scales {
 public:
  Scales(Repformer::Style style, int updates, const Tensor& residual, int width)
      : style_(style), updates_(updates), residual_(residual), width_(width) {}
  double alpha() const { return style_ == Repformer::Style::kAvg ? 1.0 / std::sqrt(updates_ + 1.0) : 1.0; }
  Tensor next() {
    Tensor s = zeros({width_});
    for (int c = 0; c < width_; ++c) {
      s.data[c] = style_ == Repformer::Style::kResidual ? residual_(next_, c)
                  : style_ == Repformer::Style::kAvg    ? alpha()
                                                        : 1.0 / std::sqrt(double(updates_));
    }
    ++next_;
    return s;
  }

 private:
  Repformer::Style style_;
  int updates_;
  const Tensor& residual_;
  int width_, next_ = 0;
};

void fold_local_attention(const Repformer& f, const RepformerLayer& m, FoldedLayer* w) {
  const int nd = f.attn1_hidden, nh = f.attn1_nhead, width = f.g1_dim;
  w->attn1_query = zeros({width, nh * width});
  w->attn1_value = zeros({nh * width, width});
  for (int h = 0; h < nh; ++h) {
    for (int a = 0; a < width; ++a) {
      double* q = &w->attn1_query.data[static_cast<std::size_t>(a) * nh * width + h * width];
      double* v = &w->attn1_value.data[static_cast<std::size_t>(h * width + a) * width];
      for (int b = 0; b < width; ++b) {
        for (int c = 0; c < nd; ++c) {
          const int column = head_fastest(c, h, nh);
          q[b] += m.attn1_q(a, column) * m.attn1_kv(b, column) / std::sqrt(double(nd));
        }
      }
      for (int c = 0; c < width; ++c) {
        const double x = m.attn1_kv(a, head_fastest(nd + c, h, nh));
        for (int b = 0; b < width; ++b) v[b] += x * m.attn1_head.w(h * width + c, b);
      }
    }
  }
}

Tensor fold_attention_map(const Repformer& f, const RepformerLayer& m) {
  const int nd = f.attn2_hidden, nh = f.attn2_nhead, width = f.g2_dim;
  Tensor map = zeros({nh, width, width});
  auto out = map.data.begin();
  for (int h = 0; h < nh; ++h) {
    for (int a = 0; a < width; ++a) {
      for (int b = 0; b < width; ++b, ++out) {
        for (int c = 0; c < nd; ++c) {  // q are heads 0 … nh-1 of the 2 nh, k the rest
          *out += m.attn2_qk(a, head_fastest(c, h, 2 * nh)) * m.attn2_qk(b, head_fastest(c, nh + h, 2 * nh));
        }
        *out /= std::sqrt(double(nd));
      }
    }
  }
  return map;
}

Tensor fold_attention_value(const Repformer& f, const RepformerLayer& m) {
  const int nh = f.attn2_nhead, width = f.g2_dim;
  Tensor value = zeros({nh, width, width});
  auto out = value.data.begin();
  for (int h = 0; h < nh; ++h) {
    for (int a = 0; a < width; ++a) {
      for (int b = 0; b < width; ++b, ++out) {
        for (int c = 0; c < width; ++c) {
          const int column = head_fastest(c, h, nh);
          *out += m.attn2_v(a, column) * m.attn2_head.w(column, b);
        }
      }
    }
  }
  return value;
}

}  // namespace

FoldedLayer fold_layer(const Repformer& f, int layer) {
  const RepformerLayer& m = f.layers[layer];
  FoldedLayer w;
  const bool conv_outside = f.has_conv && f.g1_out_conv;
  Scales g1(f.style, 1 + f.g1_out_mlp + conv_outside + f.has_g1_attn, m.g1_residual, f.g1_dim);
  w.g1_alpha = g1.alpha();
  if (f.g1_out_mlp) w.scale_self = g1.next();
  if (conv_outside) w.scale_conv = g1.next();
  w.scale_mlp = g1.next();
  if (f.has_g1_attn) w.scale_attn1 = g1.next();
  if (f.has_conv) {
    w.conv = zeros({f.g2_dim, f.g1_dim});
    for (int k = 0; k < f.g2_dim; ++k) {
      for (int c = 0; c < f.g1_dim; ++c)
        w.conv.data[k * f.g1_dim + c] = f.g1_out_conv ? m.conv(k, c) : m.conv(c, k);
    }
  }
  if (f.has_g1_attn) fold_local_attention(f, m, &w);
  if (layer + 1 == f.nlayers) return w;  // the last layer leaves the pairs alone

  Scales g2(f.style, 1 + f.has_g1g1 + f.has_g2_attn, m.g2_residual, f.g2_dim);
  w.g2_alpha = g2.alpha();
  w.scale_linear2 = g2.next();
  if (f.has_g1g1) w.scale_g1g1 = g2.next();
  if (f.has_g2_attn) w.scale_attn2 = g2.next();
  if (f.has_g2_attn || f.update_h2) w.attn2_map = fold_attention_map(f, m);
  if (f.has_g2_attn) w.attn2_value = fold_attention_value(f, m);
  if (f.update_h2) {
    Scales h2(f.style, 1, m.h2_residual, 1);
    w.h2_alpha = h2.alpha();
    w.h2_scale = h2.next().data[0];
  }
  return w;
}

void without_row_means(std::vector<double>* rows, int width) {
  for (auto row = rows->begin(); row != rows->end(); row += width) {
    const double mean = std::accumulate(row, row + width, 0.0) / width;
    for (int c = 0; c < width; ++c) row[c] -= mean;
  }
}

// ---- the way back

namespace {

// Of the list of updates, the rows that `scales` names in the original's order; `factor` none: not learned.
void unfold_scales(Repformer::Style style, std::initializer_list<const Tensor*> scales, Tensor* residual) {
  if (style != Repformer::Style::kResidual) return;
  std::size_t at = 0;
  for (const Tensor* s : scales) {
    for (const double x : s->data) residual->data[at++] += x;
  }
}

void unfold_local_attention(const Repformer& f, const RepformerLayer& m, const FoldedLayer& g,
                            RepformerLayer* to) {
  const int nd = f.attn1_hidden, nh = f.attn1_nhead, width = f.g1_dim;
  const int qw = nd * nh, kvw = (nd + width) * nh;
  const double inv = 1.0 / std::sqrt(double(nd));
  for (int h = 0; h < nh; ++h) {
    for (int a = 0; a < width; ++a) {
      const double* q = &g.attn1_query.data[static_cast<std::size_t>(a) * nh * width + h * width];
      const double* v = &g.attn1_value.data[static_cast<std::size_t>(h * width + a) * width];
      for (int b = 0; b < width; ++b) {
        for (int c = 0; c < nd; ++c) {
          const int column = head_fastest(c, h, nh);
          to->attn1_q.data[static_cast<std::size_t>(a) * qw + column] += q[b] * m.attn1_kv(b, column) * inv;
          to->attn1_kv.data[static_cast<std::size_t>(b) * kvw + column] += q[b] * m.attn1_q(a, column) * inv;
        }
      }
      for (int c = 0; c < width; ++c) {
        const int column = head_fastest(nd + c, h, nh);
        const double x = m.attn1_kv(a, column);
        double sum = 0;
        double* head = &to->attn1_head.w.data[static_cast<std::size_t>(h * width + c) * width];
        for (int b = 0; b < width; ++b) {
          head[b] += x * v[b];
          sum += v[b] * m.attn1_head.w(h * width + c, b);
        }
        to->attn1_kv.data[static_cast<std::size_t>(a) * kvw + column] += sum;
      }
    }
  }
}

void unfold_attention_map(const Repformer& f, const RepformerLayer& m, const Tensor& g, Tensor* to) {
  const int nd = f.attn2_hidden, nh = f.attn2_nhead, width = f.g2_dim, columns = 2 * nh * nd;
  const double inv = 1.0 / std::sqrt(double(nd));
  auto in = g.data.begin();
  for (int h = 0; h < nh; ++h) {
    for (int a = 0; a < width; ++a) {
      for (int b = 0; b < width; ++b, ++in) {
        for (int c = 0; c < nd; ++c) {
          const int q = head_fastest(c, h, 2 * nh), k = head_fastest(c, nh + h, 2 * nh);
          to->data[a * columns + q] += *in * m.attn2_qk(b, k) * inv;
          to->data[b * columns + k] += *in * m.attn2_qk(a, q) * inv;
        }
      }
    }
  }
}

void unfold_attention_value(const Repformer& f, const RepformerLayer& m, const Tensor& g,
                            RepformerLayer* to) {
  const int nh = f.attn2_nhead, width = f.g2_dim, columns = nh * width;
  auto in = g.data.begin();
  for (int h = 0; h < nh; ++h) {
    for (int a = 0; a < width; ++a) {
      for (int b = 0; b < width; ++b, ++in) {
        for (int c = 0; c < width; ++c) {
          const int column = head_fastest(c, h, nh);
          to->attn2_v.data[a * columns + column] += *in * m.attn2_head.w(column, b);
          to->attn2_head.w.data[column * width + b] += *in * m.attn2_v(a, column);
        }
      }
    }
  }
}

}  // namespace

void unfold_layer(const Repformer& f, int layer, const FoldedLayer& g, RepformerLayer* to) {
  const RepformerLayer& m = f.layers[layer];
  unfold_scales(f.style, {&g.scale_self, &g.scale_conv, &g.scale_mlp, &g.scale_attn1}, &to->g1_residual);
  for (int k = 0; f.has_conv && k < f.g2_dim; ++k) {
    for (int c = 0; c < f.g1_dim; ++c) {
      const int at = f.g1_out_conv ? k * f.g1_dim + c : c * f.g2_dim + k;
      to->conv.data[at] += g.conv.data[k * f.g1_dim + c];
    }
  }
  if (f.has_g1_attn) unfold_local_attention(f, m, g, to);
  if (layer + 1 == f.nlayers) return;
  unfold_scales(f.style, {&g.scale_linear2, &g.scale_g1g1, &g.scale_attn2}, &to->g2_residual);
  if (f.has_g2_attn || f.update_h2) unfold_attention_map(f, m, g.attn2_map, &to->attn2_qk);
  if (f.has_g2_attn) unfold_attention_value(f, m, g.attn2_value, to);
  if (f.update_h2 && f.style == Repformer::Style::kResidual) to->h2_residual.data[0] += g.h2_scale;
}

Tensor fold_tebd(const Model& m) {
  if (m.tebd_transform.empty()) return {};
  const int nt = m.ntypes(), width = m.repformer.g1_dim;
  Tensor out = zeros({nt, width});
  for (int t = 0; t < nt; ++t) {
    for (int c = 0; c < width; ++c) {
      for (int k = 0; k < m.tebd_dim(); ++k)
        out.data[t * width + c] += m.type_embedding(t, k) * m.tebd_transform(k, c);
    }
  }
  return out;
}

void unfold_tebd(const Model& m, const std::vector<double>& gradient, Model* to) {
  const int width = m.repformer.g1_dim, tebd = m.tebd_dim();
  for (int t = 0; t < m.ntypes(); ++t) {
    for (int c = 0; c < width; ++c) {
      const double g = gradient[static_cast<std::size_t>(t) * width + c];
      for (int k = 0; k < tebd; ++k) {
        to->type_embedding.data[t * tebd + k] += g * m.tebd_transform(k, c);
        to->tebd_transform.data[k * width + c] += g * m.type_embedding(t, k);
      }
    }
  }
}

// em = -davg/dstd through the ungated embedding (sw = 0 there)
Tensor fold_empty_slots(const Model& m) {
  const Embedding& e = m.repinit;
  if (std::all_of(e.davg.data.begin(), e.davg.data.end(), [](double x) { return x == 0; })) return {};
  Tensor out = zeros({m.ntypes(), 4, e.ng});
  std::vector<double> g(e.ng), slope(e.ng);
  for (int t = 0; t < m.ntypes(); ++t) {
    const double x = -e.davg(t, 0) / e.dstd(t, 0);
    if (e.table.empty()) {
      evaluate_net(e.net, x, {}, g.data(), slope.data());
    } else {
      const CompressedPlace p =
          compressed_place(compressed_grid(e.table), m.precision == Precision::kFloat32, x);
      for (int c = 0; c < e.ng; ++c)
        compressed_value(e.table.coefficients.data.data() + (p.cell * e.ng + c) * 6, p.x, p.beyond, &g[c],
                         &slope[c]);
    }
    for (int x4 = 0; x4 < 4; ++x4) {
      const double em = -e.davg(t, x4) / e.dstd(t, x4);
      for (int c = 0; c < e.ng; ++c) out.data[(static_cast<std::size_t>(t) * 4 + x4) * e.ng + c] = g[c] * em;
    }
  }
  return out;
}

void unfold_empty_slots(const Model& m, const std::vector<double>& gradient, Net* to) {
  const Embedding& e = m.repinit;
  std::vector<double> dg(e.ng);
  for (int t = 0; t < m.ntypes(); ++t) {
    std::fill(dg.begin(), dg.end(), 0.0);
    for (int x4 = 0; x4 < 4; ++x4) {
      const double em = -e.davg(t, x4) / e.dstd(t, x4);
      for (int c = 0; c < e.ng; ++c)
        dg[c] += em * gradient[(static_cast<std::size_t>(t) * 4 + x4) * e.ng + c];
    }
    net_gradient(e.net, {-e.davg(t, 0) / e.dstd(t, 0)}, dg, to);
  }
}

}  // namespace dpa2md
