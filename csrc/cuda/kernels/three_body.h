// Three-body repinit, forward and backward:
//   c_jk = em_j[1:4] . em_k[1:4]      g1_b[m] = sum_jk c_jk g(c_jk, t_j, t_k)[m] / nsel^2
// over all ordered pairs of neighbours, including j = k, in chunks.
#pragma once

#include "cuda/kernels/views.h"

namespace dpa2md {
namespace DPA2MD_GPU {

constexpr int kTripleChunk = 128;

template <class T>
struct ThreeBodyBase {
  State<T> s;

  struct Triple {
    std::int64_t qj, qk, pj, pk;  // pairs in the three-body prefix, and among all
  };
  DPA2MD_KERNEL Triple triple(int i, int t) const {
    const int n = s.three.count[i];
    const std::int64_t q0 = s.three.first[i], p0 = s.repinit.first[i];
    return {q0 + t / n, q0 + t % n, p0 + t / n, p0 + t % n};
  }
  DPA2MD_KERNEL T cosine(const Triple& t) const {
    const T *x = s.three.em + 4 * t.qj, *y = s.three.em + 4 * t.qk;
    return x[1] * y[1] + x[2] * y[2] + x[3] * y[3];
  }
  DPA2MD_KERNEL const T* gate(const Triple& t) const {
    return s.embedding3.gate +
           (static_cast<std::int64_t>(s.type[t.pj]) * s.nt + s.type[t.pk]) * s.embedding3.ng;
  }
  DPA2MD_KERNEL T opening(const Triple& t) const {
    return s.smooth ? s.three.sw[t.qj] * s.three.sw[t.qk] : T(1);
  }
  DPA2MD_KERNEL T norm() const { return T(1) / (T(s.three.nsel) * T(s.three.nsel)); }

  // Computes g of the triples t0 … t0 + rows - 1 of atom i into net.x, without the gate.
  DPA2MD_KERNEL void embed(const ThreadBlock& b, int i, int t0, int rows, NetBuffers<T>* net) const {
    const int in = s.embedding3.net.inputs, tebd = s.tebd;
    b.each(rows * in, [&](int e) {
      const Triple t = triple(i, t0 + e / in);
      const int column = e % in;
      net->x[e] = column == 0      ? cosine(t)
                  : column <= tebd ? s.types[s.type[t.pj] * tebd + column - 1]
                                   : s.types[s.type[t.pk] * tebd + column - 1 - tebd];
    });
    forward(b, s.embedding3.net, rows, net);
  }
};

template <class T>
struct ThreeBody : ThreeBodyBase<T> {
  DPA2MD_KERNEL bool none_left() const { return all_tabulated(this->s.tabulated3, this->s.natoms); }
  struct Arrays {
    NetBuffers<T> net;
    T* sum;  // (ng)
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int) const {
    const EmbeddingView<T>& e = this->s.embedding3;
    return {NetBuffers<T>(scratch, e.net, kTripleChunk, false), scratch->take<T>(e.ng)};
  }

  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch scratch) const {
    const State<T>& s = this->s;
    const EmbeddingView<T>& e = s.embedding3;
    if (s.tabulated3 && s.tabulated3[i]) return;
    const int n = s.three.count[i];
    T* out = s.rep_out + static_cast<std::int64_t>(i + 1) * s.repinit_width - e.ng;
    const Arrays a = arrays(&scratch, 0);
    fill(b, e.ng, a.sum, T(0));
    for (int t0 = 0; t0 < n * n; t0 += kTripleChunk) {
      const int rows = n * n - t0 < kTripleChunk ? n * n - t0 : kTripleChunk;
      NetBuffers<T> net = a.net;
      this->embed(b, i, t0, rows, &net);
      b.each_warp(e.ng, [&](int m) {
        T sum = 0;
        for (int row = b.lane; row < rows; row += b.lanes) {
          const auto t = this->triple(i, t0 + row);
          const T g = net.x[row * e.ng + m];
          sum += this->cosine(t) * (e.strip ? g * (T(1) + this->gate(t)[m] * this->opening(t)) : g);
        }
        sum = b.lane_sum(sum);
        if (b.lane == 0) a.sum[m] += sum;
      });
    }
    b.each(e.ng, [&](int m) { out[m] = this->norm() * a.sum[m]; });
  }
};

// Assigns d em and d sw of the atom's three-body pairs.
template <class T>
struct ThreeBodyBackward : ThreeBodyBase<T> {
  DPA2MD_KERNEL bool none_left() const { return all_tabulated(this->s.tabulated3, this->s.natoms); }
  struct Arrays {
    NetBuffers<T> net;
    T* dg;             // (chunk, ng)
    T *dc, *dopening;  // (n, n); the latter in strip mode
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int n) const {
    const EmbeddingView<T>& e = this->s.embedding3;
    const std::size_t square = static_cast<std::size_t>(n) * n;
    return {NetBuffers<T>(scratch, e.net, kTripleChunk, true), scratch->take<T>(kTripleChunk * e.ng),
            scratch->take<T>(square), e.strip ? scratch->take<T>(square) : nullptr};
  }

  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch scratch) const {
    const State<T>& s = this->s;
    if (s.tabulated3 && s.tabulated3[i]) return;
    const int n = s.three.count[i];
    const std::int64_t q0 = s.three.first[i];
    const Arrays a = arrays(&scratch, n);
    for (int t0 = 0; t0 < n * n; t0 += kTripleChunk) {
      chunk_backward(b, i, t0, n * n - t0 < kTripleChunk ? n * n - t0 : kTripleChunk, a);
    }
    b.each(n * 4, [&](int e) {
      const int j = e / 4, c = e % 4;
      T sum = 0;
      for (int k = 0; k < n && c > 0; ++k)
        sum += (a.dc[j * n + k] + a.dc[k * n + j]) * s.three.em[4 * (q0 + k) + c];
      s.three.dem[4 * (q0 + j) + c] = sum;
    });
    b.each(n, [&](int j) {
      T sum = 0;
      for (int k = 0; a.dopening && s.smooth && k < n; ++k)
        sum += (a.dopening[j * n + k] + a.dopening[k * n + j]) * s.three.sw[q0 + k];
      s.three.dsw[q0 + j] = sum;
    });
  }

 private:
  DPA2MD_KERNEL void chunk_backward(const ThreadBlock& b, int i, int t0, int rows, const Arrays& a) const {
    const State<T>& s = this->s;
    const EmbeddingView<T>& e = s.embedding3;
    const T* dout = s.drep_out + static_cast<std::int64_t>(i + 1) * s.repinit_width - e.ng;
    NetBuffers<T> net = a.net;
    this->embed(b, i, t0, rows, &net);
    b.each(rows, [&](int row) {
      const auto t = this->triple(i, t0 + row);
      const T c = this->cosine(t);
      T dc = 0, dopening = 0;
      for (int m = 0; m < e.ng; ++m) {
        const T d = dout[m] * this->norm(), g = net.x[row * e.ng + m];
        const T gate = e.strip ? this->gate(t)[m] : T(0),
                open = e.strip ? T(1) + gate * this->opening(t) : T(1);
        dc += d * g * open;
        dopening += d * c * g * gate;
        a.dg[row * e.ng + m] = d * c * open;
      }
      a.dc[t0 + row] = dc;
      if (a.dopening) a.dopening[t0 + row] = dopening;
    });
    copy(b, rows, e.ng, a.dg, e.ng, net.x, e.ng);
    backward(b, e.net, rows, 1, &net);
    b.each(rows, [&](int row) { a.dc[t0 + row] += net.x[row]; });
  }
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
