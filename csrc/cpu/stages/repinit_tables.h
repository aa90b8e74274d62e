// The moments of repinit from tables of the distance, or from a compressed model's own table. Neighbours meet
// in few cells of a table (most are far, where the switch has made em_0 small), so that each of its rows is
// taken once an atom, whatever the number of neighbours that look it up:
//   M_c = sum_j em_jc g(x_j) = sum over rows of row (sum_j em_jc weight_j)
// and in reverse its products with d M are made first, and then weighted. Rows come in units of two
// (tables.h). Where few of an atom's neighbours share a cell, each one's g is made by itself.
#pragma once

#include <memory>

#include "cpu/parts/gradients.h"
#include "cpu/parts/net.h"
#include "cpu/parts/node_tables.h"
#include "cpu/parts/tables.h"
#include "cpu/stages/env_mat.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
class RepinitTables {
 public:
  RepinitTables(const Model& model, int threads);
  // On dual numbers, with the tables of those on plain ones.
  RepinitTables(const Model& model, int threads, const RepinitTables<Real<T>>& plain,
                Gradients<Real<T>>* gradients);
  void prepare();
  // Builds the tables for these types (ntypes).
  void build(const std::vector<char>& types);
  // The same from a net that moves, fast, and for gradients (node_tables.h).
  void follow(const std::vector<char>& types, const Workspace& w);
  // On dual numbers: the tables on plain ones have changed.
  void adopt();

  // Places of all neighbours in their tables; null when there is none or one of them lies outside.
  TablePlace<T>* places(const Workspace& w, const Env<T>& env, int i, bool slopes) const;
  // M (4, padded ng) but for its 1/nsel.
  void moment(const Workspace& w, const Env<T>& env, int i, const TablePlace<T>* places, T* moment) const;
  // Assigns dem and dsw of the atom's pairs from d M.
  void moment_backward(const Workspace& w, Env<T>* env, int i, const TablePlace<T>* places,
                       const T* dmoment) const;
  // Of dual numbers, from d M: adds to the gradients of the tables and of the gates.
  void add_gradients(const Workspace& w, const Env<T>& env, int i, const TablePlace<T>* places,
                     const T* dmoment) const;
  // Adds the tables' gradients to those of the net and of the type embedding.
  void add_gradient(Model* gradient, const Workspace& w) const;
  // Strip mode: T(t_j, t_i), (padded ng). Where it is inlined, GCC contracts the products around it in
  // another way, which changes the last bits of results.
  __attribute__((noinline)) const Real<T>* gate(int center, int neighbor) const;

 private:
  template <class>
  friend class RepinitTables;
  struct Units;
  // Instead of by units, where few neighbours share a cell (repinit_one_by_one.cpp).
  bool few_share_cells(const Workspace& w, int i, const TablePlace<T>* places) const;
  void moment_one_by_one(const Workspace& w, const Env<T>& env, int i, const TablePlace<T>* places,
                         T* moment) const;
  void backward_one_by_one(const Workspace& w, Env<T>* env, int i, const TablePlace<T>* places,
                           const T* dmoment) const;
  template <bool STRIP, int B>
  void channels_one_by_one(const Env<T>& env, std::size_t e0, int n, const TablePlace<T>* places,
                           const Real<T>* const* gates, int m, T* moment) const;
  template <bool STRIP>
  void pairs_one_by_one(Env<T>* env, std::size_t e0, int n, const TablePlace<T>* places,
                        const Real<T>* const* gates, const T* dmoment) const;
  const Real<T>** gates(const Workspace& w, int i) const;
  void compressed_place(T x, TablePlace<T>* p) const;
  bool places_lanes(const Workspace& w, const Env<T>& env, int i, int j, bool slopes,
                    TablePlace<T>* places) const;
  Units units(const Workspace& w, int i, const TablePlace<T>* places) const;
  template <bool STRIP>
  void moment_of(const Workspace& w, const Env<T>& env, int i, const TablePlace<T>* places, T* moment) const;
  template <bool STRIP>
  void moment_of_backward(const Workspace& w, Env<T>* env, int i, const TablePlace<T>* places,
                          const T* dmoment) const;
  void unit_products(const Units& u, const T* dmoment, const T* gate, T* out, Arena& arena) const;
  T* unit_weights(const Workspace& w, const Env<T>& env, int i, const TablePlace<T>* places,
                  const Units& u) const;
  // How much of T(t_j, t_i) opens the gate of a neighbour.
  T opening(const Env<T>& env, std::size_t row) const { return model_.smooth ? env.sw[row] : T(1); }
  void make_room_for_units(int count);

  const Model& model_;
  int threads_;
  std::shared_ptr<Tables<Real<T>>> tables_;
  Weights<T> compressed_;                    // (rows, 6, padded ng): DeePMD-kit's table in place of the net
  Weights<T> gate_;                          // (nt or 1, nt, padded ng)
  std::shared_ptr<NodeTables> node_tables_;  // of follow()
  TableGradient<Real<T>>* table_gradient_ = nullptr;  // (units, 2, padded ng), dual numbers only
  GroupSums* gate_gradient_ = nullptr;                // strip_table
  mutable std::vector<int> unit_slot_;                // (threads, unit_count_) scratch of units(), full of -1
  int unit_count_ = 0;                                // units of all tables
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
