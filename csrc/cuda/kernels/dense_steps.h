// The steps of dense.h as products over many atoms (dense_product.h), float32, only for the device. dense.h
// has their formulas.
#pragma once

#include <utility>
#include <vector>

#include "cuda/kernels/dense_product.h"

#if defined(__CUDACC__)

namespace dpa2md {
namespace gpu {

// Four numbers at x, those of another array.
DPA2MD_KERNEL inline Four<float> times(Four<float> x, const float* by) { return scaled(x, by); }
DPA2MD_KERNEL inline Four<float> plus(Four<float> x, const Four<float>& y, float factor = 1) {
  DPA2MD_UNROLL
  for (int i = 0; i < 4; ++i) x.x[i] += factor * y.x[i];
  return x;
}
// x -> act(x); the slopes to `slope`, if there is one
template <Activation::Kind K>
DPA2MD_KERNEL Four<float> activated(const Activation& act, const Four<float>& x, Four<float>* slope) {
  Four<float> y;
  DPA2MD_UNROLL
  for (int i = 0; i < 4; ++i) activate<K>(act, x.x[i], &y.x[i], &slope->x[i]);
  return y;
}

// Rows of x, multiplied elementwise with rows of `slope` and with `scale`; either may be null.
struct ScaledRows {
  const float *x, *slope, *scale;
  int width;

  DPA2MD_KERNEL Four<float> operator()(int row, int k) const {
    const std::int64_t at = static_cast<std::int64_t>(row) * width + k;
    Four<float> y = four(x + at);
    if (slope) y = times(y, slope + at);
    if (scale) y = times(y, scale + k);
    return y;
  }
};

struct TransformProduct {
  static constexpr bool kTogether = false, kActivates = true;
  int begin, end;
  SplitWeight w;
  Activation activation;
  const float *x, *tebd;  // tebd: (nt, g1) or null
  const int* center_type;
  float *g1, *slope;

  DPA2MD_KERNEL int products() const { return 1; }
  DPA2MD_KERNEL SplitWeight weight(int) const { return w; }
  DPA2MD_KERNEL const Activation& act() const { return activation; }
  DPA2MD_KERNEL ScaledRows left(int) const { return {x, nullptr, nullptr, w.k}; }
  template <Activation::Kind K>
  DPA2MD_KERNEL void finish(int, int row, int column, Four<float> y) const {
    const std::int64_t at = static_cast<std::int64_t>(row) * w.n + column;
    if (tebd) {
      const int t = center_type[row];
      y = plus(y, four(tebd + ((t < 0 ? 0 : t) * w.n + column)));
    }
    Four<float> d;
    four(g1 + at) = activated<K>(activation, y, &d);
    four(slope + at) = d;
  }
};

struct TransformBackwardProduct {
  static constexpr bool kTogether = false, kActivates = false;
  int begin, end;
  SplitWeight w;
  const float *slope, *dg1;
  float* dx;

  DPA2MD_KERNEL int products() const { return 1; }
  DPA2MD_KERNEL SplitWeight weight(int) const { return w; }
  DPA2MD_KERNEL ScaledRows left(int) const { return {dg1, slope, nullptr, w.k}; }
  template <Activation::Kind>
  DPA2MD_KERNEL void finish(int, int row, int column, const Four<float>& y) const {
    four(dx + (static_cast<std::int64_t>(row) * w.n + column)) = y;
  }
};

constexpr int kNodeProducts = 3;  // of [g1 | conv | grrg | drrd], of g1, of what was attended to

// One product of the update of g1.
struct NodeProduct {
  SplitWeight w;
  bool activated;
  const float *x, *bias, *scale;
  float* slope;  // or null
};
struct NodeUpdateProduct {
  static constexpr bool kTogether = true, kActivates = true;
  int begin, end, count;
  NodeProduct product[kNodeProducts];
  Activation activation;
  float alpha;
  const float *g1, *conv, *scale_conv;  // conv: null but for one outside
  float* out;

  DPA2MD_KERNEL int products() const { return count; }
  DPA2MD_KERNEL SplitWeight weight(int p) const { return product[p].w; }
  DPA2MD_KERNEL const Activation& act() const { return activation; }
  DPA2MD_KERNEL ScaledRows left(int p) const { return {product[p].x, nullptr, nullptr, product[p].w.k}; }
  template <Activation::Kind K>
  DPA2MD_KERNEL void finish(int p, int row, int column, Four<float> y) const {
    const NodeProduct& z = product[p];
    const std::int64_t at = static_cast<std::int64_t>(row) * z.w.n + column;
    if (z.bias) y = plus(y, four(z.bias + column));
    if (z.activated) {
      Four<float> d;
      y = gpu::activated<K>(activation, y, &d);
      if (z.slope) four(z.slope + at) = d;
    }
    Four<float> sum{};
    if (p == 0) {
      sum = plus(sum, four(g1 + at), alpha);
    } else {
      sum = four(static_cast<const float*>(out) + at);
    }
    sum = plus(sum, times(y, z.scale + column));
    if (p == 0 && conv) sum = plus(sum, times(four(conv + at), scale_conv + column));
    four(out + at) = sum;
  }
};

// One product of its gradient.
struct NodeBackwardProduct {
  SplitWeight w;
  const float *slope, *scale;
  float* dx;  // null: adds to dg1
};
struct NodeUpdateBackwardProduct {
  static constexpr bool kTogether = false, kActivates = false;
  int begin, end, width, count;
  NodeBackwardProduct product[kNodeProducts];
  int own;  // the product whose first columns are d g1 of the atoms themselves
  float alpha;
  const float *dout, *scale_conv;
  float *dconv, *dg1;  // dconv: null but for conv outside

  DPA2MD_KERNEL int products() const { return count; }
  DPA2MD_KERNEL SplitWeight weight(int p) const { return product[p].w; }
  DPA2MD_KERNEL ScaledRows left(int p) const { return {dout, product[p].slope, product[p].scale, width}; }
  template <Activation::Kind>
  DPA2MD_KERNEL void finish(int p, int row, int column, const Four<float>& y) const {
    const NodeBackwardProduct& z = product[p];
    if (z.dx) four(z.dx + (static_cast<std::int64_t>(row) * z.w.n + column)) = y;
    if (p != own || column >= width) return;
    const std::int64_t at = static_cast<std::int64_t>(row) * width + column;
    const Four<float> from = four(dout + at);
    four(dg1 + at) = plus(plus(four(static_cast<const float*>(dg1) + at), from, alpha), y);
    if (dconv) four(dconv + at) = times(from, scale_conv + column);
  }
};

// ---- the fitting net, layer after layer

// The rows of a hidden layer, or of the feature followed by the centre's type embedding and parameters.
struct FittingInput {
  const float *feature, *types, *parameters;
  const int* center_type;
  int width, tebd, count;  // of the feature; columns behind it

  DPA2MD_KERNEL Four<float> operator()(int row, int k) const {
    if (k < width) return four(feature + (static_cast<std::int64_t>(row) * width + k));
    const int t = center_type[row] < 0 ? 0 : center_type[row];
    Four<float> y;
    DPA2MD_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int c = k + i - width, parameter = c - tebd;
      y.x[i] = c < tebd            ? types[t * tebd + c]
               : parameter < count ? parameters[static_cast<std::int64_t>(row) * count + parameter]
                                   : 0.0f;
    }
    return y;
  }
};

struct FittingProduct {
  static constexpr bool kTogether = false, kActivates = true;
  int begin, end;
  SplitWeight w;
  Activation activation;
  FittingInput input;
  const float *bias, *idt;  // or null
  bool skip;                // adds the input
  float *y, *slope;         // slope: null without forces

  DPA2MD_KERNEL int products() const { return 1; }
  DPA2MD_KERNEL SplitWeight weight(int) const { return w; }
  DPA2MD_KERNEL const Activation& act() const { return activation; }
  DPA2MD_KERNEL FittingInput left(int) const { return input; }
  template <Activation::Kind K>
  DPA2MD_KERNEL void finish(int, int row, int column, Four<float> x) const {
    const std::int64_t at = static_cast<std::int64_t>(row) * w.n + column;
    if (bias) x = plus(x, four(bias + column));
    Four<float> d;
    x = activated<K>(activation, x, &d);
    if (idt) x = times(x, idt + column), d = times(d, idt + column);
    if (slope) four(slope + at) = d;
    if (skip) x = plus(x, input(row, column));
    four(y + at) = x;
  }
};

// The last layer, of one number: an atom's energy, and d E of what the net gives.
struct FittingEnergy {
  int begin, end;
  int width;
  const float *x, *w, *b;
  FittingView<float> f;
  const int* center_type;
  float* seed;
  double* energy;

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& block, int item, Scratch) const {
    each_of_item(block, item, end - begin, [&](int k) {
      const int row = begin + k;
      double sum = 0;
      for (int c = block.lane; c < width; c += block.lanes)
        sum += double(x[static_cast<std::int64_t>(row) * width + c]) * double(w[c]);
      sum = block.lane_sum(sum);
      if (block.lane != 0) return;
      const AtomEnergy e = atom_energy(center_type[row], sum + double(b ? b[0] : 0.0f), f.bias_atom_e,
                                       f.out_bias, f.zero_type, f.exclude);
      energy[row] = e.value;
      seed[row] = e.counts ? 1.0f : 0.0f;
    });
  }
};

// Gradients of a layer's output: rows, or of the last one seed times a weight; and these times slopes.
struct FittingGradient {
  const float *dy, *seed;  // seed: or null
  const float* slope;
  int width;

  DPA2MD_KERNEL Four<float> plain(int row, int k) const {
    if (!seed) return four(dy + (static_cast<std::int64_t>(row) * width + k));
    return plus(Four<float>{}, four(dy + k), seed[row]);
  }
  DPA2MD_KERNEL Four<float> operator()(int row, int k) const {
    return times(plain(row, k), slope + (static_cast<std::int64_t>(row) * width + k));
  }
};
struct FittingBackwardProduct {
  static constexpr bool kTogether = false, kActivates = false;
  int begin, end;
  SplitWeight w;
  FittingGradient gradient;
  bool skip;
  float* dx;

  DPA2MD_KERNEL int products() const { return 1; }
  DPA2MD_KERNEL SplitWeight weight(int) const { return w; }
  DPA2MD_KERNEL FittingGradient left(int) const { return gradient; }
  template <Activation::Kind>
  DPA2MD_KERNEL void finish(int, int row, int column, Four<float> y) const {
    if (skip) y = plus(y, gradient.plain(row, column));
    four(dx + (static_cast<std::int64_t>(row) * w.n + column)) = y;
  }
};

// y (rows, out) [+]= x (rows, in) W
struct PlainProduct {
  static constexpr bool kTogether = false, kActivates = false;
  int begin, end;
  SplitWeight w;
  const float* x;
  float* y;
  bool add;

  DPA2MD_KERNEL int products() const { return 1; }
  DPA2MD_KERNEL SplitWeight weight(int) const { return w; }
  DPA2MD_KERNEL ScaledRows left(int) const { return {x, nullptr, nullptr, w.k}; }
  template <Activation::Kind>
  DPA2MD_KERNEL void finish(int, int row, int column, Four<float> z) const {
    float* to = y + (static_cast<std::int64_t>(row) * w.n + column);
    if (add) z = plus(z, four(static_cast<const float*>(to)));
    four(to) = z;
  }
};

// ---- weights for these

struct SplitLayer {
  SplitWeight forward[kNodeProducts], backward[kNodeProducts], query, query_t;
};
struct SplitWeights {
  SplitWeight transform, transform_t;
  std::vector<SplitLayer> layers;
  // The hidden layers of the fitting net, empty where it is left to dense.h, with bias and idt; then the last
  // layer's weight and bias.
  std::vector<SplitWeight> fitting, fitting_t;
  std::vector<std::pair<const float*, const float*>> fitting_layers;
};

}  // namespace gpu
}  // namespace dpa2md

#endif
