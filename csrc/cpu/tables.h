// The tables of an embedding in the backend's precision: which one belongs to two types, and where a number
// falls in it.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "../compressed_table.h"
#include "../function_table.h"
#include "memory.h"

namespace dpa2md {
namespace DPA2MD_ISA {

constexpr int kTripleLanes = 8;  // channels of a three-body table that are looked up at once

template <class T>
struct Table {
  double lower = 0, inverse_width = 0;
  int cells = 0;
  T slope_scale = 0;  // 1 / width
  Buffer<T> node;     // (cells + 1, 4, padded channels)

  bool covers(T x) const {
    const double at = (double(x) - lower) * inverse_width;
    return at >= 0 && at <= cells;
  }
  // Rows of channels take `padded` numbers.
  void set(const FunctionTable& from, int padded) {
    lower = from.lower, inverse_width = 1.0 / from.width, cells = from.cells;
    slope_scale = T(1.0 / from.width);
    node.resize(static_cast<std::size_t>(from.cells + 1) * 4 * padded);
    node.zero(0, node.size());
    for (int row = 0; row < 4 * (from.cells + 1); ++row) {
      for (int m = 0; m < from.channels; ++m) {
        node[static_cast<std::size_t>(row) * padded + m] =
            T(from.node[static_cast<std::size_t>(row) * from.channels + m]);
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

  void start(int nt, int channels, int lanes) {
    nt_ = nt, padded_ = (channels + lanes - 1) / lanes * lanes;
    of_.assign(static_cast<std::size_t>(nt) * nt, nullptr);  // none with nt = 0
    owned_.clear();
  }
  // An empty table is not kept.
  const Table<T>* add(const FunctionTable& from) {
    if (from.empty()) return nullptr;
    owned_.push_back(std::make_unique<Table<T>>());
    owned_.back()->set(from, padded_);
    return owned_.back().get();
  }
  void set(int a, int b, const Table<T>* table) { of_[a * nt_ + b] = table; }

 private:
  int nt_ = 0, padded_ = 0;
  std::vector<const Table<T>*> of_;
  std::vector<std::unique_ptr<Table<T>>> owned_;
};

// Where a number falls: value = node[0] + sum_k value[k] * piece k, slope = sum_k slope[k] * piece k. The
// pieces are node[1 … 3] and tail[0], tail[1], rows of channels. Hermite tables have the weights of
// table_value_weights and table_slope_weights (the latter with the cell width divided out), and their tail is
// part of the next node.
template <class T>
struct TablePlace {
  const T *node, *tail;
  T value[5], slope[5];
};

// As many numbers as a vector has doubles: `at` counts cells from the table's lower end, inside the table. It
// is double: in float32 the place in the cell would lose the digits that the slope needs. cell (W), value and
// slope (5, ld) as far as they are asked for.
template <bool VALUES, bool SLOPES, class T, class Doubles, class Ints, class Scale>
DPA2MD_INLINE void place_lanes(Doubles at, Ints cells, Scale slope_scale, int ld, int* cell, T* value,
                               T* slope) {
  using V = typename Vector<T, lanes<double>()>::type;
  Ints in = __builtin_convertvector(at, Ints);
  in = in < cells ? in : cells - 1;
  const V t = __builtin_convertvector(at - __builtin_convertvector(in, Doubles), V);
  *reinterpret_cast<Ints*>(cell) = in;
  V w[5];
  if constexpr (VALUES) {
    table_value_weights<T>(t, w);
    for (int q = 0; q < 5; ++q) *reinterpret_cast<V*>(value + q * ld) = w[q];
  }
  if constexpr (SLOPES) {
    table_slope_weights<T>(t, w);
    for (int q = 0; q < 5; ++q) *reinterpret_cast<V*>(slope + q * ld) = w[q] * slope_scale;
  }
}

// In one table.
template <bool VALUES, bool SLOPES, class T>
DPA2MD_INLINE void place_lanes(const Table<T>& table, typename Vector<T, lanes<double>()>::type x, int ld,
                               int* cell, T* value, T* slope) {
  using Doubles = typename Vector<double, lanes<double>()>::type;
  using Ints = typename Vector<int, lanes<double>()>::type;
  place_lanes<VALUES, SLOPES>((__builtin_convertvector(x, Doubles) - table.lower) * table.inverse_width,
                              Ints{} + table.cells, table.slope_scale, ld, cell, value, slope);
}

// The table of a compressed model, `node` (rows, 6, padded): powers of the place in the cell, and beyond the
// table's ends its slope there.
template <class T>
inline void place(const CompressedPlace& at, const T* node, int padded, TablePlace<T>* p) {
  p->node = node + static_cast<std::size_t>(at.cell) * 6 * padded;
  p->tail = p->node + 4 * padded;
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
