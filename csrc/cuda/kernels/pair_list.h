// Builds a step's pair list on the device from the candidates, with the same pairs as
// csrc/neighbors/pairs.cpp. SelectPairs marks and counts the pairs, FillPairs numbers them and writes a
// chunk's pairs, FillRows groups them by their neighbour's row. One block per atom, or per row.
#pragma once

#include "cuda/kernels/views.h"
#include "neighbors/pairs.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// The sub-networks that see a pair, bits of its mark. FillPairs puts the pairs that more of them see first,
// so that each one's pairs are a prefix.
enum { kRepinit, kThreeBody, kRepformer, kSubnets };

// The counts of every atom: its pairs of each sub-network, and two that the host checks.
enum { kOverfull = kSubnets, kCoincidentPairs, kCounts };

constexpr int kWarps = 32;  // of a block, at most

struct Cutoff {
  double rcut = 0;
  int room = 0;  // most neighbours that it keeps; 0: the model has no such sub-network
};

// Pairs of types (nt, nt) that the model, or its descriptor, leaves out.
struct Exclusions {
  const char *model = nullptr, *descriptor = nullptr;
};

// The candidates and this step's positions.
struct CandidateView {
  int natoms, ntypes;
  const double* x;                   // (positions, 3)
  const int *type, *row;             // (positions); row null: the position
  const std::int64_t* first;         // (natoms + 1)
  const std::int32_t *atom, *shift;  // (candidates)
  const double* shift_vectors;       // (shifts, 3)
  unsigned char* mark;               // (candidates) bits of the sub-networks that see it

  DPA2MD_KERNEL int count(int i) const { return static_cast<int>(first[i + 1] - first[i]); }
  // The vector of candidate c from atom i, and its length, rounded as on the host, so that both agree on
  // the pairs inside a cutoff.
  DPA2MD_KERNEL double vector(int i, std::int64_t c, double* v) const {
    const double* from = x + 3 * static_cast<std::int64_t>(i);
    const double* to = x + 3 * static_cast<std::int64_t>(atom[c]);
    const double* s = shift_vectors + 3 * static_cast<std::int64_t>(shift[c]);
    for (int k = 0; k < 3; ++k) v[k] = to[k] + s[k] - from[k];
#if defined(__CUDA_ARCH__)  // no fused multiply-add
    return sqrt(__dadd_rn(__dadd_rn(__dmul_rn(v[0], v[0]), __dmul_rn(v[1], v[1])), __dmul_rn(v[2], v[2])));
#else
    return std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
#endif
  }
};

// Compacts n items into several lists, in the items' order. Bit w of entry(k) is set if item k belongs to
// list w; visit(k, w, place) receives its place in list w. Each portion of `lanes` items is counted by a
// warp; the prefix sums of the counts are the portions' first places.
template <int LISTS>
struct Places {
  int* counts;  // (LISTS, warps' portions + 1)
  int portions;

  // The fewest lanes of a warp, hence the most portions.
#if defined(__CUDACC__)
  static constexpr int kLanes = 32;
#else
  static constexpr int kLanes = 1;
#endif
  DPA2MD_KERNEL Places(Scratch* scratch, int most)
      : counts(scratch->take<int>(static_cast<std::size_t>(LISTS) * (most / kLanes + 2))) {}

  template <class Entry, class Visit>
  DPA2MD_KERNEL void visit(const ThreadBlock& b, int n, Entry entry, Visit visit) {
    portions = (n + b.lanes - 1) / b.lanes;
    b.each_warp(portions, [&](int p) {
      const int k = p * b.lanes + b.lane, lists = k < n ? entry(k) : 0;
      DPA2MD_UNROLL
      for (int w = 0; w < LISTS; ++w) {
        int before;
        const int here = b.lane_count(lists >> w & 1, &before);
        if (b.lane == 0) at(w, p) = here;
      }
    });
    b.each_warp(LISTS, [&](int w) {
      int sum = 0;
      for (int p0 = 0; p0 < portions; p0 += b.lanes) {
        const int p = p0 + b.lane, here = p < portions ? at(w, p) : 0, before = b.lane_before(here);
        if (p < portions) at(w, p) = sum + before;
        sum += b.lane_sum(here);
      }
      if (b.lane == 0) at(w, portions) = sum;
    });
    b.each_warp(portions, [&](int p) {
      const int k = p * b.lanes + b.lane, lists = k < n ? entry(k) : 0;
      DPA2MD_UNROLL
      for (int w = 0; w < LISTS; ++w) {
        int before;
        b.lane_count(lists >> w & 1, &before);
        if (lists >> w & 1) visit(k, w, at(w, p) + before);
      }
    });
  }
  // The size of list w, after visit().
  DPA2MD_KERNEL int size(int w) const { return counts[w * (portions + 1) + portions]; }

 private:
  DPA2MD_KERNEL int& at(int w, int p) const { return counts[w * (portions + 1) + p]; }
};

// Marks each candidate with the sub-networks that see it, and counts each atom's pairs.
struct SelectPairs {
  CandidateView c;
  Cutoff cutoff[kSubnets];
  const char *model_exclude, *descriptor_exclude;  // (nt, nt)
  int most;                                        // candidates of one atom
  int *count, *zeroed;                             // (kCounts, natoms), (natoms)

  static constexpr int kSums = kSubnets + 2;  // pairs of each sub-network, excluded ones, coincident ones
  struct Arrays {
    double* r;  // (most)
    int *inside, *sums;
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int) const {
    return {scratch->take<double>(most), scratch->take<int>(kWarps * kSubnets),
            scratch->take<int>(kWarps * kSums)};
  }
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch scratch) const {
    const Arrays a = arrays(&scratch, 0);
    const std::int64_t c0 = c.first[i];
    const int n = c.count(i);
    int inside[kSubnets] = {};
    measure(b, i, n, a.r, inside);
    add_up<kSubnets>(b, a.inside, inside);
    int sums[kSums] = {};
    for (int k = b.thread; k < n; k += b.threads) {
      const int tj = c.type[c.atom[c0 + k]];
      int mark = subnets(i, k, a.r, inside);
      if (mark && excluded(model_exclude, i, tj)) {
        mark = 0;
      } else if (mark && excluded(descriptor_exclude, i, tj)) {
        sums[kSubnets] += mark >> kRepinit & 1;
        mark = 0;
      }
      c.mark[c0 + k] = static_cast<unsigned char>(mark);
      sums[kSubnets + 1] += mark && a.r[k] < kCoincident;
      for (int v = 0; v < kSubnets; ++v) sums[v] += mark >> v & 1;
    }
    add_up<kSums>(b, a.sums, sums);
    if (b.thread != 0) return;
    const auto at = [&](int which) -> int& { return count[static_cast<std::int64_t>(which) * c.natoms + i]; };
    for (int v = 0; v < kSubnets; ++v) at(v) = sums[v];
    at(kOverfull) = overfull(inside);
    at(kCoincidentPairs) = sums[kSubnets + 1];
    zeroed[i] = sums[kSubnets];
  }

 private:
  // Computes the distances of the atom's candidates, and counts this thread's inside each cutoff.
  DPA2MD_KERNEL void measure(const ThreadBlock& b, int i, int n, double* r, int* inside) const {
    const std::int64_t c0 = c.first[i];
    for (int k = b.thread; k < n; k += b.threads) {
      double v[3];
      const bool real = c.type[i] >= 0 && c.type[c.atom[c0 + k]] >= 0;
      r[k] = real ? c.vector(i, c0 + k, v) : INFINITY;
      for (int w = 0; w < kSubnets; ++w) inside[w] += cutoff[w].room > 0 && r[k] <= cutoff[w].rcut;
    }
  }
  // Sums over the block's threads; `shared` (kWarps, N) is used once only. A barrier.
  template <int N>
  DPA2MD_KERNEL void add_up(const ThreadBlock& b, int* shared, int* x) const {
    for (int k = 0; k < N; ++k) {
      x[k] = b.lane_sum(x[k]);
      if (b.lane == 0) shared[b.warp * N + k] = x[k];
    }
    b.sync();
    for (int k = 0; k < N; ++k) {
      x[k] = 0;
      for (int w = 0; w < b.warps; ++w) x[k] += shared[w * N + k];
    }
  }

  // The sub-networks that see candidate k: it must lie inside the cutoff and, in an overfull list, among the
  // nearest.
  DPA2MD_KERNEL int subnets(int i, int k, const double* r, const int* inside) const {
    int mark = 0, before = -1;
    for (int v = 0; v < kSubnets; ++v) {
      if (cutoff[v].room == 0 || !(r[k] <= cutoff[v].rcut)) continue;
      if (inside[v] > cutoff[v].room && before < 0) before = count_nearer(i, k, r);
      if (inside[v] <= cutoff[v].room || before < cutoff[v].room) mark |= 1 << v;
    }
    return mark;
  }
  DPA2MD_KERNEL int count_nearer(int i, int k, const double* r) const {
    const std::int32_t* atom = c.atom + c.first[i];
    int count = 0;
    for (int m = 0; m < c.count(i); ++m) count += nearer({r[m], atom[m], m}, {r[k], atom[k], k});
    return count;
  }
  DPA2MD_KERNEL bool excluded(const char* pairs, int i, int tj) const {
    return pairs[c.type[i] * c.ntypes + tj];
  }

  // The largest neighbour count that exceeds its room, with its sub-network: see overfull_count,
  // overfull_subnet.
  DPA2MD_KERNEL int overfull(const int* inside) const {
    int most = 0, whose = 0;
    for (int v = 0; v < kSubnets; ++v) {
      if (inside[v] > cutoff[v].room && inside[v] > most) most = inside[v], whose = v;
    }
    return most * kSubnets + whose;
  }
};
inline int overfull_count(int code) { return code / kSubnets; }
inline int overfull_subnet(int code) { return code % kSubnets; }

// Numbers and writes an atom's pairs: those that more sub-networks see first, else in the candidates' order.
struct FillPairs {
  CandidateView c;
  int most;                                     // candidates of one atom
  const int* count;                             // (natoms) pairs
  const std::int64_t *first, *repformer_first;  // (natoms + 1) of all pairs, of the repformers'
  // null: not wanted now
  std::int32_t* repformer_row;           // (repformer pairs) row of the neighbour
  std::int32_t *pair_of, *repformer_of;  // (candidates) its pair, or -1
  double *vec, *r;                       // (pairs, 3), (pairs)
  std::int32_t* type;                    // (pairs) of the neighbour
  // Crowded atoms, with more than `few` neighbours in the repformers: count (0 before), and list in any
  // order.
  int few;
  const int* repformer_count;
  int *crowded, *crowded_atom;

  DPA2MD_KERNEL Places<kSubnets> arrays(Scratch* scratch, int) const { return {scratch, most}; }
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch scratch) const {
    Places<kSubnets> places = arrays(&scratch, 0);
    const std::int64_t c0 = c.first[i];
    const int n = c.count(i);
    // A wrong guess zeroes the counts; the marks are then ignored.
    const bool none = count[i] == 0;
    if (crowded && b.thread == 0 && repformer_count[i] > few) crowded_atom[atomic_add(crowded, 1)] = i;
    for (int k = b.thread; pair_of && k < n; k += b.threads) {
      if (none || !c.mark[c0 + k]) pair_of[c0 + k] = -1;
      if (none || !(c.mark[c0 + k] >> kRepformer & 1)) repformer_of[c0 + k] = -1;
    }
    if (none) return;
    places.visit(
        b, n,
        [&](int k) {
          const int seen_by = subnets(c.mark[c0 + k]);
          return seen_by ? 1 << (kSubnets - seen_by) : 0;
        },
        [&](int k, int list, int place) {
          for (int before = 0; before < list; ++before) place += places.size(before);
          put(i, c0 + k, place);
        });
  }

 private:
  DPA2MD_KERNEL static int subnets(int mark) {
    return (mark >> kRepinit & 1) + (mark >> kThreeBody & 1) + (mark >> kRepformer & 1);
  }
  DPA2MD_KERNEL void put(int i, std::int64_t candidate, int place) const {
    const std::int64_t p = first[i] + place;
    const bool repformer = c.mark[candidate] >> kRepformer & 1;
    const int j = c.atom[candidate];
    if (pair_of) pair_of[candidate] = static_cast<std::int32_t>(p);
    if (repformer && repformer_row) {
      const std::int64_t q = repformer_first[i] + place;
      repformer_row[q] = c.row ? c.row[j] : j;
      if (repformer_of) repformer_of[candidate] = static_cast<std::int32_t>(q);
    }
    if (!vec) return;
    double v[3];
    r[p] = c.vector(i, candidate, v);
    for (int x = 0; x < 3; ++x) vec[3 * p + x] = v[x];
    type[p] = c.type[j];
  }
};

// ---- pairs by the row of their neighbour

// Lists the pairs of each neighbour row, all and the repformers', from the candidates grouped by row. A row's
// pairs begin at the offset of its candidates.
struct FillRows {
  int most;                       // candidates of one row
  const std::int64_t* first;      // (nrows + 1)
  const std::int32_t* candidate;  // ascending within a row
  const std::int32_t* number[2];  // (candidates) among all pairs, among the repformers'; -1: not there
  std::int32_t* pairs[2];         // (candidates) of the rows
  int* count[2];                  // (nrows)

  DPA2MD_KERNEL Places<2> arrays(Scratch* scratch, int) const { return {scratch, most}; }
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int row, Scratch scratch) const {
    Places<2> places = arrays(&scratch, 0);
    const std::int64_t c0 = first[row];
    places.visit(
        b, static_cast<int>(first[row + 1] - c0),
        [&](int k) {
          const std::int32_t at = candidate[c0 + k];
          return int(number[0][at] >= 0) + 2 * int(pairs[1] && number[1][at] >= 0);
        },
        [&](int k, int w, int place) { pairs[w][c0 + place] = number[w][candidate[c0 + k]]; });
    if (b.thread < 2 && count[b.thread]) count[b.thread][row] = places.size(b.thread);
    if (b.threads == 1 && count[1]) count[1][row] = places.size(1);
  }
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
