// repinit from tables: the atoms all of whose neighbours a table covers. The others are left to repinit.h.
#pragma once

#include "repinit.h"
#include "tables.h"

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
    if (!inside) return;
    b.each(ng, [&](int m) {
      T sum[4] = {0, 0, 0, 0};
      for (int j = 0; j < n; ++j) {
        const T* em = s.repinit.em + 4 * (p0 + j);
        T g, slope;
        look_up(a.places[j], ng, m, &g, &slope);
        if (e.strip) g += g * this->gate(i, p0 + j)[m] * this->opening(p0 + j);
        for (int c = 0; c < 4; ++c) sum[c] += g * em[c];
      }
      for (int c = 0; c < 4; ++c) a.moment[c * ng + m] = sum[c];
    });
    this->finish(b, i, a.moment);
  }
};

// Assigns d em and d sw of the pairs, one warp a pair.
template <class T>
struct TabulatedRepinitBackward : TabulatedRepinitBase<T> {
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
    b.each_warp(s.repinit.count[i],
                [&](int j) { pair(b, i, s.repinit.first[i] + j, a.places[j], a.dmoment); });
  }

 private:
  DPA2MD_KERNEL void pair(const ThreadBlock& b, int i, std::int64_t p, const TablePlace<T>& at,
                          const T* dmoment) const {
    const State<T>& s = this->s;
    const EmbeddingView<T>& e = s.embedding;
    const int ng = e.ng;
    const T* em = s.repinit.em + 4 * p;
    T sum[5] = {0, 0, 0, 0, 0};  // d em, d sw
    for (int m = b.lane; m < ng; m += b.lanes) {
      T g, slope, dg = 0;
      look_up(at, ng, m, &g, &slope);
      for (int c = 0; c < 4; ++c) dg += dmoment[c * ng + m] * em[c];
      if (e.strip) {
        const T t = this->gate(i, p)[m], open = T(1) + t * this->opening(p);
        sum[4] += dg * g * t;
        g *= open, slope *= open;
      }
      sum[0] += dg * slope;
      for (int c = 0; c < 4; ++c) sum[c] += g * dmoment[c * ng + m];
    }
    for (int c = 0; c < 5; ++c) {
      const T total = b.lane_sum(sum[c]);
      if (b.lane != 0) continue;
      if (c < 4) {
        s.repinit.dem[4 * p + c] = total;
      } else {
        s.repinit.dsw[p] = s.smooth ? total : T(0);
      }
    }
  }
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
