// Small matrix products, activations and nets, worked out by one block. Matrices are row-major. Each of these
// functions ends with a barrier: what it wrote can be read by all threads.
#pragma once

#include "cuda/block/tensor.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// A factor for the loops below: element (i, k) is data[i * row + k * col].
template <class T>
struct Matrix {
  const T* data;
  int row, col;
  DPA2MD_KERNEL Matrix(Plain<T> x) : data(x.data), row(x.ld), col(1) {}
  DPA2MD_KERNEL Matrix(Transposed<T> x) : data(x.data), row(1), col(x.ld) {}
  DPA2MD_KERNEL Matrix(Weight<T> x) : data(x.rows), row(x.n), col(1) {}
};

// R x R elements of c a thread at a time, held in registers over the whole contraction. Neighbouring threads
// have neighbouring columns.
template <int R, class T>
DPA2MD_KERNEL DPA2MD_NOINLINE void gemm_tiles(const ThreadBlock& b, int m, int n, int k, Matrix<T> x,
                                              Matrix<T> y, T* c, int ldc, bool add) {
  const int rows = (m + R - 1) / R, columns = (n + R - 1) / R;
  for (int tile = b.thread; tile < rows * columns; tile += b.threads) {
    const int i0 = tile / columns, j0 = tile % columns;
    const T *px[R], *py[R];
    T sum[R][R];
    DPA2MD_UNROLL
    for (int r = 0; r < R; ++r) {
      px[r] = x.data + (i0 + r * rows < m ? i0 + r * rows : i0) * x.row;
      py[r] = y.data + (j0 + r * columns < n ? j0 + r * columns : j0) * y.col;
      DPA2MD_UNROLL
      for (int s = 0; s < R; ++s) sum[r][s] = 0;
    }
    for (int p = 0; p < k; ++p) {
      T u[R], v[R];
      DPA2MD_UNROLL
      for (int r = 0; r < R; ++r) u[r] = px[r][p * x.col], v[r] = py[r][p * y.row];
      DPA2MD_UNROLL
      for (int r = 0; r < R; ++r) {
        DPA2MD_UNROLL
        for (int s = 0; s < R; ++s) sum[r][s] += u[r] * v[s];
      }
    }
    DPA2MD_UNROLL
    for (int r = 0; r < R; ++r) {
      DPA2MD_UNROLL
      for (int s = 0; s < R; ++s) {
        const int i = i0 + r * rows, j = j0 + s * columns;
        if (i < m && j < n) c[i * ldc + j] = add ? c[i * ldc + j] + sum[r][s] : sum[r][s];
      }
    }
  }
}

// c (m, n) [+]= x (m, k) y (k, n): on tensor cores where there is something to fill their tiles: also a few
// rows, which cost less there than in loops.
template <class T, class X, class Y>
DPA2MD_KERNEL void gemm(const ThreadBlock& b, int m, int n, int k, X x, Y y, T* c, int ldc, bool add) {
#if !defined(DPA2MD_NO_TENSOR_CORES)
  if (m > 2 && n >= 8 && k >= 4) {
    gemm_tensor(b, m, n, k, x, y, c, ldc, add);
    b.sync();
    return;
  }
#endif
  if (m * n >= 12 * b.threads) {
    gemm_tiles<4, T>(b, m, n, k, x, y, c, ldc, add);
  } else if (m * n >= 2 * b.threads) {
    gemm_tiles<2, T>(b, m, n, k, x, y, c, ldc, add);
  } else {
    gemm_tiles<1, T>(b, m, n, k, x, y, c, ldc, add);
  }
  b.sync();
}

template <class T>
DPA2MD_KERNEL void fill(const ThreadBlock& b, int count, T* x, T value) {
  b.each(count, [&](int k) { x[k] = value; });
}

// Four numbers of a row, read and written at once: rows of a multiple of four begin where that is possible.
template <class T>
struct alignas(16) Four {
  T x[4];
};
template <class T>
DPA2MD_KERNEL const Four<T>& four(const T* p) {
  return *reinterpret_cast<const Four<T>*>(p);
}
template <class T>
DPA2MD_KERNEL Four<T>& four(T* p) {
  return *reinterpret_cast<Four<T>*>(p);
}
// f(row, column) for every fourth column, a group of lanes a row.
template <class F>
DPA2MD_KERNEL void each_four(const ThreadBlock& b, int rows, int width, F f) {
  b.each_group(rows, [&](int r, bool inside) {
    for (int c = 4 * b.group_lane(); c < (inside ? width : 0); c += 4 * b.group_lanes()) f(r, c);
  });
}

// Rows (width) that begin at from(r) into a matrix of them; all where four numbers may be read at once if the
// width is a multiple of it.
template <class T, class Row>
DPA2MD_KERNEL void gather(const ThreadBlock& b, int rows, int width, Row from, T* to, int ldt) {
  if (width % 4 == 0 && ldt % 4 == 0) {
    each_four(b, rows, width, [&](int r, int c) { four(to + r * ldt + c) = four(from(r) + c); });
  } else {
    b.each_of(rows, width, [&](int, int r, int c) { to[r * ldt + c] = from(r)[c]; });
  }
}

// (rows, width) from one leading dimension to another
template <class T>
DPA2MD_KERNEL void copy(const ThreadBlock& b, int rows, int width, const T* from, int ldf, T* to, int ldt) {
  b.each_of(rows, width, [&](int, int r, int c) { to[r * ldt + c] = from[r * ldf + c]; });
}

// x (rows, width) in place -> act(x); slope, when given, -> act'(x)
template <class T>
DPA2MD_KERNEL void activate_rows(const ThreadBlock& b, const Activation& act, int rows, int width, T* x,
                                 int ldx, T* slope, int lds) {
  dispatch(act, [&](auto kind) {
    b.each_of(rows, width, [&](int, int r, int c) {
      T y, d;
      T* at = x + r * ldx + c;
      activate<decltype(kind)::value>(act, *at, &y, &d);
      *at = y;
      if (slope) slope[r * lds + c] = d;
    });
  });
}

// x W + b with the weight in both orders; null without a bias.
template <class T>
struct Linear {
  int in = 0, out = 0;
  Weight<T> w, wt;
  const T* b = nullptr;
};

// y (rows, out) = x (rows, in) w + b
template <class T>
DPA2MD_KERNEL void forward(const ThreadBlock& b, const Linear<T>& l, int rows, const T* x, int ldx, T* y,
                           int ldy) {
  if (l.b) b.each_of(rows, l.out, [&](int, int r, int c) { y[r * ldy + c] = l.b[c]; });
  gemm(b, rows, l.out, l.in, plain(x, ldx), l.w, y, ldy, l.b != nullptr);
}
// dx (rows, columns) [+]= dy (rows, out) w^T, the first `columns` of the inputs
template <class T>
DPA2MD_KERNEL void backward(const ThreadBlock& b, const Linear<T>& l, int rows, const T* dy, int ldy, T* dx,
                            int ldx, bool add, int columns) {
  gemm(b, rows, columns, l.out, plain(dy, ldy), l.wt, dx, ldx, add);
}

// ---- nets

template <class T>
struct NetLayer {
  Linear<T> linear;
  const T* idt;
  int skip;
};
template <class T>
struct NetView {
  Activation act;
  bool linear_last = false;
  int count = 0, inputs = 0;
  int widest = 0, total = 0;           // of all inputs and outputs; of all outputs together
  const NetLayer<T>* layer = nullptr;  // (count)

  DPA2MD_KERNEL bool linear(int k) const { return linear_last && k + 1 == count; }
};

// Scratch of a net for some rows: two buffers in turn, and the slopes of all layers for a reverse sweep.
template <class T>
struct NetBuffers {
  T *x, *y, *slope;
  DPA2MD_KERNEL NetBuffers(Scratch* s, const NetView<T>& net, int rows, bool tape)
      : x(s->take<T>(static_cast<std::size_t>(rows) * net.widest)),
        y(s->take<T>(static_cast<std::size_t>(rows) * net.widest)),
        slope(tape ? s->take<T>(static_cast<std::size_t>(rows) * net.total) : nullptr) {}
};

// The input is in buffers->x (rows, in); the output, (rows, out), is there afterwards. Slopes act'(pre) * idt
// are kept layer after layer, (rows, out) each.
template <class T>
DPA2MD_KERNEL void forward(const ThreadBlock& b, const NetView<T>& net, int rows, NetBuffers<T>* buffers) {
  T* slope = buffers->slope;
  for (int k = 0; k < net.count; ++k) {
    const NetLayer<T>& l = net.layer[k];
    const int in = l.linear.in, out = l.linear.out;
    T *x = buffers->x, *y = buffers->y;
    forward(b, l.linear, rows, x, in, y, out);
    if (!net.linear(k)) {
      activate_rows(b, net.act, rows, out, y, out, slope, out);
    } else if (slope) {
      fill(b, rows * out, slope, T(1));
    }
    if (l.idt || l.skip) {
      b.each_of(rows, out, [&](int e, int r, int c) {
        if (l.idt) {
          y[e] *= l.idt[c];
          if (slope) slope[e] *= l.idt[c];
        }
        if (l.skip) y[e] += x[r * in + c % in];
      });
    }
    if (slope) slope += rows * out;
    buffers->x = y, buffers->y = x;
  }
}

// d output (rows, out) in buffers->x -> d of the first `columns` inputs, (rows, columns), there.
template <class T>
DPA2MD_KERNEL void backward(const ThreadBlock& b, const NetView<T>& net, int rows, int columns,
                            NetBuffers<T>* buffers) {
  const T* slope = buffers->slope + static_cast<std::size_t>(rows) * net.total;
  for (int k = net.count - 1; k >= 0; --k) {
    const NetLayer<T>& l = net.layer[k];
    const int in = k ? l.linear.in : columns, out = l.linear.out;
    T *dy = buffers->x, *dx = buffers->y;
    slope -= rows * out;
    b.each_of(rows, in, [&](int e, int r, int c) {
      T sum = 0;
      for (int copy = 0; copy < l.skip; ++copy) sum += dy[r * out + c + copy * l.linear.in];
      dx[e] = sum;
    });
    b.each(rows * out, [&](int e) { dy[e] *= slope[e]; });
    backward(b, l.linear, rows, dy, out, dx, in, true, in);
    buffers->x = dx, buffers->y = dy;
  }
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
