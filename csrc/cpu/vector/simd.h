// Vectors of the instruction set that this translation unit is compiled for. The files of csrc/cpu are
// compiled once per instruction set, each time inside its own namespace DPA2MD_ISA; dispatch.cpp chooses at
// run time.
#pragma once

#include <utility>

#include "base/dual.h"

#ifndef DPA2MD_ISA
#error "compile csrc/cpu with -DDPA2MD_ISA=<name> (see CMakeLists.txt)"
#endif

// For functions of single vectors, whose calls would pass them through memory. Without the attribute, GCC
// inlines them or not, depending on the rest of the file.
#define DPA2MD_INLINE __attribute__((always_inline)) inline

namespace dpa2md {
namespace DPA2MD_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kTileRows = 14;  // rows of a GEMM tile two vectors wide that fit the registers
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kTileRows = 6;
#else
constexpr int kVectorBytes = 16;
constexpr int kTileRows = 6;
#endif

// W numbers of type T, loaded and stored without alignment.
template <class T, int W>
struct Vector {
  typedef T type __attribute__((vector_size(W * sizeof(T)), aligned(sizeof(T)), may_alias));
};

// Of dual numbers: a vector of values and one of tangents.
template <class R, int W>
struct Vector<Dual<R>, W> {
  using type = Dual<typename Vector<R, W>::type>;
};

template <class T>
constexpr int lanes() {
  return kVectorBytes / static_cast<int>(sizeof(Real<T>));
}

// n filled up to whole vectors.
inline int padded(int n, int lanes) { return (n + lanes - 1) / lanes * lanes; }

// Lanes of a and b side by side: index i < W is a's lane i, W + i is b's. (GCC before 12 has not clang's
// builtin.)
template <int... I, class V>
DPA2MD_INLINE V pick_lanes(V a, V b, std::integer_sequence<int, I...>) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, I...);
#else
  typedef decltype(a < b) Places;
  return __builtin_shuffle(a, b, Places{I...});
#endif
}

// Every second of the lanes of a and b, from FIRST (0 or 1) on; and the lower (HALF = 0) or upper lanes of a
// and b in turn.
template <int FIRST, class V, int... I>
DPA2MD_INLINE V every_second(V a, V b, std::integer_sequence<int, I...>) {
  return pick_lanes(a, b, std::integer_sequence<int, (2 * I + FIRST)...>{});
}
template <int HALF, class V, int... I>
DPA2MD_INLINE V in_turn(V a, V b, std::integer_sequence<int, I...>) {
  constexpr int W = sizeof...(I);
  return pick_lanes(a, b, std::integer_sequence<int, (I / 2 + HALF * W / 2 + I % 2 * W)...>{});
}

// W numbers from memory, and to it. Dual numbers lie there as value, tangent, value, ...
template <int W, class T>
DPA2MD_INLINE typename Vector<T, W>::type load(const T* p) {
  if constexpr (!is_dual<T>) {
    return *reinterpret_cast<const typename Vector<T, W>::type*>(p);
  } else {
    using V = typename Vector<Real<T>, W>::type;
    const V* v = reinterpret_cast<const V*>(p);
    if constexpr (W == 1) {
      return {v[0], v[1]};
    } else {
      constexpr auto each = std::make_integer_sequence<int, W>{};
      return {every_second<0>(v[0], v[1], each), every_second<1>(v[0], v[1], each)};
    }
  }
}
template <int W, class T>
DPA2MD_INLINE void store(T* p, typename Vector<T, W>::type x) {
  if constexpr (!is_dual<T>) {
    *reinterpret_cast<typename Vector<T, W>::type*>(p) = x;
  } else {
    using V = typename Vector<Real<T>, W>::type;
    V* v = reinterpret_cast<V*>(p);
    if constexpr (W == 1) {
      v[0] = x.value, v[1] = x.tangent;
    } else {
      constexpr auto each = std::make_integer_sequence<int, W>{};
      v[0] = in_turn<0>(x.value, x.tangent, each), v[1] = in_turn<1>(x.value, x.tangent, each);
    }
  }
}
// x in every lane
template <int W, class T>
DPA2MD_INLINE typename Vector<T, W>::type spread(T x) {
  using V = typename Vector<Real<T>, W>::type;
  if constexpr (is_dual<T>) {
    return {V{} + x.value, V{} + x.tangent};
  } else {
    return V{} + x;
  }
}
template <int W, class T>
DPA2MD_INLINE void add(T* p, typename Vector<T, W>::type x) {
  if constexpr (!is_dual<T>) {
    *reinterpret_cast<typename Vector<T, W>::type*>(p) += x;
  } else {
    store<W>(p, load<W>(p) + x);
  }
}

// Calls f(i, w) for vectors of w numbers from i on, and single ones at the end, of 0 … n-1; w is a constant.
// For dual numbers: compilers make no vectors of `omp simd` loops over them.
template <class T, class F>
DPA2MD_INLINE void for_lanes(int n, const F& f) {
  constexpr int W = lanes<T>();
  int i = 0;
  for (; i + W <= n; i += W) f(i, std::integral_constant<int, W>{});
  for (; i < n; ++i) f(i, std::integral_constant<int, 1>{});
}

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
