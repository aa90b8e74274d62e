// An engine with the neighbour list of one process: whole structures in, results out. Periodic images share
// the rows of their atoms, so that there are no ghosts and no exchange.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "neighbors/neighbors.h"

namespace dpa2md {

// Structures side by side; frames do not see each other.
struct Structures {
  const double* x = nullptr;       // (natoms, 3) angstrom, anywhere
  const int* type = nullptr;       // (natoms); < 0: virtual
  std::vector<int> start;          // (frames + 1) the first atom of each frame, and natoms
  std::vector<Cell> cells;         // (frames)
  const double* fparam = nullptr;  // (frames, nfparam) or null
  const double* aparam = nullptr;  // (natoms, naparam) or null
  int natoms() const { return start.back(); }
  int frames() const { return static_cast<int>(cells.size()); }
};

// The caller's arrays for results; null: not wanted.
struct StructureResults {
  double* energy = nullptr;       // (frames) eV
  double* energies = nullptr;     // (natoms) eV
  double* forces = nullptr;       // (natoms, 3) eV/angstrom
  double* virial = nullptr;       // (frames, 9) eV, -dE/dstrain
  double* virials = nullptr;      // (natoms, 9) eV
  double* descriptors = nullptr;  // (natoms, descriptor_dim)
};

// About the neighbour list of a computation.
struct ListFacts {
  bool rebuilt = false;
  std::int64_t pairs = 0;
  int overfull_atom = -1, overfull_count = 0, overfull_nsel = 0;  // see PairList
};

// Threads may call it, one at a time. Works on in a forked process, on the CPU.
class PeriodicEngine {
 public:
  PeriodicEngine(const std::string& path, const EngineOptions& options);
  PeriodicEngine(const PeriodicEngine& other);  // from memory, whatever became of the file

  const Engine& engine() const { return *engine_; }
  // Computes forces and virials if any of them is wanted. Keeps the neighbour list for the next calls until
  // an atom may have moved by skin / 2. Throws Error.
  ListFacts compute(const Structures& structures, double skin, const StructureResults& results);
  // Changes all weights.
  void set_parameters(const double* flat);
  // Gradients by weights (Engine::gradient) for the structures of the last computation.
  void gradient(const Structures& structures, const Direction& along, double* flat);
  // Makes the next computation rebuild the neighbour list.
  void forget_neighbors();
  DeviceMemory device_memory(std::int64_t natoms);
  void measure_stages() { engine_->measure_stages(); }
  void measure_kernels(bool yes) { engine_->measure_kernels(yes); }
  std::vector<KernelTime> kernel_times() { return engine_->kernel_times(); }
  std::map<std::string, double> stage_seconds() { return engine_->stage_seconds(); }

 private:
  class Turn;
  void check_process();
  StepInput step_input(const Structures& s, std::vector<int>* frame) const;

  std::unique_ptr<Engine> engine_;
  bool own_threads_;  // the caller said how many
  std::mutex mutex_;
  std::atomic<int> turns_{0};  // computations that run or wait
  pid_t process_;
  double skin_ = -1;
  std::unique_ptr<NeighborList> neighbors_;
};

}  // namespace dpa2md
