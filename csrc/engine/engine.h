// One model ready to run on one device: the order of the stages and nothing else.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/devices.h"
#include "engine/exchange.h"
#include "engine/stage_clock.h"
#include "model/model.h"

namespace dpa2md {

struct Result {
  std::vector<double> energy;   // (natoms) eV
  std::vector<double> force;    // (nrows, 3) eV/angstrom; a ghost's row belongs to its owner
  std::vector<double> virial;   // (nrows, 9) eV, -dE/dstrain; half of each pair term at either row
  double total_virial[9] = {};  // the sum of all rows
};

struct EngineOptions {
  std::optional<Precision> precision;      // none: the model's own
  int threads = 0;                         // below 1: OMP_NUM_THREADS, or all cores
  Device device;                           // without a number: GPU 0
  bool tables = true, low_memory = false;  // see make_cpu_backend
};

// Parses users' options: precision "float64", "float32" or "", device "cpu", "cuda" or "cuda:1". Throws
// Error.
EngineOptions read_options(const std::string& precision, int threads, const std::string& device,
                           bool tables = true, bool low_memory = false);

class Engine {
 public:
  // Throw Error for a file or options that can't be used.
  Engine(const std::string& path, const EngineOptions& options);
  Engine(Model model, const EngineOptions& options);

  const Model& model() const { return model_; }
  const EngineOptions& options() const { return options_; }
  Precision precision() const { return *options_.precision; }
  int threads() const { return options_.threads; }
  // Limits the number of threads; results stay the same to the last bit.
  void limit_threads(int threads) { options_.threads = std::min(options_.threads, threads); }
  std::string description() const { return backend_->description(); }

  // Whether the device can search the candidates (NeighborList::leave_search).
  bool searches() const { return backend_->searches(); }

  // Sets the types (ntypes) that any rank's atoms may have, so that every rank builds the same tables, with
  // the same rounding.
  void expect_types(const std::vector<char>& types) { expected_types_ = types; }

  // Energies (and forces, virials when `forces`) of the atoms; without `virials` only the sum of these, which
  // spares a GPU handing them over. fparam (frames, nfparam) and aparam (natoms,
  // naparam) as the model asks for them; frame (natoms) or null. `exchange` is null on a single rank. Throws
  // Error for bad input and when a result is not finite.
  const Result& compute(const Atoms& atoms, bool forces, const double* fparam, const double* aparam,
                        const int* frame, Exchange* exchange, bool virials = true);
  // Computes with input.forces, fparam, aparam, frame and frame_start, into the caller's arrays.
  void compute(const Atoms& atoms, const StepInput& input, Exchange* exchange, const StepOutput& to);
  // (natoms, descriptor_dim) of the last compute: the fitting net's input before fparam. Makes a copy. Zeros
  // for virtual atoms.
  std::vector<double> descriptor();
  // Makes compute() time its stages. stage_seconds() returns and resets the times: seconds summed over
  // threads, with "pairs" for the pair list.
  void measure_stages();
  std::map<std::string, double> stage_seconds();
  // Times a device's kernels, see Backend.
  void measure_kernels(bool yes) { backend_->measure_kernels(yes); }
  std::vector<KernelTime> kernel_times() { return backend_->kernel_times(); }
  // The device's memory for a step of `natoms` atoms like those of the last compute; zeros on the CPU.
  DeviceMemory device_memory(std::int64_t natoms) { return backend_->memory(natoms); }
  // Changes all weights (model/parameters.h: one after another).
  void set_parameters(const double* flat);
  // For every weight w, sum_i seeds_i de_i/dw + d/dt dE/dw along given.along, at the atoms of the last
  // compute and with its fparam, aparam, frame and frame_start (Smith et al., arXiv 2006.05475, with exact
  // tangents). From then on, as after set_parameters, embeddings come from tables that follow the weights
  // (float32) or from the nets. Throws Error on another device than the CPU, and for compressed models.
  void gradient(const StepInput& given, double* flat);
  // The bytes of all buffers of the last compute and, if there was one, the last gradient, but for scratch.
  std::size_t step_bytes() const {
    return backend_->step_bytes() + (gradients_ ? gradients_->step_bytes() : 0);
  }
  // The last compute's pair list; without the pairs themselves if a device built it.
  const PairList& pairs() const { return pairs_; }

 private:
  void list_pairs(const Atoms& atoms, bool forces, bool once);
  void check_parameters(const StepInput& input, int natoms) const;
  StepOutput with_own_arrays(const StepInput& input, StepOutput to);

  Model model_;
  EngineOptions options_;  // precision and threads as they are used
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Backend> gradients_;  // once there was a gradient
  Model gradient_;                      // whose weights are the gradient
  bool kept_ = false;                   // what gradients_ needs of the last compute
  std::unique_ptr<StageClock> clock_;   // once stages are measured
  double pairs_seconds_ = 0;
  std::vector<char> expected_types_;
  PairList pairs_;
  Result result_;    // of compute() without arrays
  Result unwanted_;  // what the caller does not want and the backend or a check does
  std::vector<double> frame_energy_, frame_virial_;
};

}  // namespace dpa2md
