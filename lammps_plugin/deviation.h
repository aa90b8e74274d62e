// How far several models disagree: the six numbers and the file that DeePMD-kit writes and DP-GEN reads.
#pragma once

#include <mpi.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "options.h"

namespace dpa2md {

// Largest, smallest and (root mean square over the nine components for the virial, mean over atoms for the
// forces) average.
struct DeviationSummary {
  double max_v = 0, min_v = 0, avg_v = 0;
  double max_f = 0, min_f = 0, avg_f = 0;
};

// forces[model] (natoms, 3) of this rank's own atoms; one standard deviation per atom, (natoms).
// relative >= 0: divided by (size of the models' mean + relative).
std::vector<double> force_deviation(const std::vector<std::vector<double>>& forces, double relative);
// virials[model] (9) of the whole system, already divided by the number of atoms.
std::vector<double> virial_deviation(const std::vector<std::vector<double>>& virials, double relative);
// Collective; the same on all ranks.
DeviationSummary summarize(MPI_Comm world, const std::vector<double>& per_atom_f,
                           const std::vector<double>& per_component_v);

// The file, written by one rank.
class DeviationFile {
 public:
  ~DeviationFile() { close(); }
  // Throws Error.
  void open(const std::string& path, bool append, bool atomic);
  void close();
  // atomic: (natoms), in the order of atom IDs, or empty. Throws Error.
  void write(std::int64_t step, const DeviationSummary& s, const std::vector<double>& atomic);

 private:
  std::string path_;
  std::FILE* file_ = nullptr;
};

}  // namespace dpa2md
