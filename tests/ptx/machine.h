// A GPU's blocks, warps, memory and barriers, for kernels that translate.py made of PTX: what nvcc made of
// the CUDA code then runs on the host, with the checks of compute-sanitizer's memcheck, initcheck, racecheck
// and synccheck on every instruction. Races are also looked for between blocks, in global memory, by the
// rules of the memory model: threads of a block are ordered by barriers alone, lanes of a warp by __syncwarp
// too (not by shuffles), blocks of a launch by nothing.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "halves.h"

namespace ptx {

// Where an instruction stands: line of the PTX, file and line of the source.
struct Site {
  int ptx_line;
  const char* file;
  int line;
};

// Operands of all lanes of mma.sync.m16n8k8 (tf32), m16n8k16 (f16) and m8n8k4 (f64), and a lane's results.
struct MmaTf32 {
  u32 a[4], b[2];
  float c[4];
  float d[4];
};
struct MmaF16 {  // two halves in a number of a and b
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

// cp.async that nothing has waited for
struct Copy {
  u64 to, from;
  u32 bytes, taken;  // zeros behind those taken
  u32 group;
};

struct Thread {
  u32 tid, ntid, ctaid, nctaid;
  unsigned char* shared;
  Block* block;
  // passed; a barrier of some warps leaves all of them with the same number, one beyond the largest
  u32 barriers = 0, warp_barriers = 0;
  std::vector<Copy> copies = {};
  u32 copy_groups = 0;

  u32 lane() const { return tid % 32; }
  u32 warp() const { return tid / 32; }

  u32 mask() const { return ntid - tid / 32 * 32 >= 32 ? 0xffffffffu : (1u << ntid % 32) - 1; }

  bool on_stack(u64 at) const;
  bool in_shared(u64 at) const;
  bool in_local(u64 at) const { return on_stack(at); }
  bool in_global(u64 at) const { return !in_shared(at) && !on_stack(at); }
  // Goes through instructions between two branches (profile.h).
  void visit(const Run* run);

  // Checks an access of generic or global space; one that cannot be done goes elsewhere, so that the kernel
  // can go on.
  void load(u64* at, u32 bytes, const Site* site);
  void store(u64* at, u32 bytes, const Site* site);
  u32 atomic_add(u64 at, u32 value, const Site* site);

  void barrier(const Site* site);
  // bar.sync and bar.arrive of `count` threads
  void named_barrier(u32 number, u32 count, bool waits, const Site* site);
  bool any(bool value, const Site* site);
  void warp_barrier(const Site* site);
  u32 shuffle_bfly(u32 value, u32 lanes, u32 clamp, u32 mask, bool* inside, const Site* site);
  u32 shuffle_up(u32 value, u32 lanes, u32 clamp, u32 mask, bool* inside, const Site* site);
  u32 shuffle_down(u32 value, u32 lanes, u32 clamp, u32 mask, bool* inside, const Site* site);
  u32 shuffle_idx(u32 value, u32 from, u32 clamp, u32 mask, bool* inside, const Site* site);
  // Which lanes' values are true, or equal to the own one.
  u32 ballot(bool value, u32 mask, const Site* site);
  u32 equal(u64 value, u32 mask, const Site* site);
  template <class T>
  u32 reduce(T (*f)(T, T), u32 value, u32 mask, const Site* site) {
    u32 all[32];
    exchange(value, mask, all, site);
    T out = T(all[0]);
    for (u32 k = 1; k < 32 && mask_of(k); ++k) out = f(out, T(all[k]));
    return u32(out);
  }
  void multiply(MmaTf32* m, const Site* site);
  void multiply(MmaF16* m, const Site* site);
  void multiply(MmaF64* m, const Site* site);
  // ldmatrix, stmatrix: `count` matrices of 8 x 8 halves; lane r of eight has the address of row r
  void load_matrices(u64 row, u32 count, bool transposed, u32* m, const Site* site);
  void store_matrices(u64 row, u32 count, bool transposed, const u32* m, const Site* site);
  u32 transpose(u32 m, const Site* site);

  // cp.async: the copies are made when they are waited for, as late as a GPU may make them.
  void copy(u64 to, u64 from, u32 bytes, u32 taken, const Site* site);
  void commit_copies() { ++copy_groups; }
  void wait_for_copies(int groups_left, const Site* site);  // -1: also for those without a group

 private:
  bool mask_of(u32 lane) const { return mask() >> lane & 1; }
  void exchange(u32 value, u32 mask, u32* all, const Site* site);
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
