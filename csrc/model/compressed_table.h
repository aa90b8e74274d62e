// A compressed model's embedding: quintic pieces of em_0, linear beyond both ends. The cell arithmetic
// follows the original's precision, because the number of fine cells is a truncated quotient.
#pragma once

#include <cstdint>

#include "model/model.h"

namespace dpa2md {

struct CompressedGrid {
  double lower = 0, upper = 0, maximum = 0, stride0 = 0, stride1 = 0;
  int rows = 0;
};
inline CompressedGrid compressed_grid(const EmbeddingTable& t) {
  return {t.lower, t.upper, t.maximum, t.stride0, t.stride1, static_cast<int>(t.coefficients.shape[0])};
}

struct CompressedPlace {
  std::int64_t cell;
  double x, beyond;  // coordinate in the cell, and past an end of the table
};

template <class R>
DPA2MD_HD CompressedPlace compressed_place_in(const CompressedGrid& t, R x) {
  const R lower = R(t.lower), upper = R(t.upper), maximum = R(t.maximum), fine = R(t.stride0),
          coarse = R(t.stride1);
  const int fine_cells = int((upper - lower) / fine);
  int cell = 0;
  R beyond = 0;
  if (x < lower) {
    beyond = x - lower, x = 0;
  } else if (x < upper) {
    cell = int((x - lower) / fine);
    x -= cell * fine + lower;
  } else if (x < maximum) {
    cell = fine_cells + int((x - upper) / coarse);
    x -= (cell - fine_cells) * coarse + upper;
  } else {
    cell = fine_cells + int((std::nextafter(maximum, lower) - upper) / coarse);
    beyond = x - maximum;
    x = maximum - ((cell - fine_cells) * coarse + upper);
  }
  cell = cell < 0 ? 0 : cell > t.rows - 1 ? t.rows - 1 : cell;
  return {cell, double(x), double(beyond)};
}
DPA2MD_HD CompressedPlace compressed_place(const CompressedGrid& t, bool single, double x) {
  return single ? compressed_place_in<float>(t, float(x)) : compressed_place_in<double>(t, x);
}

// Value and slope of one channel; a: its six coefficients in the cell.
template <class T>
DPA2MD_HD void compressed_value(const T* a, T h, T beyond, T* value, T* slope) {
  const T d = a[1] + h * (2 * a[2] + h * (3 * a[3] + h * (4 * a[4] + h * 5 * a[5])));
  *value = a[0] + h * (a[1] + h * (a[2] + h * (a[3] + h * (a[4] + h * a[5])))) + beyond * d;
  *slope = d;
}

}  // namespace dpa2md
