// The neighbour list against a brute force that knows nothing of bins, reduced bases or wrapping.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "neighbors/neighbors.h"

#ifdef _OPENMP
#include <omp.h>
#endif

using namespace dpa2md;

namespace {

// A pair as the user sees it: centre, neighbour and the vector between them.
struct Pair {
  int i, j;
  std::array<double, 3> d;
  double length() const { return std::sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]); }
};

struct System {
  std::vector<double> x;
  std::vector<int> type;
  std::vector<int> frame_start{0};
  std::vector<Cell> cells;
};

using Random = std::mt19937;

double uniform(Random& random, double low, double high) {
  return std::uniform_real_distribution<double>(low, high)(random);
}

// The inverse of the Gram matrix h h^T, with rows of axes that are not periodic taken as unit vectors
// orthogonal to all others: the fraction s_a of a vector d is sum_b inverse[a][b] (h_b . d), and |s_a| <= |d|
// sqrt(inverse[a][a]).
std::array<double, 9> inverse_gram(const Cell& cell) {
  std::array<double, 9> g{1, 0, 0, 0, 1, 0, 0, 0, 1}, out;
  for (int a = 0; a < 3; ++a)
    for (int b = 0; b < 3; ++b)
      if (cell.periodic[a] && cell.periodic[b]) {
        g[3 * a + b] = 0.0;
        for (int k = 0; k < 3; ++k) g[3 * a + b] += cell.h[3 * a + k] * cell.h[3 * b + k];
      }
  const auto minor = [&g](int a, int b) {
    const int a1 = (a + 1) % 3, a2 = (a + 2) % 3, b1 = (b + 1) % 3, b2 = (b + 2) % 3;
    return g[3 * a1 + b1] * g[3 * a2 + b2] - g[3 * a1 + b2] * g[3 * a2 + b1];
  };
  const double determinant = g[0] * minor(0, 0) + g[1] * minor(0, 1) + g[2] * minor(0, 2);
  for (int a = 0; a < 3; ++a)
    for (int b = 0; b < 3; ++b) out[3 * a + b] = minor(b, a) / determinant;
  return out;
}

std::vector<Pair> brute_force(const System& system, double r) {
  std::vector<Pair> pairs;
  for (size_t f = 0; f < system.cells.size(); ++f) {
    const Cell& cell = system.cells[f];
    const auto inverse = inverse_gram(cell);
    for (int i = system.frame_start[f]; i < system.frame_start[f + 1]; ++i) {
      for (int j = system.frame_start[f]; j < system.frame_start[f + 1]; ++j) {
        if (system.type[i] < 0 || system.type[j] < 0) continue;
        std::array<double, 3> d;
        for (int k = 0; k < 3; ++k) d[k] = system.x[3 * j + k] - system.x[3 * i + k];
        int n[3] = {0, 0, 0};  // |S_a + s_a| <= r sqrt(inverse[a][a])
        for (int a = 0; a < 3; ++a) {
          if (!cell.periodic[a]) continue;
          double s = 0.0;
          for (int b = 0; b < 3; ++b)
            for (int k = 0; k < 3; ++k)
              if (cell.periodic[b]) s += inverse[3 * a + b] * cell.h[3 * b + k] * d[k];
          n[a] = static_cast<int>(std::ceil(r * std::sqrt(inverse[4 * a]) + std::abs(s)));
        }
        for (int s0 = -n[0]; s0 <= n[0]; ++s0)
          for (int s1 = -n[1]; s1 <= n[1]; ++s1)
            for (int s2 = -n[2]; s2 <= n[2]; ++s2) {
              if (i == j && s0 == 0 && s1 == 0 && s2 == 0) continue;
              Pair pair{i, j, d};
              for (int k = 0; k < 3; ++k) {
                if (n[0] > 0) pair.d[k] += s0 * cell.h[k];
                if (n[1] > 0) pair.d[k] += s1 * cell.h[3 + k];
                if (n[2] > 0) pair.d[k] += s2 * cell.h[6 + k];
              }
              if (pair.length() <= r) pairs.push_back(pair);
            }
      }
    }
  }
  return pairs;
}

std::vector<Pair> listed_pairs(const System& system, const Candidates& c, double r) {
  std::vector<Pair> pairs;
  for (size_t i = 0; i + 1 < c.first.size(); ++i) {
    for (auto p = c.first[i]; p < c.first[i + 1]; ++p) {
      Pair pair{static_cast<int>(i), c.atom[p], {}};
      for (int k = 0; k < 3; ++k)
        pair.d[k] = system.x[3 * pair.j + k] + c.shift_vectors[3 * c.shift[p] + k] - system.x[3 * i + k];
      if (pair.length() <= r) pairs.push_back(pair);
    }
  }
  return pairs;
}

// The same pairs, each as often, whatever the order. Vectors agree to 1e-8 angstrom: coordinates of at most
// 1e3 (tests with larger ones aside) carry round-off of 1e-12; no two images of an atom are nearer than 1e-2.
bool same_pairs(std::vector<Pair> a, std::vector<Pair> b) {
  if (a.size() != b.size()) return false;
  const auto order = [](const Pair& p, const Pair& q) {
    const auto key = [](const Pair& v) {
      return std::array<long long, 5>{v.i, v.j, std::llround(v.d[0] * 1e4), std::llround(v.d[1] * 1e4),
                                      std::llround(v.d[2] * 1e4)};
    };
    return key(p) < key(q);
  };
  std::sort(a.begin(), a.end(), order);
  std::sort(b.begin(), b.end(), order);
  // Rounding may order near-equal vectors differently: look for a partner among the same i, j.
  for (size_t begin = 0; begin < a.size();) {
    size_t end = begin;
    while (end < a.size() && a[end].i == a[begin].i && a[end].j == a[begin].j) ++end;
    std::vector<char> used(end - begin, 0);
    for (size_t m = begin; m < end; ++m) {
      if (b[m].i != a[m].i || b[m].j != a[m].j) return false;
      bool found = false;
      for (size_t t = 0; t < end - begin && !found; ++t) {
        const size_t n = begin + (m - begin + t) % (end - begin);  // the partner is nearly always at m itself
        if (used[n - begin]) continue;
        double difference = 0.0;
        for (int k = 0; k < 3; ++k) difference = std::max(difference, std::abs(a[m].d[k] - b[n].d[k]));
        if (difference < 1e-8) used[n - begin] = found = true;
      }
      if (!found) return false;
    }
    begin = end;
  }
  return true;
}

// Rows, shifts and sizes are consistent, and no candidate lies beyond the reach.
bool well_formed(const System& system, const Candidates& c, double reach) {
  bool good = c.first.size() == system.type.size() + 1 && c.first[0] == 0 &&
              c.atom.size() == static_cast<size_t>(c.first.back()) && c.shift.size() == c.atom.size() &&
              c.shift_vectors.size() >= 3 && c.shift_vectors.size() % 3 == 0;
  for (int k = 0; good && k < 3; ++k) good = c.shift_vectors[k] == 0.0;
  for (size_t i = 0; good && i < system.type.size(); ++i) {
    good = c.first[i] <= c.first[i + 1] && (system.type[i] >= 0 || c.first[i] == c.first[i + 1]);
    for (auto p = c.first[i]; good && p < c.first[i + 1]; ++p)
      good = !(c.atom[p] == static_cast<int>(i) && c.shift[p] == 0) && c.shift[p] >= 0 &&
             3 * static_cast<size_t>(c.shift[p]) < c.shift_vectors.size();
  }
  return good && listed_pairs(system, c, reach + 1e-5).size() == c.atom.size();
}

void set_threads([[maybe_unused]] int n) {
#ifdef _OPENMP
  omp_set_num_threads(n);
#endif
}

// A cell of random shape: edges of `low` to `high` angstrom, tilted by up to `tilt` edges, either handedness.
Cell random_cell(Random& random, double low, double high, double tilt, int periodic_mask) {
  Cell cell{};
  for (int a = 0; a < 3; ++a) {
    cell.periodic[a] = (periodic_mask >> a & 1) != 0;
    cell.h[4 * a] = uniform(random, low, high) * (random() % 4 == 0 ? -1.0 : 1.0);
    for (int b = 0; b < a; ++b) cell.h[3 * a + b] = tilt * cell.h[4 * b] * uniform(random, -1.0, 1.0);
  }
  // Rotate about two axes, so that no vector is along a Cartesian one; shuffle the axes.
  for (int turn = 0; turn < 2; ++turn) {
    const double angle = uniform(random, 0.0, 6.28), c = std::cos(angle), s = std::sin(angle);
    for (int a = 0; a < 3; ++a) {
      double &u = cell.h[3 * a + turn], &v = cell.h[3 * a + turn + 1];
      const double old = u;
      u = c * old - s * v;
      v = s * old + c * v;
    }
  }
  const int other = static_cast<int>(random() % 3);
  for (int k = 0; k < 3; ++k) std::swap(cell.h[k], cell.h[3 * other + k]);
  return cell;
}

// Adds a frame whose atoms lie in the cell moved by up to `away` whole cells; every sixth may be virtual.
void add_frame(System& system, Random& random, const Cell& cell, int natoms, int away, bool with_virtual) {
  for (int n = 0; n < natoms; ++n) {
    double s[3], x[3] = {0.0, 0.0, 0.0};
    for (int a = 0; a < 3; ++a) {
      s[a] = uniform(random, 0.0, 1.0);
      if (cell.periodic[a]) s[a] += std::floor(uniform(random, -away, away + 1.0));
    }
    for (int a = 0; a < 3; ++a)
      for (int k = 0; k < 3; ++k) x[k] += s[a] * cell.h[3 * a + k];
    system.x.insert(system.x.end(), x, x + 3);
    system.type.push_back(with_virtual && random() % 6 == 0 ? -1 : 0);
  }
  system.frame_start.push_back(static_cast<int>(system.type.size()));
  system.cells.push_back(cell);
}

bool update(NeighborList& list, const System& s) {
  return list.update(s.x.data(), s.type.data(), s.frame_start, s.cells);
}

void check_against_brute_force(const System& system, double rcut, double skin) {
  NeighborList list(rcut, skin);
  CHECK(update(list, system));
  CHECK(well_formed(system, list.candidates(), rcut + skin));
  const double reach = rcut + skin;
  CHECK(same_pairs(listed_pairs(system, list.candidates(), reach), brute_force(system, reach)));
}

void test_random_cells() {
  Random random(1);
  for (int trial = 0; trial < 240; ++trial) {
    System system;
    const int mask = trial % 8;
    const double tilt = trial % 3 == 0 ? 0.0 : trial % 3 == 1 ? 1.0 : 4.0;
    // Two frames each: cells below the cutoff, and cells of several cutoffs.
    add_frame(system, random, random_cell(random, 0.8, 3.0, tilt, mask), 1 + trial % 5, 5, trial % 2 != 0);
    add_frame(system, random, random_cell(random, 4.0, 14.0, tilt, mask), 60, trial % 4 == 0 ? 0 : 5,
              trial % 2 != 0);
    check_against_brute_force(system, uniform(random, 1.5, 3.0), uniform(random, 0.0, 0.5));
  }
}

// Enough atoms for many bins along every axis.
void test_many_bins() {
  Random random(2);
  for (int mask = 0; mask < 8; ++mask) {
    System system;
    add_frame(system, random, random_cell(random, 9.0, 12.0, 0.8, mask), 900, mask % 2, true);
    check_against_brute_force(system, 1.8, 0.2);
  }
}

void test_strong_tilt() {
  Random random(3);
  System system;
  // The cubic lattice of 5 angstrom, by vectors far from reduced; and three vectors at nearly 120 degrees.
  add_frame(system, random, Cell{{5, 0, 0, 35, 5, 0, -60, 45, 5}, {true, true, true}}, 6, 1, false);
  add_frame(system, random, Cell{{4, 0, 0.3, -2, 3.4641, 0.3, -2, -3.4641, 0.3}, {true, true, true}}, 3, 2,
            false);
  add_frame(system, random, Cell{{4, 0, 0, 1, 2, 3, 41, 0.5, 3}, {true, false, true}}, 10, 2, false);
  check_against_brute_force(system, 4.0, 0.3);
}

// Pairs at exactly the cutoff belong to the list, in any cell of a crystal and however far away it lies.
void test_exact_cutoff() {
  for (const double origin : {0.0, 1e6 + 0.1}) {
    for (const int wide : {1, 4}) {
      System system;
      for (int i = 0; i < wide; ++i)
        for (int j = 0; j < wide; ++j)
          for (int k = 0; k < wide; ++k)
            for (const int n : {i, j, k}) system.x.push_back(origin + 1.1 * n);
      const double edge = 1.1 * wide;
      system.type.assign(wide * wide * wide, 0);
      system.frame_start.push_back(wide * wide * wide);
      system.cells.push_back(Cell{{edge, 0, 0, 0, edge, 0, 0, 0, edge}, {true, true, true}});
      NeighborList list(2.2, 0.0);
      update(list, system);
      // Lattice points with n1^2 + n2^2 + n3^2 <= 4, without the origin: 6 + 12 + 8 + 6.
      for (size_t i = 0; i < system.type.size(); ++i)
        CHECK(list.candidates().first[i + 1] - list.candidates().first[i] == 32);
    }
  }
}

void test_sparse_and_elongated() {
  Random random(4);
  System system;
  const Cell open{{}, {false, false, false}};
  for (int n = 0; n < 300; ++n) {  // pairs scattered over 1e6 angstrom, and two clusters as far apart
    const double far = n < 100 ? uniform(random, -1e6, 1e6) : n < 200 ? 1e6 : -1e6;
    for (int k = 0; k < 3; ++k) system.x.push_back(k == 0 || n < 100 ? far : uniform(random, 0.0, 6.0));
    if (n % 2 == 1 && n < 100)
      for (int k = 0; k < 3; ++k) system.x[3 * n + k] = system.x[3 * n - 3 + k] + uniform(random, -1.5, 1.5);
  }
  system.type.assign(300, 0);
  system.frame_start.push_back(300);
  system.cells.push_back(open);
  // A periodic wire in a cell of 1e6 angstrom, atoms in two places.
  const Cell wire{{1e6, 0, 0, 0, 5, 0, 0, 0, 0}, {true, true, false}};
  for (int n = 0; n < 80; ++n) {
    system.x.push_back(uniform(random, -2.0, 2.0) + (n % 2 == 0 ? 5e5 : 0.0));
    system.x.push_back(uniform(random, -20.0, 20.0));
    system.x.push_back(uniform(random, 0.0, 3.0) + (n % 3 == 0 ? 1e5 : 0.0));
    system.type.push_back(0);
  }
  system.frame_start.push_back(380);
  system.cells.push_back(wire);
  check_against_brute_force(system, 2.0, 0.5);
}

void test_few_atoms() {
  NeighborList list(3.0, 0.5);
  CHECK(list.update(nullptr, nullptr, {0}, {}));
  CHECK(list.candidates().first.size() == 1 && list.candidates().atom.empty());
  System system;
  const Cell open{{}, {false, false, false}}, cube{{2, 0, 0, 0, 2, 0, 0, 0, 2}, {true, true, true}};
  system.cells = {open, cube, open, cube, cube};
  system.frame_start = {0, 0, 1,
                        2, 2, 4};  // no atom, one periodic, one alone, none, two of which one is virtual
  system.x = {1, 2, 3, 4, 5, 6, std::numeric_limits<double>::quiet_NaN(), 0, 0, 7, 8, 9};
  system.type = {0, 0, -1, 0};
  CHECK(update(list, system));
  const auto& first = list.candidates().first;
  CHECK(well_formed(system, list.candidates(), 3.5));
  // A cube's 26 neighbouring images, the farthest at 2 sqrt(3).
  CHECK(first[1] == 26 && first[2] == first[1] && first[3] == first[1] && first[4] - first[3] == 26);
  CHECK(!update(list, system));
}

void test_coincident_atoms_are_kept() {
  System system;
  system.x = {1, 1, 1, 1, 1, 1, 4, 1, 1};  // the third is the first's image
  system.type = {0, 0, 0};
  system.frame_start = {0, 3};
  system.cells = {Cell{{3, 0, 0, 0, 30, 0, 0, 0, 30}, {true, true, true}}};
  NeighborList list(1.0, 0.0);
  update(list, system);
  for (int i = 0; i < 3; ++i) CHECK(list.candidates().first[i + 1] - list.candidates().first[i] == 2);
}

// Atoms walk and cells change; whatever update() decides, the pairs within rcut are the brute force's.
void test_reuse() {
  Random random(5);
  int reused = 0, rebuilt = 0;
  for (int trial = 0; trial < 30; ++trial) {
    const double rcut = 2.5, skin = 0.4;
    System system;
    add_frame(system, random, random_cell(random, 3.0, 8.0, trial % 3, trial % 8), 25, trial % 2, true);
    add_frame(system, random, random_cell(random, 1.2, 2.5, trial % 3, 7 - trial % 8), 3, 3, false);
    NeighborList list(rcut, skin);
    update(list, system);
    for (int step = 0; step < 20; ++step) {
      for (double& x : system.x) x += uniform(random, -0.06, 0.06);
      if (trial % 2 == 1)
        for (Cell& cell : system.cells)
          for (double& h : cell.h) h += uniform(random, -0.004, 0.004);
      if (step == 15) std::swap(system.type[0], system.type[25]);
      (update(list, system) ? rebuilt : reused) += 1;
      CHECK(same_pairs(listed_pairs(system, list.candidates(), rcut), brute_force(system, rcut)));
    }
  }
  CHECK(reused > 100 && rebuilt > 30);  // or the walk tests only one of the two
}

// The smallest motions that must rebuild, and the largest that need not.
void test_reuse_limits() {
  System system;
  system.x = {0, 0, 0, 3.0, 0, 0};
  system.type = {0, 1};
  system.frame_start = {0, 2};
  system.cells = {Cell{{10, 0, 0, 0, 10, 0, 0, 0, 10}, {true, false, true}}};
  const auto after = [&system](auto change) {
    NeighborList list(2.0, 0.5);
    update(list, system);
    System moved = system;
    change(moved);
    return update(list, moved);
  };
  CHECK(!after([](System&) {}));
  CHECK(!after([](System& s) { s.x[4] = 0.2499; }));
  CHECK(after([](System& s) { s.x[4] = 0.2501; }));
  CHECK(!after([](System& s) { s.type[0] = 5; }));  // no type but virtual ones matters
  CHECK(after([](System& s) { s.type[0] = -1; }));
  CHECK(!after([](System& s) { s.cells[0].h[4] = 1.0; }));  // an axis that is not periodic
  CHECK(after([](System& s) { s.cells[0].periodic[1] = true; }));
  // rcut / h + spread of the fractions is 0.2 + 0.3 at an edge of 10.
  CHECK(!after([](System& s) { s.cells[0].h[0] = 10.9; }));
  CHECK(after([](System& s) { s.cells[0].h[0] = 11.2; }));
  CHECK(after([](System& s) { s.frame_start = {0, 1, 2}, s.cells.push_back(s.cells[0]); }));
  // A lone atom has no pair, but shrinking its cell gives it some.
  System lone;
  lone.x = {0, 0, 0};
  lone.type = {0};
  lone.frame_start = {0, 1};
  lone.cells = {Cell{{10, 0, 0, 0, 10, 0, 0, 0, 10}, {true, true, true}}};
  NeighborList list(2.0, 0.5);
  update(list, lone);
  CHECK(list.candidates().atom.empty());
  lone.cells[0].h[0] = 1.9;
  CHECK(update(list, lone));
  CHECK(list.candidates().atom.size() == 2);
}

void test_order_is_deterministic() {
  Random random(6);
  System system;
  add_frame(system, random, random_cell(random, 20.0, 22.0, 0.5, 7), 4000, 1, true);
  NeighborList one(3.0, 0.2), two(3.0, 0.2);
  set_threads(1);
  update(one, system);
  set_threads(4);
  update(two, system);
  CHECK(one.candidates().first == two.candidates().first && one.candidates().atom == two.candidates().atom);
  CHECK(one.candidates().shift == two.candidates().shift);
  CHECK(one.candidates().shift_vectors == two.candidates().shift_vectors);
}

void test_errors() {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  System good;
  good.x = {0, 0, 0, 1, 1, 1};
  good.type = {0, 0};
  good.frame_start = {0, 2};
  good.cells = {Cell{{5, 0, 0, 0, 5, 0, 0, 0, 5}, {true, true, true}}};
  NeighborList list(3.0, 0.5);
  const auto with = [&](auto change) {
    System bad = good;
    change(bad);
    update(list, bad);
  };
  update(list, good);
  CHECK_THROWS(with([&](System& s) { s.x[4] = nan; }), Error, "atom 1 of frame 0");
  CHECK_THROWS(with([&](System& s) { s.x[0] = -inf; }), Error, "atom 0 of frame 0");
  CHECK_THROWS(with([&](System& s) { s.x[0] = 1e10; }), Error, "1e9 angstrom");
  CHECK_THROWS(with([&](System& s) { s.cells[0].h[3] = nan; }), Error, "cell vector 1 of frame 0");
  CHECK_THROWS(with([&](System& s) { s.cells[0].h[8] = 0.0; }), Error, "cell vector 2 of frame 0");
  CHECK_THROWS(with([&](System& s) { s.cells[0].h[6] = s.cells[0].h[7] = 5.0, s.cells[0].h[8] = 1e-9; }),
               Error, "linearly dependent");
  CHECK_THROWS(with([&](System& s) { s.cells[0] = Cell{{5, 0, 0, 10, 0, 0, 0, 0, 0}, {true, true, false}}; }),
               Error, "linearly dependent");
  CHECK_THROWS(with([&](System& s) { s.cells[0].h[0] = s.cells[0].h[4] = 1.1e-3; }), Error, "1e7 neighbours");
  CHECK_THROWS(with([&](System& s) {
                 for (int k = 0; k < 3; ++k) s.cells[0].h[4 * k] = 0.5, s.x[k] = 9e8;
               }),
               Error, "wrap the positions");
  CHECK_THROWS(with([&](System& s) { s.frame_start = {0, 3, 2}; }), Error, "frame_start");
  CHECK_THROWS(with([&](System& s) { s.frame_start = {1, 2}; }), Error, "frame_start");
  CHECK_THROWS(with([&](System& s) { s.frame_start = {0, 1, 2}; }), Error, "frame_start");
  CHECK_THROWS(NeighborList(0.0, 0.5), Error, "rcut");
  CHECK_THROWS(NeighborList(nan, 0.5), Error, "rcut");
  CHECK_THROWS(NeighborList(3.0, -0.1), Error, "skin");
  // After a failure the list is rebuilt, not reused.
  update(list, good);
  CHECK(!update(list, good));
  CHECK_THROWS(with([&](System& s) { s.x[4] = nan; }), Error, "atom 1");
  CHECK(update(list, good));
}

}  // namespace

int main() {
  test_random_cells();
  test_many_bins();
  test_strong_tilt();
  test_exact_cutoff();
  test_sparse_and_elongated();
  test_few_atoms();
  test_coincident_atoms_are_kept();
  test_reuse();
  test_reuse_limits();
  test_order_is_deterministic();
  test_errors();
  return check_result();
}
