// The interface between engine and backend. The stages and their order are in stages.h and engine.cpp; the
// backend decides how a stage computes, stores or recomputes, the pair state in particular.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/stages.h"
#include "neighbors/pairs.h"

namespace dpa2md {

// A direction for the derivatives of dE/d(weights): how atoms move and cells are strained, and what every
// atom's energy counts beside that.
struct Direction {
  const double* moves = nullptr;    // (natoms, 3)
  const double* strains = nullptr;  // (frames, 9): r -> r + strain r
  const double* seeds = nullptr;    // (natoms)
};

struct StepInput {
  const PairList* pairs = nullptr;
  bool forces = true;
  const Direction* along = nullptr;  // of a sweep for gradients by weights
  const double* fparam = nullptr;    // (frames, nfparam), physical values, or null
  const int* frame = nullptr;        // (natoms) frame of each atom, or null: all 0
  const double* aparam = nullptr;    // (natoms, naparam)
  // (frames + 1) the first atom of every frame, and natoms; null: all rows are one frame
  const std::vector<int>* frame_start = nullptr;
  int frames() const { return frame_start ? static_cast<int>(frame_start->size()) - 1 : 1; }
  const double* fparam_of(int frame_number, int count) const {
    return fparam ? fparam + static_cast<std::size_t>(frame_number) * count : nullptr;
  }
  const double* aparam_of(int atom, int count) const {
    return aparam ? aparam + static_cast<std::size_t>(atom) * count : nullptr;
  }
};

// Null: not wanted.
struct StepOutput {
  double* energy = nullptr;  // (natoms) eV
  double* force = nullptr;   // (nrows, 3) eV/angstrom; ghost rows hold what belongs to their owners
  double* virial = nullptr;  // (nrows, 9) eV: half of each pair's -r (x) dE/dr with either of its rows
  // their sums over the rows of a frame
  double* frame_energy = nullptr;  // (frames)
  double* frame_virial = nullptr;  // (frames, 9)
};

// A device's memory: bytes that a step needs, bytes that this backend can have, and the number of such atoms
// that fit. Zeros: no device, or no step yet to estimate the neighbours from.
struct DeviceMemory {
  double needed = 0, free = 0, atoms = 0;
};

// A kernel's times since they were last taken.
struct KernelTime {
  std::string name;
  int launches = 0;
  double seconds = 0;                             // of all its launches together
  int blocks = 0, threads = 0;                    // of the last launch
  int registers = 0;                              // a thread
  std::size_t shared_bytes = 0, local_bytes = 0;  // shared memory a block; local memory (spills) a thread
  double occupancy = 0;  // warps that fit a multiprocessor at once over the most it holds
};

// Every stage takes a range of atoms, returns nothing and does not throw; different ranges may run at the
// same time. `gather_g1_gradient` and `forces` are called alone, for the atoms of several ranges together.
class Backend {
 public:
  virtual ~Backend() = default;

  // Sizes all buffers for this step. Throws Error when memory would not suffice.
  virtual void begin(const StepInput& input, const StepOutput& output) = 0;
  // Ends a step after its last stage: completes *pairs and, if results_by_finish(), the results. Returns
  // false if build_pairs guessed too few pairs; the caller must then repeat the whole step.
  virtual bool finish(PairList* /*pairs*/) { return true; }
  // Whether finish() assigns the wanted results and reduces them over frames. Else the stages need all arrays
  // but the frames', add to zeros, and the engine reduces.
  virtual bool results_by_finish() const { return false; }
  // Calls `stage` for blocks that together cover 0 … natoms-1 (CPU: over threads; GPU: one block). Calls
  // `gather` for a few blocks at a time, after their stages, so that the pairs' shares are held for these
  // only. A block stays with its thread, so that its stages may pass data that no other run reads.
  virtual void run(int natoms, const std::function<void(Range)>& stage,
                   const std::function<void(Range)>& gather = {}) = 0;

  // Runs a stage, of `layer` if it is layered. Gradients of a layer's input: pair_step_backward begins them,
  // if the layer has a pair step, and node_step_backward adds to them.
  virtual void stage(Stage, int layer, Range) = 0;
  virtual void start_g1_gradient(int /*layer*/) {}  // all rows: before what is gathered

  // For an exchange between ranks, which reads and changes the local rows `sent` and the ghosts' rows. A
  // device backend returns copies in host memory.
  virtual void set_sent_rows(const std::vector<int>& /*sent*/) {}  // once a step
  virtual void* g1_rows(int layer) = 0;                            // (nrows, g1_dim)
  virtual void* g1_gradient_rows(int layer) = 0;
  virtual void put_g1_rows(int /*layer*/) {}
  virtual void put_g1_gradient_rows(int /*layer*/) {}
  // (natoms, descriptor_dim) of the step since `begin`, once all its stages have run
  virtual void descriptor(Range, double* out) = 0;
  // The memory for a step of `natoms` atoms with as many neighbours per atom as in the last step.
  virtual DeviceMemory memory(std::int64_t /*natoms*/) { return {}; }
  // Whether build_pairs can search the candidates itself, in bins (Candidates::bins).
  virtual bool searches() const { return false; }
  // Builds the pair list on the backend's device, and fills *out but for the pairs themselves. False: the
  // backend needs the host's list. `once`: the step can't be repeated, see finish().
  virtual bool build_pairs(const Atoms& /*atoms*/, bool /*forces*/, bool /*once*/, PairList* /*out*/) {
    return false;
  }
  // The bytes of the buffers of the last step, but for scratch; 0 on a device.
  virtual std::size_t step_bytes() const { return 0; }
  // Takes the weights anew from the model, whose shapes are the same.
  virtual void prepare() {}
  // A backend with the same weights whose sweeps, with StepInput::along, give gradients by these and nothing
  // else; null where there is none. It must be prepared after this one.
  virtual std::unique_ptr<Backend> make_gradient_backend() { return nullptr; }
  // After a sweep of a gradient backend: adds to the tensors of `gradient`, a model like its own, for every
  // weight w
  //   sum_i seeds_i de_i/dw + d/dt dE/dw along moves and strains.
  virtual void add_gradient(Model* /*gradient*/) {}
  // Times every kernel by itself, one after the other, until called with false. kernel_times() returns and
  // resets the times. Does nothing without a device.
  virtual void measure_kernels(bool /*yes*/) {}
  virtual std::vector<KernelTime> kernel_times() { return {}; }
  // Waits until the device has done all work. For measuring.
  virtual void wait() {}
  virtual bool single() const = 0;              // float rows
  virtual std::string description() const = 0;  // "cpu (avx512, float32, 2 threads)"
};

// threads >= 1, the caller's OpenMP setting must agree (threads.h). tables:
// embedding nets of one distance are looked up, to within their rounding error, instead of computed.
// low_memory: the reverse sweep recomputes instead of keeping; the same results, more slowly.
std::unique_ptr<Backend> make_cpu_backend(const Model& model, Precision precision, int threads, bool tables,
                                          bool low_memory);

// One GPU, by its CUDA number; defined where the build found CUDA.
std::unique_ptr<Backend> make_cuda_backend(const Model& model, Precision precision, int device, bool tables);
// The CUDA kernels, run by the host; defined in builds with tests.
std::unique_ptr<Backend> make_emulated_cuda_backend(const Model& model, Precision precision, int device,
                                                    bool tables);

}  // namespace dpa2md
