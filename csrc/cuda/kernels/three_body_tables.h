// Three-body from tables: c g(c) of every unordered pair of neighbours. One thread per pair finds its place,
// then a group of lanes takes eight channels of a pair. three_body.h does the atoms with a pair beyond the
// tables' reach.
#pragma once

#include "cuda/kernels/tables.h"
#include "cuda/kernels/three_body.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// Channels that a group of lanes takes at once. A cell stores their first four coefficients each, then the
// others.
constexpr int kTripleChannels = kGroupLanes;
constexpr int kTriplePiece = kTripleChannels * kPowers;
constexpr int kMostThreadsOfBlock = 1024;
// Neighbours whose pairs fit into shared memory of every GPU.
template <class T>
constexpr int kMostTripled = sizeof(T) == 4 ? 96 : 64;

// An unordered pair of neighbours.
template <class T>
struct alignas(2 * sizeof(T*)) TablePair {
  const T* piece;  // of its cell, the first channels
  T at;            // the place in it
  T weight;        // 1/2 of a neighbour with itself
};

template <class T>
struct TabulatedThreeBodyBase : ThreeBodyBase<T> {
  static constexpr int kPairs = 512;   // places that are there at once
  static constexpr int kTogether = 8;  // pairs that a group of lanes has under way
  static constexpr int kWho = 15;      // bits of a neighbour
  struct Pairs {
    T* neighbor;       // (n, 4): type, em[1:4]
    TablePair<T>* of;  // (pairs, rounded up)
    int* who;          // (pairs): j and k; -1: none
    DPA2MD_KERNEL Pairs(Scratch* scratch, int n)
        : neighbor(scratch->take<T>(4 * n)),
          of(scratch->take<TablePair<T>>(kPairs)),
          who(scratch->take<int>(kPairs)) {}
    static_assert(kPairs > kMostTripled<T>);
  };

  DPA2MD_KERNEL static int room(int n) { return n < kMostTripled<T> ? n : kMostTripled<T>; }

  // Reads the neighbours; false if a direction is too long for the tables. All threads get the same result.
  DPA2MD_KERNEL bool read_neighbors(const ThreadBlock& b, int i, const Pairs& to) const {
    const State<T>& s = this->s;
    bool outside = s.three.count[i] > kMostTripled<T>;
    for (int k = b.thread; !outside && k < s.three.count[i]; k += b.threads) {
      Four<T> e = four(s.three.em + 4 * (s.three.first[i] + k));
      outside = outside || !(e.x[1] * e.x[1] + e.x[2] * e.x[2] + e.x[3] * e.x[3] <= T(s.embedding3.reach));
      e.x[0] = T(s.type[s.repinit.first[i] + k]);
      four(to.neighbor + 4 * k) = e;
    }
    return !b.any(outside);
  }

  // Unordered pairs j <= k of n neighbours: row r and row n - 1 - r of the triangle make one row of n + 1.
  DPA2MD_KERNEL static int rows(int n) { return (n + 1) / 2; }
  DPA2MD_KERNEL static bool unordered(int row, int column, int n, int* j, int* k) {
    const int mirror = n - 1 - row;
    const bool first = column < n - row;
    *j = first ? row : mirror;
    *k = first ? row + column : mirror + column - (n - row);
    return first || row != mirror;
  }

  // Finds the places of kPairs pairs at a time and calls visit(pairs); all threads call.
  template <class Visit>
  DPA2MD_KERNEL void each_places(const ThreadBlock& b, int i, const Pairs& p, Visit visit) const {
    const int n = this->s.three.count[i], together = kPairs / (n + 1);
    for (int r0 = 0; r0 < rows(n); r0 += together) {
      const int some = rows(n) - r0 < together ? rows(n) - r0 : together;
      b.each_of(some, n + 1, [&](int slot, int row, int column) {
        int j, k;
        const bool real = unordered(r0 + row, column, n, &j, &k);
        p.of[slot] = find(j, k, p);
        p.who[slot] = real ? j << kWho | k : -1;
        if (!real) p.of[slot].weight = T(0);
      });
      visit(some * (n + 1));
    }
  }

  // Loads a channel's coefficients for kTogether pairs: `pair` and on, `step` apart; beyond the last pair,
  // the last one's.
  DPA2MD_KERNEL static void load(const Pairs& p, int pair, int step, int count, int channel, TablePair<T>* of,
                                 Four<T>* low, Two<T>* high) {
    DPA2MD_UNROLL
    for (int q = 0; q < kTogether; ++q) {
      const int k = pair + q * step;
      of[q] = p.of[k < count ? k : count - 1];
      const T* piece = of[q].piece + channel / kTripleChannels * kTriplePiece;
      const int lane = channel % kTripleChannels;
      low[q] = four(piece + 4 * lane);
      high[q] = *reinterpret_cast<const Two<T>*>(piece + 4 * kTripleChannels + 2 * lane);
      if (k >= count) of[q].weight = T(0);
    }
  }
  DPA2MD_KERNEL static T coefficient(const Four<T>& low, const Two<T>& high, int k) {
    return k < 4 ? low.x[k] : high.x[k - 4];
  }

  // Strip mode: T(t_j, t_k) + T(t_k, t_j), and the product of the switches
  DPA2MD_KERNEL T both(const Pairs& p, int j, int k, int m) const {
    const EmbeddingView<T>& e = this->s.embedding3;
    const auto a = static_cast<std::int64_t>(p.neighbor[4 * j]),
               c = static_cast<std::int64_t>(p.neighbor[4 * k]);
    return m < e.ng ? e.gate[(a * this->s.nt + c) * e.ng + m] + e.gate[(c * this->s.nt + a) * e.ng + m]
                    : T(0);
  }
  DPA2MD_KERNEL T opening(int i, int j, int k) const {
    const std::int64_t q0 = this->s.three.first[i];
    return this->s.smooth ? this->s.three.sw[q0 + j] * this->s.three.sw[q0 + k] : T(1);
  }

 private:
  DPA2MD_KERNEL TablePair<T> find(int j, int k, const Pairs& p) const {
    const State<T>& s = this->s;
    const Four<T> x = four(p.neighbor + 4 * j), y = four(p.neighbor + 4 * k);
    const TableView<T>& t = s.embedding3.table[static_cast<int>(x.x[0]) * s.nt + static_cast<int>(y.x[0])];
    const auto at = place(t, x.x[1] * y.x[1] + x.x[2] * y.x[2] + x.x[3] * y.x[3]);
    return {t.piece + static_cast<std::size_t>(at.cell) * kPowers * s.embedding3.table_channels, at.at,
            j == k ? T(0.5) : T(1)};
  }
};

template <class T>
struct TabulatedThreeBody : TabulatedThreeBodyBase<T> {
  static constexpr int kMostThreads = kTableThreads, kMinBlocks = kTableBlocks<T>;
  using Base = TabulatedThreeBodyBase<T>;
  using Pairs = typename Base::Pairs;
  struct Arrays {
    Pairs pairs;
    T *sum, *total;  // (threads), (channels)
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int n) const {
    return {Pairs(scratch, this->room(n)), scratch->take<T>(kMostThreadsOfBlock),
            scratch->take<T>(this->s.embedding3.table_channels)};
  }

  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch scratch) const {
    const State<T>& s = this->s;
    const EmbeddingView<T>& e = s.embedding3;
    Scratch own = in_shared(scratch);
    const Arrays a = arrays(&own, s.three.count[i]);
    const bool inside = this->read_neighbors(b, i, a.pairs);
    if (b.thread == 0) s.tabulated3[i] = inside;
    if (b.thread == 0 && !inside) atomic_add(s.tabulated3 + s.natoms, 1);
    if (!inside) return;
    fill(b, e.table_channels, a.total, T(0));
    this->each_places(b, i, a.pairs, [&](int count) {
      for (int m = b.group_lane(); m < e.table_channels; m += b.group_lanes()) {
        if (e.strip) {
          channel<true>(b, i, m, count, a);
        } else {
          channel<false>(b, i, m, count, a);
        }
      }
    });
    T* out = s.rep_out + static_cast<std::int64_t>(i + 1) * s.repinit_width - e.ng;
    b.each(e.ng, [&](int m) { out[m] = this->norm() * a.total[m]; });
  }

 private:
  // Adds channel m of some pairs, and the other lanes of the group theirs. (Without strip mode there is no
  // branch between the loads of several pairs.)
  template <bool STRIP>
  DPA2MD_KERNEL void channel(const ThreadBlock& b, int i, int m, int count, const Arrays& a) const {
    const int lanes = b.group_lanes(), groups = b.threads / lanes, group = b.thread / lanes;
    T sum = 0;
    for (int pair = group; pair < count; pair += Base::kTogether * groups) {
      TablePair<T> of[Base::kTogether];
      Four<T> low[Base::kTogether];
      Two<T> high[Base::kTogether];
      this->load(a.pairs, pair, groups, count, m, of, low, high);
      DPA2MD_UNROLL
      for (int q = 0; q < Base::kTogether; ++q) {
        T g = polynomial(of[q].at, [&](int k) { return this->coefficient(low[q], high[q], k); });
        if constexpr (STRIP) {
          if (of[q].weight != T(0)) g *= this->open(i, m, pair + q * groups, a.pairs);
        }
        sum += of[q].weight * g;
      }
    }
    a.sum[b.thread] = sum;
    b.sync();
    if (b.thread < lanes) {
      for (int k = b.thread; k < groups * lanes; k += lanes) a.total[m] += a.sum[k];
    }
    b.sync();
  }
  DPA2MD_KERNEL T open(int i, int m, int pair, const Pairs& p) const {
    const int j = p.who[pair] >> Base::kWho, k = p.who[pair] & ((1 << Base::kWho) - 1);
    return T(2) + this->both(p, j, k, m) * this->opening(i, j, k);
  }
};

// Assigns d em and d sw of the atom's three-body pairs.
template <class T>
struct TabulatedThreeBodyBackward : TabulatedThreeBodyBase<T> {
  static constexpr int kMostThreads = 256, kMinBlocks = kTableBlocks<T>;  // more registers
  using Base = TabulatedThreeBodyBase<T>;
  using Pairs = typename Base::Pairs;
  struct Arrays {
    Pairs pairs;
    T *dc, *dopening;  // (n, n), symmetric; the latter in strip mode
    int ld;
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int n) const {
    const int most = this->room(n), ld = most | 1;
    const std::size_t square = static_cast<std::size_t>(most) * ld;
    return {Pairs(scratch, most), scratch->take<T>(square),
            this->s.embedding3.strip ? scratch->take<T>(square) : nullptr, ld};
  }

  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch scratch) const {
    const State<T>& s = this->s;
    if (!s.tabulated3[i]) return;
    const int n = s.three.count[i];
    const std::int64_t q0 = s.three.first[i];
    Scratch own = in_shared(scratch);
    const Arrays a = arrays(&own, n);
    this->read_neighbors(b, i, a.pairs);
    this->each_places(b, i, a.pairs, [&](int count) {
      if (s.embedding3.strip) {
        slopes<true>(b, i, count, a);
      } else {
        slopes<false>(b, i, count, a);
      }
    });
    b.each(n * 4, [&](int e) {
      const int j = e / 4, c = e % 4;
      T sum = 0;
      for (int k = 0; k < n && c > 0; ++k) sum += a.dc[k * a.ld + j] * a.pairs.neighbor[4 * k + c];
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
  // dc and dopening of some pairs. A group of lanes takes kTogether pairs side by side, each lane a channel.
  template <bool STRIP>
  DPA2MD_KERNEL void slopes(const ThreadBlock& b, int i, int count, const Arrays& a) const {
    const EmbeddingView<T>& e = this->s.embedding3;
    const int lanes = b.group_lanes(), groups = b.threads / lanes, group = b.thread / lanes;
    const T* dout = this->s.drep_out + static_cast<std::int64_t>(i + 1) * this->s.repinit_width - e.ng;
    const int type = static_cast<int>(a.pairs.neighbor[0]);
    const T scale = e.table[type * (this->s.nt + 1)].inverse_width;  // the same of all tables
    constexpr int kSecond = (1 << Base::kWho) - 1;
    // all groups of a warp go on while one of them does
    for (int start = 0; start < count; start += Base::kTogether * groups) {
      const int pair = start + group;
      T dc[Base::kTogether] = {}, dopening[Base::kTogether] = {};
      for (int m = b.group_lane(); m < e.table_channels; m += lanes) {
        const T d = m < e.ng ? dout[m] * this->norm() : T(0);
        TablePair<T> of[Base::kTogether];
        Four<T> low[Base::kTogether];
        Two<T> high[Base::kTogether];
        this->load(a.pairs, pair, groups, count, m, of, low, high);
        DPA2MD_UNROLL
        for (int q = 0; q < Base::kTogether; ++q) {
          const auto c = [&](int k) { return this->coefficient(low[q], high[q], k); };
          T slope = polynomial_slope(of[q].at, c);
          if (STRIP && of[q].weight != T(0)) {
            const int who = a.pairs.who[pair + q * groups], j = who >> Base::kWho, k = who & kSecond;
            const T gates = this->both(a.pairs, j, k, m);
            dopening[q] += d * gates * polynomial(of[q].at, c);
            slope *= T(2) + gates * this->opening(i, j, k);
          }
          dc[q] += d * slope;
        }
      }
      const auto put = [&](int q, T* to, T x) {
        const int at = pair + q * groups, who = at < count ? a.pairs.who[at] : -1;
        const int j = who >> Base::kWho, k = who & kSecond;
        if (who >= 0) to[j * a.ld + k] = to[k * a.ld + j] = x;
      };
      GroupSums<Base::kTogether, T>::put(b, dc, [&](int q, T x) { put(q, a.dc, scale * x); });
      if (e.strip)
        GroupSums<Base::kTogether, T>::put(b, dopening, [&](int q, T x) { put(q, a.dopening, x); });
    }
    b.sync();
  }
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
