#include "machine.h"

#include <algorithm>
#include <map>
#include <memory>

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
    union {
      u32 values[32];
      MmaTf32 single[32];
      MmaF16 halves[32];
      MmaF64 both[32];
    };
    Barrier() : single{} {}
  };
  Barrier* all() { return &all_; }
  Barrier* warp(const Thread& t) { return &warps_[t.warp()]; }

  void wait(Barrier* b, const Thread& t, const Site* site) {
    if (b->arrived == 0) {
      b->site = site;
    } else if (b->site != site) {
      report("meets threads that wait elsewhere", t, site);
    }
    const u64 generation = b->generation;
    if (++b->arrived == b->size) {
      b->arrived = 0;
      b->result = b->any;
      b->any = false;
      ++b->generation;
      return;
    }
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
  Barrier all_;
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

void Thread::barrier(const Site* site) {
  if (profiling && block->all()->arrived + 1 == ntid) profile_together();
  block->wait(block->all(), *this, site);
  ++barriers;
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

u32 Thread::shuffle_idx(u32 value, u32 from, u32 clamp, u32 mask, bool* inside, const Site* site) {
  *inside = (from & 31) <= (clamp & 31);
  return shuffle(value, from & 31, *inside, mask, site);
}

// PTX ISA, "Matrix Fragments for mma.m16n8k8" with .tf32: with g = lane / 4, t = lane % 4
//   a0..a3: (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4);  b0, b1: (t, g), (t + 4, g)
//   c0..c3: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
// The last 13 bits of a factor are not looked at.
void Thread::multiply(MmaTf32* m, const Site* site) {
  Block::Barrier* w = block->warp(*this);
  w->single[lane()] = *m;
  block->wait(w, *this, site);
  const auto tf32 = [](u32 bits) { return double(as<float>(bits & 0xffffe000u)); };
  for (u32 e = 0; e < 4; ++e) {
    const u32 row = lane() / 4 + e / 2 * 8, column = lane() % 4 * 2 + e % 2;
    double sum = m->c[e];
    for (u32 k = 0; k < 8; ++k) {
      const u32 a = w->single[row % 8 * 4 + k % 4].a[row / 8 + k / 4 * 2];
      const u32 b = w->single[column * 4 + k % 4].b[k / 4];
      sum += tf32(a) * tf32(b);
    }
    m->d[e] = float(sum);
  }
  block->wait(w, *this, site);
}
// "Matrix Fragments for mma.m16n8k16" with .f16, two numbers a register: a0..a3: (g, 2t), (g + 8, 2t), (g, 2t
// + 8), (g + 8, 2t + 8);  b0, b1: (2t, g), (2t + 8, g);  c as above.
void Thread::multiply(MmaF16* m, const Site* site) {
  Block::Barrier* w = block->warp(*this);
  w->halves[lane()] = *m;
  block->wait(w, *this, site);
  for (u32 e = 0; e < 4; ++e) {
    const u32 row = lane() / 4 + e / 2 * 8, column = lane() % 4 * 2 + e % 2;
    double sum = m->c[e];
    for (u32 k = 0; k < 16; ++k) {
      const u32 from = k % 8 / 2, shift = k % 2 * 16;
      const u32 a = w->halves[row % 8 * 4 + from].a[row / 8 + k / 8 * 2] >> shift;
      const u32 b = w->halves[column * 4 + from].b[k / 8] >> shift;
      sum += double(from_half(u16(a))) * double(from_half(u16(b)));
    }
    m->d[e] = float(sum);
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
