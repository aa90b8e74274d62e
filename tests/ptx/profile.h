// What a launch costs, counted: instructions of warps by the pipe that does them, passes through shared
// memory (bank conflicts), sectors of global memory. With DPA2MD_PTX_PROFILE=FILE the counts of all kernels
// are written there when the program ends.
#pragma once

#include "machine.h"

namespace ptx {

// Instructions that follow each other without a branch, as a warp issues them on sm_90, by pipe.
enum Pipe {
  kFloat,
  kDouble,
  kInteger,
  kSpecial,
  kBranch,
  kShuffle,
  kTensor,
  kTensorDouble,
  kBarrier,
  kPipes
};
struct Run {
  const char* file;
  int line;
  float count[kPipes];
};

extern const bool profiling;

void profile_launch(const Kernel& kernel, u32 blocks);
void profile_access(const Thread& t, const Site* site, u64 at, u32 bytes, bool store, bool shared);
void profile_run(const Thread& t, const Run* run);
// All threads of a block are at the same place.
void profile_together();
void profile_block_end();

}  // namespace ptx
