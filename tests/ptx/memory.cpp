#include "memory.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>

#include "profile.h"

namespace ptx {

Now now;

void report(const char* what, const Thread& t, const Site* site, const std::string& more) {
  constexpr int most = 20;
  if (++now.errors > most) return;
  std::fprintf(stderr, "%s: %s:%d (PTX line %d), block %u thread %u%s, in %s\n", what, site->file, site->line,
               site->ptx_line, t.ctaid, t.tid, more.c_str(), now.kernel->name.c_str());
}

namespace {

// Who has read or written a place since it was last quiet: the last thread, and whether other lanes, warps or
// blocks did so that no barrier separates from it.
struct Accesses {
  const Site* site = nullptr;
  u32 launch = 0, block = 0, barriers = 0, warp_barriers = 0;
  u16 thread = 0;
  bool several_blocks = false, several_warps = false, several_lanes = false;

  // Whether one of them and an access now, by t or all of its warp, are ordered by nothing.
  bool race(const Thread& t, bool whole_warp) const {
    if (launch != now.number) return false;
    if (several_blocks || block != t.ctaid) return true;
    if (barriers != t.barriers) return false;
    if (several_warps || thread / 32u != t.warp()) return true;
    return warp_barriers == t.warp_barriers && (whole_warp || several_lanes || thread != t.tid);
  }
  void add(const Thread& t, const Site* where, bool whole_warp) {
    if (launch != now.number) {
      *this = {};
    } else if (block != t.ctaid) {
      several_blocks = true;
      several_warps = several_lanes = false;
    } else if (barriers != t.barriers) {
      several_warps = several_lanes = false;
    } else if (thread / 32u != t.warp()) {
      several_warps = true;
    } else if (warp_barriers != t.warp_barriers) {
      several_lanes = false;
    } else if (thread != t.tid) {
      several_lanes = true;
    }
    several_lanes |= whole_warp;
    site = where, launch = now.number, block = t.ctaid, thread = static_cast<u16>(t.tid);
    barriers = t.barriers, warp_barriers = t.warp_barriers;
  }
};

// What is known of a grain of memory.
struct Grain {
  Accesses reads, writes;
  bool written = false, atomic = false;
};

struct Region {
  u64 begin = 0, bytes = 0;
  std::vector<Grain> grains;
  u32 size = 4;  // bytes of a grain; 1 from the first access to a single byte on
  std::unique_ptr<unsigned char[]> memory;
  bool on_host = false;

  bool holds(u64 at, u64 n) const { return at >= begin && at - begin <= bytes && n <= bytes - (at - begin); }
  void forget() { grains.assign((bytes + size - 1) / size, {}); }
  void split() {
    std::vector<Grain> fine(bytes);
    for (u64 k = 0; k < bytes; ++k) fine[k] = grains[k / size];
    grains = std::move(fine);
    size = 1;
  }
  // f(grain) for those of n > 0 bytes
  template <class F>
  void each(u64 at, u64 n, F f) {
    for (u64 k = (at - begin) / size; k <= (at - begin + n - 1) / size; ++k) f(&grains[k]);
  }
};

std::map<u64, Region> regions;  // by their ends
Region* last_region = nullptr;  // that was looked for; none after a release
Region shared_memory;

Region* region_of(u64 at, u64 bytes) {
  if (last_region && last_region->holds(at, bytes)) return last_region;
  const auto it = regions.upper_bound(at);
  if (it == regions.end() || !it->second.holds(at, bytes)) return nullptr;
  return last_region = &it->second;
}

std::string against(const Accesses& other) {
  return std::string(" against ") + other.site->file + ":" + std::to_string(other.site->line) + ", block " +
         std::to_string(other.block) + " thread " + std::to_string(other.thread);
}

void look_at(Grain* w, const Thread& t, const Site* site, Access access, bool whole_warp) {
  if (access != Access::store && !w->written) {
    report("reads what nothing has written", t, site);
    w->written = true;
  }
  if (!(access == Access::atomic && w->atomic) && w->writes.race(t, whole_warp)) {
    report(access == Access::load ? "races (read after write)" : "races (write after write)", t, site,
           against(w->writes));
  }
  if (access == Access::load) return w->reads.add(t, site, whole_warp);
  if (w->reads.race(t, whole_warp)) report("races (write after read)", t, site, against(w->reads));
  w->writes.add(t, site, whole_warp);
  w->written = true;
  w->atomic = access == Access::atomic;
}

alignas(16) unsigned char elsewhere[64];

bool in_parameters(u64 at, u64 bytes) {
  const auto& sizes = now.kernel->parameter_bytes;
  for (std::size_t k = 0; k < sizes.size(); ++k) {
    const u64 begin = u64(now.parameters[k]);
    if (at >= begin && at + bytes <= begin + sizes[k]) return true;
  }
  return false;
}

}  // namespace

bool in_shared(u64 at) { return shared_memory.holds(at, 1); }

void look(u64* at, u32 bytes, const Thread& t, const Site* site, Access access, bool whole_warp) {
  if (*at % bytes) {
    report("is not aligned", t, site);
    *at = u64(elsewhere);
    return;
  }
  Region* region = shared_memory.holds(*at, bytes) ? &shared_memory : region_of(*at, bytes);
  if (!region) {
    if (t.on_stack(*at) || (access == Access::load && in_parameters(*at, bytes))) return;
    report(access == Access::load ? "reads outside memory" : "writes outside memory", t, site);
    *at = u64(elsewhere);
    return;
  }
  if (profiling) profile_access(t, site, *at, bytes, access != Access::load, region == &shared_memory);
  if (bytes < region->size) region->split();
  region->each(*at, bytes, [&](Grain* g) { look_at(g, t, site, access, whole_warp); });
}

void* allocate(std::size_t bytes, bool on_host) {
  Region r;
  r.memory = std::make_unique<unsigned char[]>(bytes + 256);
  r.begin = (u64(r.memory.get()) + 255) / 256 * 256;
  r.bytes = bytes;
  r.forget();
  r.on_host = on_host;
  std::fill_n(reinterpret_cast<unsigned char*>(r.begin), bytes, 0xff);
  const u64 begin = r.begin, end = begin + bytes;
  // the host writes there unseen
  if (on_host) r.each(r.begin, bytes, [](Grain* g) { g->written = true; });
  regions.emplace(end, std::move(r));
  return reinterpret_cast<void*>(begin);
}

bool release(void* p) {
  const auto it = regions.upper_bound(u64(p));
  if (it == regions.end() || it->second.begin != u64(p)) return false;
  last_region = nullptr;
  regions.erase(it);
  return true;
}

std::size_t allocated_bytes() {
  std::size_t sum = 0;
  for (const auto& [end, r] : regions) sum += r.on_host ? 0 : r.bytes;
  return sum;
}

bool host_writes(const void* p, std::size_t bytes) {
  Region* r = region_of(u64(p), bytes);
  if (r && bytes) r->each(u64(p), bytes, [](Grain* g) { g->written = true; });
  return r;
}

bool host_reads(const void* p, std::size_t bytes) {
  Region* r = region_of(u64(p), bytes);
  bool written = true;
  if (r && bytes) r->each(u64(p), bytes, [&](Grain* g) { written &= g->written; });
  if (!written) std::fprintf(stderr, "the host copies what nothing has written, in %zu bytes\n", bytes);
  return r && written;
}

unsigned char* clear_shared(std::size_t bytes) {
  static std::vector<unsigned char> memory(1 << 20);
  shared_memory.begin = (u64(memory.data()) + 1023) / 1024 * 1024;
  shared_memory.bytes = bytes;
  shared_memory.forget();
  auto* p = reinterpret_cast<unsigned char*>(shared_memory.begin);
  std::fill_n(p, bytes, 0xff);
  return p;
}

}  // namespace ptx
