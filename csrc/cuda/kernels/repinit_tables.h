// repinit from tables, for atoms whose neighbours are all covered by a table. repinit.h does the others.
//
// Neighbours in the same cell share the polynomial sum_k p_k u^k of every channel (u: the place in the cell),
// so that the work on channels is per cell instead of per neighbour:
//   forward    M += sum_k p_k S_k      with S_k (4) = sum_j em_j u_j^k over the cell's neighbours
//   backward   A_k (4) = dM p_k        over all channels; then d em_j = sum_k A_k u_j^k ...
// With a gate (strip mode), separate sums of sw_j em_j are multiplied with the gated channels.
#pragma once

#include "cuda/kernels/repinit.h"
#include "cuda/kernels/tables.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// Bits of a neighbour's sort key: type, cell, neighbour; so keys are unique. repinit.h does the atoms with
// more neighbours than kMostTabulated, whose places would not fit into shared memory.
constexpr int kNeighborBits = 9, kCellBits = 14;
constexpr int kMostTabulated = 1 << kNeighborBits;
constexpr int kMostTabulatedTypes = 1 << (32 - kNeighborBits - kCellBits);
constexpr unsigned kNoNeighbor = 0xffffffffu;

// The neighbours of an atom, sorted by cell.
template <class T>
struct NeighborCells {
  // A neighbour: em, powers of its place, sw, and 1 / the cell's width.
  struct alignas(16) Neighbor {
    T em[4], power[kPowers], sw, inverse_width;
  };
  unsigned* listed;  // (n, rounded up to four) keys of the neighbours as they are listed
  unsigned* key;     // (n) in order
  Neighbor* of;      // (n)
  int* cell;         // (n) whose neighbour it is, of the cells that are not empty
  int* first;        // (n + 1) of the neighbours of such a cell
  int* cells;        // how many there are

  DPA2MD_KERNEL static int room(int n) { return n < kMostTabulated ? n : kMostTabulated; }
  DPA2MD_KERNEL NeighborCells(Scratch* scratch, int n)
      : listed(scratch->take<unsigned>((n + 3) / 4 * 4)),
        key(scratch->take<unsigned>(n)),
        of(scratch->take<Neighbor>(n)),
        cell(scratch->take<int>(n)),
        first(scratch->take<int>(n + 1)),
        cells(scratch->take<int>(1)) {}

  DPA2MD_KERNEL static int listed_as(unsigned key) { return key & ((1 << kNeighborBits) - 1); }
  DPA2MD_KERNEL static int cell_of(unsigned key) { return key >> kNeighborBits & ((1 << kCellBits) - 1); }
  DPA2MD_KERNEL static int type_of(unsigned key) { return key >> (kNeighborBits + kCellBits); }

  // The number of the n keys below `mine`.
  DPA2MD_KERNEL int rank(unsigned mine, int n) const {
    int before = 0;
    for (int k = 0; k < n; k += 4) {
      const Four<unsigned> keys = four(listed + k);
      DPA2MD_UNROLL
      for (int q = 0; q < 4; ++q) before += keys.x[q] < mine;
    }
    return before;
  }

  // Finds the first neighbour of each cell; one warp.
  DPA2MD_KERNEL void find_cells(const ThreadBlock& b, int n) const {
    int done = 0;
    for (int k0 = 0; k0 < n; k0 += b.lanes) {
      const int k = k0 + b.lane;
      const bool begins = k < n && (k == 0 || key[k - 1] >> kNeighborBits != key[k] >> kNeighborBits);
      const int before = done + b.lane_before(int(begins));
      if (begins) first[before] = k;
      if (k < n) cell[k] = before + begins - 1;
      done += b.lane_sum(int(begins));
    }
    if (b.lane == 0) first[done] = n, *cells = done;
  }
};

template <class T>
struct TabulatedRepinitBase : RepinitBase<T> {
  using Cells = NeighborCells<T>;
  using Neighbor = typename Cells::Neighbor;

  DPA2MD_KERNEL const TableView<T>& table(int i, int type) const {
    return this->s.embedding.table[this->s.center_type[i] * this->s.nt + type];
  }
  DPA2MD_KERNEL const T* piece(int i, unsigned key) const {
    return table(i, Cells::type_of(key)).piece +
           static_cast<std::size_t>(Cells::cell_of(key)) * kPowers * this->s.embedding.table_channels;
  }
  // The gates of channels m … m + 3 for neighbours of a type.
  DPA2MD_KERNEL void gates(int i, int type, int m, T* gate) const {
    const EmbeddingView<T>& e = this->s.embedding;
    const T* from = this->gate_of_types(i, type) + m;
    for (int q = 0; q < 4; ++q) gate[q] = m + q < e.ng ? from[q] : T(0);
  }

  // Sorts the neighbours by cell; false if one has no table or lies outside. All threads get the same result.
  DPA2MD_KERNEL bool find_cells(const ThreadBlock& b, int i, const Cells& to) const {
    const State<T>& s = this->s;
    const int n = s.repinit.count[i];
    const std::int64_t p0 = s.repinit.first[i];
    bool outside = n > kMostTabulated;
    for (int j = b.thread; j < (n + 3) / 4 * 4 && !outside; j += b.threads) {
      to.listed[j] = kNoNeighbor;
      if (j >= n) continue;
      const int type = s.type[p0 + j];
      const TableView<T>& t = table(i, type);
      const T x = s.repinit.em[4 * (p0 + j)];
      if (covers(t, x)) {
        to.listed[j] = (static_cast<unsigned>(type) << kCellBits | place(t, x).cell) << kNeighborBits | j;
      } else {
        outside = true;
      }
    }
    if (b.any(outside)) return false;
    for (int j = b.thread; j < n; j += b.threads) put(i, j, to.rank(to.listed[j], n), to);
    b.sync();
    if (b.warp == 0) to.find_cells(b, n);
    b.sync();
    return true;
  }

 private:
  DPA2MD_KERNEL void put(int i, int j, int rank, const Cells& to) const {
    const State<T>& s = this->s;
    const std::int64_t p = s.repinit.first[i] + j;
    const TableView<T>& t = table(i, s.type[p]);
    const Four<T> em = four(s.repinit.em + 4 * p);
    const T u = place(t, em.x[0]).at, u2 = u * u;
    to.of[rank] = {{em.x[0], em.x[1], em.x[2], em.x[3]},
                   {T(1), u, u2, u2 * u, u2 * u2, u2 * u2 * u},
                   s.embedding.strip ? this->opening(p) : T(0),
                   t.inverse_width};
    to.key[rank] = to.listed[j];
  }
};

// Sets `tabulated` of every atom. The warps take cells in turn, each lane four channels.
template <class T>
struct TabulatedRepinit : TabulatedRepinitBase<T> {
  static constexpr int kMostThreads = kTableThreads, kMinBlocks = kTableBlocks<T>;
  static constexpr int kWarps = kTableThreads / 32;  // that share the cells
  static constexpr int kKept = 4;                    // warps whose moments there is room for
  static constexpr int kSums = 4 * kPowers;          // S of a cell
  using Cells = NeighborCells<T>;
  struct Arrays {
    Cells cells;
    T* sums;    // (warps, 2, 2, kSums): S of two cells in turn, and with sw
    T* moment;  // (kept, 4, channels)
    T* rows;    // (channels, 4)
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int n) const {
    const int channels = this->s.embedding.table_channels;
    return {Cells(scratch, Cells::room(n)), scratch->take<T>(kWarps * 4 * kSums),
            scratch->take<T>(kKept * 4 * channels), scratch->take<T>(4 * channels)};
  }

  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch scratch) const {
    const State<T>& s = this->s;
    const EmbeddingView<T>& e = s.embedding;
    Scratch own = in_shared(scratch);
    const Arrays a = arrays(&own, s.repinit.count[i]);
    const bool inside = s.center_type[i] >= 0 && this->find_cells(b, i, a.cells);
    if (b.thread == 0) s.tabulated[i] = inside;
    if (b.thread == 0 && !inside) atomic_add(s.tabulated + s.natoms, 1);
    if (!inside) return;
    const int warps = b.warps < kWarps ? b.warps : kWarps;
    for (int m0 = 0; m0 < e.table_channels; m0 += 4 * b.lanes) {
      T sum[4][4] = {};  // of em, of channels
      if (b.warp < warps) sum_cells(b, i, m0 + 4 * b.lane, warps, a, sum);
      keep(b, m0 + 4 * b.lane, warps, a, sum);
    }
    b.each(e.ng, [&](int m) {
      T total[4] = {0, 0, 0, 0};
      for (int w = 0; w < (warps < kKept ? warps : kKept); ++w) {
        for (int c = 0; c < 4; ++c) total[c] += a.moment[(4 * w + c) * e.table_channels + m];
      }
      this->keep_moment(i, m, total, a.rows);
    });
    this->descriptor(b, i, a.rows);
  }

 private:
  DPA2MD_KERNEL void sum_cells(const ThreadBlock& b, int i, int m, int warps, const Arrays& a,
                               T (*sum)[4]) const {
    const int channels = this->s.embedding.table_channels;
    const bool own = m < channels;
    int turn = 0;
    for (int cell = b.warp; cell < *a.cells.cells; cell += warps) {
      const int from = a.cells.first[cell], to = a.cells.first[cell + 1];
      const unsigned key = a.cells.key[from];
      const T* row = this->piece(i, key) + (own ? m : 0);
      Four<T> p[kPowers];
      DPA2MD_UNROLL
      for (int k = 0; k < kPowers; ++k) p[k] = four(row + k * channels);
      if (to - from <= 2) {
        for (int r = from; r < to; ++r) neighbor(i, key, m, a.cells.of[r], p, sum);
        continue;
      }
      T* s = a.sums + (2 * b.warp + turn) * 2 * kSums;
      turn = 1 - turn;
      cell_sums(b, a.cells.of, from, to, s);
      b.sync_lanes();
      add(p, s, sum);
      if (!this->s.embedding.strip) continue;
      T gate[4], gated[4][4] = {};
      this->gates(i, Cells::type_of(key), m, gate);
      add(p, s + kSums, gated);
      DPA2MD_UNROLL
      for (int k = 0; k < 16; ++k) sum[k / 4][k % 4] += gated[k / 4][k % 4] * gate[k % 4];
    }
  }
  // Adds one neighbour's contribution to `sum`.
  DPA2MD_KERNEL void neighbor(int i, unsigned key, int m, const typename Cells::Neighbor& of,
                              const Four<T>* p, T (*sum)[4]) const {
    const Four<T> em = four(of.em);
    const T at = of.power[1];
    T gate[4];
    if (this->s.embedding.strip) this->gates(i, Cells::type_of(key), m, gate);
    DPA2MD_UNROLL
    for (int q = 0; q < 4; ++q) {
      T g = polynomial(at, [&](int k) { return p[k].x[q]; });
      if (this->s.embedding.strip) g += g * gate[q] * of.sw;
      DPA2MD_UNROLL
      for (int c = 0; c < 4; ++c) sum[c][q] += g * em.x[c];
    }
  }
  // S of a cell; in strip mode also with sw
  DPA2MD_KERNEL void cell_sums(const ThreadBlock& b, const typename Cells::Neighbor* of, int from, int to,
                               T* s) const {
    for (int e = b.lane; e < kSums; e += b.lanes) {
      const T *em = of[from].em + e % 4, *power = of[from].power + e / 4, *sw = &of[from].sw;
      constexpr int kStride = sizeof(typename Cells::Neighbor) / sizeof(T);
      const bool strip = this->s.embedding.strip;
      T sum = 0, gated = 0;
      for (int r = 0; r < to - from; ++r, em += kStride, power += kStride, sw += kStride) {
        const T x = *em * *power;
        sum += x;
        if (strip) gated += x * *sw;
      }
      s[e] = sum;
      if (strip) s[kSums + e] = gated;
    }
  }
  // sum (4, 4) += p S
  DPA2MD_KERNEL static void add(const Four<T>* p, const T* s, T (*sum)[4]) {
    DPA2MD_UNROLL
    for (int k = 0; k < kPowers; ++k) {
      const Four<T> em = four(s + 4 * k);
      DPA2MD_UNROLL
      for (int c = 0; c < 4; ++c) {
        DPA2MD_UNROLL
        for (int q = 0; q < 4; ++q) sum[c][q] += em.x[c] * p[k].x[q];
      }
    }
  }
  // Reduces the sums of all warps to the kKept moments of `a`.
  DPA2MD_KERNEL void keep(const ThreadBlock& b, int m, int warps, const Arrays& a, const T (*sum)[4]) const {
    const int channels = this->s.embedding.table_channels;
    for (int w0 = 0; w0 < warps; w0 += kKept) {
      const int w = b.warp - w0;
      if (w >= 0 && w < kKept && b.warp < warps && m < channels) {
        DPA2MD_UNROLL
        for (int c = 0; c < 4; ++c) {
          Four<T>& to = four(a.moment + (4 * w + c) * channels + m);
          Four<T> x = {sum[c][0], sum[c][1], sum[c][2], sum[c][3]};
          for (int q = 0; q < 4 && w0 > 0; ++q) x.x[q] += to.x[q];
          to = x;
        }
      }
      b.sync();
    }
  }
};

// Assigns d em and d sw of the pairs. A group of lanes computes A of a cell, kCells cells at a time; then
// each thread takes a neighbour.
template <class T>
struct TabulatedRepinitBackward : TabulatedRepinitBase<T> {
  static constexpr int kMostThreads = kTableThreads, kMinBlocks = kTableBlocks<T>;
  static constexpr int kCells = 32;          // at a time
  static constexpr int kSums = 4 * kPowers;  // A of a cell
  using Cells = NeighborCells<T>;
  struct Arrays {
    Cells cells;
    MomentGradient<T> moment;  // d (4, channels)
    T *sums, *gated;           // (kCells, kSums): A, and of the gated channels
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int n) const {
    const EmbeddingView<T>& e = this->s.embedding;
    return {Cells(scratch, Cells::room(n)),
            MomentGradient<T>(scratch, e.table_channels, this->s.repinit_axis),
            scratch->take<T>(kCells * kSums), e.strip ? scratch->take<T>(kCells * kSums) : nullptr};
  }

  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch scratch) const {
    const State<T>& s = this->s;
    if (!s.tabulated[i] || s.repinit.count[i] == 0) return;
    Scratch own = in_shared(scratch);
    const Arrays a = arrays(&own, s.repinit.count[i]);
    this->find_cells(b, i, a.cells);
    this->moment_gradient(b, i, a.moment);
    const int cells = *a.cells.cells;
    for (int first = 0; first < cells; first += kCells) {
      const int n = cells - first < kCells ? cells - first : kCells;
      b.each_group(n, [&](int k, bool inside) { cell(b, i, first + k, k, inside, a); });
      const int from = a.cells.first[first], to = a.cells.first[first + n];
      b.each(to - from, [&](int r) { neighbor(i, from + r, first, a); });
    }
  }

 private:
  // Computes A of a cell into place k of kCells.
  DPA2MD_KERNEL void cell(const ThreadBlock& b, int i, int cell, int k, bool inside, const Arrays& a) const {
    const EmbeddingView<T>& e = this->s.embedding;
    const unsigned key = a.cells.key[a.cells.first[cell]];
    const T* row = this->piece(i, key);
    const int end = inside ? e.table_channels : 0;
    const auto sum = [&](bool gated, T* to) {
      T x[kSums] = {};
      for (int m = 4 * b.group_lane(); m < end; m += 4 * b.group_lanes()) {
        Four<T> d[4];
        DPA2MD_UNROLL
        for (int c = 0; c < 4; ++c) d[c] = four(a.moment.d + c * e.table_channels + m);
        if (gated) {
          T gate[4];
          this->gates(i, Cells::type_of(key), m, gate);
          DPA2MD_UNROLL
          for (int c = 0; c < 16; ++c) d[c / 4].x[c % 4] *= gate[c % 4];
        }
        DPA2MD_UNROLL
        for (int power = 0; power < kPowers; ++power) {
          const Four<T> p = four(row + power * e.table_channels + m);
          DPA2MD_UNROLL
          for (int c = 0; c < 4; ++c) {
            DPA2MD_UNROLL
            for (int q = 0; q < 4; ++q) x[4 * power + c] += d[c].x[q] * p.x[q];
          }
        }
      }
      GroupSums<kSums, T>::put(b, x, [&](int q, T value) {
        if (inside) to[k * kSums + q] = value;
      });
    };
    sum(false, a.sums);
    if (e.strip) sum(true, a.gated);
  }

  DPA2MD_KERNEL void neighbor(int i, int r, int first, const Arrays& a) const {
    const State<T>& s = this->s;
    const typename Cells::Neighbor& of = a.cells.of[r];
    const std::int64_t p = s.repinit.first[i] + Cells::listed_as(a.cells.key[r]);
    const int at = (a.cells.cell[r] - first) * kSums;
    T dem[4], gated[4], slope, gated_slope, dsw = 0;
    gradients(of, a.sums + at, dem, &slope);
    if (s.embedding.strip) {
      gradients(of, a.gated + at, gated, &gated_slope);
      slope += of.sw * gated_slope;
      for (int c = 0; c < 4; ++c) {
        dem[c] += of.sw * gated[c];
        dsw += of.em[c] * gated[c];
      }
    }
    four(s.repinit.dem + 4 * p) = {dem[0] + slope * of.inverse_width, dem[1], dem[2], dem[3]};
    s.repinit.dsw[p] = s.smooth ? dsw : T(0);
  }
  // From A of a cell: a neighbour's d em without the part through its place, and d place.
  DPA2MD_KERNEL static void gradients(const typename Cells::Neighbor& of, const T* sums, T* dem, T* slope) {
    const Four<T> em = four(of.em);
    const T at = of.power[1];
    T along[kPowers] = {};
    for (int c = 0; c < 4; ++c) dem[c] = 0;
    DPA2MD_UNROLL
    for (int k = kPowers - 1; k >= 0; --k) {
      const Four<T> x = four(sums + 4 * k);
      DPA2MD_UNROLL
      for (int c = 0; c < 4; ++c) {
        dem[c] = dem[c] * at + x.x[c];
        along[k] += em.x[c] * x.x[c];
      }
    }
    *slope = polynomial_slope(at, [&](int k) { return along[k]; });
  }
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
