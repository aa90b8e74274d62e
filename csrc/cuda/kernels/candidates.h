// Searches the candidates (csrc/neighbors/neighbors.h) on the device in the host's bins: the same pairs in
// the same order. Also groups any list's candidates by their neighbour's row. One warp per atom, or per row.
#pragma once

#include "cuda/kernels/pair_list.h"
#include "neighbors/neighbor_bins.h"

namespace dpa2md {
namespace DPA2MD_GPU {

struct SearchView {
  int atoms;  // in bin order
  BinView bins;
  const std::int64_t* wrap_key;    // (atoms)
  const std::int32_t* atom_of;     // (atoms)
  const std::int64_t* zero_shift;  // (frames)

  // Each lane that finds an atom within reach of atom k calls visit(hit, key, place). Returns their number.
  template <class Visit>
  DPA2MD_KERNEL int visit_hits(const ThreadBlock& b, int k, Visit visit) const {
    const double reach = bins.grids[bins.grid_of[k]].reach, reach2 = reach * reach;
    int done = 0;
    bins.visit_runs(k, [&](std::int32_t begin, std::int32_t end, const double* centre, std::int64_t key) {
      for (std::int32_t j0 = begin; j0 < end; j0 += b.lanes) {
        const std::int32_t j = j0 + b.lane;
        bool hit = false;
        if (j < end) {
          const double dx = bins.px[j] - centre[0], dy = bins.py[j] - centre[1], dz = bins.pz[j] - centre[2];
          hit = dx * dx + dy * dy + dz * dz <= reach2;
        }
        const int before = b.lane_before(int(hit));
        if (hit) visit(j, key, done + before);
        done += b.lane_sum(int(hit));
      }
    });
    return done;
  }
};

// Counts the candidates of each atom.
struct CountCandidates {
  SearchView v;
  int* count;  // (natoms), zeros

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    each_of_item(b, item, v.atoms, [&](int k) {
      const int found = v.visit_hits(b, k, [](std::int32_t, std::int64_t, int) {});
      if (b.lane == 0) count[v.atom_of[k]] = found;
    });
  }
};

struct FillCandidates {
  SearchView v;
  const std::int64_t* first;   // (natoms + 1)
  std::int32_t *atom, *shift;  // (candidates)

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    each_of_item(b, item, v.atoms, [&](int k) {
      const std::int64_t to = first[v.atom_of[k]];
      const std::int64_t zero = v.zero_shift[v.bins.grid_of[k]] + v.wrap_key[k];
      v.visit_hits(b, k, [&](std::int32_t hit, std::int64_t key, int place) {
        atom[to + place] = v.atom_of[hit];
        shift[to + place] = static_cast<std::int32_t>(zero + key - v.wrap_key[hit]);
      });
    });
  }
};

// ---- candidates by row; atomic counts give places in any order, which are sorted afterwards

struct CandidateRows {
  std::int64_t candidates;
  const std::int32_t* atom;  // (candidates)
  const int* row;            // (positions) or null: the position

  static constexpr int kItem = 1024;  // candidates of an item
  DPA2MD_KERNEL int items() const { return static_cast<int>((candidates + kItem - 1) / kItem); }
  // each(candidate, its row)
  template <class Each>
  DPA2MD_KERNEL void visit(const ThreadBlock& b, int item, Each each) const {
    const std::int64_t c0 = static_cast<std::int64_t>(item) * kItem;
    const auto n = static_cast<int>(candidates - c0 < kItem ? candidates - c0 : kItem);
    b.each(n, [&](int k) { each(c0 + k, row ? row[atom[c0 + k]] : atom[c0 + k]); });
  }
};

struct CountRowCandidates {
  CandidateRows v;
  int* count;  // (nrows), zeros

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    v.visit(b, item, [&](std::int64_t, int row) { atomic_add(count + row, 1); });
  }
};

struct FillRowCandidates {
  CandidateRows v;
  const std::int64_t* first;  // (nrows + 1)
  int* count;                 // (nrows), zeros afterwards
  std::int32_t* candidate;    // (candidates)

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    v.visit(b, item, [&](std::int64_t c, int row) {
      candidate[first[row] + atomic_add(count + row, -1) - 1] = static_cast<std::int32_t>(c);
    });
  }
};

// Sorts the candidates of every row in ascending order.
struct SortRowCandidates {
  int nrows, most;            // rows, candidates of one
  const std::int64_t* first;  // (nrows + 1)
  std::int32_t* candidate;

  struct Arrays {
    std::int32_t* copy;  // (most)
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int) const { return {scratch->take<std::int32_t>(most)}; }
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int row, Scratch scratch) const {
    const Arrays a = arrays(&scratch, 0);
    const auto n = static_cast<int>(first[row + 1] - first[row]);
    std::int32_t* out = candidate + first[row];
    b.each(n, [&](int k) { a.copy[k] = out[k]; });
    b.each(n, [&](int k) {
      int place = 0;
      for (int m = 0; m < n; ++m) place += a.copy[m] < a.copy[k];
      out[place] = a.copy[k];
    });
  }
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
