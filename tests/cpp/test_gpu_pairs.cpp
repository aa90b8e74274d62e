// The pair list of the CUDA backend, on the emulated device: step after step what the host's list gives,
// whatever stays on the device in between. Usage: test_gpu_pairs MODEL.dpa2 ...
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "engine/engine.h"
#include "model_files.h"
#include "neighbors/neighbors.h"

using namespace dpa2md;

namespace {

// Both add the same numbers in another order; the largest forces of dense boxes are some 1e3.
constexpr double kTolerance = 1e-10;

// Frames side by side.
struct System {
  std::vector<double> x;  // (n, 3)
  std::vector<int> type;  // (n)
  std::vector<int> frame_start{0};
  std::vector<Cell> cells;

  int size() const { return static_cast<int>(type.size()); }
  void add_frame(const Cell& cell, const std::vector<double>& positions, const std::vector<int>& types) {
    x.insert(x.end(), positions.begin(), positions.end());
    type.insert(type.end(), types.begin(), types.end());
    frame_start.push_back(size());
    cells.push_back(cell);
  }
};

// nx * ny * nz sites of a lattice, moved at random by up to `rattle`.
System lattice(const Cell& site, int nx, int ny, int nz, double rattle, int ntypes, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> move(-rattle, rattle);
  std::vector<double> x;
  std::vector<int> type;
  for (int i = 0; i < nx * ny * nz; ++i) {
    const int at[3] = {i % nx, i / nx % ny, i / nx / ny};
    for (int c = 0; c < 3; ++c)
      x.push_back(at[0] * site.h[c] + at[1] * site.h[3 + c] + at[2] * site.h[6 + c] + move(random));
    type.push_back(static_cast<int>(random() % static_cast<unsigned>(ntypes)));
  }
  Cell cell = site;
  for (int c = 0; c < 3; ++c) cell.h[c] *= nx, cell.h[3 + c] *= ny, cell.h[6 + c] *= nz;
  System s;
  s.add_frame(cell, x, type);
  return s;
}

const Cell kCubic{{2.1, 0, 0, 0, 2.1, 0, 0, 0, 2.1}, {true, true, true}};
const Cell kSkewed{{2.2, 0, 0, 5.9, 2.0, 0, -4.4, 3.8, 2.1}, {true, true, true}};
const Cell kWire{{0.4, 2.0, 0.3, 2.1, 0, 0, 0, 0, 2.2}, {true, false, false}};
const Cell kOpen{{2.0, 0, 0, 0, 2.0, 0, 0, 0, 2.0}, {false, false, false}};
const Cell kTight{{1.5, 0, 0, 0, 1.5, 0, 0, 0, 1.5}, {true, true, true}};

constexpr double kFewShifts = 6.5;  // marks the cell whose atoms are too far apart for a device's numbers

// The same list twice: of the host, and left to the device.
struct Lists {
  NeighborList host, device;
  Lists(double rcut, double skin) : host(rcut, skin), device(rcut, skin) { device.leave_search(true); }
};

// One engine on the host, one on the emulated device.
class Pair {
 public:
  explicit Pair(const std::string& path)
      : path_(path),
        host_(path, read_options("float64", 1, "cpu", false)),
        device_(path, read_options("float64", 1, "cuda-emulation", false)) {}

  const Model& model() const { return host_.model(); }

  void compare(const char* what, const System& s, Lists* lists, bool forces = true) {
    const auto atoms_of = [&](NeighborList* list) {
      list->update(s.x.data(), s.type.data(), s.frame_start, s.cells);
      return Atoms{s.size(), s.size(), s.x.data(), s.type.data(), nullptr, &list->candidates()};
    };
    const Atoms atoms = atoms_of(&lists->host), binned = atoms_of(&lists->device);
    CHECK(!atoms.candidates->bins);
    CHECK(binned.candidates->bins ? binned.candidates->atom.empty() : s.cells[0].h[0] == kFewShifts);
    std::vector<int> frame(s.size());
    for (std::size_t f = 0; f < s.cells.size(); ++f)
      std::fill(frame.begin() + s.frame_start[f], frame.begin() + s.frame_start[f + 1], static_cast<int>(f));
    const std::vector<double> fparam(model().fitting.nfparam() * s.cells.size() + 1, 0.2);
    const std::vector<double> aparam(model().fitting.naparam() * frame.size() + 1, 0.2);
    const Result& a = host_.compute(atoms, forces, fparam.data(), aparam.data(), frame.data(), nullptr);
    const Result& b = device_.compute(binned, forces, fparam.data(), aparam.data(), frame.data(), nullptr);
    same(what, a.energy, b.energy);
    same(what, a.force, b.force);
    same(what, a.virial, b.virial);
    const PairList &p = host_.pairs(), &q = device_.pairs();
    const bool described = p.natoms == q.natoms && p.nrows == q.nrows && p.size == q.size &&
                           p.max_count == q.max_count && p.types_present == q.types_present &&
                           p.overfull_atom == q.overfull_atom && p.overfull_count == q.overfull_count &&
                           p.overfull_nsel == q.overfull_nsel;
    if (!described) std::fprintf(stderr, "%s, %s:\n", path_.c_str(), what);
    CHECK(described);
    overfull_ += p.overfull_atom >= 0;
    empty_ += p.size == 0;
  }
  int overfull() const { return overfull_; }
  int empty() const { return empty_; }

  template <class Visit>
  void each_engine(Visit visit) {
    visit(&host_);
    visit(&device_);
  }

 private:
  void same(const char* what, const std::vector<double>& a, const std::vector<double>& b) {
    double largest = 1, worst = 0;
    for (std::size_t k = 0; k < a.size(); ++k) {
      largest = std::max(largest, std::abs(a[k]));
      worst = std::max(worst, std::abs(a[k] - b[k]));
    }
    if (!(worst <= kTolerance * largest))
      std::fprintf(stderr, "%s, %s: deviation %.2e of %.2e\n", path_.c_str(), what, worst, largest);
    CHECK(a.size() == b.size() && worst <= kTolerance * largest);
  }

  std::string path_;
  Engine host_, device_;
  int overfull_ = 0, empty_ = 0;
};

// Cells of all kinds; every one makes the device forget the one before.
void test_cells(Pair* pair) {
  const double rcut = pair->model().rcut();
  const int nt = pair->model().ntypes();
  const auto compare = [&](const char* what, const System& s) {
    Lists lists(rcut, 0.0);
    pair->compare(what, s, &lists);
  };
  compare("cubic", lattice(kCubic, 3, 2, 2, 0.2, nt, 1));
  compare("skewed", lattice(kSkewed, 2, 2, 1, 0.2, nt, 2));
  compare("one atom", lattice(kSkewed, 1, 1, 1, 0.0, nt, 3));
  compare("wire", lattice(kWire, 3, 2, 1, 0.2, nt, 4));
  compare("open", lattice(kOpen, 3, 2, 2, 0.2, nt, 5));
  // Neighbours of a perfect crystal are equally far, so that an overfull list has many ties, images of one
  // atom among them.
  compare("perfect crystal", lattice(kTight, 2, 1, 1, 0.0, nt, 6));
  CHECK((pair->overfull() > 0) == !pair->model().all_neighbors);
  compare("one isolated atom", lattice(kOpen, 1, 1, 1, 0.0, nt, 7));
  CHECK(pair->empty() > 0);
  // Atoms anywhere, as a run leaves them that does not wrap; so far away that the host searches.
  for (const int far : {2, 40000}) {
    System s = lattice(kCubic, 3, 2, 2, 0.2, nt, 12);
    if (far > 2) s.cells[0].h[0] = kFewShifts;
    for (int i = 0; i < s.size(); ++i) s.x[3 * i + i % 3] += (i % 5 - 2) * far * s.cells[0].h[4 * (i % 3)];
    compare("atoms of other cells", s);
  }
  System frames = lattice(kCubic, 2, 2, 1, 0.2, nt, 8);
  const System open = lattice(kOpen, 2, 2, 1, 0.2, nt, 9);
  frames.add_frame(open.cells[0], open.x, open.type);
  frames.add_frame(kCubic, {}, {});
  frames.add_frame(kSkewed, {0.1, 0.2, 0.3}, {0});
  compare("frames", frames);
  System holes = lattice(kCubic, 3, 2, 1, 0.2, nt, 10);
  holes.type[1] = holes.type[4] = -1;
  compare("virtual atoms", holes);
  compare("only a virtual atom", [&] {
    System s = lattice(kOpen, 1, 1, 1, 0.0, nt, 11);
    s.type[0] = -1;
    return s;
  }());
}

// What stays on the device from step to step: candidates, their rows, types.
void test_steps(Pair* pair) {
  const int nt = pair->model().ntypes();
  Lists list(pair->model().rcut(), 1.0), other(pair->model().rcut(), 1.0);
  System s = lattice(kCubic, 3, 2, 2, 0.2, nt, 21);
  const System t = lattice(kSkewed, 2, 2, 1, 0.2, nt, 22);
  std::mt19937 random(23);
  const auto move = [&](double far) {
    std::uniform_real_distribution<double> step(-far, far);
    for (double& x : s.x) x += step(random);
  };
  pair->compare("energy first", s, &list, false);
  pair->compare("forces of the same list", s, &list);
  move(0.1);
  pair->compare("moved", s, &list);
  s.cells[0].h[0] *= 1.001;
  pair->compare("another cell, the same list", s, &list);
  pair->compare("energy alone", s, &list, false);
  for (int& type : s.type) type = (type + 1) % nt;
  pair->compare("other types", s, &list);
  pair->compare("another system", t, &other);
  pair->compare("and back", s, &list);
  move(0.4);
  pair->compare("far, a new list", s, &list);
  std::fill(s.type.begin(), s.type.end(), 0);
  pair->compare("a single type", s, &list);
}

void test_refusals(Pair* pair) {
  NeighborList list(pair->model().rcut(), 0.0);
  System s = lattice(kCubic, 2, 2, 2, 0.1, 1, 31);
  std::copy_n(&s.x[9], 3, &s.x[15]);
  list.update(s.x.data(), s.type.data(), s.frame_start, s.cells);
  const Atoms atoms{s.size(), s.size(), s.x.data(), s.type.data(), nullptr, &list.candidates()};
  pair->each_engine([&](Engine* e) {
    CHECK_THROWS(e->compute(atoms, true, nullptr, nullptr, nullptr, nullptr), Error,
                 "atom 3 sits on top of another atom");
  });
  s.type[2] = pair->model().ntypes();
  pair->each_engine([&](Engine* e) {
    CHECK_THROWS(e->compute(atoms, true, nullptr, nullptr, nullptr, nullptr), Error, "atom 2 has type");
  });
}

}  // namespace

int main(int argc, char** argv) {
  for (int a = 1; a < argc; ++a) {
    for (const std::string& path : model_files(argv[a])) {
      for (const char* threads : {"1", "8", "-8"}) {
        setenv("DPA2MD_EMULATED_THREADS", threads, 1);
        setenv("DPA2MD_EMULATED_CHUNK", threads[0] == '1' ? "65536" : "16", 1);
        // the emulated threads of a block belong to a thread of the host
        std::thread([&] {
          Pair pair(path);
          test_cells(&pair);
          test_steps(&pair);
          test_refusals(&pair);
        }).join();
      }
    }
  }
  CHECK(argc > 1);
  return check_result();
}
