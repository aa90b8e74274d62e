// For tests that are built once per instruction set: whether this processor can run the one they were built
// for.
#pragma once

constexpr int kSkipped = 77;  // exit status that ctest counts as skipped

inline bool processor_has_isa() {
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}
