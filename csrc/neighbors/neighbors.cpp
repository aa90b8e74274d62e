#include "neighbors/neighbors.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <numeric>
#include <string>
#include <tuple>

#include "base/error.h"
#include "neighbors/neighbor_bins.h"

namespace dpa2md {
namespace {

using std::int32_t;
using std::int64_t;

constexpr double kLargest = 1e9;                // angstrom, of rcut and skin
constexpr int kBlock = 128;                     // atoms a thread takes at a time
constexpr int64_t kMostDeviceShifts = 1 << 16;  // that a device is given, whether in use or not

// A shift in use: unique per frame.
struct ShiftKey {
  int32_t grid;
  int64_t key;
  bool operator<(const ShiftKey& o) const { return std::tie(grid, key) < std::tie(o.grid, o.key); }
  bool operator==(const ShiftKey& o) const { return grid == o.grid && key == o.key; }
};

// Remembers recent keys, so that few look-ups reach the sorted table.
struct ShiftCache {
  struct Slot {
    ShiftKey shift{-1, 0};
    int32_t id = 0;
  };
  std::array<Slot, 1024> slots;
  Slot& slot(const ShiftKey& shift) {
    const auto hash = static_cast<std::uint64_t>(shift.key) * 0x9E3779B97F4A7C15u;
    return slots[hash >> 54];
  }
};

// The pairs of kBlock consecutive atoms in bin order. Shift 0 is zero, n + 1 is shifts[n].
struct PairBlock {
  std::vector<int32_t> atom,
      shift;  // the first npairs entries; room ahead, so that a run is written in place
  size_t npairs = 0;
  std::vector<ShiftKey> shifts;

  void make_room(size_t n) {
    if (npairs + n <= atom.size()) return;
    atom.resize(npairs + npairs / 4 + n + 1024);
    shift.resize(atom.size());
  }
};

// Calls body(block) for 0 ... nblocks - 1, possibly in parallel; passes on an exception.
template <class Body>
void for_blocks(int64_t nblocks, Body body) {
  std::exception_ptr failure;
  std::mutex failing;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) if (nblocks > 8)
#endif
  for (int64_t block = 0; block < nblocks; ++block) {
    try {
      body(block);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(failing);
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

struct NeighborList::Impl {
  double rcut, skin;
  bool leaves_search = false;
  Candidates out;

  // State of the last build, for reuse.
  bool valid = false;
  std::vector<double> built_x;
  std::vector<int> built_type;
  std::vector<int> built_frame_start;
  std::vector<Cell> built_cells;
  AtomBins bins;
  std::vector<PairBlock> blocks;  // kept for their memory: fresh pages cost a third of a build
  std::vector<ShiftKey> shifts;   // used nonzero shifts, sorted; index + 1 in Candidates
  std::vector<std::array<int64_t, 3>> shift_numbers;  // the same as multiples of the cell's own vectors

  bool can_reuse(const double* x, const int* type, const std::vector<int>& frame_start,
                 const std::vector<Cell>& cells) const;
  double motion(const double* x, int frame, const Cell& cell) const;
  double largest_move(const double* x, const Grid& grid, int begin, int end) const;
  void build(const double* x, const int* type, const std::vector<int>& frame_start,
             const std::vector<Cell>& cells);
  void list_pairs(int natoms);
  void search(PairBlock& block, int64_t begin, int64_t end);
  void number_shifts();
  bool number_all_shifts();
  void add_shift(const ShiftKey& shift);
  void copy_rows(const PairBlock& block, int64_t begin, int64_t end);
  void set_shift_vectors(const std::vector<Cell>& cells);
};

bool NeighborList::Impl::can_reuse(const double* x, const int* type, const std::vector<int>& frame_start,
                                   const std::vector<Cell>& cells) const {
  if (!valid || frame_start != built_frame_start) return false;
  // Types may change, but not which atoms are virtual.
  if (!std::equal(built_type.begin(), built_type.end(), type)) {
    for (size_t i = 0; i < built_type.size(); ++i)
      if ((type[i] < 0) != (built_type[i] < 0)) return false;
  }
  for (size_t f = 0; f < cells.size(); ++f) {
    if (!std::equal(cells[f].periodic, cells[f].periodic + 3, built_cells[f].periodic)) return false;
    if (!(motion(x, static_cast<int>(f), cells[f]) <= skin)) return false;  // NaN: rebuild, which complains
  }
  return true;
}

// The square of the largest displacement of the frame's atoms; NaN if there is a NaN. Without their sign
// bit, doubles sort as integers, with NaNs last.
double NeighborList::Impl::largest_move(const double* x, const Grid& grid, int begin, int end) const {
  const int n = grid.atoms_end - grid.atoms_begin;
  const bool all = n == end - begin;  // no virtual atoms: in memory's order, which is quicker
  const int32_t* atoms = bins.atom_of.data() + grid.atoms_begin;
  int64_t most = 0;
  for (int k = 0; k < n; ++k) {
    const int64_t i = 3 * int64_t{all ? begin + k : atoms[k]};
    const double dx = x[i] - built_x[i], dy = x[i + 1] - built_x[i + 1], dz = x[i + 2] - built_x[i + 2];
    const double square = dx * dx + dy * dy + dz * dz;
    int64_t bits;
    std::memcpy(&bits, &square, sizeof(bits));
    most = std::max(most, bits & std::numeric_limits<int64_t>::max());
  }
  double out;
  std::memcpy(&out, &most, sizeof(out));
  return out;
}

// An upper bound on the decrease of the distance of any two atoms or images that are within rcut now.
double NeighborList::Impl::motion(const double* x, int frame, const Cell& cell) const {
  const Grid& grid = bins.grids[frame];
  const Cell& built_cell = built_cells[frame];
  const int begin = built_frame_start[frame], end = built_frame_start[frame + 1];
  const double most = largest_move(x, grid, begin, end);
  if (std::isnan(most)) return most;
  double bound = 2.0 * std::sqrt(most);
  bool same_cell = true;
  for (int k = 0; k < 9; ++k) same_cell &= !cell.periodic[k / 3] || cell.h[k] == built_cell.h[k];
  if (same_cell || grid.atoms_begin == grid.atoms_end) return bound;

  const Lattice now = follow_cell(grid.lattice, cell);
  for (int a = 0; a < 3; ++a) {
    if (!now.periodic[a]) continue;
    double low = std::numeric_limits<double>::infinity(), high = -low, dh = 0.0;
    for (int k = grid.atoms_begin; k < grid.atoms_end; ++k) {
      const double* p = x + 3 * int64_t{bins.atom_of[k]};
      const double s = p[0] * now.inverse[a] + p[1] * now.inverse[3 + a] + p[2] * now.inverse[6 + a];
      low = std::min(low, s);
      high = std::max(high, s);
    }
    for (int k = 0; k < 3; ++k) {
      const double d = now.h[3 * a + k] - grid.lattice.h[3 * a + k];
      dh += d * d;
    }
    bound += (rcut / now.height[a] + (high - low)) * std::sqrt(dh);
  }
  return bound;
}

void NeighborList::Impl::build(const double* x, const int* type, const std::vector<int>& frame_start,
                               const std::vector<Cell>& cells) {
  const int natoms = frame_start.back();
  valid = false;
  bins.clear();
  for (size_t f = 0; f < cells.size(); ++f)
    bins.add_frame(x, type, frame_start[f], frame_start[f + 1], cells[f], rcut + skin);

  out.version = next_list_version();
  if (leaves_search && number_all_shifts()) {
    out.bins = &bins;
    out.first.clear(), out.atom.clear(), out.shift.clear();
  } else {
    out.bins = nullptr;
    list_pairs(natoms);
  }
  built_x.assign(x, x + 3 * int64_t{natoms});
  built_type.assign(type, type + natoms);
  built_frame_start = frame_start;
  built_cells = cells;
  valid = true;
}

void NeighborList::Impl::list_pairs(int natoms) {
  const auto nsorted = static_cast<int64_t>(bins.atom_of.size());
  const int64_t nblocks = (nsorted + kBlock - 1) / kBlock;
  blocks.resize(nblocks);
  out.first.assign(natoms + 1, 0);
  for_blocks(nblocks, [&](int64_t b) { search(blocks[b], b * kBlock, std::min(nsorted, (b + 1) * kBlock)); });
  number_shifts();
  std::partial_sum(out.first.begin(), out.first.end(), out.first.begin());
  out.atom.resize(out.first.back());
  out.shift.resize(out.first.back());
  for_blocks(nblocks,
             [&](int64_t b) { copy_rows(blocks[b], b * kBlock, std::min(nsorted, (b + 1) * kBlock)); });
}

// Collects the pairs of atoms begin ... end - 1 in bin order; stores their numbers in out.first, shifted by
// one.
void NeighborList::Impl::search(PairBlock& block, int64_t begin, int64_t end) {
  ShiftCache cache;
  block.npairs = 0;
  block.shifts.clear();
  const auto id_of = [&](const ShiftKey& shift) -> int32_t {
    if (shift.key == 0) return 0;
    auto& slot = cache.slot(shift);
    if (!(slot.shift == shift)) {
      block.shifts.push_back(shift);
      slot = {shift, static_cast<int32_t>(block.shifts.size())};
    }
    return slot.id;
  };
  for (int64_t k = begin; k < end; ++k) {
    const int32_t grid = bins.grid_of[k];
    const bool wrapped = bins.grids[grid].wrapped;
    const size_t row = block.npairs;
    bins.visit_hits(k, [&](const int32_t* hits, int32_t n, int64_t key) {
      block.make_room(n);
      int32_t* atom = block.atom.data() + block.npairs;
      int32_t* shift = block.shift.data() + block.npairs;
      for (int32_t h = 0; h < n; ++h) atom[h] = bins.atom_of[hits[h]];
      if (wrapped) {
        std::fill(shift, shift + n, id_of({grid, key}));
      } else {
        for (int32_t h = 0; h < n; ++h)
          shift[h] = id_of({grid, key + bins.wrap_key[k] - bins.wrap_key[hits[h]]});
      }
      block.npairs += n;
    });
    const size_t count = block.npairs - row;
    if (static_cast<double>(count) > kMostPairs)
      throw Error("{atom} has more than 1e7 neighbours: check the cell and the cutoff.", bins.atom_of[k],
                  static_cast<int>(grid));
    out.first[bins.atom_of[k] + 1] = static_cast<int64_t>(count);
  }
}

// Numbers the shifts in use, by frame and key, so that nothing depends on threads. Keys become multiples of
// the cell's own vectors.
void NeighborList::Impl::number_shifts() {
  shifts.clear();
  for (const auto& block : blocks) shifts.insert(shifts.end(), block.shifts.begin(), block.shifts.end());
  std::sort(shifts.begin(), shifts.end());
  shifts.erase(std::unique(shifts.begin(), shifts.end()), shifts.end());
  if (shifts.size() >= static_cast<size_t>(std::numeric_limits<int32_t>::max()))
    throw Error("the frames need more than 2^31 different image shifts: give fewer frames at a time.");
  shift_numbers.clear();
  for (const ShiftKey& shift : shifts) add_shift(shift);
}

// Numbers all shifts that atoms of a frame may have, used or not; false if they are too many.
bool NeighborList::Impl::number_all_shifts() {
  int64_t total = 0;
  for (const Grid& g : bins.grids) total += std::min(g.nkeys, kMostDeviceShifts + 1);
  if (total > kMostDeviceShifts) return false;
  shifts.clear();
  shift_numbers.clear();
  out.zero_shift.clear();
  for (size_t f = 0; f < bins.grids.size(); ++f) {
    const int64_t half = bins.grids[f].nkeys / 2;
    out.zero_shift.push_back(1 + static_cast<int64_t>(shifts.size()) + half);
    for (int64_t key = -half; key <= half; ++key) {
      shifts.push_back({static_cast<int32_t>(f), key});
      add_shift(shifts.back());
    }
  }
  return true;
}

void NeighborList::Impl::add_shift(const ShiftKey& shift) {
  const Grid& g = bins.grids[shift.grid];
  // Digits of a balanced mixed-radix number, highest first: what remains is less than half a weight.
  int64_t rest = shift.key;
  std::array<int64_t, 3> s{}, of_cell{};
  for (int a = 2; a >= 0; --a) {
    s[a] = floor_divide(rest + g.key_weight[a] / 2, g.key_weight[a]);
    rest -= s[a] * g.key_weight[a];
  }
  for (int b = 0; b < 3; ++b) {
    for (int a = 0; a < 3; ++a) of_cell[b] += s[a] * g.lattice.to_cell[3 * a + b];
  }
  shift_numbers.push_back(of_cell);
}

void NeighborList::Impl::copy_rows(const PairBlock& block, int64_t begin, int64_t end) {
  std::vector<int32_t> id(block.shifts.size() + 1, 0);
  for (size_t n = 0; n < block.shifts.size(); ++n)
    id[n + 1] = 1 + static_cast<int32_t>(std::lower_bound(shifts.begin(), shifts.end(), block.shifts[n]) -
                                         shifts.begin());
  size_t from = 0;
  for (int64_t k = begin; k < end; ++k) {
    const int64_t to = out.first[bins.atom_of[k]];
    const int64_t count = out.first[bins.atom_of[k] + 1] - to;
    std::copy_n(block.atom.begin() + from, count, out.atom.begin() + to);
    for (int64_t p = 0; p < count; ++p) out.shift[to + p] = id[block.shift[from + p]];
    from += count;
  }
}

void NeighborList::Impl::set_shift_vectors(const std::vector<Cell>& cells) {
  out.shift_vectors.assign(3 * (shifts.size() + 1), 0.0);
  for (size_t n = 0; n < shifts.size(); ++n) {
    const Cell& cell = cells[shifts[n].grid];
    for (int a = 0; a < 3; ++a) {
      if (!cell.periodic[a]) continue;
      for (int k = 0; k < 3; ++k)
        out.shift_vectors[3 * (n + 1) + k] += static_cast<double>(shift_numbers[n][a]) * cell.h[3 * a + k];
    }
  }
}

std::uint64_t next_list_version() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

NeighborList::NeighborList(double rcut, double skin) : impl_(std::make_unique<Impl>()) {
  if (!(rcut > 0.0 && rcut <= kLargest))
    throw Error("rcut must be a positive length in angstrom: check the model's cutoff.");
  if (!(skin >= 0.0 && skin <= kLargest))
    throw Error("skin must be zero or a positive length in angstrom: 0.5 is usual.");
  impl_->rcut = rcut;
  impl_->skin = skin;
}
NeighborList::~NeighborList() = default;
NeighborList::NeighborList(NeighborList&&) noexcept = default;
NeighborList& NeighborList::operator=(NeighborList&&) noexcept = default;

void NeighborList::leave_search(bool to_device) {
  if (impl_->leaves_search != to_device) impl_->valid = false;
  impl_->leaves_search = to_device;
}

bool NeighborList::update(const double* x, const int* type, const std::vector<int>& frame_start,
                          const std::vector<Cell>& cells) {
  if (frame_start.size() != cells.size() + 1 || frame_start[0] != 0 ||
      !std::is_sorted(frame_start.begin(), frame_start.end()))
    throw Error("frame_start must begin with 0, not decrease and have one entry more than there are cells.");
  const bool reuse = impl_->can_reuse(x, type, frame_start, cells);
  if (!reuse) impl_->build(x, type, frame_start, cells);
  impl_->set_shift_vectors(cells);
  return !reuse;
}

const Candidates& NeighborList::candidates() const { return impl_->out; }

}  // namespace dpa2md
