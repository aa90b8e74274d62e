// The thread count of one computation. OpenMP regions below follow the calling thread's setting, which is put
// back afterwards: the host program's own setting is not ours to change.
#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif

namespace dpa2md {

inline int default_threads() {
#ifdef _OPENMP
  return omp_get_max_threads();  // honours OMP_NUM_THREADS
#else
  return 1;
#endif
}

inline int thread_index() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

class ThreadScope {
 public:
#ifdef _OPENMP
  explicit ThreadScope(int threads) : before_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  ~ThreadScope() { omp_set_num_threads(before_); }

 private:
  int before_;
#else
  explicit ThreadScope(int) {}
#endif
};

}  // namespace dpa2md
