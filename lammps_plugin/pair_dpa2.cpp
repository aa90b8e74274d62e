#include "pair_dpa2.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <new>

#include "../csrc/error.h"
#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "masses.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"

namespace LAMMPS_NS {
namespace {

// Runs `work`; returns what went wrong as a sentence, or nothing.
template <class F>
std::string failure_of(F&& work) {
  try {
    work();
  } catch (const dpa2md::Error& e) {
    return e.what();
  } catch (const std::bad_alloc&) {
    return "out of memory: use more ranks or fewer atoms.";
  }
  return "";
}

// Rows of the core's virial are the force's components, columns those of the distance.
constexpr int kXX = 0, kYY = 4, kZZ = 8, kXY = 3, kXZ = 6, kYZ = 7, kYX = 1, kZX = 2, kZY = 5;
constexpr int kCentroid[9] = {kXX, kYY, kZZ, kXY, kXZ, kYZ, kYX, kZX, kZY};
constexpr int kTransposed[6] = {kXX, kYY, kZZ, kYX, kZX, kZY};

double symmetric(const double* virial, int component) {
  return 0.5 * (virial[kCentroid[component]] + virial[kTransposed[component]]);
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
  }
}

// ---- input

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
      deviation_file_.open(options_.out_file, append, options_.atomic);
  }));
}

void PairDPA2::load_models() {
  models_.clear();
  cutoff_ = 0;
  for (const std::string& path : options_.models) {
    Loaded loaded;
    stop_together(failure_of([&] {
      loaded.engine =
          std::make_unique<dpa2md::Engine>(path, options_.precision, options_.threads, options_.device);
    }));
    cutoff_ = std::max(cutoff_, loaded.engine->model().rcut());
    models_.push_back(std::move(loaded));
  }
}

void PairDPA2::check_parameters() const {
  for (const Loaded& m : models_) {
    const dpa2md::Fitting& f = m.engine->model().fitting;
    const auto check = [&](const char* keyword, std::size_t given, int wanted, bool has_default) {
      if (given == static_cast<std::size_t>(wanted) || (given == 0 && has_default)) return;
      error->all(FLERR, std::string("pair_style dpa2: the model ") + m.engine->model().path + " takes " +
                            std::to_string(wanted) + " numbers after the keyword " + keyword + ", and " +
                            std::to_string(given) + " are given.");
    };
    check("fparam", options_.fparam.size(), f.nfparam(), !f.default_fparam.empty());
    check("aparam", options_.aparam.size(), f.naparam(), false);
  }
}

// LAMMPS sizes its buffers by the largest message, before any is sent.
void PairDPA2::set_message_sizes() {
  comm_forward = dpa2md::GhostExchange::kOwnerSize;
  comm_reverse = 9;  // per-atom virials with newton off
  for (const Loaded& m : models_) {
    const int size = dpa2md::GhostExchange::buffer_size(m.engine->model().repformer.g1_dim,
                                                        m.engine->precision() == "float32");
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
    for (int i = 0; i <= n; ++i) std::fill(setflag[i], setflag[i] + n + 1, 0);
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
    }
  }
}

// ---- before a run

void PairDPA2::init_style() {
  check_units();
  check_special_bonds();
  if (!mapping_printed_ && comm->me == 0) {
    print_mapping();
    check_masses();
  }
  mapping_printed_ = true;
  neighbor->add_request(this, NeighConst::REQ_FULL);
  has_list_ = false;
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

// With other weights LAMMPS takes bonded neighbours out of the list, or expects scaled forces.
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
                                " instead of " + std::to_string(standard) +
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
  for (int t = 1; t <= atom->ntypes; ++t) {
    text += "  atom type " + std::to_string(t) + " = " +
            (has_element_[t] ? std::string(elements[map[t]]) : std::string("NULL (left out)")) + "\n";
  }
  utils::logmesg(lmp, text);
}

double PairDPA2::init_one(int, int) { return cutoff_; }

// ---- a step

void PairDPA2::compute(int eflag, int vflag) {
  ev_init(eflag, vflag);
  // LAMMPS renumbers ghosts only when it makes new lists
  if (neighbor->ago == 0 || !has_list_) rebuild();
  if (!atoms_.copy_positions(atom->x))
    stop_here("an atom's position is not a finite number: the run has become unstable.");
  const dpa2md::Result& result = evaluate(&models_[0]);
  add_forces(result);
  add_energies(result);
  add_virials(result);
  if (models_.size() > 1 && options_.out_freq > 0 && update->ntimestep % options_.out_freq == 0)
    compare_models(result);
  if (neighbor->ago == 0) warn_overfull();
}

void PairDPA2::rebuild() {
  if (neighbor->exclude && !exclude_warned_ && comm->me == 0) {
    error->warning(FLERR,
                   "pair_style dpa2: neigh_modify exclude takes neighbours away from the model, so that its "
                   "energies and forces are not those of the whole structure.");
  }
  exclude_warned_ = exclude_warned_ || neighbor->exclude;
  const int nlocal = atom->nlocal, nall = nlocal + atom->nghost;
  dpa2md::Owners owners;
  exchange_.find_owners(nlocal, nall, &owners);
  const std::string failure =
      failure_of([&] { atoms_.rebuild(*list, nlocal, atom->type, has_element_, owners, comm->me); });
  if (!failure.empty()) stop_here(failure);
  aparam_.clear();
  aparam_.reserve((atoms_.natoms() + 1) * options_.aparam.size());  // not null on a rank without atoms
  for (int i = 0; i < atoms_.natoms(); ++i)
    aparam_.insert(aparam_.end(), options_.aparam.begin(), options_.aparam.end());
  has_list_ = true;
}

const dpa2md::Result& PairDPA2::evaluate(Loaded* model) {
  const dpa2md::Result* result = nullptr;
  const double* fparam = options_.fparam.empty() ? nullptr : options_.fparam.data();
  const double* aparam = options_.aparam.empty() ? nullptr : aparam_.data();
  // One rank sees only images of its own atoms, which share their rows.
  dpa2md::Exchange* exchange = comm->nprocs > 1 ? &exchange_ : nullptr;
  const std::string failure = failure_of([&] {
    const dpa2md::Atoms view = atoms_.view(model->type);
    result = &model->engine->compute(view, true, fparam, aparam, nullptr, exchange);
  });
  // The others may wait for this rank's messages: only LAMMPS's abort reaches them.
  if (!failure.empty()) stop_here(with_atom_ids(failure));
  return *result;
}

// Rows of ghosts belong to atoms of other ranks: LAMMPS's own reverse communication takes them there with
// newton on; with newton off it has none, so they travel here.
void PairDPA2::add_forces(const dpa2md::Result& result) {
  const bool newton = force->newton_pair;
  const std::vector<double> own = newton ? std::vector<double>() : owned(result.force, 3);
  const double* rows = newton ? result.force.data() : own.data();
  const int count = newton ? atoms_.nrows() : atoms_.natoms();
  for (int r = 0; r < count; ++r) {
    double* f = atom->f[atoms_.index_of_row(r)];
    for (int c = 0; c < 3; ++c) f[c] += energy_unit_ * rows[3 * r + c];
  }
}

void PairDPA2::add_energies(const dpa2md::Result& result) {
  if (!eflag_either) return;
  for (int i = 0; i < atoms_.natoms(); ++i) {
    const double e = energy_unit_ * result.energy[i];
    if (eflag_global) eng_vdwl += e;
    if (eflag_atom) eatom[atoms_.index_of_row(i)] += e;
  }
}

// Each pair term half at either atom.
void PairDPA2::add_virials(const dpa2md::Result& result) {
  if (vflag_global) {
    const std::vector<double> total = total_virial(result);
    for (int c = 0; c < 6; ++c) virial[c] += energy_unit_ * symmetric(total.data(), c);
  }
  if (!vflag_atom && !cvflag_atom) return;
  // newton on: computes collect from ghosts
  const bool ghosts = force->newton_pair;
  const std::vector<double> own = ghosts ? std::vector<double>() : owned(result.virial, 9);
  const double* rows = ghosts ? result.virial.data() : own.data();
  const int count = ghosts ? atoms_.nrows() : atoms_.natoms();
  for (int r = 0; r < count; ++r) {
    const double* v = rows + 9 * r;
    const int i = atoms_.index_of_row(r);
    for (int c = 0; vflag_atom && c < 6; ++c) vatom[i][c] += energy_unit_ * symmetric(v, c);
    for (int c = 0; cvflag_atom && c < 9; ++c) cvatom[i][c] += energy_unit_ * v[kCentroid[c]];
  }
}

std::vector<double> PairDPA2::total_virial(const dpa2md::Result& result) const {
  std::vector<double> total(9, 0.0);
  for (std::size_t k = 0; k < result.virial.size(); ++k) total[k % 9] += result.virial[k];
  return total;
}

// Own rows with what other ranks' ghosts of them hold. Collective.
std::vector<double> PairDPA2::owned(const std::vector<double>& rows, int width) {
  std::vector<double> out = rows;
  if (comm->nprocs > 1) exchange_.reverse(out.data(), width, false);
  out.resize(static_cast<std::size_t>(width) * atoms_.natoms());
  return out;
}

// ---- several models

void PairDPA2::compare_models(const dpa2md::Result& first) {
  std::vector<std::vector<double>> forces, virials;
  const double per_atom = atom->natoms > 0 ? 1.0 / static_cast<double>(atom->natoms) : 0.0;
  for (Loaded& m : models_) {
    const dpa2md::Result& r = &m == &models_[0] ? first : evaluate(&m);
    forces.push_back(owned(r.force, 3));
    const std::vector<double> mine = total_virial(r);
    virials.emplace_back(9);
    MPI_Allreduce(mine.data(), virials.back().data(), 9, MPI_DOUBLE, MPI_SUM, world);
    for (double& v : virials.back()) v *= per_atom * energy_unit_;
    for (double& f : forces.back()) f *= energy_unit_;
  }
  const std::vector<double> f = dpa2md::force_deviation(forces, options_.relative);
  const std::vector<double> v = dpa2md::virial_deviation(virials, options_.relative_v);
  const dpa2md::DeviationSummary s = dpa2md::summarize(world, f, v);
  const std::vector<double> atomic = options_.atomic ? gather_by_id(f) : std::vector<double>();
  std::string failure;
  if (comm->me == 0) {  // compute pair adds up the ranks' vectors
    const double values[6] = {s.max_v, s.min_v, s.avg_v, s.max_f, s.min_f, s.avg_f};
    std::copy(values, values + 6, pvector);
    failure = failure_of([&] { deviation_file_.write(update->ntimestep, s, atomic); });
  }
  if (!failure.empty()) stop_here(failure);
}

// Values of this rank's atoms to rank 0, in the order of atom IDs. Collective.
std::vector<double> PairDPA2::gather_by_id(const std::vector<double>& values) const {
  std::vector<double> mine;  // (ID, value): an ID is exact in a double up to 2^53
  for (std::size_t r = 0; r < values.size(); ++r) {
    mine.push_back(static_cast<double>(atom->tag[atoms_.index_of_row(static_cast<int>(r))]));
    mine.push_back(values[r]);
  }
  int count = static_cast<int>(mine.size());
  std::vector<int> counts(comm->nprocs), starts(comm->nprocs);
  MPI_Gather(&count, 1, MPI_INT, counts.data(), 1, MPI_INT, 0, world);
  int total = 0;
  for (int p = 0; p < comm->nprocs; ++p) {
    starts[p] = total;
    total += counts[p];
  }
  std::vector<double> all(comm->me == 0 ? total : 0);
  MPI_Gatherv(mine.data(), count, MPI_DOUBLE, all.data(), counts.data(), starts.data(), MPI_DOUBLE, 0, world);
  std::vector<std::pair<double, double>> sorted;
  for (std::size_t k = 0; k + 1 < all.size(); k += 2) sorted.emplace_back(all[k], all[k + 1]);
  std::sort(sorted.begin(), sorted.end());
  std::vector<double> out;
  for (const auto& pair : sorted) out.push_back(pair.second);
  return out;
}

// ---- complaints

// Once a run and for all ranks together; asked only when lists are new.
void PairDPA2::warn_overfull() {
  if (overfull_warned_) return;
  int mine[2] = {0, 0}, most[2];  // neighbours, nsel
  for (const Loaded& m : models_) {
    const dpa2md::PairList& p = m.engine->pairs();
    if (p.overfull_atom >= 0 && p.overfull_count > mine[0])
      mine[0] = p.overfull_count, mine[1] = p.overfull_nsel;
  }
  MPI_Allreduce(mine, most, 2, MPI_INT, MPI_MAX, world);
  if (most[0] == 0) return;
  overfull_warned_ = true;
  if (comm->me == 0) {
    error->warning(FLERR, "pair_style dpa2: an atom has " + std::to_string(most[0]) +
                              " neighbours inside the cutoff and the model takes the nearest " +
                              std::to_string(most[1]) +
                              ", so the energy is not continuous: check the density.");
  }
}

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

void PairDPA2::stop_here(const std::string& failure) const {
  error->one(FLERR, "pair_style dpa2 at step " + std::to_string(update->ntimestep) + ": " + failure);
}

// The core counts a rank's atoms from 0; users know atom IDs.
std::string PairDPA2::with_atom_ids(const std::string& message) const {
  const std::string word = "atom ";
  std::size_t at = message.find(word);
  while (at != std::string::npos && !(at + word.size() < message.size() &&
                                      std::isdigit(static_cast<unsigned char>(message[at + word.size()]))))
    at = message.find(word, at + 1);
  if (at == std::string::npos) return message;
  std::size_t used = 0;
  const int i = std::stoi(message.substr(at + word.size()), &used);
  if (i >= atoms_.natoms()) return message;
  const auto id = static_cast<long long>(atom->tag[atoms_.index_of_row(i)]);
  return message.substr(0, at) + "the atom with ID " + std::to_string(id) +
         message.substr(at + word.size() + used);
}

double PairDPA2::memory_usage() { return Pair::memory_usage(); }

}  // namespace LAMMPS_NS
