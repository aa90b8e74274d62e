// What the engine asks of a backend. The stages and their order are in stages.h and engine.cpp; how a stage
// computes, stores or recomputes is the backend's own business, the pair state in particular.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/stages.h"
#include "neighbors/pairs.h"

namespace dpa2md {

struct StepInput {
  const PairList* pairs = nullptr;
  bool forces = true;
  const double* fparam = nullptr;  // (frames, nfparam), physical values, or null
  const int* frame = nullptr;      // (natoms) frame of each atom, or null: all 0
  const double* aparam = nullptr;  // (natoms, naparam)
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

// Of a device: bytes that a step of so many atoms would hold, bytes that this backend could have at most, and
// how many such atoms would fit. Zeros: there is no such device, or no step yet to know neighbours from.
struct DeviceMemory {
  double needed = 0, free = 0, atoms = 0;
};

// A kernel of a device, since its times were last asked for.
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
  // After the last stage. False: build_pairs had guessed how many pairs there are, and there are more; the
  // whole step must be done again. Completes *pairs, and the results where results_by_finish().
  virtual bool finish(PairList* /*pairs*/) { return true; }
  // Whether finish() assigns the results, of which it takes only those that are wanted, and adds them up over
  // frames. Else the stages need all arrays but the frames', add to zeros, and leave the sums to the engine.
  virtual bool results_by_finish() const { return false; }
  // Calls `stage` for blocks that together cover 0 … natoms-1 (CPU: over threads; GPU: one block). `gather`
  // is called for all of them too, a few blocks at a time and each time after their stages: what these leave
  // for neighbours need not be there for all atoms at once. A block stays with its thread: one stage may
  // leave the next ones what no other run reads.
  virtual void run(int natoms, const std::function<void(Range)>& stage,
                   const std::function<void(Range)>& gather = {}) = 0;

  // Of a layer, where the stage is layered. The gradients of a layer's input: pair_step_backward begins them,
  // where the layer has a pair step, and node_step_backward adds to them.
  virtual void stage(Stage, int layer, Range) = 0;
  virtual void start_g1_gradient(int /*layer*/) {}  // all rows: before what is gathered

  // For an exchange between ranks, which reads and changes the local rows `sent` and the ghosts' rows; a
  // backend on a device hands out copies of them.
  virtual void set_sent_rows(const std::vector<int>& /*sent*/) {}  // once a step
  virtual void* g1_rows(int layer) = 0;                            // (nrows, g1_dim)
  virtual void* g1_gradient_rows(int layer) = 0;
  virtual void put_g1_rows(int /*layer*/) {}
  virtual void put_g1_gradient_rows(int /*layer*/) {}
  // (natoms, descriptor_dim) of the step since `begin`, once all its stages have run
  virtual void descriptor(Range, double* out) = 0;
  // For a step of `natoms` atoms with as many neighbours each as in the last step.
  virtual DeviceMemory memory(std::int64_t /*natoms*/) { return {}; }
  // Whether build_pairs finds the candidates too, from bins (Candidates::bins).
  virtual bool searches() const { return false; }
  // Builds the pair list on the backend's own device, and of *out all but the pairs themselves; false: it
  // wants a list of the host. `once`: the step can't be done again, see finish().
  virtual bool build_pairs(const Atoms& /*atoms*/, bool /*forces*/, bool /*once*/, PairList* /*out*/) {
    return false;
  }
  // From now on (until false) every kernel is timed by itself, one after the other; kernel_times() gives, and
  // forgets, what they took. Nothing without a device.
  virtual void measure_kernels(bool /*yes*/) {}
  virtual std::vector<KernelTime> kernel_times() { return {}; }
  // Until all that was started is done (a device works while the host goes on). For measuring.
  virtual void wait() {}
  virtual bool single() const = 0;              // float rows
  virtual std::string description() const = 0;  // "cpu (avx512, float32, 2 threads)"
};

// threads >= 1, the caller's OpenMP setting must agree (threads.h). tables:
// embedding nets of one distance are looked up, to within their rounding error, instead of computed.
// low_memory: what the reverse sweep can make again is not kept; the same results, more slowly.
std::unique_ptr<Backend> make_cpu_backend(const Model& model, Precision precision, int threads, bool tables,
                                          bool low_memory);

// One GPU, by its CUDA number; defined where the build found CUDA.
std::unique_ptr<Backend> make_cuda_backend(const Model& model, Precision precision, int device, bool tables);
// The same kernels, run by the host; defined in builds with tests.
std::unique_ptr<Backend> make_emulated_cuda_backend(const Model& model, Precision precision, int device,
                                                    bool tables);

}  // namespace dpa2md
