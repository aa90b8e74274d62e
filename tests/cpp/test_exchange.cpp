// k domains with ghosts and an exchange give what one periodic box gives. Usage: test_exchange MODEL.dpa2 ...
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "domains.h"
#include "engine/engine.h"
#include "model_files.h"

using namespace dpa2md;

namespace {

struct Totals {
  double energy = 0;
  std::vector<double> atom_energy, force, virial;  // (n), (n, 3), (n, 9)
};

Box random_box(int n, int ntypes, unsigned seed) {
  Box box{{{7.3, 0, 0, 1.1, 6.7, 0, -0.6, 0.9, 8.1}, {true, true, true}}, {}, {}};
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> fraction(0, 1);
  while (box.size() < n) {
    double s[3] = {fraction(random), fraction(random), fraction(random)}, p[3];
    for (int c = 0; c < 3; ++c) {
      p[c] = s[0] * box.cell.h[c] + s[1] * box.cell.h[3 + c] + s[2] * box.cell.h[6 + c];
    }
    bool free = true;
    for (int i = 0; i < box.size() && free; ++i) {
      int shift[3];
      for (shift[0] = -1; shift[0] <= 1; ++shift[0])
        for (shift[1] = -1; shift[1] <= 1; ++shift[1])
          for (shift[2] = -1; shift[2] <= 1; ++shift[2]) {
            free = free && distance(image(box, i, shift).data(), p) > 1.3;
          }
    }
    if (!free) continue;
    box.x.insert(box.x.end(), p, p + 3);
    box.type.push_back(static_cast<int>(random() % static_cast<unsigned>(ntypes)));
  }
  return box;
}

// Values for fparam and aparam where the model asks for them; atom by atom, so that they follow an atom.
std::vector<double> atom_parameters(const Model& m, const std::vector<int>& global, int natoms) {
  std::vector<double> out;
  out.reserve(static_cast<std::size_t>(natoms + 1) * m.fitting.naparam());
  for (int i = 0; i < natoms; ++i)
    for (int k = 0; k < m.fitting.naparam(); ++k) out.push_back(std::sin(1.0 + global[i] + 0.3 * k));
  return out;
}
// Null where the model takes none; a domain without atoms still gives an (empty) array.
const double* or_null(const std::vector<double>& v) { return v.capacity() ? v.data() : nullptr; }

// Adds what a domain found to the atoms that own it.
void collect(const Result& r, const std::vector<int>& owner_of_row, int natoms, Totals* t) {
  for (int i = 0; i < natoms; ++i) {
    t->energy += r.energy[i];
    t->atom_energy[owner_of_row[i]] += r.energy[i];
  }
  for (std::size_t row = 0; row < owner_of_row.size(); ++row) {
    for (int c = 0; c < 3; ++c) t->force[3 * owner_of_row[row] + c] += r.force[3 * row + c];
    for (int c = 0; c < 9; ++c) t->virial[9 * owner_of_row[row] + c] += r.virial[9 * row + c];
  }
}

Totals zeros(int n) {
  return {0, std::vector<double>(n, 0.0), std::vector<double>(3 * n, 0.0), std::vector<double>(9 * n, 0.0)};
}

// The whole box on one rank without ghosts: images share their owner's row through the shift vectors.
Totals evaluate_periodic(Engine* engine, const Box& box) {
  NeighborList list(engine->model().rcut(), 0.0);
  list.update(box.x.data(), box.type.data(), {0, box.size()}, {box.cell});
  std::vector<int> all(box.size());
  for (int i = 0; i < box.size(); ++i) all[i] = i;
  const std::vector<double> fparam(engine->model().fitting.nfparam(), 0.2);
  const std::vector<double> aparam = atom_parameters(engine->model(), all, box.size());
  const Atoms atoms{box.size(), box.size(), box.x.data(), box.type.data(), nullptr, &list.candidates()};
  Totals t = zeros(box.size());
  collect(engine->compute(atoms, true, or_null(fparam), or_null(aparam), nullptr, nullptr), all, box.size(),
          &t);
  return t;
}

// Without tables, which would be built in every one of many engines.
Totals evaluate_domains(const std::string& model, const std::string& precision, const Box& box,
                        const std::vector<Domain>& domains, const std::string& device = "cpu") {
  const int k = static_cast<int>(domains.size());
  Meeting meeting(k);
  std::vector<std::unique_ptr<Engine>> engines;
  std::vector<const Result*> results(k);
  std::vector<std::exception_ptr> failure(k);
  std::vector<std::unique_ptr<ThreadExchange>> exchanges;
  for (int d = 0; d < k; ++d) {
    engines.push_back(std::make_unique<Engine>(model, read_options(precision, 1, device, false)));
    exchanges.push_back(std::make_unique<ThreadExchange>(domains, d, &meeting));
  }
  const auto work = [&](int d) {
    try {
      const Domain& m = domains[d];
      const Model& params = engines[d]->model();
      const std::vector<double> fparam(params.fitting.nfparam(), 0.2);
      const std::vector<double> aparam = atom_parameters(params, m.global, m.natoms);
      const Atoms atoms{m.natoms, m.nrows, m.x.data(), m.type.data(), m.row.data(), &m.candidates};
      results[d] =
          &engines[d]->compute(atoms, true, or_null(fparam), or_null(aparam), nullptr, exchanges[d].get());
    } catch (const Abandoned&) {  // the domain that failed tells why
    } catch (...) {
      failure[d] = std::current_exception();
      meeting.abandon();
    }
  };
  std::vector<std::thread> threads;
  for (int d = 0; d < k; ++d) threads.emplace_back(work, d);
  for (std::thread& t : threads) t.join();
  for (const std::exception_ptr& f : failure) {
    if (f) std::rethrow_exception(f);
  }
  Totals t = zeros(box.size());
  for (int d = 0; d < k; ++d) {
    std::vector<int> owner_of_row(domains[d].nrows);
    for (std::size_t p = 0; p < domains[d].row.size(); ++p)
      owner_of_row[domains[d].row[p]] = domains[d].global[p];
    collect(*results[d], owner_of_row, domains[d].natoms, &t);
    // One exchange a layer in each direction, no more: communication is what limits many ranks.
    CHECK(exchanges[d]->forwards == engines[d]->model().repformer.nlayers);
    CHECK(exchanges[d]->reverses == engines[d]->model().repformer.nlayers);
  }
  return t;
}

double largest(const std::vector<double>& v) {
  double m = 0;
  for (double x : v) m = std::max(m, std::abs(x));
  return m;
}
double deviation(const std::vector<double>& a, const std::vector<double>& b) {
  double m = 0;
  for (std::size_t i = 0; i < a.size(); ++i) m = std::max(m, std::abs(a[i] - b[i]));
  return m;
}

// Domains differ from the periodic box by the order of sums and by the rounding of ghost positions.
void compare(const Totals& a, const Totals& b, double tolerance, const char* what) {
  const double worst =
      std::max({std::abs(a.energy - b.energy) / std::max(1.0, std::abs(b.energy)),
                deviation(a.atom_energy, b.atom_energy) / std::max(1.0, largest(b.atom_energy)),
                deviation(a.force, b.force) / std::max(1.0, largest(b.force)),
                deviation(a.virial, b.virial) / std::max(1.0, largest(b.virial))});
  if (!(worst <= tolerance)) std::fprintf(stderr, "%s: deviation %.2e\n", what, worst);
  CHECK(worst <= tolerance);
}

// Slabs along the first cell vector; with `scattered`, atoms dealt out in turn: every pair crosses domains.
std::vector<int> owners(const Box& box, int k, bool scattered) {
  std::vector<int> out(box.size());
  for (int i = 0; i < box.size(); ++i) {
    const double* x = &box.x[3 * i];
    const double* h = box.cell.h;  // lower triangular: solve from the last axis
    const double s2 = x[2] / h[8], s1 = (x[1] - s2 * h[7]) / h[4], s0 = (x[0] - s2 * h[6] - s1 * h[3]) / h[0];
    out[i] = scattered ? i % k : std::min(k - 1, std::max(0, static_cast<int>(s0 * k)));
  }
  return out;
}

void test_model(const std::string& path) {
  Engine engine(path, read_options("float64", 1, "cpu", false));
  const double rcut = engine.model().rcut();
  const int reach = static_cast<int>(std::ceil(rcut / 6.0)) + 1;  // the cell's heights exceed 6 angstrom
  const Box box = random_box(20, engine.model().ntypes(), 7);
  const Totals whole = evaluate_periodic(&engine, box);
  CHECK(largest(whole.force) > 1e-6);  // a model without forces would test nothing
  for (int k = 1; k <= 4; ++k) {
    for (bool scattered : {false, true}) {
      const std::vector<Domain> domains = split(box, owners(box, k, scattered), k, rcut, reach);
      const std::string what = path + " in " + std::to_string(k) + " domains";
      compare(evaluate_domains(path, "float64", box, domains), whole, 1e-10, what.c_str());
    }
  }
  // A device hands out copies of its rows.
  compare(evaluate_domains(path, "float64", box, split(box, owners(box, 3, true), 3, rcut, reach),
                           "cuda-emulation"),
          whole, 1e-10, (path + " on emulated GPUs").c_str());
  setenv("DPA2MD_EMULATED_CHUNK", "16", 1);  // fewer than the domain's atoms
  compare(evaluate_domains(path, "float64", box, split(box, owners(box, 1, false), 1, rcut, reach),
                           "cuda-emulation"),
          whole, 1e-10, (path + " in chunks on an emulated GPU").c_str());
  unsetenv("DPA2MD_EMULATED_CHUNK");
  // A domain without atoms takes part in every exchange.
  std::vector<int> owner = owners(box, 2, false);
  for (int& o : owner) o *= 2;
  compare(evaluate_domains(path, "float64", box, split(box, owner, 3, rcut, reach)), whole, 1e-10,
          (path + " with an empty domain").c_str());
  compare(evaluate_domains(path, "float64", box, split(box, owner, 3, rcut, reach), "cuda-emulation"), whole,
          1e-10, (path + " with an empty domain on emulated GPUs").c_str());
  // float32 rows travel too; its rounding is 6e-8 of sums of a few hundred terms.
  Engine single(path, read_options("float32", 1, "cpu", false));
  compare(evaluate_domains(path, "float32", box, split(box, owners(box, 3, false), 3, rcut, reach)),
          evaluate_periodic(&single, box), 2e-4, (path + " in float32").c_str());
}

// An engine that expects the types of the run computes with the same tables as one that has seen them all.
void test_expected_types(const std::string& path) {
  Engine seen(path, read_options("float64", 1, "cpu")), expecting(path, read_options("float64", 1, "cpu"));
  const int ntypes = seen.model().ntypes();
  evaluate_periodic(&seen, random_box(20, ntypes, 7));
  expecting.expect_types(std::vector<char>(ntypes, 1));
  const Box one_type = random_box(20, 1, 7);
  const Totals a = evaluate_periodic(&seen, one_type), b = evaluate_periodic(&expecting, one_type);
  CHECK(a.energy == b.energy && a.force == b.force && a.virial == b.virial);
}

// <forward(u), v> = <u, reverse(v)>: reverse is the transpose of forward, so gradients cross domains
// correctly.
template <class T>
void test_adjoint(double tolerance) {
  const Box box = random_box(20, 2, 11);
  const int k = 3, width = 5;
  const std::vector<Domain> domains = split(box, owners(box, k, true), k, 5.0, 2);
  Meeting meeting(k);
  std::vector<double> left(k), right(k);
  const auto work = [&](int d) {
    const Domain& m = domains[d];
    std::mt19937 random(d + 1);
    std::uniform_real_distribution<double> uniform(-1, 1);
    const auto size = static_cast<std::size_t>(m.nrows) * width,
               locals = static_cast<std::size_t>(m.natoms) * width;
    std::vector<T> u(size, T(99)), v(size);  // ghost rows of u are overwritten
    for (std::size_t i = 0; i < locals; ++i) u[i] = T(uniform(random));
    for (T& x : v) x = T(uniform(random));
    const std::vector<T> u0 = u, v0 = v;
    ThreadExchange exchange(domains, d, &meeting);
    exchange.forward(u.data(), width, sizeof(T) == 4);
    exchange.reverse(v.data(), width, sizeof(T) == 4);
    for (std::size_t i = 0; i < size; ++i) left[d] += double(u[i]) * double(v0[i]);
    for (std::size_t i = 0; i < locals; ++i) right[d] += double(u0[i]) * double(v[i]);
  };
  std::vector<std::thread> threads;
  for (int d = 0; d < k; ++d) threads.emplace_back(work, d);
  for (std::thread& t : threads) t.join();
  double l = 0, r = 0;
  for (int d = 0; d < k; ++d) {
    CHECK(!domains[d].remote.empty());
    l += left[d], r += right[d];
  }
  CHECK(std::abs(l) > 1e-3);
  CHECK(std::abs(l - r) <= tolerance * std::abs(l));
}

}  // namespace

int main(int argc, char** argv) {
  test_adjoint<double>(1e-12);
  test_adjoint<float>(1e-5);
  int models = 0;
  for (int a = 1; a < argc; ++a) {
    for (const std::string& path : model_files(argv[a])) {
      try {
        test_model(path);
        if (models == 0) test_expected_types(path);
      } catch (const Error& error) {
        std::fprintf(stderr, "%s: %s\n", path.c_str(), error.what());
        CHECK(false);
      }
      ++models;
    }
  }
  if (models == 0) {
    std::fprintf(stderr, "no models: give .dpa2 files, or a directory of them\n");
    return 1;
  }
  std::printf("%d models\n", models);
  return check_result();
}
