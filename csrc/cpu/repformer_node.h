// What the files of a node step share.
#pragma once

#include "cpu_backend.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// A block of atoms on its way through a node step. Null: the layer has no such update.
template <class T>
struct CpuBackend<T>::NodeBlock {
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
struct CpuBackend<T>::NodeRow {
  T *cat_g1, *cat_conv, *grrg, *drrd;  // its columns of the concatenation
  T *conv, *u, *weighted;
};

// d(Neighborhood); sw and the pair state are added to.
template <class T>
struct CpuBackend<T>::NeighborhoodGradient {
  T *g2, *h2, *sw, *gg1;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
