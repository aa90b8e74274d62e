// Vectors of the instruction set that this translation unit is compiled for. The files of csrc/cpu are
// compiled once per instruction set, each time inside its own namespace DPA2MD_ISA; dispatch.cpp chooses at
// run time.
#pragma once

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

template <class T>
constexpr int lanes() {
  return kVectorBytes / static_cast<int>(sizeof(T));
}

// n filled up to whole vectors.
inline int padded(int n, int lanes) { return (n + lanes - 1) / lanes * lanes; }

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
