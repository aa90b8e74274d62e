// repinit (two-body embedding), the whole descriptor of a DPA-1 student.
//   M (4 x ng) = em^T g / nsel        D (axis x ng) = M[:axis]^T M
// The embedding g of each neighbour comes from a table of the distance, or from the net itself where no table
// is good enough or an atom comes closer than the table reaches. D is kept with ng running fastest, the other
// way round than in DeePMD-kit: in_backend_order (g1_transform.h) turns the weights that read it.
#pragma once

#include "cpu/parts/net.h"
#include "cpu/stages/repinit_tables.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
class RepinitStage {
 public:
  // types (ntypes, tebd): the type embedding.
  RepinitStage(const Workspace& w, const Weights<T>& types);
  // On dual numbers, with the tables of the stage on plain ones.
  RepinitStage(const Workspace& w, const Weights<T>& types, const RepinitStage<Real<T>>& plain,
               Gradients<Real<T>>* gradients);
  void prepare();
  // Adds to the model's gradient.
  void add_gradient(Model* gradient, const Workspace& w) const;
  void build_tables(const std::vector<char>& types) { tables_.build(types); }
  void follow_tables(const std::vector<char>& types, const Workspace& w) { tables_.follow(types, w); }
  void adopt_tables() { tables_.adopt(); }
  void plan(const Workspace& w, MemoryPlan* to);

  // Computes D of the atoms; keeps their M if memory suffices.
  void forward(const Workspace& w, const Env<T>& env, Range atoms, Rows<T> out);
  // From d D: assigns env's dem and dsw of the atoms.
  void backward(const Workspace& w, Env<T>* env, Range atoms, Rows<T> dout);
  // D of an atom of the last forward(), in DeePMD-kit's order; only of models without repformers, which keep
  // M.
  void descriptor(int i, double* out) const;

 private:
  template <class>
  friend class RepinitStage;
  struct Atom;
  T* kept_moment(int i) { return moment_.data() + static_cast<std::size_t>(i) * 4 * np_; }
  void through_net(const Workspace& w, const Env<T>& env, int i, bool tape, Atom* s) const;
  void net_backward(const Workspace& w, Env<T>* env, int i, const T* dmoment) const;
  void gate_backward(const Workspace& w, const Env<T>& env, int i, const Atom& s, const T* dg) const;
  void types_backward(const Workspace& w, int i, int ld, const T* dx) const;
  void empty_backward(const Workspace& w, int i, const T* dmoment) const;
  void moments(const Workspace& w, const Env<T>& env, int i, T* moment) const;
  void moments_backward(const T* dout, const T* moment, T* dmoment) const;
  void squares(const T* moment, T* out) const;

  const Model& model_;
  const Weights<T>& types_;
  bool keeps_moments_;
  int np_;  // ng in whole vectors
  NetWeights<T> net_;
  NetGradient<Real<T>> net_gradient_;    // dual numbers only, as the next three
  GroupSums* gate_gradient_ = nullptr;   // strip_table
  GroupSums* types_gradient_ = nullptr;  // (ntypes, tebd)
  GroupSums* empty_gradient_ = nullptr;  // as empty_
  RepinitTables<T> tables_;
  Weights<T> empty_;  // (nt, 4, padded ng): what one empty slot adds to the moments (nonzero davg only)
  Buffer<T> moment_;  // (natoms, 4, padded ng): M
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
