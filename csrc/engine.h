// One model ready to run on one device: the order of the stages and nothing else.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend.h"
#include "exchange.h"
#include "model.h"

namespace dpa2md {

struct Result {
  std::vector<double> energy;  // (natoms) eV
  std::vector<double> force;   // (nrows, 3) eV/angstrom; a ghost's row belongs to its owner
  std::vector<double> virial;  // (nrows, 9) eV, -dE/dstrain; half of each pair term at either row
};

class Engine {
 public:
  // precision: "float64", "float32" or "" for the model's own. threads < 1: OMP_NUM_THREADS, or all cores.
  // device: "cpu" or "cuda".
  Engine(const std::string& path, const std::string& precision, int threads, const std::string& device);

  const Model& model() const { return model_; }
  const std::string& precision() const { return precision_; }
  int threads() const { return threads_; }
  std::string description() const { return backend_->description(); }

  // Energies (and forces, virial when `forces`) of the atoms. fparam (frames, nfparam) and aparam (natoms,
  // naparam) as the model asks for them; frame (natoms) or null. `exchange` is null on a single rank. Throws
  // Error for bad input and when a result is not finite.
  const Result& compute(const Atoms& atoms, bool forces, const double* fparam, const double* aparam,
                        const int* frame, Exchange* exchange);
  // What the last compute saw.
  const PairList& pairs() const { return pairs_; }

 private:
  void forward(Exchange* exchange);
  void backward(Exchange* exchange);

  Model model_;
  std::string precision_;
  int threads_;
  std::unique_ptr<Backend> backend_;
  PairList pairs_;
  Result result_;
};

}  // namespace dpa2md
