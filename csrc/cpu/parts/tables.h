// The tables of an embedding in the backend's precision: the table of two types, and the cell of a number.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "cpu/vector/memory.h"
#include "model/compressed_table.h"
#include "model/function_table.h"

namespace dpa2md {
namespace DPA2MD_ISA {

constexpr int kTripleLanes = 8;  // channels of a three-body table that are looked up at once

template <class T>
struct Table {
  T inverse_width = 0;  // of a cell: a power of two
  int first = 0;        // cell, counted from zero
  int cells = 0;
  int first_unit = 0;              // see TablePlace
  Buffer<T> node;                  // (cells + 1, 4, padded channels)
  const Table* coarser = nullptr;  // of its beginning

  bool covers(T x) const {
    const T at = x * inverse_width;
    return at >= T(first) && at <= T(first + cells);
  }
  // The table of the largest cells that covers what this one covers.
  const Table* coarsest(T x) const {
    const Table* t = this;
    while (t->coarser && t->coarser->covers(x)) t = t->coarser;
    return t;
  }
  // Rows of `channels` channels, from `channel` on, take `padded` numbers.
  void set(const FunctionTable& from, int channel, int channels, int padded) {
    inverse_width = T(1.0 / from.width), first = static_cast<int>(from.lower / from.width),
    cells = from.cells;
    node.resize(static_cast<std::size_t>(from.cells + 1) * 4 * padded);
    node.zero(0, node.size());
    for (int row = 0; row < 4 * (from.cells + 1); ++row) {
      for (int m = 0; m < channels; ++m) {
        node[static_cast<std::size_t>(row) * padded + m] =
            T(from.node[static_cast<std::size_t>(row) * from.channels + channel + m]);
      }
    }
  }
};

// Tables of an embedding by two types; null where the net itself is to be used.
template <class T>
class Tables {
 public:
  // A row of channels takes this many numbers.
  int padded_channels() const { return padded_; }
  const Table<T>* operator()(int a, int b) const { return of_.empty() ? nullptr : of_[a * nt_ + b]; }
  bool empty() const { return of_.empty(); }
  // Calls f for every table, in the order of their units.
  template <class F>
  void each(const F& f) const {
    for (const auto& table : owned_) f(*table);
  }
  int units() const { return units_; }

  void start(int nt, int channels, int lanes) {
    nt_ = nt, padded_ = (channels + lanes - 1) / lanes * lanes;
    of_.assign(static_cast<std::size_t>(nt) * nt, nullptr);  // none with nt = 0
    owned_.clear();
    units_ = 0;
  }
  // An empty table is not kept.
  const Table<T>* add(const FunctionTable& from, const std::vector<FunctionTable>& coarser = {}) {
    if (from.empty()) return nullptr;
    const Table<T>* last = nullptr;
    for (auto t = coarser.rbegin(); t != coarser.rend(); ++t) last = add_one(*t, last);
    return add_one(from, last);
  }
  void set(int a, int b, const Table<T>* table) { of_[a * nt_ + b] = table; }

 private:
  const Table<T>* add_one(const FunctionTable& from, const Table<T>* coarser) {
    owned_.push_back(std::make_unique<Table<T>>());
    owned_.back()->set(from, 0, from.channels, padded_);
    owned_.back()->first_unit = units_, owned_.back()->coarser = coarser;
    units_ += 2 * (from.cells + 1);
    return owned_.back().get();
  }

  int nt_ = 0, padded_ = 0, units_ = 0;
  std::vector<const Table<T>*> of_;
  std::vector<std::unique_ptr<Table<T>>> owned_;
};

// The cell of a number and its interpolation weights: value = node[0] + sum_k value[k] * piece k, slope =
// sum_k slope[k] * piece k. The pieces are node[1 … 3] and tail[0], tail[1], rows of channels. Hermite tables
// have the weights of table_value_weights and table_slope_weights (the latter divided by the cell width), and
// their tail is part of the next node. Rows come in units of two: `unit` numbers those of node[0, 1], node[2,
// 3] and tail among all units of an embedding, so that units shared by several places are recognised.
template <class T>
struct TablePlace {
  const Real<T>*node, *tail;
  T value[5], slope[5];
  int unit[3];
};

// Finds the cells (W) and the weights of a vector of numbers inside their tables: `at` = x / width, exact.
// cell counts from the table's first; value and slope (5, ld) are assigned if asked for.
// Plain is V, or of dual numbers their values.
template <bool VALUES, bool SLOPES, class T, class V, class Plain, class Ints>
DPA2MD_INLINE void place_lanes(V at, [[maybe_unused]] Plain inverse_width, Ints first, Ints cells, int ld,
                               int* cell, T* value, [[maybe_unused]] T* slope) {
  constexpr int W = lanes<T>();
  Ints whole = __builtin_convertvector(value_of(at), Ints);
  whole += __builtin_convertvector(__builtin_convertvector(whole, Plain) > value_of(at),
                                   Ints);  // the next lower: adds -1
  Ints in = whole - first;
  in = in < cells ? in : cells - 1;
  const V t = at - __builtin_convertvector(in + first, Plain);
  *reinterpret_cast<typename Vector<int, W>::type*>(cell) = in;
  V w[5];
  if constexpr (VALUES) {
    table_value_weights<Real<T>>(t, w);
    for (int q = 0; q < 5; ++q) store<W>(value + q * ld, w[q]);
  }
  if constexpr (SLOPES) {
    table_slope_weights<Real<T>>(t, w);
    for (int q = 0; q < 5; ++q) store<W>(slope + q * ld, w[q] * inverse_width);
  }
}

// The places of a vector of numbers in one table.
template <bool VALUES, bool SLOPES, class T>
DPA2MD_INLINE void place_lanes(const Table<Real<T>>& table, typename Vector<T, lanes<T>()>::type x, int ld,
                               int* cell, T* value, T* slope) {
  using V = typename Vector<T, lanes<T>()>::type;
  using Plain = typename Vector<Real<T>, lanes<T>()>::type;
  using Ints = typename Vector<int, lanes<T>()>::type;
  const Plain inverse_width = Plain{} + table.inverse_width;
  place_lanes<VALUES, SLOPES, T, V, Plain, Ints>(x * inverse_width, inverse_width, Ints{} + table.first,
                                                 Ints{} + table.cells, ld, cell, value, slope);
}

// A compressed model's table (rows, ng, 6) as (rows, 6, padded ng).
template <class T>
inline Weights<T> coefficients_by_power(const Embedding& e) {
  const std::size_t np = padded(e.ng, lanes<T>()), rows = e.table.coefficients.data.size() / (6 * e.ng);
  Weights<T> out;
  out.resize(rows * 6 * np);
  out.zero(0, out.size());
  const double* from = e.table.coefficients.data.data();
  for (std::size_t r = 0; r < rows; ++r) {
    for (int m = 0; m < e.ng; ++m) {
      for (int k = 0; k < 6; ++k) out[(r * 6 + k) * np + m] = Real<T>(*from++);
    }
  }
  return out;
}

// The table of a compressed model, `node` (rows, 6, padded): powers of the place in the cell, and beyond the
// table's ends its slope there.
template <class T>
inline void place(const CompressedPlace& at, const T* node, int padded, TablePlace<T>* p) {
  p->node = node + static_cast<std::size_t>(at.cell) * 6 * padded;
  p->tail = p->node + 4 * padded;
  for (int q = 0; q < 3; ++q) p->unit[q] = 3 * at.cell + q;
  const T h = T(at.x), beyond = T(at.beyond);
  T power = 1;
  for (int k = 0; k < 5; ++k, power *= h) {
    p->slope[k] = T(k + 1) * power;
    p->value[k] = power * h + beyond * p->slope[k];
  }
}

// Value and slope of W channels at a place; `node` and `tail` are the place's, advanced to the first of them.
template <int W, class T>
DPA2MD_INLINE typename Vector<T, W>::type table_value(const T* node, const T* tail, int padded, const T* w) {
  using V = typename Vector<T, W>::type;
  const auto at = [&](const T* from, int row) { return *reinterpret_cast<const V*>(from + row * padded); };
  return at(node, 0) + w[0] * at(node, 1) + w[1] * at(node, 2) + w[2] * at(node, 3) + w[3] * at(tail, 0) +
         w[4] * at(tail, 1);
}
template <int W, class T>
DPA2MD_INLINE typename Vector<T, W>::type table_slope(const T* node, const T* tail, int padded, const T* w) {
  using V = typename Vector<T, W>::type;
  const auto at = [&](const T* from, int row) { return *reinterpret_cast<const V*>(from + row * padded); };
  return w[0] * at(node, 1) + w[1] * at(node, 2) + w[2] * at(node, 3) + w[3] * at(tail, 0) +
         w[4] * at(tail, 1);
}

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
