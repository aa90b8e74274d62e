// What the files of a node step share.
#pragma once

#include <algorithm>

#include "cpu/stages/repformer_state.h"
#include "cpu/vector/lanes.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// A block of atoms on its way through a node step. Null: the layer has no such update.
template <class T>
struct NodeBlock {
  T* cat = nullptr;       // (rows, linear1_in)
  T* mlp = nullptr;       // (rows, g1) act(linear1 cat)
  T* self = nullptr;      // (rows, g1) act(g1_self g1)
  T* conv = nullptr;      // (rows, g1), g1_out_conv only
  T* u = nullptr;         // (rows, head, g1) the queries, ready to meet gg1
  T* weighted = nullptr;  // (rows, head, g1) sum_j a_jh gg1_j
  T* attn = nullptr;      // (rows, g1)
};

// One atom's part of a NodeBlock.
template <class T>
struct NodeRow {
  T *cat_g1, *cat_conv, *grrg, *drrd;  // its columns of the concatenation
  T *conv, *u, *weighted;
};

// ---- sym(S): out[a][d] = sum_x S[x][a] S[x][d] / 3 for a < axis, with S (3, width)
template <class T>
inline void symmetrise(const T* s, int width, int axis, T* out) {
  for (int a = 0; a < axis; ++a) {
    const T x = s[a] / 3, y = s[width + a] / 3, z = s[2 * width + a] / 3;
    for_lanes<T>(width, [&](int d, auto w) {
      store<w>(out + a * width + d,
               load<w>(s + d) * x + load<w>(s + width + d) * y + load<w>(s + 2 * width + d) * z);
    });
  }
}

template <class T>
inline void symmetrise_backward(const T* s, int width, int axis, const T* dout, T* ds) {
  std::fill(ds, ds + 3 * width, T(0));
  for (int a = 0; a < axis; ++a) {
    for (int x = 0; x < 3; ++x) {
      axpy(width, T(s[x * width + a] / 3), dout + a * width, ds + x * width);
      ds[x * width + a] += dot(width, dout + a * width, s + x * width) / 3;
    }
  }
}

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
