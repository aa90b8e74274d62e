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

// The file, written by one rank. It has one line a step: LAMMPS may ask for forces several times in a step
// (Monte Carlo attempts, line searches, a run that begins where another ended), and the last time is what
// dump and thermo show.
class DeviationFile {
 public:
  ~DeviationFile() { close(); }
  // Throws Error, also when another process or pair style writes the file.
  void open(const std::string& path, bool append, bool atomic);
  void close();
  // Replaces the last line if it is of the same step. atomic: (natoms), in the order of atom IDs, or empty.
  // Throws Error.
  void write(std::int64_t step, const DeviationSummary& s, const std::vector<double>& atomic);

 private:
  void find_last_line();

  std::string path_;
  std::FILE* file_ = nullptr;
  std::int64_t last_step_ = -1;
  long last_line_ = -1;  // where it begins; -1: none, or the file is a pipe
};

}  // namespace dpa2md
