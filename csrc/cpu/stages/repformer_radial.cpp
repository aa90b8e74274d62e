// Tables of the layers whose g2 depends on the distance alone: repformer_radial.h.
#include "cpu/stages/repformer_radial.h"

#include <algorithm>

#include "cpu/stages/repformer_node.h"
#include "cpu/vector/lanes.h"
#include "model/embedding_tables.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// One that a core's second cache can hold, or none: products are faster than waiting for memory.
template <class T>
void RadialTables<T>::build(const std::vector<char>& types) {
  constexpr std::size_t most_bytes = 768 << 10;  // of a layer, and up to twice as many
  const int channels = state_.rep().g2_dim + state_.rep().g1_dim;
  if (radial_layers(state_.rep()) == 0) return;
  const auto cells = static_cast<int>(most_bytes / (4 * channels * sizeof(Real<T>)));
  const FunctionTable made =
      tabulate_radial_layers(state_.model, types, table_tolerance(sizeof(Real<T>) == 4), cells);
  layers_ = made.empty() ? 0 : radial_layers(state_.rep());
  ld_ = padded(channels, lanes<T>());
  tables_ = std::vector<Table<Real<T>>>(layers_);
  for (int l = 0; l < layers_; ++l) tables_[l].set(made, l * channels, channels, ld_);
}

template <class T>
const RadialPlaces<T>* RadialTables<T>::places(int i, bool slopes, Arena& arena) {
  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  if (!covered_[i]) return nullptr;
  const int n = state_.pairs().repformer.count[i], np = padded(n, W);
  RadialPlaces<T>* p = arena.take<RadialPlaces<T>>(1);
  p->np = np;
  p->cell = arena.take<int>(np);
  p->value = arena.take<T>(5 * static_cast<std::size_t>(np));
  p->slope = slopes ? arena.take<T>(5 * static_cast<std::size_t>(np)) : nullptr;
  const T* em = state_.env.em.data() + 4 * state_.env.row(state_.work, i);
  for (int k = 0; k < np; k += W) {
    V x;
    for (int lane = 0; lane < W; ++lane) x[lane] = em[4 * std::min(k + lane, n - 1)];
    if (slopes) {
      place_lanes<true, true>(tables_[0], x, np, p->cell + k, p->value + k, p->slope + k);
    } else {
      place_lanes<true, false>(tables_[0], x, np, p->cell + k, p->value + k, static_cast<T*>(nullptr));
    }
  }
  return p;
}

template <class T>
void RadialTables<T>::find_atoms(Range range) {
  for (int i = range.begin; i < range.end; ++i) {
    const int n = state_.pairs().repformer.count[i];
    const T* em = state_.env.em.data() + 4 * state_.env.row(state_.work, i);
    bool all = layers_ > 0 && n > 0;
    for (int j = 0; j < n && all; ++j) all = tables_[0].covers(em[4 * j]);
    covered_[i] = all;
  }
}

// From channel c on: g2(l), (n, g2), of `a`, and its moments S = c (h2 w)^T g2, (3, g2).
template <class T>
template <int NV, int W>
int RadialTables<T>::g2_from(int c, int l, const Neighborhood<T>& a, T* out, T* s) const {
  using V = typename Vector<T, W>::type;
  const int d = state_.rep().g2_dim;
  const T factor = state_.inverse_moment(a.n);
  for (; c + NV * W <= d; c += NV * W) {
    V sum[3][NV] = {};
    for (int j = 0; j < a.n; ++j) {
      T w[5];
      const T* node = node_at(l, *a.places, a.places->value, j, w) + c;
      const T *h2 = a.h2 + kH2Row * j, sw = a.sw[j];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        const V g2 = table_value<W>(node + v * W, node + v * W + 6 * ld_, ld_, w);
        *reinterpret_cast<V*>(out + j * d + c + v * W) = g2;
#pragma GCC unroll 3
        for (int x = 0; x < 3; ++x) sum[x][v] += g2 * (h2[x] * sw);
      }
    }
    for (int v = 0; v < NV; ++v) {
      for (int x = 0; x < 3; ++x) *reinterpret_cast<V*>(s + x * d + c + v * W) = factor * sum[x][v];
    }
  }
  return c;
}

template <class T>
void RadialTables<T>::g2(int l, const Neighborhood<T>& a, T* out, T* s) const {
  constexpr int W = lanes<T>();
  int c = g2_from<2, W>(0, l, a, out, s);
  c = g2_from<1, W>(c, l, a, out, s);
  g2_from<1, 1>(c, l, a, out, s);
}

// The node of neighbour j, at g2 of layer l, and its weights gathered.
template <class T>
const T* RadialTables<T>::node_at(int l, const RadialPlaces<T>& p, const T* from, int j, T* w) const {
  for (int q = 0; q < 5; ++q) w[q] = from[q * p.np + j];
  return tables_[l].node.data() + static_cast<std::size_t>(p.cell[j]) * 4 * ld_;
}

// conv (g1) [null: not wanted] and S (3, g1) of an atom, a few vectors of channels at a time.
template <class T>
template <int NV, int W>
int RadialTables<T>::products_from(int c, int l, const Neighborhood<T>& a, const T* const* gg1, T* conv,
                                   T* s) {
  using V = typename Vector<T, W>::type;
  const int width = state_.rep().g1_dim, d = state_.rep().g2_dim;
  const T inv = state_.inverse_count(a.n), factor = state_.inverse_moment(a.n);
  for (; c + NV * W <= width; c += NV * W) {
    V sum[4][NV] = {};
    for (int j = 0; j < a.n; ++j) {
      const T *h2 = a.h2 + kH2Row * j, sw = a.sw[j];
      T w[5];
      const T* node = node_at(l, *a.places, a.places->value, j, w) + d + c;
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        const V x = load<W>(gg1[j] + c + v * W) * sw;
        if (conv) sum[3][v] += x * table_value<W>(node + v * W, node + v * W + 6 * ld_, ld_, w);
#pragma GCC unroll 3
        for (int y = 0; y < 3; ++y) sum[y][v] += x * h2[y];
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      const int at = c + v * W;
      if (conv) *reinterpret_cast<V*>(conv + at) = inv * sum[3][v];
      for (int y = 0; y < 3; ++y) *reinterpret_cast<V*>(s + y * width + at) = factor * sum[y][v];
    }
  }
  return c;
}

template <class T>
void RadialTables<T>::products(int l, const Neighborhood<T>& a, const T* const* gg1, T* conv, T* s) {
  constexpr int W = lanes<T>();
  int c = products_from<4, W>(0, l, a, gg1, conv, s);
  c = products_from<1, W>(c, l, a, gg1, conv, s);
  products_from<1, 1>(c, l, a, gg1, conv, s);
}

template <class T>
void RadialTables<T>::products_backward(int l, int i, const Neighborhood<T>& a, const NodeRow<T>& dout,
                                        NeighborhoodGradient<T>* g, Arena& arena) {
  const Repformer& f = state_.rep();
  const int n = a.n, width = f.g1_dim, d = f.g2_dim;
  const T** gg1 = state_.rows_of_g1(l, i, arena);
  T *s = arena.take<T>(3 * static_cast<std::size_t>(width)),
    *ds1 = arena.zeros<T>(3 * static_cast<std::size_t>(width)),
    *ds2 = arena.zeros<T>(3 * static_cast<std::size_t>(d)), *dconv = arena.take<T>(width);
  const T inv = state_.inverse_count(n), factor = state_.inverse_moment(n);
  for (int c = 0; c < width; ++c) dconv[c] = inv * dout.conv[c];
  if (f.has_drrd) {
    products(l, a, gg1, nullptr, s);
    symmetrise_backward(s, width, f.axis, dout.drrd, ds1);
    for (int c = 0; c < 3 * width; ++c) ds1[c] *= factor;
  }
  if (f.has_grrg) {
    symmetrise_backward(a.g2_moments, d, f.axis, dout.grrg, ds2);
    for (int c = 0; c < 3 * d; ++c) ds2[c] *= factor;
  }

  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  const bool all_layers = layers_ == f.nlayers;  // nothing else gives to d g2: it ends here
  for (int j = 0; j < n; ++j) {
    T w[5], ws[5];
    const T* node = node_at(l, *a.places, a.places->value, j, w);
    node_at(l, *a.places, a.places->slope, j, ws);
    const T *h2 = a.h2 + kH2Row * j, sw = a.sw[j];
    const T h[3] = {h2[0] * sw, h2[1] * sw, h2[2] * sw};
    T* dgg1 = state_.share(a.q0 + j);
    V along[3] = {}, open{}, dem{};  // their lanes are to be summed
    each_channel<T>(width, [&](auto lanes_of, int c) {
      constexpr int L = decltype(lanes_of)::value;
      const T* at = node + d + c;
      const auto value = table_value<L>(at, at + 6 * ld_, ld_, w);
      const auto slope = table_slope<L>(at, at + 6 * ld_, ld_, ws);
      const auto x = load<L>(gg1[j] + c), dx = load<L>(dconv + c), y0 = load<L>(ds1 + c),
                 y1 = load<L>(ds1 + width + c), y2 = load<L>(ds1 + 2 * width + c), xdx = x * dx;
      add<L>(dgg1 + c, sw * dx * value + h[0] * y0 + h[1] * y1 + h[2] * y2);
      collect(&dem, slope * xdx);
      collect(&open, value * xdx);
      collect(&along[0], x * y0);
      collect(&along[1], x * y1);
      collect(&along[2], x * y2);
    });
    dem *= sw;
    T* dg2 = g->g2 + j * d;
    each_channel<T>(d, [&](auto lanes_of, int c) {
      constexpr int L = decltype(lanes_of)::value;
      const auto y0 = load<L>(ds2 + c), y1 = load<L>(ds2 + d + c), y2 = load<L>(ds2 + 2 * d + c),
                 x = load<L>(a.g2 + j * d + c), dx = h[0] * y0 + h[1] * y1 + h[2] * y2;
      collect(&along[0], x * y0);
      collect(&along[1], x * y1);
      collect(&along[2], x * y2);
      if (all_layers) {
        collect(&dem, dx * table_slope<L>(node + c, node + c + 6 * ld_, ld_, ws));
      } else {
        add<L>(dg2 + c, dx);
      }
    });
    const V four[4] = {along[0], along[1], along[2], open};
    T sum[4];
    sum_four<T, W>(four, sum);
    state_.env.dem[4 * (a.q0 + j)] += sum_lanes<T, W>(dem);
    g->sw[j] += sum[3];
    for (int x = 0; x < 3; ++x) {
      g->h2[kH2Row * j + x] += sum[x] * sw;
      g->sw[j] += sum[x] * h2[x];
    }
  }
}

template class RadialTables<float>;
template class RadialTables<double>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
