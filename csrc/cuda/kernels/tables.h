// Embedding nets as tables (embedding_tables.h) on the device: where a number falls in one, and what is
// there.
#pragma once

#include "cuda/kernels/views.h"
#include "model/function_table.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// Value and slope weights of a place, and its first number; the place in the cell is computed in double,
// because in float32 it would lose the digits that the slope needs.
template <class T>
struct TablePlace {
  const T* node;  // (8, channels) from here: four rows of either node of the cell
  T value[5], slope[5];
};

template <class T>
DPA2MD_KERNEL bool covers(const TableView<T>& t, T x) {
  const double at = (double(x) - t.lower) * t.inverse_width;
  return t.node && at >= 0 && at <= t.cells;
}

template <class T>
DPA2MD_KERNEL void place(const TableView<T>& t, int channels, T x, TablePlace<T>* p) {
  const double at = (double(x) - t.lower) * t.inverse_width;
  int cell = static_cast<int>(at);
  cell = cell < 0 ? 0 : cell > t.cells - 1 ? t.cells - 1 : cell;
  const T in_cell = T(at - cell);
  p->node = t.node + static_cast<std::size_t>(cell) * 4 * channels;
  table_value_weights<T>(in_cell, p->value);
  table_slope_weights<T>(in_cell, p->slope);
  for (T& s : p->slope) s *= T(t.inverse_width);
}

// Channels m … m + 3 at a place.
template <class T>
DPA2MD_KERNEL void look_up_four(const TablePlace<T>& p, int channels, int m, T* value, T* slope) {
  const auto row = [&](int r) { return four(p.node + r * channels + m); };
  const Four<T> base = row(0), d[5] = {row(1), row(2), row(3), row(6), row(7)};
  DPA2MD_UNROLL
  for (int c = 0; c < 4; ++c) {
    T v = base.x[c], s = 0;
    DPA2MD_UNROLL
    for (int k = 0; k < 5; ++k) v += p.value[k] * d[k].x[c], s += p.slope[k] * d[k].x[c];
    value[c] = v;
    slope[c] = s;
  }
}

// Channel m at a place.
template <class T>
DPA2MD_KERNEL void look_up(const TablePlace<T>& p, int channels, int m, T* value, T* slope) {
  const T *a = p.node + m, *b = a + 4 * channels;
  const T d[5] = {a[channels], a[2 * channels], a[3 * channels], b[2 * channels], b[3 * channels]};
  T v = a[0], s = 0;
  DPA2MD_UNROLL
  for (int k = 0; k < 5; ++k) v += p.value[k] * d[k], s += p.slope[k] * d[k];
  *value = v;
  *slope = s;
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
