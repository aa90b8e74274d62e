// The moments of repinit from tables of the distance, or from a compressed model's own table. Neighbours meet
// in few cells of a table (most are far, where the switch has made em_0 small), so that each of its rows is
// taken once an atom, whatever the number of neighbours that look it up:
//   M_c = sum_j em_jc g(x_j) = sum over rows of row (sum_j em_jc weight_j)
// and in reverse its products with d M are made first, and then weighted. Rows come in units of two
// (tables.h).
#pragma once

#include "cpu/stages/env_mat.h"
#include "cpu/tables.h"
#include "cpu/vector/net.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
class RepinitTables {
 public:
  RepinitTables(const Model& model, int threads);
  void prepare();
  // Builds the tables for these types (ntypes).
  void build(const std::vector<char>& types);

  // Places of all neighbours in their tables; null when there is none or one of them lies outside.
  TablePlace<T>* places(const Workspace& w, const Env<T>& env, int i, bool slopes) const;
  // M (4, padded ng) but for its 1/nsel.
  void moment(const Workspace& w, const Env<T>& env, int i, const TablePlace<T>* places, T* moment) const;
  // Assigns dem and dsw of the atom's pairs from d M.
  void moment_backward(const Workspace& w, Env<T>* env, int i, const TablePlace<T>* places,
                       const T* dmoment) const;
  // Strip mode: T(t_j, t_i), (padded ng). Where it is inlined, GCC contracts the products around it in
  // another way, which changes the last bits of results.
  __attribute__((noinline)) const T* gate(int center, int neighbor) const;

 private:
  struct Units;
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
  // How much of T(t_j, t_i) opens the gate of a neighbour.
  T opening(const Env<T>& env, std::size_t row) const { return model_.smooth ? env.sw[row] : T(1); }
  void make_room_for_units(int count);

  const Model& model_;
  int threads_;
  Tables<T> tables_;
  Buffer<T> compressed_;                // (rows, 6, padded ng): DeePMD-kit's table in place of the net
  Buffer<T> gate_;                      // (nt or 1, nt, padded ng)
  mutable std::vector<int> unit_slot_;  // (threads, unit_count_) scratch of units(), full of -1
  int unit_count_ = 0;                  // units of all tables
};

// The sweep of dual numbers evaluates the net.
template <class R>
class RepinitTables<Dual<R>> {
 public:
  using T = Dual<R>;
  RepinitTables(const Model& model, int) : model_(model) {}
  void prepare() { gate_ = cast_padded<T>(model_.repinit.strip_table, model_.repinit.ng); }
  void build(const std::vector<char>&) {}
  TablePlace<T>* places(const Workspace&, const Env<T>&, int, bool) const { return nullptr; }
  void moment(const Workspace&, const Env<T>&, int, const TablePlace<T>*, T*) const {}
  void moment_backward(const Workspace&, Env<T>*, int, const TablePlace<T>*, const T*) const {}
  const R* gate(int center, int neighbor) const {
    const std::size_t row =
        (model_.repinit.one_side ? 0 : static_cast<std::size_t>(center) * model_.ntypes()) + neighbor;
    return gate_.data() + row * padded(model_.repinit.ng, lanes<R>());
  }

 private:
  const Model& model_;
  Buffer<R> gate_;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
