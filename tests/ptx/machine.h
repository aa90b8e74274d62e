// A GPU's blocks, warps, memory and barriers, for kernels that translate.py made of PTX: what nvcc made of
// the CUDA code then runs on the host, with the checks of compute-sanitizer's memcheck, initcheck, racecheck
// and synccheck on every instruction. Races are also looked for between blocks, in global memory, by the
// rules of the memory model: threads of a block are ordered by barriers alone, lanes of a warp by __syncwarp
// too (not by shuffles), blocks of a launch by nothing.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "instructions.h"

namespace ptx {

// Where an instruction stands: line of the PTX, file and line of the source.
struct Site {
  int ptx_line;
  const char* file;
  int line;
};

// Operands of all lanes of mma.sync.m16n8k8 (tf32), mma.sync.m16n8k16 (f16) and mma.sync.m8n8k4 (f64), and a
// lane's results.
struct MmaTf32 {
  u32 a[4], b[2];
  float c[4];
  float d[4];
};
struct MmaF16 {
  u32 a[4], b[2];
  float c[4];
  float d[4];
};
struct MmaF64 {
  double a[1], b[1], c[2];
  double d[2];
};

class Block;
struct Run;

struct Thread {
  u32 tid, ntid, ctaid, nctaid;
  unsigned char* shared;
  Block* block;
  u32 barriers = 0, warp_barriers = 0;  // passed

  u32 lane() const { return tid % 32; }
  u32 warp() const { return tid / 32; }

  bool on_stack(u64 at) const;
  // Goes through instructions between two branches (profile.h).
  void visit(const Run* run);

  // Checks an access of generic or global space; one that cannot be done goes elsewhere, so that the kernel
  // can go on.
  void load(u64* at, u32 bytes, const Site* site);
  void store(u64* at, u32 bytes, const Site* site);
  u32 atomic_add(u64 at, u32 value, const Site* site);

  void barrier(const Site* site);
  bool any(bool value, const Site* site);
  void warp_barrier(const Site* site);
  u32 shuffle_bfly(u32 value, u32 lanes, u32 clamp, u32 mask, bool* inside, const Site* site);
  u32 shuffle_up(u32 value, u32 lanes, u32 clamp, u32 mask, bool* inside, const Site* site);
  u32 shuffle_idx(u32 value, u32 from, u32 clamp, u32 mask, bool* inside, const Site* site);
  void multiply(MmaTf32* m, const Site* site);
  void multiply(MmaF16* m, const Site* site);
  void multiply(MmaF64* m, const Site* site);

 private:
  u32 shuffle(u32 value, u32 from, bool inside, u32 mask, const Site* site);
};

// A translated kernel; there is one object for each, which makes it known by its name.
struct Kernel {
  Kernel(const char* name, u32 most_threads, std::vector<std::size_t> parameter_bytes,
         void (*run)(Thread&, unsigned char* const*));
  static const Kernel* find(const std::string& name);

  std::string name;
  u32 most_threads;
  std::vector<std::size_t> parameter_bytes;
  void (*run)(Thread&, unsigned char* const*);
};

// Memory of the device and of the host that the device sees.
void* allocate(std::size_t bytes, bool on_host);
bool release(void* p);  // false where there is none
std::size_t allocated_bytes();
// The host's copies and fills: whether all of [p, p + bytes) lies within an allocation.
bool host_writes(const void* p, std::size_t bytes);
bool host_reads(const void* p, std::size_t bytes);

// All blocks of a launch, one after another; whether nothing was found wrong. What was goes to stderr.
bool launch(const Kernel& kernel, u32 blocks, u32 threads, std::size_t shared_bytes,
            unsigned char* const* parameters);

}  // namespace ptx
