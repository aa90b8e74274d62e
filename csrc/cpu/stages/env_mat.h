// Environment matrices; and the end of the reverse sweep, from their gradients to forces and virial.
#pragma once

#include <type_traits>

#include "cpu/parts/memory_plan.h"
#include "cpu/parts/shares.h"
#include "cpu/parts/workspace.h"
#include "model/model.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// An environment matrix and what the reverse sweep collects for it.
template <class T>
struct Env {
  const Subnet* subnet = nullptr;
  const Prefix* prefix = nullptr;
  bool direct = false;          // (r, x, y, z)/rcut instead of the smooth environment (repformer direct_dist)
  std::size_t block_pairs = 0;  // 0: all pairs are there; else so many, of the block that a thread is at
  Buffer<T> em, dem;            // (pairs, 4)
  Buffer<T> sw, dsw;            // (pairs)

  // The first row of an atom's pairs.
  std::size_t row(const Workspace& w, int i) const {
    return block_pairs ? w.in_block(*prefix, block_pairs, i) : static_cast<std::size_t>(prefix->first[i]);
  }
  void plan(std::size_t pairs, bool backward, MemoryPlan* to);
};

// The type of distances: double, and dual with T.
template <class T>
using Geometry = std::conditional_t<is_dual<T>, Dual<double>, double>;

template <class T>
class EnvMatStage {
 public:
  explicit EnvMatStage(const Model& model);
  // `spans`: blocks between two gatherings.
  void begin(const Workspace& w, int spans);
  void plan(const Workspace& w, MemoryPlan* to);

  // em and sw of all pairs of the atoms.
  void forward(const Workspace& w, Range atoms);
  // Recomputes em and sw of one sub-network, which other atoms have overwritten.
  void again(const Workspace& w, Env<T>* env, Range atoms) const;
  // From dem and dsw: adds to the forces and virials of the atoms, and keeps their neighbours' shares.
  void backward(const Workspace& w, Range atoms);
  // Adds the kept shares to the neighbours' rows, for the atoms of a span of blocks.
  void forces(const Workspace& w, Range atoms) const;

  Env<T> repinit, three_body, repformer;

 private:
  struct PairVectors;
  PairVectors pair_vectors(const Workspace& w, int i, int n) const;
  void read_vectors(const Workspace& w, int i, int n, PairVectors* p) const;
  void one(const Workspace& w, Env<T>* env, int i, const PairVectors& p) const;
  void gradient(const Workspace& w, const Env<T>& env, int i, const PairVectors& p, double* f) const;

  bool has_three_body_, has_repformers_;
  Shares shares_;
  Buffer<double> dforce_;  // (slots, 12): to neighbours' forces (3) and virials (9)
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
