// Three-body from tables: c g(c) of every unordered pair of neighbours, one thread a pair. Atoms with a pair
// beyond the tables' reach are left to three_body.h.
#pragma once

#include "cuda/kernels/tables.h"
#include "cuda/kernels/three_body.h"

namespace dpa2md {
namespace DPA2MD_GPU {

constexpr int kTripleChannels = 8;  // that a thread sums at once; rows of the tables are multiples of it

template <class T>
struct TabulatedThreeBodyBase : ThreeBodyBase<T> {
  // All directions are short enough for the tables; all threads agree.
  DPA2MD_KERNEL bool in_reach(const ThreadBlock& b, int i) const {
    const State<T>& s = this->s;
    bool outside = false;
    for (int k = b.thread; k < s.three.count[i]; k += b.threads) {
      const T* e = s.three.em + 4 * (s.three.first[i] + k);
      outside = outside || !(e[1] * e[1] + e[2] * e[2] + e[3] * e[3] <= T(s.embedding3.reach));
    }
    return !b.any(outside);
  }

  // Unordered pairs j <= k of n neighbours: row r and row n - 1 - r of the triangle make one row of n + 1.
  DPA2MD_KERNEL static int slots(int n) { return (n + 1) / 2 * (n + 1); }
  DPA2MD_KERNEL static bool unordered(int slot, int n, int* j, int* k) {
    const int row = slot / (n + 1), column = slot % (n + 1), mirror = n - 1 - row;
    const bool first = column < n - row;
    *j = first ? row : mirror;
    *k = first ? row + column : mirror + column - (n - row);
    return first || row != mirror;
  }

  DPA2MD_KERNEL void find(int i, int j, int k, TablePlace<T>* p, typename ThreeBodyBase<T>::Triple* t) const {
    const State<T>& s = this->s;
    *t = this->triple(i, j * s.three.count[i] + k);
    place(s.embedding3.table[s.type[t->pj] * s.nt + s.type[t->pk]], s.embedding3.table_channels,
          this->cosine(*t), p);
  }
  // Strip mode: T(t_j, t_k) + T(t_k, t_j)
  DPA2MD_KERNEL T both(const typename ThreeBodyBase<T>::Triple& t, int m) const {
    const EmbeddingView<T>& e = this->s.embedding3;
    const std::int64_t a = this->s.type[t.pj], c = this->s.type[t.pk];
    return e.gate[(a * this->s.nt + c) * e.ng + m] + e.gate[(c * this->s.nt + a) * e.ng + m];
  }
};

template <class T>
struct TabulatedThreeBody : TabulatedThreeBodyBase<T> {
  static constexpr int kMostThreads = kAtomThreads;
  struct Arrays {
    T* sum;  // (warps, channels)
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int) const {
    return {scratch->take<T>(kThreads * kTripleChannels)};
  }

  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch scratch) const {
    const State<T>& s = this->s;
    const EmbeddingView<T>& e = s.embedding3;
    const Arrays a = arrays(&scratch, 0);
    const bool inside = this->in_reach(b, i);
    if (b.thread == 0) s.tabulated3[i] = inside;
    if (b.thread == 0 && !inside) atomic_add(s.tabulated3 + s.natoms, 1);
    if (!inside) return;
    T* out = s.rep_out + static_cast<std::int64_t>(i + 1) * s.repinit_width - e.ng;
    for (int m0 = 0; m0 < e.ng; m0 += kTripleChannels) channels(b, i, m0, a.sum, out);
  }

 private:
  DPA2MD_KERNEL void channels(const ThreadBlock& b, int i, int m0, T* sums, T* out) const {
    const State<T>& s = this->s;
    const EmbeddingView<T>& e = s.embedding3;
    const int n = s.three.count[i];
    T sum[kTripleChannels] = {};
    for (int slot = b.thread; slot < this->slots(n); slot += b.threads) {
      int j, k;
      if (!this->unordered(slot, n, &j, &k)) continue;
      TablePlace<T> p;
      typename ThreeBodyBase<T>::Triple t;
      this->find(i, j, k, &p, &t);
      const T weight = j == k ? T(0.5) : T(1);
      T g[kTripleChannels], slope[kTripleChannels];
      for (int c = 0; c < kTripleChannels; c += 4)
        look_up_four(p, e.table_channels, m0 + c, g + c, slope + c);
      DPA2MD_UNROLL
      for (int c = 0; c < kTripleChannels; ++c) {
        if (e.strip && m0 + c < e.ng) g[c] *= T(2) + this->both(t, m0 + c) * this->opening(t);
        sum[c] += weight * g[c];
      }
    }
    for (int c = 0; c < kTripleChannels; ++c) {
      const T total = b.lane_sum(sum[c]);
      if (b.lane == 0) sums[b.warp * kTripleChannels + c] = total;
    }
    b.sync();
    b.each(e.ng - m0 < kTripleChannels ? e.ng - m0 : kTripleChannels, [&](int c) {
      T total = 0;
      for (int w = 0; w < b.warps; ++w) total += sums[w * kTripleChannels + c];
      out[m0 + c] = this->norm() * total;
    });
  }
};

// Assigns d em and d sw of the atom's three-body pairs.
template <class T>
struct TabulatedThreeBodyBackward : TabulatedThreeBodyBase<T> {
  static constexpr int kMostThreads = kAtomThreads;
  struct Arrays {
    T *dc, *dopening;  // (n, n), symmetric; the latter in strip mode
    int ld;
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int n) const {
    const int ld = n | 1;
    const std::size_t square = static_cast<std::size_t>(n) * ld;
    return {scratch->take<T>(square), this->s.embedding3.strip ? scratch->take<T>(square) : nullptr, ld};
  }

  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch scratch) const {
    const State<T>& s = this->s;
    if (!s.tabulated3[i]) return;
    const int n = s.three.count[i];
    const std::int64_t q0 = s.three.first[i];
    const Arrays a = arrays(&scratch, n);
    const T* dout = s.drep_out + static_cast<std::int64_t>(i + 1) * s.repinit_width - s.embedding3.ng;
    b.each(this->slots(n), [&](int slot) {
      int j, k;
      if (this->unordered(slot, n, &j, &k)) pair(i, j, k, dout, a);
    });
    b.each(n * 4, [&](int e) {
      const int j = e / 4, c = e % 4;
      T sum = 0;
      for (int k = 0; k < n && c > 0; ++k) sum += a.dc[k * a.ld + j] * s.three.em[4 * (q0 + k) + c];
      s.three.dem[4 * (q0 + j) + c] = sum;
    });
    b.each(n, [&](int j) {
      T sum = 0;
      for (int k = 0; a.dopening && s.smooth && k < n; ++k)
        sum += a.dopening[k * a.ld + j] * s.three.sw[q0 + k];
      s.three.dsw[q0 + j] = sum;
    });
  }

 private:
  DPA2MD_KERNEL void pair(int i, int j, int k, const T* dout, const Arrays& a) const {
    const EmbeddingView<T>& e = this->s.embedding3;
    TablePlace<T> p;
    typename ThreeBodyBase<T>::Triple t;
    this->find(i, j, k, &p, &t);
    const T opening = this->opening(t);
    T dc = 0, dopening = 0;
    for (int m = 0; m < e.ng; m += 4) {
      T g[4], slope[4];
      look_up_four(p, e.table_channels, m, g, slope);
      for (int c = 0; c < 4 && m + c < e.ng; ++c) {
        if (e.strip) {
          const T gates = this->both(t, m + c);
          dopening += dout[m + c] * gates * g[c];
          slope[c] *= T(2) + gates * opening;
        }
        dc += dout[m + c] * slope[c];
      }
    }
    // j = k has half the weight, and both its directions are e_j
    a.dc[j * a.ld + k] = a.dc[k * a.ld + j] = this->norm() * dc;
    if (a.dopening) a.dopening[j * a.ld + k] = a.dopening[k * a.ld + j] = this->norm() * dopening;
  }
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
