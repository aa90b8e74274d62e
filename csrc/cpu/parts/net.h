// Embedding nets on blocks of samples, "channel-major": x[channel][sample], so that the vector
// lanes run over samples (pairs, triples or atoms) whatever the widths are.
#pragma once

#include "cpu/parts/gradients.h"
#include "cpu/vector/activate.h"
#include "cpu/vector/gemm.h"
#include "cpu/vector/memory.h"
#include "model/model.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// Weights for numbers T.
template <class T>
Buffer<Real<T>> cast(const Tensor& t) {
  Buffer<Real<T>> out;
  out.resize(t.data.size());
  for (std::size_t i = 0; i < t.data.size(); ++i) out[i] = static_cast<Real<T>>(t.data[i]);
  return out;
}

// Rows of `columns` numbers, each padded with zeros to whole vectors.
template <class T>
Buffer<Real<T>> cast_padded(const Tensor& t, int columns) {
  Buffer<Real<T>> out;
  const std::size_t rows = t.data.size() / columns, np = padded(columns, lanes<T>());
  out.resize(rows * np);
  out.zero(0, rows * np);
  for (std::size_t r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) out[r * np + c] = static_cast<Real<T>>(t.data[r * columns + c]);
  }
  return out;
}

// The gradient of a net.
template <class R>
struct NetGradient {
  struct L {
    GroupSums *w = nullptr, *b = nullptr, *idt = nullptr;
  };
  std::vector<L> layers;

  void prepare(const Net& net, Gradients<R>* to) {
    for (const Layer& l : net.layers) {
      L g;
      g.w = to->sums(static_cast<std::size_t>(l.in()) * l.out());
      if (!l.b.empty()) g.b = to->sums(l.out());
      if (!l.idt.empty()) g.idt = to->sums(l.out());
      layers.push_back(g);
    }
  }
  // Adds to the tensors of `net`, which holds a gradient.
  void add_gradient(Net* net) const {
    for (std::size_t k = 0; k < layers.size(); ++k) {
      Layer& to = net->layers[k];
      add_to(layers[k].w->total, &to.w);
      if (layers[k].b) add_to(layers[k].b->total, &to.b);
      if (layers[k].idt) add_to(layers[k].idt->total, &to.idt);
    }
  }
};

template <class T>
struct NetWeights {
  struct L {
    int in, out, skip;
    Buffer<Real<T>> w, b, idt;
  };
  Activation act;
  bool linear_last = false;
  int count = 0;
  L layer[64];

  void prepare(const Net& net) {
    act = net.act;
    linear_last = net.linear_last;
    count = static_cast<int>(net.layers.size());
    for (int k = 0; k < count; ++k) {
      const Layer& l = net.layers[k];
      layer[k].in = l.in(), layer[k].out = l.out(), layer[k].skip = l.skip;
      layer[k].w = cast<T>(l.w), layer[k].b = cast<T>(l.b), layer[k].idt = cast<T>(l.idt);
    }
  }
  int out() const { return layer[count - 1].out; }

  // The forward sweep's arrays for the backward sweep, in the arena.
  struct Tape {
    T* slope[64];      // act'(pre) * idt per layer; null for a linear layer
    const T* x[64];    // dual numbers only: what the layer reads,
    T* activated[64];  // and before the factor idt; null without one
  };

  // x (in, ld) -> returns y (out, ld) in the arena; tape may be null. Every column is computed; whole vectors
  // of them are fastest.
  T* forward(const T* x, int ld, Arena& arena, Tape* tape) const {
    T* y = nullptr;
    for (int k = 0; k < count; ++k) {
      const L& l = layer[k];
      const std::size_t size = static_cast<std::size_t>(l.out) * ld;
      y = arena.take<T>(size);
      for (int o = 0; o < l.out; ++o) {
        const T b = l.b.empty() ? T(0) : T(l.b[o]);
        for (int s = 0; s < ld; ++s) y[o * ld + s] = b;
      }
      gemm(l.out, ld, l.in, transposed<Real<T>>(l.w.data(), l.out), x, ld, y, ld, true);
      const bool linear = linear_last && k + 1 == count;
      T* slope = nullptr;
      if (!linear) {
        if (tape) slope = arena.take<T>(size);
        activate_array(act, size, y, slope);
      }
      if (tape) tape->slope[k] = slope;
      if constexpr (is_dual<T>) {
        if (tape) tape->x[k] = x, tape->activated[k] = nullptr;
        if (tape && !l.idt.empty()) {
          tape->activated[k] = arena.take<T>(size);
          std::copy(y, y + size, tape->activated[k]);
        }
      }
      if (!l.idt.empty()) {
        for (int o = 0; o < l.out; ++o) {
          for (int s = 0; s < ld; ++s) y[o * ld + s] *= l.idt[o];
          for (int s = 0; slope && s < ld; ++s) slope[o * ld + s] *= l.idt[o];
        }
      }
      for (int copy = 0; copy < l.skip; ++copy) {
        T* part = y + static_cast<std::size_t>(copy) * l.in * ld;
        for (int s = 0; s < l.in * ld; ++s) part[s] += x[s];
      }
      x = y;
    }
    return y;
  }

  // Where the reverse sweep of dual numbers adds the weights' gradients: of the first `columns` columns.
  struct Gradient {
    const NetGradient<Real<T>>* of = nullptr;
    int group = 0, columns = 0;
  };

  // dy (out, ld), overwritten -> returns dx in the arena, its first `rows` rows.
  T* backward(T* dy, int ld, const Tape& tape, int rows, Arena& arena, const Gradient& to = {}) const {
    for (int k = count - 1; k >= 0; --k) {
      const L& l = layer[k];
      const int in = k ? l.in : rows;
      T* dx = arena.take<T>(static_cast<std::size_t>(in) * ld);
      for (int s = 0; s < in * ld; ++s) {
        T sum(0);
        for (int copy = 0; copy < l.skip; ++copy) sum += dy[static_cast<std::size_t>(copy) * l.in * ld + s];
        dx[s] = sum;
      }
      if constexpr (is_dual<T>) {
        if (to.of && to.of->layers[k].idt) add_idt(tape.activated[k], dy, ld, k, to);
      }
      if (tape.slope[k]) {
        const T* slope = tape.slope[k];
#pragma omp simd
        for (int s = 0; s < l.out * ld; ++s) dy[s] *= slope[s];
      } else if (!l.idt.empty()) {
        for (int o = 0; o < l.out; ++o) {
          for (int s = 0; s < ld; ++s) dy[o * ld + s] *= l.idt[o];
        }
      }
      if constexpr (is_dual<T>) {
        if (to.of) add_weight(tape.x[k], dy, ld, k, to, arena);
      }
      gemm(in, ld, l.out, plain<Real<T>>(l.w.data(), l.out), dy, ld, dx, ld, true);
      dy = dx;
    }
    return dy;
  }

 private:
  void add_idt(const T* activated, const T* dy, int ld, int k, const Gradient& to) const {
    double* sum = to.of->layers[k].idt->of(to.group);
    for (int o = 0; o < layer[k].out; ++o) {
      for (int s = o * ld; s < o * ld + to.columns; ++s) sum[o] += double(tangent_of(dy[s] * activated[s]));
    }
  }
  void add_weight(const T* x, const T* dy, int ld, int k, const Gradient& to, Arena& arena) const {
    const auto& g = to.of->layers[k];
    const L& l = layer[k];
    add_column_product(to.columns, l.in, l.out, x, ld, dy, ld, arena, g.w->of(to.group));
    if (g.b) add_column_sum(to.columns, l.out, dy, ld, g.b->of(to.group));
  }
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
