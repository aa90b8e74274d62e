// LAMMPS pair style over the core: energy, forces, pressure and per-atom quantities of a DPA-2 model, and the
// deviation between several models.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "deviation.h"
#include "engine/engine.h"
#include "ghost_exchange.h"
#include "local_atoms.h"
#include "options.h"
#include "pair.h"

namespace LAMMPS_NS {

class Fix;

class PairDPA2 : public Pair {
 public:
  explicit PairDPA2(LAMMPS*);
  ~PairDPA2() override;

  void settings(int, char**) override;
  void coeff(int, char**) override;
  void init_style() override;
  double init_one(int, int) override;
  void compute(int, int) override;
  void* extract(const char*, int&) override;

  // For compute dpa2/descriptor, of the first model: its columns, and the rows (nlocal, columns) of the
  // evaluation at this step, zeros where atoms are left out. Stops where there was none.
  int descriptor_dim() const { return models_[0].engine->model().descriptor_dim(); }
  void copy_descriptors(double** out) const;

  int pack_forward_comm(int n, int* list, double* buf, int, int*) override {
    return exchange_.pack_forward(n, list, buf);
  }
  void unpack_forward_comm(int n, int first, double* buf) override {
    exchange_.unpack_forward(n, first, buf);
  }
  int pack_reverse_comm(int n, int first, double* buf) override {
    return exchange_.pack_reverse(n, first, buf);
  }
  void unpack_reverse_comm(int n, int* list, double* buf) override { exchange_.unpack_reverse(n, list, buf); }

 private:
  // The engine of one model, and its type number of every LAMMPS type (-1: NULL).
  struct Loaded {
    std::unique_ptr<dpa2md::Engine> engine;
    std::vector<int> type;
  };

  void load_models();
  std::string deviation_path() const;
  void set_message_sizes();
  void check_parameters() const;
  void map_types();
  void check_units();
  void check_special_bonds() const;
  void check_computes();
  void check_fix();
  void check_masses() const;
  void print_mapping() const;

  void follow_atoms(bool renewed);
  void list_atoms(std::vector<char> seen);
  void follow_scale();
  void update_parameters(bool first);
  void update_fparam();
  const dpa2md::Result& evaluate(Loaded* model);
  void add_forces(const dpa2md::Result& result);
  void add_energies(const dpa2md::Result& result);
  void add_virials(const dpa2md::Result& result);
  void compare_models(const dpa2md::Result& first);
  std::vector<double> owned(const std::vector<double>& rows, int width);
  std::vector<double> gather_by_id(const std::vector<double>& values) const;
  void warn_exclusions();
  void warn_overfull();

  void stop_together(const std::string& failure) const;
  [[noreturn]] void stop_here(const std::string& failure) const;

  dpa2md::Options options_;
  std::vector<Loaded> models_;
  std::vector<char> has_element_;  // (types + 1)
  double cutoff_ = 0;
  double energy_unit_ = 1;    // LAMMPS's unit of energy for one eV
  double** scale_ = nullptr;  // (types + 1, types + 1) for fix adapt
  double scaled_unit_ = 1;    // energy_unit_ times that
  std::string gpu_sharing_;   // how many ranks on how many GPUs; "" on the CPU

  dpa2md::LocalAtoms atoms_;
  dpa2md::GhostExchange exchange_;
  dpa2md::Owners owners_;              // at the last list
  std::vector<char> excluded_, seen_;  // (nlocal + ghosts) at the last list, and now
  Fix* fparam_fix_ = nullptr;
  Compute *fparam_compute_ = nullptr, *aparam_compute_ = nullptr;
  std::vector<double> fparam_, aparam_;  // (nfparam), (natoms, naparam)
  bool has_list_ = false;                // since init
  bigint evaluated_step_ = -1;

  dpa2md::DeviationFile deviation_file_;
  bool mapping_printed_ = false, overfull_warned_ = false, exclude_warned_ = false;
};

}  // namespace LAMMPS_NS
