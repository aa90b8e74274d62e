#include "base/threads.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <future>
#include <string>
#include <thread>

#include "base/error.h"

namespace dpa2md {
namespace {

const pid_t loaded_by = getpid();

}  // namespace

int default_threads() {
  if (forked() && !std::getenv("OMP_NUM_THREADS")) return 1;
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

int checked_threads(int threads) {
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  const int most = std::max(64, 4 * cores);
  if (threads > most)
    throw Error(std::to_string(threads) + " threads are too many for the " + std::to_string(cores) +
                " cores of this machine: give at most " + std::to_string(most) + ".");
  return threads > 0 ? threads : default_threads();
}

bool forked() { return getpid() != loaded_by; }

void run_on_threads(int threads, const std::function<void()>& work) {
  const auto scoped = [&] {
    const ThreadScope scope(threads);
    work();
  };
  if (threads > 1 && forked()) {
    std::async(std::launch::async, scoped).get();
  } else {
    scoped();
  }
}

}  // namespace dpa2md
