#include "machine.h"

#include <algorithm>
#include <map>
#include <memory>

#include "cuda/emulation/tensor_core.h"
#include "memory.h"
#include "profile.h"

#if !defined(__x86_64__)
#error "the fibers of this machine are written for x86-64"
#endif

namespace ptx {
namespace {

// ---- fibers

// Saves this stack's state at *from and goes on with the one saved as `to`.
extern "C" void dpa2md_switch_stacks(void** from, void* to);
asm(R"(
.text
dpa2md_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

constexpr std::size_t kStack = 128 << 10;

}  // namespace

// ---- blocks

class Block {
 public:
  Block(const Kernel& kernel, u32 number, u32 blocks, u32 threads, unsigned char* shared,
        unsigned char* const* parameters)
      : kernel_(kernel), parameters_(parameters), warps_((threads + 31) / 32) {
    static std::vector<std::unique_ptr<unsigned char[]>> stacks;
    while (stacks.size() < threads) stacks.emplace_back(new unsigned char[kStack]);
    all_.size = threads;
    fibers_.resize(threads);
    for (u32 w = 0; w < warps_.size(); ++w) warps_[w].size = std::min(threads - 32 * w, 32u);
    for (u32 k = 0; k < threads; ++k) {
      Fiber& f = fibers_[k];
      f.thread = {k, threads, number, blocks, shared, this};
      f.stack = stacks[k].get();
      auto* top = reinterpret_cast<void**>(u64(f.stack + kStack) / 16 * 16);
      *--top = nullptr;  // where start() would return to
      *--top = reinterpret_cast<void*>(&Block::start);
      f.state = top - 6;  // popped into registers
    }
  }

  // Until all threads have ended.
  void run() {
    current_block = this;
    for (bool moved = true; moved;) {
      moved = false;
      for (u32 w = 0; w < warps_.size(); ++w) {
        // a warp goes on as far as it can before the next one does
        for (bool again = true; again;) {
          again = false;
          for (u32 k = 32 * w; k < 32 * w + warps_[w].size; ++k) again |= resume(&fibers_[k]);
          moved |= again;
        }
      }
    }
    for (const Fiber& f : fibers_) {
      if (f.ended) continue;
      report("waits for threads that do not come", f.thread, f.site);
      break;
    }
  }

  struct Barrier {
    u32 size = 0, arrived = 0;
    u64 generation = 0;
    const Site* site = nullptr;
    bool any = false, result = false;
    u32 most_passed = 0, passed = 0;  // barriers, of those that meet here; of those that have met
    union {
      u32 values[32];
      u64 long_values[32];
      MmaTf32 single[32];
      MmaF16 halves[32];
      MmaF64 both[32];
    };
    Barrier() : single{} {}
  };
  Barrier* all() { return &all_; }
  Barrier* named(u32 number) { return &named_[number & 15]; }
  Barrier* warp(const Thread& t) { return &warps_[t.warp()]; }

  void wait(Barrier* b, const Thread& t, const Site* site) {
    if (b->arrived == 0) {
      b->site = site;
    } else if (b->site != site) {
      report("meets threads that wait elsewhere", t, site);
    }
    arrive(b, t, site, true);
  }
  void arrive(Barrier* b, const Thread& t, const Site* site, bool waits) {
    const u64 generation = b->generation;
    b->most_passed = std::max(b->most_passed, t.barriers);
    if (++b->arrived == b->size) {
      b->arrived = 0;
      b->passed = b->most_passed + 1;
      b->result = b->any;
      b->any = false;
      ++b->generation;
      return;
    }
    if (!waits) return;
    Fiber& f = fibers_[t.tid];
    f.waits_for = b, f.generation = generation, f.site = site;
    dpa2md_switch_stacks(&f.state, scheduler_);
  }
  bool on_stack(const Thread& t, u64 at) const {
    const u64 stack = u64(fibers_[t.tid].stack);
    return at >= stack && at < stack + kStack;
  }

 private:
  struct Fiber {
    Thread thread;
    unsigned char* stack = nullptr;
    void* state = nullptr;
    bool ended = false;
    Barrier* waits_for = nullptr;
    u64 generation = 0;
    const Site* site = nullptr;
  };

  static void start() {
    Block* b = current_block;
    Fiber* f = b->running_;
    b->kernel_.run(f->thread, b->parameters_);
    f->ended = true;
    dpa2md_switch_stacks(&f->state, b->scheduler_);
  }
  // Whether it could go on.
  bool resume(Fiber* f) {
    if (f->ended || (f->waits_for && f->waits_for->generation == f->generation)) return false;
    running_ = f;
    dpa2md_switch_stacks(&scheduler_, f->state);
    return true;
  }

  static Block* current_block;
  const Kernel& kernel_;
  unsigned char* const* parameters_;
  std::vector<Fiber> fibers_;
  std::vector<Barrier> warps_;
  Barrier all_, named_[16];
  void* scheduler_ = nullptr;
  Fiber* running_ = nullptr;
};
Block* Block::current_block = nullptr;

void Thread::visit(const Run* run) {
  if (profiling) profile_run(*this, run);
}

bool Thread::on_stack(u64 at) const { return block->on_stack(*this, at); }
void Thread::load(u64* at, u32 bytes, const Site* site) { look(at, bytes, *this, site, Access::load); }
void Thread::store(u64* at, u32 bytes, const Site* site) { look(at, bytes, *this, site, Access::store); }
u32 Thread::atomic_add(u64 at, u32 value, const Site* site) {
  look(&at, 4, *this, site, Access::atomic);
  const u32 before = read<u32>(at);
  write<u32>(at, before + value);
  return before;
}

bool Thread::in_shared(u64 at) const { return ptx::in_shared(at); }

void Thread::barrier(const Site* site) {
  Block::Barrier* b = block->all();
  if (profiling && b->arrived + 1 == ntid) profile_together();
  block->wait(b, *this, site);
  barriers = b->passed;
}
void Thread::named_barrier(u32 number, u32 count, bool waits, const Site* site) {
  Block::Barrier* b = block->named(number);
  if (b->arrived == 0) {
    b->size = count;
  } else if (b->size != count) {
    report("meets threads that wait for another number of threads", *this, site);
  }
  block->arrive(b, *this, site, waits);
  if (waits) barriers = b->passed;
}
bool Thread::any(bool value, const Site* site) {
  block->all()->any |= value;
  barrier(site);
  return block->all()->result;
}
void Thread::warp_barrier(const Site* site) {
  block->wait(block->warp(*this), *this, site);
  ++warp_barriers;
}

void Thread::exchange(u32 value, u32 mask, u32* all, const Site* site) {
  if ((mask & this->mask()) != this->mask()) report("talks to some lanes only", *this, site);
  Block::Barrier* w = block->warp(*this);
  w->values[lane()] = value;
  block->wait(w, *this, site);
  std::copy_n(w->values, 32, all);
  block->wait(w, *this, site);
}
u32 Thread::ballot(bool value, u32 mask, const Site* site) {
  u32 all[32], out = 0;
  exchange(value, mask, all, site);
  for (u32 k = 0; k < 32; ++k) out |= mask_of(k) && all[k] ? 1u << k : 0;
  return out;
}
u32 Thread::equal(u64 value, u32 mask, const Site* site) {
  u32 low[32], high[32], out = 0;
  exchange(u32(value), mask, low, site);
  exchange(u32(value >> 32), mask, high, site);
  for (u32 k = 0; k < 32; ++k) out |= mask_of(k) && (u64(high[k]) << 32 | low[k]) == value ? 1u << k : 0;
  return out;
}

// The value of lane `from`, or the own one.
u32 Thread::shuffle(u32 value, u32 from, bool inside, u32 mask, const Site* site) {
  if (mask != 0xffffffffu) report("shuffles within some lanes only", *this, site);
  Block::Barrier* w = block->warp(*this);
  w->values[lane()] = value;
  block->wait(w, *this, site);
  const u32 out = w->values[inside ? from : lane()];
  block->wait(w, *this, site);
  return out;
}
// PTX ISA, shfl.sync: clamp holds the last (bfly) or first (up) lane of a segment and the segments' mask.
u32 Thread::shuffle_bfly(u32 value, u32 lanes, u32 clamp, u32 mask, bool* inside, const Site* site) {
  const u32 from = lane() ^ (lanes & 31);
  *inside = from <= (clamp & 31);
  return shuffle(value, from, *inside, mask, site);
}
u32 Thread::shuffle_up(u32 value, u32 lanes, u32 clamp, u32 mask, bool* inside, const Site* site) {
  const int from = static_cast<int>(lane()) - static_cast<int>(lanes & 31);
  *inside = from >= static_cast<int>(clamp & 31);
  return shuffle(value, static_cast<u32>(from), *inside, mask, site);
}

// clamp: the last lane of a segment (with upper bits: of those with the same upper bits), and these bits
u32 Thread::shuffle_down(u32 value, u32 lanes, u32 clamp, u32 mask, bool* inside, const Site* site) {
  const u32 segments = clamp >> 8 & 31, last = (lane() & segments) | (clamp & 31 & ~segments);
  const u32 from = lane() + (lanes & 31);
  *inside = from <= last;
  return shuffle(value, from, *inside, mask, site);
}
u32 Thread::shuffle_idx(u32 value, u32 from, u32 clamp, u32 mask, bool* inside, const Site* site) {
  const u32 segments = clamp >> 8 & 31, first = lane() & segments, last = first | (clamp & 31 & ~segments);
  from = first | (from & 31 & ~segments);
  *inside = from <= last;
  return shuffle(value, from, *inside, mask, site);
}

// PTX ISA, "Matrix Fragments for mma.m16n8k8" with .tf32: with g = lane / 4, t = lane % 4
//   a0..a3: (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4);  b0, b1: (t, g), (t + 4, g)
//   c0..c3: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
// The last 13 bits of a factor are not looked at.
void Thread::multiply(MmaTf32* m, const Site* site) {
  Block::Barrier* w = block->warp(*this);
  w->single[lane()] = *m;
  block->wait(w, *this, site);
  const auto tf32 = [](u32 bits) { return as<float>(bits & 0xffffe000u); };
  for (u32 e = 0; e < 4; ++e) {
    const u32 row = lane() / 4 + e / 2 * 8, column = lane() % 4 * 2 + e % 2;
    float a[8], b[8];
    for (u32 k = 0; k < 8; ++k) {
      a[k] = tf32(w->single[row % 8 * 4 + k % 4].a[row / 8 + k / 4 * 2]);
      b[k] = tf32(w->single[column * 4 + k % 4].b[k / 4]);
    }
    m->d[e] = dpa2md::tensor_core_sum(m->c[e], a, b, 8);
  }
  block->wait(w, *this, site);
}
// "Matrix Fragments for mma.m16n8k16 with floating point type", .f16; two columns of a, or rows of b, in a
// number, the first one below:
//   a0..a3: (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8);  b0, b1: (2t, g), (2t + 8, g);  c as above
void Thread::multiply(MmaF16* m, const Site* site) {
  Block::Barrier* w = block->warp(*this);
  w->halves[lane()] = *m;
  block->wait(w, *this, site);
  const auto half = [](u32 two, u32 k) { return float(Half::value(u16(two >> 16 * (k % 2)))); };
  for (u32 e = 0; e < 4; ++e) {
    const u32 row = lane() / 4 + e / 2 * 8, column = lane() % 4 * 2 + e % 2;
    float a[16], b[16];
    for (u32 k = 0; k < 16; ++k) {
      a[k] = half(w->halves[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2], k);
      b[k] = half(w->halves[column * 4 + k % 8 / 2].b[k / 8], k);
    }
    m->d[e] = dpa2md::tensor_core_sum(m->c[e], a, b, 16);
  }
  block->wait(w, *this, site);
}
// "Matrix Fragments for mma.m8n8k4" with .f64: a (g, t), b (t, g), c0, c1: (g, 2t), (g, 2t + 1).
void Thread::multiply(MmaF64* m, const Site* site) {
  Block::Barrier* w = block->warp(*this);
  w->both[lane()] = *m;
  block->wait(w, *this, site);
  for (u32 e = 0; e < 2; ++e) {
    const u32 row = lane() / 4, column = lane() % 4 * 2 + e;
    double sum = m->c[e];
    for (u32 k = 0; k < 4; ++k) sum = std::fma(w->both[row * 4 + k].a[0], w->both[column * 4 + k].b[0], sum);
    m->d[e] = sum;
  }
  block->wait(w, *this, site);
}

// Of each matrix a lane has columns 2t, 2t + 1 of row g, the first one below; transposed, rows 2t, 2t + 1 of
// column g. Lane 8 q + r has the address of row r of matrix q. A row is read by all of the warp: a write of
// any lane needs a barrier before and after.
void Thread::load_matrices(u64 row, u32 count, bool transposed, u32* m, const Site* site) {
  if (lane() < 8 * count) look(&row, 16, *this, site, Access::load, true);
  Block::Barrier* w = block->warp(*this);
  w->long_values[lane()] = row;
  block->wait(w, *this, site);
  const u32 g = lane() / 4, t = lane() % 4;
  for (u32 q = 0; q < count; ++q) {
    const u64* rows = w->long_values + 8 * q;
    m[q] = transposed ? u32(read<u16>(rows[2 * t + 1] + 2 * g)) << 16 | read<u16>(rows[2 * t] + 2 * g)
                      : read<u32>(rows[g] + 4 * t);
  }
  block->wait(w, *this, site);
}
void Thread::store_matrices(u64 row, u32 count, bool transposed, const u32* m, const Site* site) {
  if (lane() < 8 * count) look(&row, 16, *this, site, Access::store, true);
  Block::Barrier* w = block->warp(*this);
  w->long_values[lane()] = row;
  block->wait(w, *this, site);
  const u32 g = lane() / 4, t = lane() % 4;
  for (u32 q = 0; q < count; ++q) {
    const u64* rows = w->long_values + 8 * q;
    if (transposed) {
      write<u16>(rows[2 * t] + 2 * g, u16(m[q]));
      write<u16>(rows[2 * t + 1] + 2 * g, u16(m[q] >> 16));
    } else {
      write<u32>(rows[g] + 4 * t, m[q]);
    }
  }
  block->wait(w, *this, site);
}
u32 Thread::transpose(u32 m, const Site* site) {
  u32 all[32];
  exchange(m, 0xffffffffu, all, site);
  const u32 g = lane() / 4, t = lane() % 4;
  const auto at = [&](u32 row, u32 column) {
    return all[row * 4 + column / 2] >> 16 * (column % 2) & 0xffff;
  };
  return at(2 * t + 1, g) << 16 | at(2 * t, g);
}

void Thread::copy(u64 to, u64 from, u32 bytes, u32 taken, const Site* site) {
  if (taken > bytes) report("copies more than it may", *this, site);
  look(&from, bytes, *this, site, Access::load);
  look(&to, bytes, *this, site, Access::store);
  copies.push_back({to, from, bytes, std::min(taken, bytes), copy_groups});
}
void Thread::wait_for_copies(int groups_left, const Site* site) {
  std::vector<Copy> left;
  for (Copy& c : copies) {
    if (groups_left >= 0 && c.group + groups_left >= copy_groups) {
      left.push_back(c);
      continue;
    }
    look(&c.to, c.bytes, *this, site, Access::store);
    std::memset(reinterpret_cast<void*>(c.to), 0, c.bytes);
    std::memcpy(reinterpret_cast<void*>(c.to), reinterpret_cast<const void*>(c.from), c.taken);
  }
  copies = std::move(left);
}

namespace {
std::map<std::string, const Kernel*>& kernels() {
  static std::map<std::string, const Kernel*> all;
  return all;
}
}  // namespace

Kernel::Kernel(const char* name, u32 most_threads, std::vector<std::size_t> parameter_bytes,
               void (*run)(Thread&, unsigned char* const*))
    : name(name), most_threads(most_threads), parameter_bytes(std::move(parameter_bytes)), run(run) {
  kernels()[name] = this;
}
const Kernel* Kernel::find(const std::string& name) {
  const auto it = kernels().find(name);
  return it == kernels().end() ? nullptr : it->second;
}

bool launch(const Kernel& kernel, u32 blocks, u32 threads, std::size_t shared_bytes,
            unsigned char* const* parameters) {
  const int before = now.errors;
  if (profiling) profile_launch(kernel, blocks);
  now.kernel = &kernel;
  now.parameters = parameters;
  ++now.number;
  for (u32 k = 0; k < blocks && now.errors == before; ++k) {
    Block(kernel, k, blocks, threads, clear_shared(shared_bytes), parameters).run();
    if (profiling) profile_block_end();
  }
  return now.errors == before;
}

}  // namespace ptx
