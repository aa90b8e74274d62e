#include "profile.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <unordered_set>

namespace ptx {
namespace {

struct Cost {
  double launches = 0, blocks = 0, pipes[kPipes] = {};
  double critical = 0;  // instructions of each block's busiest warp between two barriers, added up
  // memory instructions of warps; passes through shared memory; lines and sectors of global memory; sectors
  // that a block reads for the first time
  double shared = 0, shared_passes = 0, global = 0, lines = 0, sectors_read = 0, sectors_written = 0,
         fresh_sectors = 0;

  void add_memory(const Cost& c) {
    shared += c.shared, shared_passes += c.shared_passes;
    global += c.global, lines += c.lines, fresh_sectors += c.fresh_sectors;
    sectors_read += c.sectors_read, sectors_written += c.sectors_written;
  }
};

constexpr int kLanes = 32;
struct Lanes {
  u64 at[kLanes] = {};
  u32 bytes = 0, active = 0;
};
// The k-th time that the lanes of a warp come to an instruction they come together.
struct Stream {
  std::vector<Lanes> times;
  u32 count[kLanes] = {};
  bool store = false, shared = false;
};

using Place = std::pair<std::string, std::string>;  // kernel, file:line
std::map<std::string, Cost> kernels;
std::map<Place, Cost> places;
std::string kernel_name;
std::map<std::pair<u32, const Site*>, Stream> streams;
std::unordered_set<u64> touched;  // sectors that the block has read
std::map<std::pair<u32, const Run*>, std::array<u32, kLanes>> visits;

std::string place(const char* file, int line) { return std::string(file) + ":" + std::to_string(line); }

Cost of_shared(const Lanes& l) {
  // 32 banks of 4 bytes; wider accesses go by halves or quarters of a warp
  const u32 group = l.bytes <= 4 ? 32 : 128 / l.bytes;
  Cost c;
  c.shared = 1;
  for (u32 first = 0; first < kLanes; first += group) {
    std::array<std::set<u64>, 32> words;
    for (u32 k = first; k < first + group; ++k) {
      if (!(l.active >> k & 1)) continue;
      for (u64 w = l.at[k] / 4; w <= (l.at[k] + l.bytes - 1) / 4; ++w) words[w % 32].insert(w);
    }
    std::size_t most = 0;
    for (const auto& w : words) most = std::max(most, w.size());
    c.shared_passes += most;
  }
  return c;
}

Cost of_global(const Lanes& l, bool store) {
  std::set<u64> sectors, lines;
  for (u32 k = 0; k < kLanes; ++k) {
    if (!(l.active >> k & 1)) continue;
    for (u64 s = l.at[k] / 32; s <= (l.at[k] + l.bytes - 1) / 32; ++s) sectors.insert(s), lines.insert(s / 4);
  }
  Cost c;
  c.global = 1, c.lines = lines.size();
  (store ? c.sectors_written : c.sectors_read) = sectors.size();
  if (!store) {
    for (const u64 s : sectors) c.fresh_sectors += touched.insert(s).second;
  }
  return c;
}

void write_line(std::FILE* f, const std::string& kernel, const std::string& where, const Cost& c) {
  std::fprintf(f, "\"%s\",%s,%.0f,%.0f", kernel.c_str(), where.c_str(), c.launches, c.blocks);
  for (const double p : c.pipes) std::fprintf(f, ",%.0f", p);
  std::fprintf(f, ",%.0f,%.0f,%.0f,%.0f,%.0f,%.0f,%.0f,%.0f\n", c.shared, c.shared_passes, c.global, c.lines,
               c.sectors_read, c.sectors_written, c.fresh_sectors, c.critical);
}

void write_all() {
  std::FILE* f = std::fopen(std::getenv("DPA2MD_PTX_PROFILE"), "w");
  if (!f) return;
  std::fprintf(
      f,
      "kernel,place,launches,blocks,float,double,integer,special,branch,shuffle,tensor,tensor_double,barrier,"
      "shared,shared_passes,global,lines,sectors_read,sectors_written,fresh_sectors,critical\n");
  for (const auto& [name, c] : kernels) write_line(f, name, "all", c);
  for (const auto& [at, c] : places) write_line(f, at.first, at.second, c);
  std::fclose(f);
}

}  // namespace

const bool profiling = [] {
  if (!std::getenv("DPA2MD_PTX_PROFILE")) return false;
  std::atexit(write_all);
  return true;
}();

void profile_launch(const Kernel& kernel, u32 blocks) {
  kernel_name = kernel.name;
  Cost& c = kernels[kernel_name];
  c.launches += 1, c.blocks += blocks;
}

void profile_run(const Thread& t, const Run* run) { ++visits[{t.warp(), run}][t.lane()]; }

void profile_access(const Thread& t, const Site* site, u64 at, u32 bytes, bool store, bool shared) {
  Stream& s = streams[{t.warp(), site}];
  s.store = store, s.shared = shared;
  const u32 k = s.count[t.lane()]++;
  if (k >= s.times.size()) s.times.resize(k + 1);
  s.times[k].at[t.lane()] = at, s.times[k].bytes = bytes, s.times[k].active |= 1u << t.lane();
}

void profile_together() {
  Cost& all = kernels[kernel_name];
  std::map<u32, double> of_warp;
  for (auto& [key, s] : streams) {
    of_warp[key.first] += s.times.size();
    Cost& here = places[{kernel_name, place(key.second->file, key.second->line)}];
    for (const Lanes& l : s.times) {
      const Cost c = s.shared ? of_shared(l) : of_global(l, s.store);
      all.add_memory(c), here.add_memory(c);
    }
  }
  streams.clear();
  for (const auto& [key, lanes] : visits) {
    const auto& [warp, run] = key;
    const double times = *std::max_element(lanes.begin(), lanes.end());
    Cost& here = places[{kernel_name, place(run->file, run->line)}];
    for (int p = 0; p < kPipes; ++p) {
      all.pipes[p] += times * run->count[p];
      here.pipes[p] += times * run->count[p];
      of_warp[warp] += times * run->count[p];
    }
  }
  visits.clear();
  double most = 0;
  for (const auto& [warp, instructions] : of_warp) most = std::max(most, instructions);
  all.critical += most;
}

void profile_block_end() {
  profile_together();
  touched.clear();
}

}  // namespace ptx
