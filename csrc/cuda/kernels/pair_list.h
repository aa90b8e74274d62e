// The pair list of a step on the device, from candidates that stay there until the host lists them anew. It
// holds the same pairs as csrc/neighbors/pairs.cpp would: SelectPairs marks and counts them, NumberPairs says
// which pair a candidate is, the row kernels group the pairs by their neighbour's row, and FillPairs writes
// down what a chunk of atoms has. One warp an atom, or a row.
#pragma once

#include "cuda/kernels/views.h"
#include "neighbors/pairs.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// Who sees a pair: bits of a mark. The pairs of each are the nearest of the next, so that pairs that more of
// them see come first.
enum { kRepinit, kThreeBody, kRepformer, kViewers };

// What is counted for every atom: the pairs of each viewer, and what the host hears of.
enum { kOverfull = kViewers, kCoincidentPairs, kCounts };

struct Cutoff {
  double rcut = 0;
  int room = 0;  // most neighbours that it keeps; 0: the model has no such viewer
};

// Candidates and this step's positions.
struct CandidateView {
  int natoms, ntypes;
  const double* x;                   // (positions, 3)
  const int *type, *row;             // (positions); row null: the position
  const std::int64_t* first;         // (natoms + 1)
  const std::int32_t *atom, *shift;  // (candidates)
  const double* shift_vectors;       // (shifts, 3)
  unsigned char* mark;               // (candidates) bits of who sees it

  DPA2MD_KERNEL int count(int i) const { return static_cast<int>(first[i + 1] - first[i]); }
  // The vector of candidate c from atom i, and its length, rounded as the host rounds them: both must agree
  // on who is inside a cutoff.
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

// Marks the candidates that the model sees, and counts them.
struct SelectPairs {
  CandidateView c;
  Cutoff cutoff[kViewers];
  const char *model_exclude, *descriptor_exclude;  // (nt, nt)
  int most;                                        // candidates of one atom
  int *count, *zeroed;                             // (kCounts, natoms), (natoms)

  struct Arrays {
    double* r;  // (kWarpItems, most)
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int) const {
    return {scratch->take<double>(static_cast<std::size_t>(kWarpItems) * most)};
  }
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch scratch) const {
    const Arrays a = arrays(&scratch, 0);
    each_of_item(b, item, c.natoms, [&](int i) { select(b, i, a.r + (i - item * kWarpItems) * most); });
  }

 private:
  DPA2MD_KERNEL void select(const ThreadBlock& b, int i, double* r) const {
    int inside[kViewers] = {}, kept[kViewers] = {}, zero = 0, coincident = 0;
    measure(b, i, r, inside);
    const std::int64_t c0 = c.first[i];
    for (int k = b.lane; k < c.count(i); k += b.lanes) {
      const int tj = c.type[c.atom[c0 + k]];
      int mark = viewers(i, k, r, inside);
      if (mark && excluded(model_exclude, i, tj)) {
        mark = 0;
      } else if (mark && excluded(descriptor_exclude, i, tj)) {
        zero += mark >> kRepinit & 1;
        mark = 0;
      }
      c.mark[c0 + k] = static_cast<unsigned char>(mark);
      coincident += mark && r[k] < kCoincident;
      for (int v = 0; v < kViewers; ++v) kept[v] += mark >> v & 1;
    }
    for (int v = 0; v < kViewers; ++v) kept[v] = b.lane_sum(kept[v]);
    zero = b.lane_sum(zero);
    coincident = b.lane_sum(coincident);
    if (b.lane != 0) return;
    const auto at = [&](int which) -> int& { return count[static_cast<std::int64_t>(which) * c.natoms + i]; };
    for (int v = 0; v < kViewers; ++v) at(v) = kept[v];
    at(kOverfull) = overfull(inside);
    at(kCoincidentPairs) = coincident;
    zeroed[i] = zero;
  }

  // Distances of the atom's candidates, and how many lie inside each cutoff.
  DPA2MD_KERNEL void measure(const ThreadBlock& b, int i, double* r, int* inside) const {
    const std::int64_t c0 = c.first[i];
    for (int k = b.lane; k < c.count(i); k += b.lanes) {
      double v[3];
      const bool real = c.type[i] >= 0 && c.type[c.atom[c0 + k]] >= 0;
      r[k] = real ? c.vector(i, c0 + k, v) : INFINITY;
      for (int w = 0; w < kViewers; ++w) inside[w] += cutoff[w].room > 0 && r[k] <= cutoff[w].rcut;
    }
    for (int w = 0; w < kViewers; ++w) inside[w] = b.lane_sum(inside[w]);
    b.sync_lanes();
  }

  // Who sees candidate k: those whose cutoff it is in, and of an overfull list it must be among the nearest.
  DPA2MD_KERNEL int viewers(int i, int k, const double* r, const int* inside) const {
    int mark = 0, nearer = -1;
    for (int v = 0; v < kViewers; ++v) {
      if (cutoff[v].room == 0 || !(r[k] <= cutoff[v].rcut)) continue;
      if (inside[v] > cutoff[v].room && nearer < 0) nearer = count_nearer(i, k, r);
      if (inside[v] <= cutoff[v].room || nearer < cutoff[v].room) mark |= 1 << v;
    }
    return mark;
  }
  // By distance, then by position, then by place in the list, as in csrc/neighbors/pairs.cpp.
  DPA2MD_KERNEL int count_nearer(int i, int k, const double* r) const {
    const std::int32_t* atom = c.atom + c.first[i];
    int nearer = 0;
    for (int m = 0; m < c.count(i); ++m) {
      const bool tie = r[m] == r[k];
      nearer += r[m] < r[k] || (tie && (atom[m] < atom[k] || (atom[m] == atom[k] && m < k)));
    }
    return nearer;
  }
  DPA2MD_KERNEL bool excluded(const char* pairs, int i, int tj) const {
    return pairs[c.type[i] * c.ntypes + tj];
  }

  // The most neighbours inside a cutoff beyond the room for them, and whose it is: see overfull_count,
  // overfull_viewer.
  DPA2MD_KERNEL int overfull(const int* inside) const {
    int most = 0, whose = 0;
    for (int v = 0; v < kViewers; ++v) {
      if (inside[v] > cutoff[v].room && inside[v] > most) most = inside[v], whose = v;
    }
    return most * kViewers + whose;
  }
};
inline int overfull_count(int code) { return code / kViewers; }
inline int overfull_viewer(int code) { return code % kViewers; }

// The marked candidates of an atom in their order as pairs: those that most viewers see first, else as they
// are listed.
struct PairOrder {
  CandidateView c;

  // visit(candidate, place) for each of them.
  template <class Visit>
  DPA2MD_KERNEL void visit_pairs(const ThreadBlock& b, int i, Visit visit) const {
    const std::int64_t c0 = c.first[i];
    int done = 0;
    for (int seen_by = kViewers; seen_by > 0; --seen_by) {
      for (int k0 = 0; k0 < c.count(i); k0 += b.lanes) {
        const int k = k0 + b.lane;
        const bool here = k < c.count(i) && viewers(c.mark[c0 + k]) == seen_by;
        const int place = done + b.lane_before(int(here));
        if (here) visit(c0 + k, place);
        done += b.lane_sum(int(here));
      }
    }
  }

 private:
  DPA2MD_KERNEL static int viewers(int mark) {
    return (mark >> kRepinit & 1) + (mark >> kThreeBody & 1) + (mark >> kRepformer & 1);
  }
};

struct NumberPairs : PairOrder {
  const std::int64_t *first, *repformer_first;  // (natoms + 1) of all pairs, of the repformers'
  std::int32_t* repformer_row;                  // (repformer pairs) row of the neighbour
  std::int32_t *pair_of, *repformer_of;         // (candidates) its pair, or -1; null without a reverse sweep

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    each_of_item(b, item, c.natoms, [&](int i) {
      for (int k = b.lane; pair_of && k < c.count(i); k += b.lanes)
        pair_of[c.first[i] + k] = repformer_of[c.first[i] + k] = -1;
      b.sync_lanes();
      visit_pairs(b, i, [&](std::int64_t candidate, int place) {
        const bool repformer = c.mark[candidate] >> kRepformer & 1;
        const int j = c.atom[candidate];
        if (repformer) repformer_row[repformer_first[i] + place] = c.row ? c.row[j] : j;
        if (pair_of) pair_of[candidate] = static_cast<std::int32_t>(first[i] + place);
        if (pair_of && repformer)
          repformer_of[candidate] = static_cast<std::int32_t>(repformer_first[i] + place);
      });
    });
  }
};

struct FillPairs : PairOrder {
  const std::int64_t* first;  // (natoms + 1)
  double *vec, *r;            // (pairs, 3), (pairs)
  std::int32_t* type;         // (pairs) of the neighbour

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    each_of_item(b, item, c.natoms, [&](int i) {
      visit_pairs(b, i, [&](std::int64_t candidate, int place) {
        const std::int64_t p = first[i] + place;
        double v[3];
        r[p] = c.vector(i, candidate, v);
        for (int k = 0; k < 3; ++k) vec[3 * p + k] = v[k];
        type[p] = c.type[c.atom[candidate]];
      });
    });
  }
};

// ---- pairs by the row of their neighbour

// The candidates by the row of their neighbour, which stay as they are while the list does, and their numbers
// as pairs.
struct RowView {
  int nrows;
  const std::int64_t* first;      // (nrows + 1)
  const std::int32_t* candidate;  // ascending within a row
  const std::int32_t* number[2];  // (candidates) among all pairs, among the repformers'; -1: not there

  // Entries of a row among either; calls visit(which, number, place) for each of them.
  template <class Visit>
  DPA2MD_KERNEL void entries(const ThreadBlock& b, int row, int* count, Visit visit) const {
    for (std::int64_t k0 = first[row]; k0 < first[row + 1]; k0 += b.lanes) {
      const std::int64_t k = k0 + b.lane;
      for (int which = 0; which < 2; ++which) {
        const int at = k < first[row + 1] ? number[which][candidate[k]] : -1;
        const int place = count[which] + b.lane_before(int(at >= 0));
        if (at >= 0) visit(which, at, place);
        count[which] += b.lane_sum(int(at >= 0));
      }
    }
  }
};

struct CountRows {
  RowView v;
  int* count;  // (2, nrows)

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    each_of_item(b, item, v.nrows, [&](int row) {
      int n[2] = {0, 0};
      v.entries(b, row, n, [](int, int, int) {});
      if (b.lane != 0) return;
      for (int which = 0; which < 2; ++which)
        count[static_cast<std::int64_t>(which) * v.nrows + row] = n[which];
    });
  }
};

struct FillRows {
  RowView v;
  const std::int64_t* first;      // (2, nrows + 1)
  std::int32_t *all, *repformer;  // the pairs of the rows

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    each_of_item(b, item, v.nrows, [&](int row) {
      const std::int64_t* at[2] = {first + row, first + v.nrows + 1 + row};
      int n[2] = {0, 0};
      v.entries(b, row, n, [&](int which, int number, int place) {
        (which ? repformer : all)[*at[which] + place] = number;
      });
    });
  }
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
