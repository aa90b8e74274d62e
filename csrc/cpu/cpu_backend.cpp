// Buffers sized once a step, blocks of atoms handed to threads.
#include "cpu/cpu_backend.h"

#include <algorithm>
#include <cmath>
#include <exception>

#include "base/threads.h"
#include "cpu/memory_limit.h"

namespace dpa2md {
namespace DPA2MD_ISA {

namespace {
#define DPA2MD_STRING(x) DPA2MD_STRING_(x)
#define DPA2MD_STRING_(x) #x
}  // namespace

template <class T>
CpuBackend<T>::CpuBackend(const Model& model, int threads, bool tables, bool low_memory)
    : model_(model),
      threads_(threads),
      use_tables_(tables),
      low_memory_(low_memory),
      arenas_(new Arena[threads_]),
      kept_arenas_(new Arena[threads_]),
      kept_(new PairAttention*[threads_]) {
  prepare();
}

template <class T>
CpuBackend<T>::~CpuBackend() {
  delete[] arenas_;
  delete[] kept_arenas_;
  delete[] kept_;
  delete[] layers_;
}

template <class T>
Arena& CpuBackend<T>::arena() const {
  return arenas_[thread_index()];
}

template <class T>
std::string CpuBackend<T>::description() const {
  return std::string("cpu (") + (DPA2MD_STRING(DPA2MD_ISA) + 4) + ", " + (single() ? "float32" : "float64") +
         ", " + std::to_string(threads_) + (threads_ == 1 ? " thread" : " threads") +
         (low_memory_ ? ", low memory)" : ")");
}

template <class T>
void CpuBackend<T>::begin(const StepInput& input, const StepOutput& output) {
  input_ = input;
  output_ = output;
  env_repinit_.prefix = &pairs().repinit;
  env_three_.prefix = &pairs().three_body;
  env_repformer_.prefix = &pairs().repformer;
  block_ = block_size(pairs().natoms);
  build_tables();
  if (input.forces) {
    if (any_reads_gg1()) g1_shares_.build(pairs(), pairs().repformer, block_, span_blocks());
    force_shares_.build(pairs(), pairs().repinit, block_, span_blocks());
  }
  reserve();
}

namespace {

// Most pairs of a block of atoms, in whole cache lines, so that threads do not share any.
std::size_t most_in_block(const Prefix& p, int natoms, int block) {
  std::int64_t most = 0;
  for (int i = 0; i < natoms; i += block)
    most = std::max(most, p.first[std::min(natoms, i + block)] - p.first[i]);
  return static_cast<std::size_t>(most + 15) / 16 * 16 + 16;
}

}  // namespace

template <class T>
void CpuBackend<T>::reserve() {
  const Repformer& f = rep();
  const std::size_t n = pairs().natoms, rows = pairs().nrows, repformer = pairs().repformer.first[n];
  const std::size_t blocks = static_cast<std::size_t>(threads_) * block_;  // atoms at work
  const bool back = input_.forces;
  g1_stride_ = rows * f.g1_dim;
  g2_stride_ = repformer * f.g2_dim;
  h2_stride_ = repformer * kH2Row;
  const std::size_t layers = f.nlayers, before_last = layers ? layers - 1 : 0;
  const std::size_t slopes = back && !low_memory_ ? before_last * n * f.g1_dim : 0;
  const auto in_blocks = [&](const Prefix& p) { return most_in_block(p, pairs().natoms, block_); };
  env_repinit_.block_pairs = in_blocks(pairs().repinit);
  env_three_.block_pairs = in_blocks(pairs().three_body);
  repformer_block_ = in_blocks(pairs().repformer);
  const std::size_t all = threads_ * env_repinit_.block_pairs, three = threads_ * env_three_.block_pairs;

  struct Plan {
    Buffer<T>* buffer;
    std::size_t size;
  };
  const Plan plan[] = {
      {&env_repinit_.em, 4 * all},
      {&env_repinit_.dem, back * 4 * all},
      {&env_repinit_.sw, all},
      {&env_repinit_.dsw, back * all},
      {&env_three_.em, 4 * three},
      {&env_three_.dem, back * 4 * three},
      {&env_three_.sw, three},
      {&env_three_.dsw, back * three},
      {&env_repformer_.em, 4 * repformer},
      {&env_repformer_.dem, back * 4 * repformer},
      {&env_repformer_.sw, repformer},
      {&env_repformer_.dsw, back * repformer},
      {&moment_, keeps_moments() ? n * 4 * padded(model_.repinit.ng, lanes<T>()) : 0},
      {&rep_out_, blocks * repinit_width_},
      {&drep_out_, back * blocks * repinit_width_},
      {&g1_slope_, n * f.g1_dim},
      {&mlp_slope_, slopes},
      {&self_slope_, f.g1_out_mlp * slopes},
      {&mlp_slope_block_, blocks * f.g1_dim},
      {&self_slope_block_, f.g1_out_mlp * blocks * f.g1_dim},
      {&g1_, (back ? layers + 1 : 3) * (layers > 0) * g1_stride_},
      {&dg1_, back * 2 * g1_stride_},
      {&g2_, g2_slots() * g2_stride_},
      {&g2_block_, threads_ * repformer_block_ * f.g2_dim},
      {&dg2_, back * g2_stride_},
      {&h2_, f.update_h2 ? before_last * h2_stride_ : 0},
      {&dh2_, f.update_h2 ? back * 2 * h2_stride_ : 0},
      {&dgg1_, back * g1_shares_.size() * f.g1_dim},
  };
  const std::size_t force_slots = back * 12 * force_shares_.size();
  std::size_t bytes = force_slots * sizeof(double), held = dforce_.size() * sizeof(double);
  for (const Plan& p : plan) bytes += p.size * sizeof(T), held += p.buffer->size() * sizeof(T);
  check_memory(bytes, held, static_cast<std::int64_t>(n), low_memory_);
  for (const Plan& p : plan) p.buffer->resize(p.size);
  dforce_.resize(force_slots);
  radial_atom_.resize(n);
}

// 4 to 32 atoms: weights meet many rows at once, and threads share the work evenly.
template <class T>
int CpuBackend<T>::block_size(int count) const {
  return std::clamp(count / (4 * threads_), 4, 32);
}

// Few enough that what they give to neighbours stays in cache, enough that no thread waits long for the
// others.
template <class T>
int CpuBackend<T>::span_blocks() const {
  return 16 * threads_;
}

template <class T>
void CpuBackend<T>::run(int natoms, const std::function<void(Range)>& stage,
                        const std::function<void(Range)>& gather) {
  const int block = block_size(natoms), span = gather ? span_blocks() * block : std::max(natoms, 1);
  std::exception_ptr failure;  // must not leave a parallel region
  for (int from = 0; from < natoms && !failure; from += span) {
    const int to = std::min(natoms, from + span);
#pragma omp parallel for schedule(dynamic) if (threads_ > 1)
    for (int begin = from; begin < to; begin += block) {
      try {
        stage({begin, std::min(to, begin + block)});
      } catch (...) {
#pragma omp critical
        failure = std::current_exception();
      }
    }
    if (gather && !failure) gather({from, to});
  }
  if (failure) std::rethrow_exception(failure);
}

template class CpuBackend<float>;
template class CpuBackend<double>;

std::unique_ptr<Backend> make_backend(const Model& model, bool single, int threads, bool tables,
                                      bool low_memory) {
  if (single) return std::make_unique<CpuBackend<float>>(model, threads, tables, low_memory);
  return std::make_unique<CpuBackend<double>>(model, threads, tables, low_memory);
}

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
