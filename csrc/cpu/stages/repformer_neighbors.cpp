// The neighbourhoods of a layer, and the shares of its neighbours' gradients.
#include <algorithm>

#include "cpu/stages/repformer_node.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// ---- the neighbours' g1, g2, h2 and switch

template <class T>
void Repformers<T>::gather_g1(int l, int i, T* gg1) {
  const int width = rep().g1_dim, n = pairs().repformer.count[i];
  const std::int32_t* row = pairs().row.data() + pairs().repinit.first[i];
  const T* rows = g1(l);
  for (int j = 0; j < n; ++j) {
    const T* source = rows + static_cast<std::size_t>(row[j]) * width;
    std::copy(source, source + width, gg1 + static_cast<std::size_t>(j) * width);
  }
}

// The neighbourhood of an atom for a layer.
template <class T>
typename Repformers<T>::Neighborhood Repformers<T>::neighborhood(int l, int i, bool with_g1, Arena& arena) {
  Neighborhood a = bare_neighborhood(l, i, arena);
  a.g2 = g2_of(l, i, arena);
  if (with_g1) {
    a.gg1 = arena.take<T>(static_cast<std::size_t>(a.n) * rep().g1_dim);
    gather_g1(l, i, a.gg1);
  }
  return a;
}

// The neighbourhood for a node step. In a radial layer, g2 comes from the table and g1 is not copied.
template <class T>
typename Repformers<T>::Neighborhood Repformers<T>::node_neighborhood(int l, int i, bool slopes,
                                                                      Arena& arena) {
  const RadialPlaces* places = nullptr;
  if constexpr (!is_dual<T>) {
    if (l < radial_layers_) places = radial_places(i, slopes, arena);
  }
  if (!places) return neighborhood(l, i, node_reads_gg1(), arena);
  Neighborhood a = bare_neighborhood(l, i, arena);
  a.places = places;
  T* g2 = arena.take<T>(static_cast<std::size_t>(a.n) * rep().g2_dim);
  T* s = arena.take<T>(3 * static_cast<std::size_t>(rep().g2_dim));
  if constexpr (!is_dual<T>) radial_g2(l, a, g2, s);
  a.g2 = g2, a.g2_moments = s;
  return a;
}

template <class T>
typename Repformers<T>::Neighborhood Repformers<T>::bare_neighborhood(int l, int i, Arena& arena) {
  Neighborhood a;
  a.n = pairs().repformer.count[i];
  a.q0 = pairs().repformer.first[i];
  a.h2 = h2(l, i);
  a.sw = arena.take<T>(a.n);
  for (int j = 0; j < a.n; ++j) a.sw[j] = model_.smooth ? env_.sw[a.q0 + j] : T(1);
  return a;
}

// Pointers to the neighbours' rows of g1.
template <class T>
const T** Repformers<T>::rows_of_g1(int l, int i, Arena& arena) {
  const int n = pairs().repformer.count[i];
  const std::int32_t* row = pairs().row.data() + pairs().repinit.first[i];
  const T** rows = arena.take<const T*>(n);
  for (int j = 0; j < n; ++j) rows[j] = g1(l) + static_cast<std::size_t>(row[j]) * rep().g1_dim;
  return rows;
}

// ---- the pairs' shares of their neighbours' d g1

// The shares of the block's pairs, before any is added.
template <class T>
void Repformers<T>::clear_shares(Range range) {
  const std::size_t width = rep().g1_dim;
  dgg1_.zero(g1_shares_.begin(range.begin) * width, g1_shares_.end(range.begin) * width);
}

template <class T>
void Repformers<T>::start_g1_gradient(int l) {
  const std::int64_t size = static_cast<std::int64_t>(g1_stride_), part = 1 << 16;
#pragma omp parallel for schedule(static) if (work_.threads > 1)
  for (std::int64_t k = 0; k < size; k += part) std::fill_n(dg1(l) + k, std::min(part, size - k), T(0));
}

template <class T>
void Repformers<T>::gather_g1_gradient(int l, Range atoms) {
  if (!any_reads_gg1()) return;
  const std::size_t width = rep().g1_dim;
  const Shares::Span& c = g1_shares_.of_atom(atoms.begin);
  const int rows = static_cast<int>(c.row.size());
#pragma omp parallel for schedule(static) if (work_.threads > 1)
  for (int k = 0; k < rows; ++k) {
    T* d = dg1(l) + c.row[k] * width;
    for (std::int32_t s = c.row_first[k]; s < c.row_first[k + 1]; ++s) {
      axpy(rep().g1_dim, Real<T>(1), dgg1_.data() + c.row_slot[s] * width, d);
    }
  }
}

#define DPA2MD_INSTANTIATE(T)                                                                             \
  template typename Repformers<T>::Neighborhood Repformers<T>::neighborhood(int, int, bool, Arena&);      \
  template typename Repformers<T>::Neighborhood Repformers<T>::node_neighborhood(int, int, bool, Arena&); \
  template const T** Repformers<T>::rows_of_g1(int, int, Arena&);                                         \
  template void Repformers<T>::clear_shares(Range);                                                       \
  template void Repformers<T>::start_g1_gradient(int);                                                    \
  template void Repformers<T>::gather_g1_gradient(int, Range);
DPA2MD_INSTANTIATE(float)
DPA2MD_INSTANTIATE(double)
DPA2MD_INSTANTIATE(Dual<float>)
DPA2MD_INSTANTIATE(Dual<double>)

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
