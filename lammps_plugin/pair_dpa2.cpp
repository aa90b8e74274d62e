// A step: passes atoms and lists to the core, and its results to LAMMPS's arrays. pair_dpa2_setup.cpp
// prepares the run.
#include "pair_dpa2.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "atom.h"
#include "comm.h"
#include "compute.h"
#include "error.h"
#include "exclusions.h"
#include "failure.h"
#include "fix.h"
#include "force.h"
#include "modify.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"

using dpa2md::failure_of;

namespace LAMMPS_NS {
namespace {

// Rows of the core's virial are the force's components, columns those of the distance.
constexpr int kXX = 0, kYY = 4, kZZ = 8, kXY = 3, kXZ = 6, kYZ = 7, kYX = 1, kZX = 2, kZY = 5;
constexpr int kCentroid[9] = {kXX, kYY, kZZ, kXY, kXZ, kYZ, kYX, kZX, kZY};
constexpr int kTransposed[6] = {kXX, kYY, kZZ, kYX, kZX, kZY};

double symmetric(const double* virial, int component) {
  return 0.5 * (virial[kCentroid[component]] + virial[kTransposed[component]]);
}

}  // namespace

void PairDPA2::compute(int eflag, int vflag) {
  ev_init(eflag, vflag);
  const bool first = !has_list_;
  follow_atoms(neighbor->ago == 0 || first);
  follow_scale();
  update_parameters(first);
  if (!atoms_.copy_positions(atom->x))
    stop_here("an atom's position is not a finite number: the run has become unstable.");
  const dpa2md::Result& result = evaluate(&models_[0]);
  add_forces(result);
  add_energies(result);
  add_virials(result);
  if (models_.size() > 1 && options_.out_freq > 0 && update->ntimestep % options_.out_freq == 0)
    compare_models(result);
  if (neighbor->ago == 0) warn_overfull();
  evaluated_step_ = update->ntimestep;
}

// LAMMPS renumbers ghosts only when it makes new lists, but may give an atom another type at any time.
// Collective when the lists are `renewed`.
void PairDPA2::follow_atoms(bool renewed) {
  const int nlocal = atom->nlocal, nall = nlocal + atom->nghost;
  if (renewed) {
    exchange_.find_owners(nlocal, nall, &owners_);
    excluded_ = dpa2md::excluded_atoms(lmp);
    warn_exclusions();
    has_list_ = true;
  }
  std::vector<char> seen(nall);
  for (int i = 0; i < nall; ++i) seen[i] = has_element_[atom->type[i]] && !excluded_[i];
  if (renewed || seen != seen_) list_atoms(std::move(seen));
}

void PairDPA2::list_atoms(std::vector<char> seen) {
  int missing = -1;
  const std::string failure =
      failure_of([&] { missing = atoms_.rebuild(*list, atom->nlocal, seen, owners_, comm->me); });
  if (!failure.empty()) stop_here(failure);
  if (missing >= 0) {
    stop_here(
        "the atom with ID " + std::to_string(atom->tag[missing]) + " has become a " +
        elements[map[atom->type[missing]]] +
        ", but LAMMPS's list for this pair style has no neighbours of it: a fix that changes types must "
        "renew the lists (fix atom/swap does), or keep to types that this pair style has.");
  }
  exchange_.find_sent_rows();
  seen_ = std::move(seen);
}

// Follows the scale, which fix adapt may change at any time; stops if it differs between types.
void PairDPA2::follow_scale() {
  double scale = 1;
  bool first = true;
  for (int i = 1; i <= atom->ntypes; ++i) {
    for (int j = i; j <= atom->ntypes; ++j) {
      if (!has_element_[i] || !has_element_[j]) continue;
      if (first) scale = scale_[i][j];
      first = false;
      if (scale_[i][j] != scale)
        stop_here(
            "its scale differs between atom types, but many-body energies can't be told apart by pairs: "
            "change it for all types at once (fix ... adapt ... pair dpa2 scale * * v_name).");
    }
  }
  scaled_unit_ = energy_unit_ * scale;
}

void* PairDPA2::extract(const char* name, int& dim) {
  if (std::strcmp(name, "scale") == 0) {
    dim = 2;
    return scale_;
  }
  return nullptr;
}

// Frame and atomic parameters of this evaluation. Computes are asked anew every time: several evaluations may
// share a step (minimisation). Collective.
void PairDPA2::update_parameters(bool first) {
  if (fparam_compute_ || aparam_compute_) {
    modify->clearstep_compute();  // or else a compute that another one reads keeps its last value
    for (Compute* c : modify->get_compute_list()) {
      if (first) c->setup();  // LAMMPS does it only after the first forces
    }
  }
  update_fparam();
  const int width = models_[0].engine->model().fitting.naparam();
  aparam_.clear();
  aparam_.reserve(static_cast<std::size_t>(atoms_.natoms() + 1) * width);  // not null on a rank without atoms
  Compute* c = aparam_compute_;
  if (c) c->compute_peratom();
  for (int i = 0; i < atoms_.natoms(); ++i) {
    const int k = atoms_.index_of_row(i);
    const double* row = !c                     ? options_.aparam.data()
                        : c->size_peratom_cols ? c->array_atom[k]
                                               : &c->vector_atom[k];
    aparam_.insert(aparam_.end(), row, row + width);
  }
}

void PairDPA2::update_fparam() {
  fparam_ = options_.fparam;
  const int count = models_[0].engine->model().fitting.nfparam();
  if (Compute* c = fparam_compute_) {
    if (count == 1 && c->scalar_flag) {
      fparam_.assign(1, c->compute_scalar());
    } else {
      c->compute_vector();
      fparam_.assign(c->vector, c->vector + count);
    }
  }
  if (Fix* f = fparam_fix_) {
    const int from = options_.fparam_fix_index;
    fparam_.assign(count, 0);
    for (int k = 0; k < count; ++k) fparam_[k] = from ? f->compute_vector(from - 1 + k) : f->compute_scalar();
  }
}

const dpa2md::Result& PairDPA2::evaluate(Loaded* model) {
  const dpa2md::Result* result = nullptr;
  const double* fparam = fparam_.empty() ? nullptr : fparam_.data();
  const double* aparam = aparam_.data();  // null where the model takes none
  // One rank sees only images of its own atoms, which share their rows.
  dpa2md::Exchange* exchange = comm->nprocs > 1 ? &exchange_ : nullptr;
  const bool virials = vflag_atom || cvflag_atom;
  const auto by_id = [this](int row) {
    return "the atom with ID " + std::to_string(atom->tag[atoms_.index_of_row(row)]);
  };
  const std::string failure = failure_of(
      [&] {
        const dpa2md::Atoms view = atoms_.view(atom->type, model->type);
        result = &model->engine->compute(view, true, fparam, aparam, nullptr, exchange, virials);
      },
      by_id);
  // The others may wait for this rank's messages: only LAMMPS's abort reaches them.
  if (!failure.empty()) stop_here(failure);
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
    for (int c = 0; c < 3; ++c) f[c] += scaled_unit_ * rows[3 * r + c];
  }
}

void PairDPA2::add_energies(const dpa2md::Result& result) {
  if (!eflag_either) return;
  for (int i = 0; i < atoms_.natoms(); ++i) {
    const double e = scaled_unit_ * result.energy[i];
    if (eflag_global) eng_vdwl += e;
    if (eflag_atom) eatom[atoms_.index_of_row(i)] += e;
  }
}

// Each pair term half at either atom.
void PairDPA2::add_virials(const dpa2md::Result& result) {
  if (vflag_global) {
    for (int c = 0; c < 6; ++c) virial[c] += scaled_unit_ * symmetric(result.total_virial, c);
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
    for (int c = 0; vflag_atom && c < 6; ++c) vatom[i][c] += scaled_unit_ * symmetric(v, c);
    for (int c = 0; cvflag_atom && c < 9; ++c) cvatom[i][c] += scaled_unit_ * v[kCentroid[c]];
  }
}

// Own rows plus the rows of their ghosts on other ranks. Collective.
std::vector<double> PairDPA2::owned(const std::vector<double>& rows, int width) {
  std::vector<double> out = rows;
  if (comm->nprocs > 1) exchange_.reverse(out.data(), width, false);
  out.resize(static_cast<std::size_t>(width) * atoms_.natoms());
  return out;
}

void PairDPA2::copy_descriptors(double** out) const {
  if (evaluated_step_ != update->ntimestep) {
    error->all(
        FLERR,
        "compute dpa2/descriptor: pair_style dpa2 has not computed the forces of this step yet; use the "
        "compute in a run or after it (run 0 is enough).");
  }
  const int dim = descriptor_dim();
  const std::vector<double> rows = models_[0].engine->descriptor();
  for (int i = 0; i < atom->nlocal; ++i) std::fill(out[i], out[i] + dim, 0.0);
  for (int r = 0; r < atoms_.natoms(); ++r) {
    const double* row = rows.data() + static_cast<std::size_t>(r) * dim;
    std::copy(row, row + dim, out[atoms_.index_of_row(r)]);
  }
}

// ---- several models

void PairDPA2::compare_models(const dpa2md::Result& first) {
  std::vector<std::vector<double>> forces, virials;
  const double per_atom = atom->natoms > 0 ? 1.0 / static_cast<double>(atom->natoms) : 0.0;
  for (Loaded& m : models_) {
    const dpa2md::Result& r = &m == &models_[0] ? first : evaluate(&m);
    forces.push_back(owned(r.force, 3));
    std::vector<double> mine(r.total_virial,
                             r.total_virial + 9);  // the MPI of a serial LAMMPS wants no const
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

void PairDPA2::warn_exclusions() {
  if (exclude_warned_ || !dpa2md::excludes_pairs_only(lmp)) return;
  exclude_warned_ = true;
  if (comm->me == 0) {
    error->warning(FLERR,
                   "pair_style dpa2: neigh_modify exclude takes neighbours away from the model, so that its "
                   "energies and forces are not those of the whole structure.");
  }
}

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
    error->warning(FLERR,
                   "pair_style dpa2: an atom has " + std::to_string(most[0]) +
                       " neighbours inside the cutoff and the model takes the nearest " +
                       std::to_string(most[1]) +
                       ", so the energy is not continuous: check the density, or take a model that dpa2md "
                       "convert --all-neighbors made.");
  }
}

void PairDPA2::stop_here(const std::string& failure) const {
  try {
    error->one(FLERR, "pair_style dpa2 at step " + std::to_string(update->ntimestep) + ": " + failure);
  } catch (...) {
    if (comm->nprocs > 1) dpa2md::deliver_output();
    throw;
  }
}

}  // namespace LAMMPS_NS
