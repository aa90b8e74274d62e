// repinit from tables: the atoms all of whose neighbours a table covers. The others are left to repinit.h.
#pragma once

#include "cuda/kernels/repinit.h"
#include "cuda/kernels/tables.h"

namespace dpa2md {
namespace DPA2MD_GPU {

template <class T>
struct TabulatedRepinitBase : RepinitBase<T> {
  // Places of all neighbours; false when one of them has no table or lies outside. All threads agree.
  DPA2MD_KERNEL bool find_places(const ThreadBlock& b, int i, TablePlace<T>* places) const {
    const State<T>& s = this->s;
    const std::int64_t p0 = s.repinit.first[i];
    bool outside = false;
    for (int j = b.thread; j < s.repinit.count[i]; j += b.threads) {
      const TableView<T>& t = s.embedding.table[s.center_type[i] * s.nt + s.type[p0 + j]];
      const T x = s.repinit.em[4 * (p0 + j)];
      if (covers(t, x)) {
        place(t, s.embedding.ng, x, &places[j]);
      } else {
        outside = true;
      }
    }
    return !b.any(outside);
  }
};

// Sets `tabulated` of every atom.
template <class T>
struct TabulatedRepinit : TabulatedRepinitBase<T> {
  static constexpr int kMostThreads = kAtomThreads;
  struct Arrays {
    TablePlace<T>* places;  // (n)
    T* moment;              // (4, ng)
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int n) const {
    return {scratch->take<TablePlace<T>>(n), scratch->take<T>(4 * this->s.embedding.ng)};
  }

  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch scratch) const {
    const State<T>& s = this->s;
    const EmbeddingView<T>& e = s.embedding;
    const int n = s.repinit.count[i], ng = e.ng;
    const std::int64_t p0 = s.repinit.first[i];
    const Arrays a = arrays(&scratch, n);
    const bool inside = s.center_type[i] >= 0 && this->find_places(b, i, a.places);
    if (b.thread == 0) s.tabulated[i] = inside;
    if (b.thread == 0 && !inside) atomic_add(s.tabulated + s.natoms, 1);
    if (!inside) return;
    b.each(ng, [&](int m) {
      T sum[4] = {0, 0, 0, 0};
      for (int j = 0; j < n; ++j) {
        const Four<T> em = four(s.repinit.em + 4 * (p0 + j));
        T g, slope;
        look_up(a.places[j], ng, m, &g, &slope);
        if (e.strip) g += g * this->gate(i, p0 + j)[m] * this->opening(p0 + j);
        for (int c = 0; c < 4; ++c) sum[c] += g * em.x[c];
      }
      for (int c = 0; c < 4; ++c) a.moment[c * ng + m] = sum[c];
    });
    this->finish(b, i, a.moment);
  }
};

// Assigns d em and d sw of the pairs, a group of lanes a pair; four channels at a time where they are
// multiples of four.
template <class T>
struct TabulatedRepinitBackward : TabulatedRepinitBase<T> {
  static constexpr int kMostThreads = kAtomThreads;
  struct Arrays {
    TablePlace<T>* places;
    T* dmoment;  // (4, ng)
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int n) const {
    return {scratch->take<TablePlace<T>>(n), scratch->take<T>(4 * this->s.embedding.ng)};
  }

  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch scratch) const {
    const State<T>& s = this->s;
    if (!s.tabulated[i] || s.repinit.count[i] == 0) return;
    const Arrays a = arrays(&scratch, s.repinit.count[i]);
    this->find_places(b, i, a.places);
    this->moment_gradient(b, i, a.dmoment);
    const int ng = s.embedding.ng;
    b.each_group(s.repinit.count[i], [&](int j, bool inside) {
      const std::int64_t p = s.repinit.first[i] + j;
      T sum[5] = {0, 0, 0, 0, 0};  // d em, d sw
      const int first = b.group_lane(), step = b.group_lanes(), end = inside ? ng : 0;
      if (ng % 4 == 0) {
        for (int m = 4 * first; m < end; m += 4 * step) four_channels(i, p, a.places[j], m, a.dmoment, sum);
      } else {
        for (int m = first; m < end; m += step) {
          T g, slope, d[4];
          look_up(a.places[j], ng, m, &g, &slope);
          for (int c = 0; c < 4; ++c) d[c] = a.dmoment[c * ng + m];
          channel(i, p, m, g, slope, d, sum);
        }
      }
      for (T& x : sum) x = b.group_sum(x);
      if (first != 0 || !inside) return;
      for (int c = 0; c < 4; ++c) s.repinit.dem[4 * p + c] = sum[c];
      s.repinit.dsw[p] = s.smooth ? sum[4] : T(0);
    });
  }

 private:
  DPA2MD_KERNEL void four_channels(int i, std::int64_t p, const TablePlace<T>& at, int m, const T* dmoment,
                                   T* sum) const {
    const int ng = this->s.embedding.ng;
    T g[4], slope[4];
    look_up_four(at, ng, m, g, slope);
    Four<T> d[4];
    for (int c = 0; c < 4; ++c) d[c] = four(dmoment + c * ng + m);
    DPA2MD_UNROLL
    for (int q = 0; q < 4; ++q) {
      const T of_channel[4] = {d[0].x[q], d[1].x[q], d[2].x[q], d[3].x[q]};
      channel(i, p, m + q, g[q], slope[q], of_channel, sum);
    }
  }
  // Adds what channel m of pair p has for d em and d sw; d (4): the gradient of its moments.
  DPA2MD_KERNEL void channel(int i, std::int64_t p, int m, T g, T slope, const T* d, T* sum) const {
    const Four<T> em = four(this->s.repinit.em + 4 * p);
    T dg = 0;
    for (int c = 0; c < 4; ++c) dg += d[c] * em.x[c];
    if (this->s.embedding.strip) {
      const T t = this->gate(i, p)[m], open = T(1) + t * this->opening(p);
      sum[4] += dg * g * t;
      g *= open, slope *= open;
    }
    sum[0] += dg * slope;
    for (int c = 0; c < 4; ++c) sum[c] += g * d[c];
  }
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
