// The time of every stage, summed over threads.
#pragma once

#include <array>
#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "base/threads.h"
#include "engine/stages.h"

namespace dpa2md {

class StageClock {
 public:
  explicit StageClock(int threads) : slots_(threads) {}

  template <class Work>
  void time(Stage stage, Work work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> used = std::chrono::steady_clock::now() - start;
    Slot& slot = slots_[thread_index()];
    slot.seconds[static_cast<int>(stage)] += used.count();
    slot.calls[static_cast<int>(stage)] += 1;
  }

  // Returns the seconds of each stage that ran since the last call, and resets them.
  std::map<std::string, double> take() {
    std::map<std::string, double> total;
    for (Slot& slot : slots_) {
      for (const StageInfo& s : kStageTable) {
        const int k = static_cast<int>(s.stage);
        if (slot.calls[k]) total[s.name] += slot.seconds[k];
      }
      slot = {};
    }
    return total;
  }

 private:
  struct alignas(64) Slot {  // one a thread
    std::array<double, kStages> seconds = {};
    std::array<int, kStages> calls = {};
  };
  std::vector<Slot> slots_;
};

}  // namespace dpa2md
