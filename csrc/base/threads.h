// The thread count of one computation. OpenMP regions below follow the calling thread's setting, which is put
// back afterwards: the host program's own setting is not ours to change.
#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif

#include <functional>

namespace dpa2md {

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

// OMP_NUM_THREADS, or all cores; one in a forked process, whose siblings compute too, unless OMP_NUM_THREADS
// is set.
int default_threads();

// `threads`, or the default below 1. Throws Error for more than the machine can use: OpenMP would end the
// process, without a word or with a crash.
int checked_threads(int threads);

// Whether this process was forked from one that had loaded this library.
bool forked();

// Runs `work` with OpenMP regions of so many threads. A forked process has its parent's record of a team of
// threads and none of the threads: a region of the forking thread would wait for them for ever. There the
// work runs on a thread of its own, for which OpenMP makes a new team. Exceptions of `work` come out.
void run_on_threads(int threads, const std::function<void()>& work);

}  // namespace dpa2md
