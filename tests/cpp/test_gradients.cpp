// Gradients by weights under sanitizers, for models of every kind: along the gradient itself a loss changes
// by its square, and float32, with tables that follow the weights, gives the same. (Every parameter beside
// DeePMD-kit's: tests/train/test_gradients.py.)
#include <cmath>
#include <random>

#include "check.h"
#include "engine/periodic_engine.h"
#include "model/parameters.h"
#include "model_files.h"

using namespace dpa2md;

namespace {

// Two frames, one of them periodic; a loss that is linear in energies, forces and virials.
struct Case {
  std::vector<double> x, seeds, forces, strains, fparam, aparam;
  std::vector<int> types;
  Structures structures;

  explicit Case(const Model& model) {
    std::mt19937 random(1);
    std::normal_distribution<double> normal;
    const int natoms = 14, ntypes = model.ntypes();
    for (int i = 0; i < natoms; ++i) {
      const int cell[3] = {i % 2, i / 2 % 2, i / 4 % 2};
      for (const int c : cell) x.push_back(2.2 * c + 0.2 * normal(random));
      types.push_back(i % ntypes);
    }
    for (int i = 8; i < natoms; ++i) x[3 * i] += 0.5;  // the second frame
    const auto fill = [&](std::vector<double>* to, int size) {
      for (int k = 0; k < size; ++k) to->push_back(normal(random));
    };
    fill(&seeds, natoms), fill(&forces, 3 * natoms), fill(&strains, 18);
    fill(&fparam, 2 * model.fitting.nfparam()), fill(&aparam, natoms * model.fitting.naparam());
    Cell box, none;
    for (int a = 0; a < 3; ++a) box.h[4 * a] = 4.6, box.periodic[a] = true, none.periodic[a] = false;
    structures.start = {0, 8, natoms};
    structures.cells = {box, none};
    structures.x = x.data(), structures.type = types.data();
    if (!fparam.empty()) structures.fparam = fparam.data();
    if (!aparam.empty()) structures.aparam = aparam.data();
  }

  double loss(PeriodicEngine* engine) const {
    const std::size_t natoms = types.size();
    std::vector<double> energy(2), energies(natoms), found(3 * natoms), virial(18);
    StructureResults to;
    to.energy = energy.data(), to.energies = energies.data();
    to.forces = found.data(), to.virial = virial.data();
    engine->compute(structures, 0.0, to);
    double sum = 0;
    for (std::size_t i = 0; i < natoms; ++i) sum += seeds[i] * energies[i];
    for (std::size_t k = 0; k < found.size(); ++k) sum += forces[k] * found[k];
    for (std::size_t k = 0; k < virial.size(); ++k) sum += strains[k] * virial[k];
    return sum;
  }

  std::vector<double> gradient(PeriodicEngine* engine) const {
    std::vector<double> moves = forces, along = strains, flat(parameter_count(engine->engine().model()));
    for (double& m : moves) m = -m;
    for (double& s : along) s = -s;
    Direction d;
    d.moves = moves.data(), d.strains = along.data(), d.seeds = seeds.data();
    engine->gradient(structures, d, flat.data());
    return flat;
  }
};

double norm(const std::vector<double>& x) {
  double sum = 0;
  for (const double y : x) sum += y * y;
  return std::sqrt(sum);
}

std::unique_ptr<PeriodicEngine> open(const std::string& path, const char* precision, int threads) {
  return std::make_unique<PeriodicEngine>(path, read_options(precision, threads, "cpu", true, false));
}

void test_model(const std::string& path) {
  const auto engine = open(path, "float64", 1);
  const Case c(engine->engine().model());
  std::vector<double> start(parameter_count(engine->engine().model()));
  get_parameters(engine->engine().model(), start.data());
  engine->set_parameters(start.data());
  c.loss(engine.get());
  const std::vector<double> slope = c.gradient(engine.get());
  const double length = norm(slope), step = 1e-5 / length;
  const auto at = [&](double s) {
    std::vector<double> moved = start;
    for (std::size_t k = 0; k < moved.size(); ++k) moved[k] += s * slope[k];
    engine->set_parameters(moved.data());
    return c.loss(engine.get());
  };
  const double difference = (at(step) - at(-step)) / (2 * step);
  CHECK(std::abs(difference - length * length) < 1e-5 * length * length);

  const auto single = open(path, "float32", 2);
  single->set_parameters(start.data());
  c.loss(single.get());
  std::vector<double> apart = c.gradient(single.get());
  for (std::size_t k = 0; k < apart.size(); ++k) apart[k] -= slope[k];
  CHECK(norm(apart) > 0 && norm(apart) < 1e-4 * length);
}

}  // namespace

int main(int argc, char** argv) {
  for (int k = 1; k < argc; ++k) {
    for (const std::string& path : model_files(argv[k])) {
      const int before = failed_checks();
      test_model(path);
      if (failed_checks() > before) std::fprintf(stderr, "... of %s\n", path.c_str());
    }
  }
  return check_result();
}
