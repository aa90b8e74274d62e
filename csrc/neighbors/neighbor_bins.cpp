#include "neighbors/neighbor_bins.h"

#include <limits>
#include <numeric>

#include "base/error.h"

namespace dpa2md {
namespace {

using std::int32_t;
using std::int64_t;

constexpr double kFarthest = 1e9;  // angstrom; beyond it, round-off is no longer small against a bond
constexpr char kTooFar[] = " lies too many cells away for 64-bit shifts: wrap the positions into the cell.";
constexpr double kMostShifts = 4e18;   // shift keys are 64-bit integers
constexpr double kMostCells = 1e15;    // between an atom and the origin's cell
constexpr double kBinsPerReach = 2.0;  // measured: 1 to 2 are alike for a liquid, 3 is slower by half
constexpr double kAtomsPerBin = 2.0;   // at least, on average: bounds the number of bins of sparse frames

// The edges of one bin (rows) in the orthonormal frame of Grid, by Gram-Schmidt.
void set_edges(Grid& grid, const double* edge) {
  const double *a = edge, *b = edge + 3, *c = edge + 6;
  const auto dot = [](const double* u, const double* v) { return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]; };
  grid.xx = std::sqrt(dot(a, a));
  grid.yx = dot(b, a) / grid.xx;
  grid.zx = dot(c, a) / grid.xx;
  double y[3], z[3];
  for (int k = 0; k < 3; ++k) y[k] = b[k] - grid.yx / grid.xx * a[k];
  grid.yy = std::sqrt(dot(y, y));
  grid.zy = dot(c, y) / grid.yy;
  for (int k = 0; k < 3; ++k) z[k] = c[k] - grid.zx / grid.xx * a[k] - grid.zy / grid.yy * y[k];
  grid.zz = std::sqrt(dot(z, z));
  grid.per_x = 1.0 / grid.xx;
  grid.per_y = 1.0 / grid.yy;
  grid.per_z = 1.0 / grid.zz;
}

}  // namespace

void AtomBins::clear() {
  grids.clear();
  bin_start.clear();
  for (auto* v : {&px, &py, &pz, &ux, &uy, &uz}) v->clear();
  wrap_key.clear();
  atom_of.clear();
  grid_of.clear();
}

void AtomBins::add_frame(const double* x, const int* type, int begin, int end, const Cell& cell,
                         double reach) {
  const int frame = static_cast<int>(grids.size());
  Grid grid{};
  grid.lattice = make_lattice(cell, frame);
  double largest = take_real_atoms(x, type, frame, begin, end);
  double images = 1.0;
  for (int a = 0; a < 3; ++a) {
    if (!cell.periodic[a]) continue;
    for (int k = 0; k < 3; ++k) largest = std::max(largest, std::abs(cell.h[3 * a + k]));
    images *= 2.0 * reach / grid.lattice.height[a];
  }
  // Images times atoms is the mean number of pairs only in a crystal: elsewhere most atoms may be far apart.
  if (cell.periodic[0] && cell.periodic[1] && cell.periodic[2]) images *= static_cast<double>(real.size());
  if (!real.empty() && images > kMostPairs)
    throw Error(
        "the cell{of} is so thin that an atom would have more than 1e7 neighbours: check the cell and the "
        "cutoff.",
        -1, frame);
  // Pairs at exactly the cutoff (crystals) must not depend on how positions were rounded.
  grid.reach = reach + 64.0 * std::numeric_limits<double>::epsilon() * (largest + reach);
  wrap_atoms(x, grid, frame);
  choose_bins(grid);
  sort_into_bins(x, grid, frame);
  grids.push_back(grid);
}

// Collects the frame's real atoms; returns their largest coordinate.
double AtomBins::take_real_atoms(const double* x, const int* type, int frame, int begin, int end) {
  double largest = 0.0;
  real.clear();
  for (int i = begin; i < end; ++i) {
    if (type[i] < 0) continue;
    for (int k = 0; k < 3; ++k) {
      const double value = std::abs(x[3 * int64_t{i} + k]);
      if (!(value <= kFarthest))
        throw Error(
            "a coordinate of {atom} is not finite or beyond 1e9 angstrom: check the positions (a run may "
            "have "
            "become unstable).",
            i, frame);
      largest = std::max(largest, value);
    }
    real.push_back(i);
  }
  return largest;
}

// Fractional coordinates, their whole parts (wrap) along the periodic axes, and the weights of shift keys.
void AtomBins::wrap_atoms(const double* x, Grid& grid, int frame) {
  const Lattice& lattice = grid.lattice;
  const size_t n = real.size();
  frac.resize(n);
  wrap.resize(n);
  std::array<int64_t, 3> lowest{}, highest{};
  for (size_t m = 0; m < n; ++m) {
    const double* p = x + 3 * int64_t{real[m]};
    for (int a = 0; a < 3; ++a) {
      const double s =
          p[0] * lattice.inverse[a] + p[1] * lattice.inverse[3 + a] + p[2] * lattice.inverse[6 + a];
      if (!(std::abs(s) <= kMostCells)) throw Error(std::string("{atom}") + kTooFar, real[m], frame);
      const double whole = lattice.periodic[a] ? std::floor(s) : 0.0;
      frac[m][a] = s - whole;
      wrap[m][a] = static_cast<int64_t>(whole);
      lowest[a] = m == 0 ? wrap[m][a] : std::min(lowest[a], wrap[m][a]);
      highest[a] = m == 0 ? wrap[m][a] : std::max(highest[a], wrap[m][a]);
    }
  }
  double total = 1.0;
  int64_t weight = 1;
  grid.wrapped = true;
  for (int a = 0; a < 3; ++a) {
    const int64_t images =
        lattice.periodic[a] ? static_cast<int64_t>(std::ceil(grid.reach / lattice.height[a])) + 1 : 0;
    const int64_t width = 2 * (highest[a] - lowest[a] + images) + 1;
    total *= static_cast<double>(width);
    if (total > kMostShifts) throw Error(std::string("an atom{of}") + kTooFar, -1, frame);
    grid.key_weight[a] = weight;
    weight *= width;
    grid.wrapped &= lowest[a] == highest[a];
  }
  grid.nkeys = weight;
  lowest_wrap = lowest;
  for (auto& w : wrap)
    for (int a = 0; a < 3; ++a) w[a] -= lowest[a];  // only differences count in keys, so keep them small
}

// Bins of about half the reach, and not many more bins than atoms however sparse the frame.
void AtomBins::choose_bins(Grid& grid) {
  const Lattice& lattice = grid.lattice;
  const double most = std::max(1.0, static_cast<double>(real.size()) / kAtomsPerBin);
  double low[3], extent[3], wanted[3];
  for (int attempt = 0;; ++attempt) {
    for (int a = 0; a < 3; ++a) {
      double high = 1.0;
      low[a] = 0.0;
      if (!lattice.periodic[a] && !real.empty()) {
        low[a] = high = frac[0][a];
        for (const auto& s : frac) {
          low[a] = std::min(low[a], s[a]);
          high = std::max(high, s[a]);
        }
      }
      extent[a] = high - low[a];
      wanted[a] = std::max(1.0, std::floor(extent[a] * lattice.height[a] / (grid.reach / kBinsPerReach)));
    }
    if (attempt == 1 || wanted[0] * wanted[1] * wanted[2] <= most) break;
    for (int a = 0; a < 3; ++a)
      if (!lattice.periodic[a]) squeeze_gaps(a, grid.reach);
  }
  while (wanted[0] * wanted[1] * wanted[2] > most) {
    const double scale = std::cbrt(most / (wanted[0] * wanted[1] * wanted[2]));
    for (double& w : wanted) w = std::max(1.0, std::floor(w * scale));
  }
  double edge[9];
  for (int a = 0; a < 3; ++a) {
    // A flat or empty extent still needs a bin of some width.
    const double width =
        lattice.periodic[a] ? 1.0 / wanted[a] : std::max(extent[a] / wanted[a], grid.reach / kBinsPerReach);
    grid.nbins[a] = static_cast<int64_t>(wanted[a]);
    for (int k = 0; k < 3; ++k) edge[3 * a + k] = lattice.h[3 * a + k] * width;
    for (auto& s : frac) s[a] = (s[a] - low[a]) / width;
  }
  set_edges(grid, edge);
}

// Shortens every empty gap along an axis that is not periodic to the reach: no pair within reach straddles
// it.
void AtomBins::squeeze_gaps(int axis, double reach) {
  order.resize(frac.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return frac[a][axis] != frac[b][axis] ? frac[a][axis] < frac[b][axis] : a < b;
  });
  double removed = 0.0, last = frac.empty() ? 0.0 : frac[order[0]][axis];
  for (const int32_t m : order) {
    const double here = frac[m][axis];
    removed += std::max(0.0, here - last - reach);
    last = here;
    frac[m][axis] = here - removed;
  }
}

// Stable counting sort, so the order depends on nothing but the input.
void AtomBins::sort_into_bins(const double* x, Grid& grid, int frame) {
  const size_t n = real.size();
  const int64_t nbins = grid.nbins[0] * grid.nbins[1] * grid.nbins[2];
  grid.bins_begin = static_cast<int64_t>(bin_start.size());
  grid.atoms_begin = static_cast<int>(atom_of.size());
  grid.atoms_end = grid.atoms_begin + static_cast<int>(n);
  bin_start.resize(grid.bins_begin + nbins + 1, 0);
  int32_t* start = bin_start.data() + grid.bins_begin;
  bin.resize(n);
  for (size_t m = 0; m < n; ++m) {
    int64_t c[3];
    for (int a = 0; a < 3; ++a)
      c[a] = std::clamp(static_cast<int64_t>(frac[m][a]), int64_t{0}, grid.nbins[a] - 1);
    bin[m] = static_cast<int32_t>((c[2] * grid.nbins[1] + c[1]) * grid.nbins[0] + c[0]);
    ++start[bin[m] + 1];
  }
  start[0] = grid.atoms_begin;
  for (int64_t b = 0; b < nbins; ++b) start[b + 1] += start[b];
  order.assign(start, start + nbins);  // where the next atom of each bin goes
  for (auto* v : {&px, &py, &pz, &ux, &uy, &uz}) v->resize(grid.atoms_end);
  wrap_key.resize(grid.atoms_end);
  atom_of.resize(grid.atoms_end);
  grid_of.resize(grid.atoms_end, frame);
  const double* h = grid.lattice.h;
  for (size_t m = 0; m < n; ++m) {
    const int32_t k = order[bin[m]]++;
    double p[3];
    for (int c = 0; c < 3; ++c) {
      p[c] = x[3 * int64_t{real[m]} + c];
      for (int a = 0; a < 3; ++a) p[c] -= static_cast<double>(wrap[m][a] + lowest_wrap[a]) * h[3 * a + c];
    }
    px[k] = p[0], py[k] = p[1], pz[k] = p[2];
    ux[k] = frac[m][0], uy[k] = frac[m][1], uz[k] = frac[m][2];
    wrap_key[k] =
        wrap[m][0] * grid.key_weight[0] + wrap[m][1] * grid.key_weight[1] + wrap[m][2] * grid.key_weight[2];
    atom_of[k] = real[m];
  }
}

}  // namespace dpa2md
