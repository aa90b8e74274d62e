// The neighbour list's bins: each frame's atoms, wrapped into its cell and sorted by bin, and the search
// around one.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "base/scalar_math.h"
#include "neighbors/lattice.h"

namespace dpa2md {

// One frame's bins, along the axes of its reduced basis.
struct Grid {
  Lattice lattice;
  int atoms_begin, atoms_end;  // the frame's atoms in bin order; virtual atoms have no place there
  std::int64_t bins_begin;     // of its bins in bin_start, axis 0 fastest
  std::int64_t nbins[3];
  double reach;  // rcut + skin, and the round-off of positions
  // Edges of one bin in an orthonormal frame: (xx, 0, 0), (yx, yy, 0), (zx, zy, zz).
  double xx, yx, yy, zx, zy, zz;
  double per_x, per_y, per_z;  // 1/xx, 1/yy, 1/zz
  std::int64_t key_weight[3];  // integer shift S (reduced basis) <-> key = S . key_weight
  std::int64_t nkeys;          // odd: keys are -nkeys/2 ... nkeys/2
  bool wrapped;                // all atoms lie in the same cell: a run of them then has one shift
};

// The bins that the search reads: AtomBins' arrays, or copies of them on a device.
struct BinView {
  const Grid* grids;
  const double *px, *py, *pz, *ux, *uy, *uz;
  const std::int32_t *grid_of, *bin_start;

  // Calls visit(begin, end, centre, key) for runs of atoms (in bin order) that hold everything within reach
  // of atom k: candidates of one image each, as seen from `centre`; key is the image's shift. Rows of bins
  // are cut where their nearest point is beyond reach.
  template <class Visit>
  DPA2MD_DEVICE_TOO void visit_runs(std::int64_t k, Visit visit) const;
};

// Real atoms of all frames in bin order; filled frame by frame, searched around any atom.
struct AtomBins {
  std::vector<Grid> grids;             // one a frame
  std::vector<double> px, py, pz;      // position, wrapped into the cell, angstrom
  std::vector<double> ux, uy, uz;      // the same in bins
  std::vector<std::int64_t> wrap_key;  // key of the lattice vector removed by wrapping
  std::vector<std::int32_t> atom_of, grid_of;
  std::vector<std::int32_t> bin_start;  // first atom of each bin; one more entry at each frame's end

  void clear();
  // Appends atoms begin ... end - 1 as the next frame; throws Error as NeighborList::update says.
  void add_frame(const double* x, const int* type, int begin, int end, const Cell& cell, double reach);

  BinView view() const {
    return {grids.data(), px.data(), py.data(),      pz.data(),       ux.data(),
            uy.data(),    uz.data(), grid_of.data(), bin_start.data()};
  }
  // Calls visit(hits, n, key): n atoms (in bin order, the atom itself left out) within reach of atom k. Their
  // image is shifted by key + wrap_key[k] - wrap_key[hit].
  template <class Visit>
  void visit_hits(std::int64_t k, Visit visit) const;

 private:
  static constexpr int kRun = 128;  // atoms tested at a time

  double take_real_atoms(const double* x, const int* type, int frame, int begin, int end);
  void wrap_atoms(const double* x, Grid& grid, int frame);
  void choose_bins(Grid& grid);
  void squeeze_gaps(int axis, double reach);
  void sort_into_bins(const double* x, Grid& grid, int frame);

  // Scratch of one frame.
  std::vector<int> real;
  std::vector<std::array<double, 3>> frac;
  std::vector<std::array<std::int64_t, 3>> wrap;  // whole cells removed from each atom, above lowest_wrap
  std::array<std::int64_t, 3> lowest_wrap;
  std::vector<std::int32_t> bin, order;
};

constexpr double kMostPairs = 1e7;  // per atom

DPA2MD_HD std::int64_t floor_of(double v) {
  const auto whole = static_cast<std::int64_t>(v);
  return whole - (v < static_cast<double>(whole));
}

// floor(a / b), fast if a lies in the cell or next to it.
DPA2MD_HD std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  if (a >= 0) return a < b ? 0 : a / b;
  return a >= -b ? -1 : -((-a + b - 1) / b);
}

struct Interval {
  double low, high;
  DPA2MD_DEVICE_TOO double square_from_zero() const {
    const double gap = low > 0.0 ? low : high < 0.0 ? -high : 0.0;
    return gap * gap;
  }
};
DPA2MD_HD Interval operator+(Interval a, Interval b) { return {a.low + b.low, a.high + b.high}; }
DPA2MD_HD Interval scaled(Interval a, double s) {
  return s >= 0.0 ? Interval{a.low * s, a.high * s} : Interval{a.high * s, a.low * s};
}

// The bins that [low, high] touches.
struct BinRange {
  std::int64_t first, last;
};
// Periodic axes have bins beyond the cell. On other axes, atoms beyond the outermost edges (round-off) are in
// the outermost bins.
DPA2MD_HD BinRange touched_bins(const Grid& g, int axis, double low, double high) {
  BinRange r{floor_of(low), floor_of(high)};
  if (g.lattice.periodic[axis]) return r;
  const std::int64_t end = g.nbins[axis] - 1;
  r.first = r.first < 0 ? 0 : r.first > end ? end : r.first;
  r.last = r.last < 0 ? 0 : r.last > end ? end : r.last;
  return r;
}

template <class Visit>
DPA2MD_DEVICE_TOO void BinView::visit_runs(std::int64_t k, Visit visit) const {
  const Grid& g = grids[grid_of[k]];
  const double reach2 = g.reach * g.reach;
  const double* h = g.lattice.h;
  const BinRange in_z = touched_bins(g, 2, uz[k] - g.reach * g.per_z, uz[k] + g.reach * g.per_z);
  for (std::int64_t cz = in_z.first; cz <= in_z.last; ++cz) {
    const Interval z{cz - uz[k], cz + 1 - uz[k]};
    const double yz2 = reach2 - scaled(z, g.zz).square_from_zero();
    if (yz2 < 0.0) continue;
    const std::int64_t sz = floor_divide(cz, g.nbins[2]);
    const Interval z_along_y = scaled(z, g.zy);
    const double half_y = std::sqrt(yz2);
    const BinRange in_y = touched_bins(g, 1, uy[k] + (-half_y - z_along_y.high) * g.per_y,
                                       uy[k] + (half_y - z_along_y.low) * g.per_y);
    for (std::int64_t cy = in_y.first; cy <= in_y.last; ++cy) {
      const Interval y{cy - uy[k], cy + 1 - uy[k]};
      const double x2 = yz2 - (scaled(y, g.yy) + z_along_y).square_from_zero();
      if (x2 < 0.0) continue;
      const std::int64_t sy = floor_divide(cy, g.nbins[1]);
      const Interval yz_along_x = scaled(y, g.yx) + scaled(z, g.zx);
      const double half_x = std::sqrt(x2);
      const BinRange in_x = touched_bins(g, 0, ux[k] + (-half_x - yz_along_x.high) * g.per_x,
                                         ux[k] + (half_x - yz_along_x.low) * g.per_x);
      const std::int64_t row = (cz - sz * g.nbins[2]) * g.nbins[1] + cy - sy * g.nbins[1];
      const std::int32_t* start = bin_start + g.bins_begin + row * g.nbins[0];
      for (std::int64_t sx = floor_divide(in_x.first, g.nbins[0]); sx * g.nbins[0] <= in_x.last; ++sx) {
        const std::int64_t first = in_x.first - sx * g.nbins[0], last = in_x.last - sx * g.nbins[0];
        const std::int32_t begin = start[first > 0 ? first : 0];
        const std::int32_t end = start[(last < g.nbins[0] - 1 ? last : g.nbins[0] - 1) + 1];
        if (begin == end) continue;
        double centre[3] = {px[k], py[k], pz[k]};
        for (int c = 0; c < 3; ++c) centre[c] -= sx * h[c] + sy * h[3 + c] + sz * h[6 + c];
        const std::int64_t key = sx * g.key_weight[0] + sy * g.key_weight[1] + sz * g.key_weight[2];
        if (key == 0 && begin <= k && k < end) {  // without the atom itself
          visit(begin, static_cast<std::int32_t>(k), centre, key);
          visit(static_cast<std::int32_t>(k + 1), end, centre, key);
        } else {
          visit(begin, end, centre, key);
        }
      }
    }
  }
}

// Calls visit(hits, n, key): n atoms (in bin order) within reach of atom k, from visit_runs.
template <class Visit>
void AtomBins::visit_hits(std::int64_t k, Visit visit) const {
  const double reach = grids[grid_of[k]].reach;
  const double reach2 = reach * reach;
  view().visit_runs(k, [&](std::int32_t begin, std::int32_t end, const double* centre, std::int64_t key) {
    for (; begin < end; begin += kRun) {
      const std::int32_t m = std::min(end - begin, kRun);
      const double *x = px.data() + begin, *y = py.data() + begin, *z = pz.data() + begin;
      double r2[kRun];
      for (std::int32_t j = 0; j < m; ++j) {
        const double dx = x[j] - centre[0], dy = y[j] - centre[1], dz = z[j] - centre[2];
        r2[j] = dx * dx + dy * dy + dz * dz;
      }
      std::int32_t hits[kRun];
      std::int32_t n = 0;
      for (std::int32_t j = 0; j < m; ++j) {
        hits[n] = begin + j;
        n += r2[j] <= reach2;
      }
      if (n > 0) visit(hits, n, key);
    }
  });
}

}  // namespace dpa2md
