// Three-body repinit:
//   c_jk = em_j[1:4] . em_k[1:4]      out[m] = sum_jk c_jk g(c_jk, t_j, t_k)[m] / nsel^2
// over all ordered pairs of neighbours, j = k too.
#pragma once

#include <memory>

#include "cpu/parts/net.h"
#include "cpu/parts/node_tables.h"
#include "cpu/parts/tables.h"
#include "cpu/stages/env_mat.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
class ThreeBodyStage {
 public:
  // types (ntypes, tebd): the type embedding.
  ThreeBodyStage(const Model& model, const Weights<T>& types);
  // On dual numbers, with the tables of the stage on plain ones.
  ThreeBodyStage(const Model& model, const Weights<T>& types, const ThreeBodyStage<Real<T>>& plain,
                 Gradients<Real<T>>* gradients);
  void prepare();
  void add_gradient(Model* gradient, const Workspace& w) const;
  // Builds the tables of g(c) for these types (ntypes).
  void build_tables(const std::vector<char>& types);
  // The same from a net that moves.
  void follow_tables(const std::vector<char>& types, const Workspace& w);
  // On dual numbers: those of `plain` have changed.
  void adopt_tables(const ThreeBodyStage<Real<T>>& plain);

  // out[k] (ng) of the k-th atom
  void forward(const Workspace& w, const Env<T>& env, Range atoms, Rows<T> out);
  // From dout[k] (ng): assigns env's dem and dsw of the atoms.
  void backward(const Workspace& w, Env<T>* env, Range atoms, Rows<T> dout);

 private:
  template <class>
  friend class ThreeBodyStage;
  struct Atom;
  struct Row;
  Atom atom(const Workspace& w, const Env<T>& env, int i) const;
  bool in_reach(const Atom& s) const;
  // through the net, a few neighbours j against all k at a time
  void net(Arena& arena, Atom* s, T* out) const;
  void block(int j0, Arena& arena, bool tape, Atom* s) const;
  void block_gate(Arena& arena, Atom* s) const;
  void block_backward(const T* dout, int group, Atom* s, Arena& arena) const;
  void gate_backward(int group, const Atom& s, const T* dout) const;
  void types_backward(int group, const Atom& s, const T* dx) const;
  // from tables, every unordered pair (j, k) once, a row j at a time
  void row_buffers(const Atom& s, Arena& arena, Row* row) const;
  template <bool VALUES, bool SLOPES>
  void places(const Atom& s, int j, Row* row) const;
  const Real<T>* node(const Atom& s, const Row& row, int j, int k, const T* from, T* w) const;
  template <bool STRIP>
  void looked_up(const Atom& s, T* out, Arena& arena) const;
  template <bool STRIP>
  void looked_up_backward(const Atom& s, const T* dout, Arena& arena) const;
  // of dual numbers
  struct RowWeights;
  RowWeights row_weights(const Atom& s, Arena& arena) const;
  void from_rows(const Atom& s, T* out, Arena& arena) const;
  void add_row_gradients(const Atom& s, int group, const T* dout, Arena& arena) const;
  template <class F>
  void each_row(const T* weight, const F& f) const;
  void from_tables(const Atom& s, T* out, Arena& arena) const;
  void from_tables_backward(const Atom& s, int group, const T* dout, Arena& arena) const;
  void add_table_gradient(Model* gradient, const Workspace& w) const;
  // Strip mode: T(a, b) + T(b, a), (padded ng).
  void prepare_both();
  const Real<T>* both(int a, int b) const;
  T opening(const Atom& s, int j, int k) const { return model_.smooth ? s.sw[j] * s.sw[k] : T(1); }
  Real<T> norm() const {
    const double nsel = model_.three_body.nsel;
    return Real<T>(1.0 / (nsel * nsel));
  }

  const Model& model_;
  const Weights<T>& types_;
  NetWeights<T> net_;
  NetGradient<Real<T>> net_gradient_;    // dual numbers only, as the next two
  GroupSums* gate_gradient_ = nullptr;   // strip_table
  GroupSums* types_gradient_ = nullptr;  // (ntypes, tebd)
  std::shared_ptr<Tables<Real<T>>> tables_;
  std::shared_ptr<NodeTables> node_tables_;           // of follow_tables()
  TableGradient<Real<T>>* table_gradient_ = nullptr;  // dual numbers only
  double reach_ = 0;                                  // largest |c| of the tables
  Weights<T> gate_;                                   // strip mode: (nt, nt, padded ng)
  Weights<T> both_;                                   // (nt, nt, padded ng) gate(a, b) + gate(b, a)
};

template <class T>
struct ThreeBodyStage<T>::Atom {
  int n;                     // neighbours
  const T *em, *sw;          // (n, 4), (n)
  T *dem, *dsw;              // their gradients; null without a reverse sweep
  const std::int32_t* type;  // (n)
  // of the neighbours j0 ... j0 + rows - 1, column (j - j0) n + k:
  int j0, rows, columns, ld;
  T* x;                 // net input (1 [+ 2 tebd], ld); row 0 is c_jk
  T* raw;               // (ng, ld)
  T* gate = nullptr;    // (ng, ld) T(t_j, t_k), strip only
  T* factor = nullptr;  // (ld) sw_j sw_k or 1: what multiplies the gate
  typename NetWeights<T>::Tape tape;
};

// A row of triples: neighbour j with the neighbours k >= j.
template <class T>
struct ThreeBodyStage<T>::Row {
  int np;            // n padded to the vector length
  T* direction;      // (3, np) em[1:4], transposed
  int* cell;         // (np)
  T *value, *slope;  // (5, np) weights
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
