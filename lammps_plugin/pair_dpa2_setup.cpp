// Reads the input file's models and elements, and checks the rest of the input against them.
#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "atom.h"
#include "comm.h"
#include "compute.h"
#include "engine/devices.h"
#include "error.h"
#include "failure.h"
#include "fix.h"
#include "force.h"
#include "gpus.h"
#include "masses.h"
#include "memory.h"
#include "modify.h"
#include "neighbor.h"
#include "pair_dpa2.h"
#include "universe.h"
#include "update.h"

using dpa2md::failure_of;

namespace LAMMPS_NS {
namespace {

// The path of a model; "water" is the package's model beside this plugin, unless such a file exists.
std::string model_file(const std::string& name) {
  Dl_info self;
  if (name != "water" || access(name.c_str(), F_OK) == 0) return name;
  if (!dladdr(reinterpret_cast<void*>(&model_file), &self)) return name;
  const std::string plugin = self.dli_fname;
  const std::string shipped = plugin.substr(0, plugin.find_last_of('/') + 1) + "../models/water.dpa2";
  return access(shipped.c_str(), R_OK) == 0 ? shipped : name;
}

}  // namespace

PairDPA2::PairDPA2(LAMMPS* lmp) : Pair(lmp), exchange_(comm, this, &atoms_) {
  single_enable = 0;
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  respa_enable = 0;
  writedata = 0;
  no_virial_fdotr_compute = 1;
  centroidstressflag = CENTROID_AVAIL;
}

PairDPA2::~PairDPA2() {
  if (copymode) return;
  delete[] pvector;
  if (allocated) {
    memory->destroy(setflag);
    memory->destroy(cutsq);
    memory->destroy(scale_);
  }
}

void PairDPA2::settings(int narg, char** arg) {
  stop_together(failure_of([&] { options_ = dpa2md::parse_options(narg, arg); }));
  if (options_.threads == 0) options_.threads = comm->nthreads;
  load_models();
  check_parameters();
  set_message_sizes();
  if (allocated) map_types();  // the same style again, with other arguments
  mapping_printed_ = false;

  delete[] pvector;
  pvector = nullptr;
  nextra = 0;
  deviation_file_.close();
  if (models_.size() < 2) return;
  nextra = 6;
  pvector = new double[nextra]();
  const bool append = lmp->restart_ver > 0;
  stop_together(failure_of([&] {
    if (comm->me == 0 && options_.out_freq > 0)
      deviation_file_.open(deviation_path(), append, options_.atomic);
  }));
}

// Every partition has its own file, as with LAMMPS's log.lammps.
std::string PairDPA2::deviation_path() const {
  if (!options_.out_file.empty()) return options_.out_file;
  return "model_devi.out" + (universe->existflag ? "." + std::to_string(universe->iworld) : std::string());
}

void PairDPA2::load_models() {
  models_.clear();
  cutoff_ = 0;
  dpa2md::EngineOptions options;
  std::string gpu;
  const int process = dpa2md::rank_on_machine(world);
  stop_together(failure_of([&] {
    options = dpa2md::read_options(options_.precision, options_.threads, options_.device, true,
                                   options_.low_memory);
    options.device = dpa2md::device_of_process(options.device, process);
    gpu = dpa2md::gpu_identity(options.device);
  }));
  gpu_sharing_ = options.device.is_cpu() ? "" : dpa2md::gpu_sharing(world, gpu);
  for (const std::string& name : options_.models) {
    const std::string path = model_file(name);
    Loaded loaded;
    stop_together(failure_of([&] { loaded.engine = std::make_unique<dpa2md::Engine>(path, options); }));
    cutoff_ = std::max(cutoff_, loaded.engine->model().rcut());
    models_.push_back(std::move(loaded));
  }
}

void PairDPA2::check_parameters() const {
  for (const Loaded& m : models_) {
    const dpa2md::Fitting& f = m.engine->model().fitting;
    const auto check = [&](const char* keyword, std::size_t given, const std::string& source,
                           const char* from, int wanted, bool has_default) {
      if (!source.empty() && wanted > 0) return;  // its numbers are counted before a run
      if (!source.empty()) {
        error->all(FLERR, std::string("pair_style dpa2: the model ") + m.engine->model().path + " takes no " +
                              keyword + ": leave out the keyword " + keyword + from + ".");
      }
      if (given == static_cast<std::size_t>(wanted) || (given == 0 && has_default)) return;
      error->all(FLERR, std::string("pair_style dpa2: the model ") + m.engine->model().path + " takes " +
                            std::to_string(wanted) + " numbers after the keyword " + keyword + ", and " +
                            std::to_string(given) + " are given.");
    };
    const bool has_default = !f.default_fparam.empty();
    if (options_.fparam_fix.empty()) {
      check("fparam", options_.fparam.size(), options_.fparam_compute, "_from_compute", f.nfparam(),
            has_default);
    } else {
      check("fparam", 0, options_.fparam_fix, "_from_fix", f.nfparam(), has_default);
    }
    check("aparam", options_.aparam.size(), options_.aparam_compute, "_from_compute", f.naparam(), false);
  }
}

// LAMMPS sizes its buffers by the largest message, before any is sent.
void PairDPA2::set_message_sizes() {
  comm_forward = dpa2md::GhostExchange::kOwnerSize;
  comm_reverse = 9;  // per-atom virials with newton off
  for (const Loaded& m : models_) {
    const int size = dpa2md::GhostExchange::buffer_size(m.engine->model().repformer.g1_dim,
                                                        m.engine->precision() == dpa2md::Precision::kFloat32);
    comm_forward = std::max(comm_forward, size);
    comm_reverse = std::max(comm_reverse, size);
  }
  comm_reverse_off = comm_reverse;
}

void PairDPA2::coeff(int narg, char** arg) {
  const int n = atom->ntypes;
  if (!allocated) {
    allocated = 1;
    memory->create(setflag, n + 1, n + 1, "pair:setflag");
    memory->create(cutsq, n + 1, n + 1, "pair:cutsq");
    memory->create(scale_, n + 1, n + 1, "pair:scale");
    for (int i = 0; i <= n; ++i) std::fill(setflag[i], setflag[i] + n + 1, 0);
    for (int i = 0; i <= n; ++i) std::fill(scale_[i], scale_[i] + n + 1, 1.0);
    map = new int[n + 1];
  }
  if (narg != 2 + n) {
    error->all(FLERR, "pair_coeff for pair_style dpa2 needs * * and one element (or NULL) for each of the " +
                          std::to_string(n) + " atom types, for example: pair_coeff * * O H.");
  }
  map_element2type(narg - 2, arg + 2);
  map_types();
}

// LAMMPS types to the types of every model, by element.
void PairDPA2::map_types() {
  has_element_.assign(atom->ntypes + 1, 0);
  for (Loaded& m : models_) {
    const std::vector<std::string>& known = m.engine->model().elements;
    std::vector<char> used(known.size(), 0);
    m.type.assign(atom->ntypes + 1, -1);
    for (int t = 1; t <= atom->ntypes; ++t) {
      if (map[t] < 0) continue;
      const std::string element = elements[map[t]];
      const auto at = std::find(known.begin(), known.end(), element);
      if (at == known.end()) {
        std::string all;
        for (const std::string& e : known) all += " " + e;
        error->all(FLERR, "pair_style dpa2: the model " + m.engine->model().path +
                              " does not know the element " + element + " of atom type " + std::to_string(t) +
                              ": it knows" + all + ".");
      }
      m.type[t] = static_cast<int>(at - known.begin());
      has_element_[t] = 1;
      used[m.type[t]] = 1;
    }
    m.engine->expect_types(used);
  }
}

// ---- before a run

void PairDPA2::init_style() {
  check_units();
  check_special_bonds();
  check_computes();
  check_fix();
  if (!mapping_printed_ && comm->me == 0) {
    print_mapping();
    check_masses();
  }
  mapping_printed_ = true;
  neighbor->add_request(this, NeighConst::REQ_FULL);
  has_list_ = false;
  evaluated_step_ = -1;
}

void PairDPA2::check_units() {
  if (std::strcmp(update->unit_style, "metal") == 0) {
    energy_unit_ = 1;
  } else if (std::strcmp(update->unit_style, "real") == 0) {
    energy_unit_ = utils::get_conversion_factor(utils::ENERGY, utils::METAL2REAL);
  } else {
    error->all(FLERR, std::string("pair_style dpa2 works with units metal or real, not with units ") +
                          update->unit_style + ".");
  }
}

// fparam is a compute's scalar or vector, aparam its numbers per atom.
void PairDPA2::check_computes() {
  const auto stop = [&](const std::string& keyword, const std::string& what) {
    error->all(FLERR, "pair_style dpa2: keyword " + keyword + " " + what);
  };
  const auto find = [&](const char* keyword, const std::string& id) -> Compute* {
    if (id.empty()) return nullptr;
    Compute* c = modify->get_compute_by_id(id);
    if (!c) stop(keyword, "names the compute " + id + ", which does not exist.");
    return c;
  };
  fparam_compute_ = find("fparam_from_compute", options_.fparam_compute);
  aparam_compute_ = find("aparam_from_compute", options_.aparam_compute);
  for (const Loaded& m : models_) {
    const int nf = m.engine->model().fitting.nfparam(), na = m.engine->model().fitting.naparam();
    const Compute *f = fparam_compute_, *a = aparam_compute_;
    if (f && !(nf == 1 && f->scalar_flag) && !(f->vector_flag && f->size_vector == nf))
      stop("fparam_from_compute",
           "needs a compute that gives " +
               std::string(nf == 1 ? "a scalar" : "a vector of " + std::to_string(nf)) + ", and " + f->id +
               " does not.");
    if (a && !(a->peratom_flag && std::max(1, a->size_peratom_cols) == na))
      stop("aparam_from_compute", "needs a compute that gives " + std::to_string(na) +
                                      " numbers per atom, and " + a->id + " does not.");
  }
}

// fparam is a fix's scalar, for all of its numbers, or a part of the fix's vector, as of pair_style deepmd.
void PairDPA2::check_fix() {
  const std::string& id = options_.fparam_fix;
  fparam_fix_ = id.empty() ? nullptr : modify->get_fix_by_id(id);
  if (id.empty()) return;
  const auto stop = [&](const std::string& what) {
    error->all(FLERR, "pair_style dpa2: keyword fparam_from_fix names the fix " + id + ", which " + what);
  };
  if (!fparam_fix_) stop("does not exist.");
  const int first = options_.fparam_fix_index;
  if (first == 0 && !fparam_fix_->scalar_flag)
    stop("gives no scalar: name an entry of its vector after the ID.");
  for (const Loaded& m : models_) {
    const int last = first - 1 + m.engine->model().fitting.nfparam();
    if (first > 0 && !(fparam_fix_->vector_flag && last <= fparam_fix_->size_vector))
      stop("does not give a vector of " + std::to_string(last) + " numbers or more.");
  }
}

// Refuses weights other than 1, with which LAMMPS removes bonded neighbours from the list or scales forces.
void PairDPA2::check_special_bonds() const {
  if (atom->molecular == Atom::ATOMIC) return;
  const double* w = force->special_lj;
  if (w[1] == 1 && w[2] == 1 && w[3] == 1) return;
  error->all(FLERR,
             "pair_style dpa2 must see bonded neighbours in full: add the line special_bonds lj 1 1 1 "
             "(or special_bonds lj/coul 1 1 1).");
}

void PairDPA2::check_masses() const {
  if (atom->rmass || !atom->mass) return;
  for (int t = 1; t <= atom->ntypes; ++t) {
    if (!has_element_[t]) continue;
    const std::string element = elements[map[t]];
    const double standard = dpa2md::standard_mass(element);
    if (standard > 0 && std::fabs(atom->mass[t] - standard) > 0.05 * standard) {
      error->warning(FLERR, "pair_style dpa2: atom type " + std::to_string(t) + " is " + element +
                                " in pair_coeff, but its mass is " + fmt::format("{:g}", atom->mass[t]) +
                                " instead of " + fmt::format("{:g}", standard) +
                                ": check the order of the elements.");
    }
  }
}

void PairDPA2::print_mapping() const {
  std::string text = "pair_style dpa2:\n";
  for (const Loaded& m : models_) {
    text += "  model " + m.engine->model().path + ", " + m.engine->description() + ", cutoff " +
            fmt::format("{:g}", m.engine->model().rcut()) + " A\n";
  }
  if (!gpu_sharing_.empty()) text += "  " + gpu_sharing_ + "\n";
  for (int t = 1; t <= atom->ntypes; ++t) {
    text += "  atom type " + std::to_string(t) + " = " +
            (has_element_[t] ? std::string(elements[map[t]]) : std::string("NULL (left out)")) + "\n";
  }
  utils::logmesg(lmp, text);
}

double PairDPA2::init_one(int, int) { return cutoff_; }

// Stops all ranks with the first failing rank's sentence. Collective.
void PairDPA2::stop_together(const std::string& failure) const {
  int mine = failure.empty() ? comm->nprocs : comm->me, first = 0;
  MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, world);
  if (first == comm->nprocs) return;
  int size = static_cast<int>(failure.size());
  MPI_Bcast(&size, 1, MPI_INT, first, world);
  std::string text = failure;
  text.resize(size);
  MPI_Bcast(&text[0], size, MPI_CHAR, first, world);
  error->all(FLERR, "pair_style dpa2: " + text);
}

}  // namespace LAMMPS_NS
