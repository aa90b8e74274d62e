// GpuBackend: plans, checks and allocates the memory of a step.
#pragma once

#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "cuda/host/gpu_backend.h"
#include "cuda/kernels/pair_list.h"
#include "cuda/kernels/scan.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// Every array whose size depends on the step, for the allocation and for the forecast of memory.
// The pair list's arrays, sized before the pairs are counted.
template <class T>
std::vector<Need> GpuBackend<T>::list_plan(const StepSizes& z) {
  const std::size_t n = z.natoms, back = z.forces;
  std::vector<Need> out = {
      need(&x_, 3 * z.positions),
      need(&position_type_, z.positions),
      need(&position_row_, host_row_.empty() ? 0 : z.positions),
      need(&candidate_count_, n),
      need(&candidate_atom_, z.candidates),
      need(&candidate_shift_, z.candidates),
      need(&shift_vectors_, 3 * z.shifts),
      need(&mark_, z.candidates),
      need(&count_, kCounts * n),
      need(&zeroed_, n),
      need(&candidate_row_count_, back * z.nrows),
      need(&bins_.grids, z.frames),
      need(&bins_.px, z.binned),
      need(&bins_.py, z.binned),
      need(&bins_.pz, z.binned),
      need(&bins_.ux, z.binned),
      need(&bins_.uy, z.binned),
      need(&bins_.uz, z.binned),
      need(&bins_.wrap_key, z.binned),
      need(&bins_.atom_of, z.binned),
      need(&bins_.grid_of, z.binned),
      need(&bins_.zero_shift, z.frames),
      need(&bins_.bin_start, z.bins),
      need(&row_candidate_, back * z.candidates),
      need(&row_count_, 2 * back * z.nrows),
  };
  const auto add = [&](ScanBuffers* s, std::size_t arrays, std::size_t count) {
    const std::size_t tiles = arrays * ((count + kTile - 1) / kTile);
    for (const Need& x : {need(&s->first, arrays * (count + 1)), need(&s->tile, tiles),
                          need(&s->tile_most, tiles), need(&s->total, 2 * arrays)})
      out.push_back(x);
  };
  add(&candidate_scan_, 1, n);
  add(&candidate_row_scan_, back, z.nrows);
  add(&atom_scan_, kCounts, n);
  return out;
}

// All other arrays, sized by the counts of pairs.
template <class T>
std::vector<Need> GpuBackend<T>::step_plan(const StepSizes& z) {
  const Repformer& f = rep();
  const std::size_t n = z.natoms, back = z.forces, layers = f.nlayers, node = layers ? n : 0;
  const std::size_t chunk = z.chunk, node_chunk = layers ? chunk : 0;  // atoms
  const std::size_t g1 = z.nrows * f.g1_dim, g2 = z.repformer * f.g2_dim,
                    g2_chunk = z.chunk_repformer * f.g2_dim;
  const std::size_t h2 = f.update_h2 ? z.repformer * kH2Row : 0;
  const std::size_t slopes = layers ? ((layers - 1) * n + chunk) * f.g1_dim : 0;
  const std::size_t attention = f.has_g1_attn ? node_chunk * f.g1_dim * f.attn1_nhead : 0;
  const bool keep = back && z.keep_attention && f.has_g2_attn && layers > 1;
  const std::size_t attentions = keep ? layers - 1 : 0;
  // One chunk's attention, which the reverse sweep recomputes where it is not kept.
  const std::size_t again = back && !z.keep_attention && warp_pairs_ && f.has_g2_attn && layers > 1;
  // Before the reverse sweep, dg2_ holds the candidates' numbers as pairs.
  const std::size_t numbers = (2 * z.candidates * sizeof(std::int32_t) + sizeof(T) - 1) / sizeof(T);
  // Atoms that [D | three-body] (the descriptor of a DPA-1 model) and the moments are held for.
  const std::size_t outputs = layers ? chunk : n, moments = layers ? n : chunk;
  const std::size_t tiles = z.result_frames + z.nrows / kRowsOfTile;  // at most
  std::vector<Need> out = {
      need(&vec_, 3 * z.chunk_pairs),
      need(&r_, z.chunk_pairs),
      need(&type_, z.chunk_pairs),
      need(&repformer_row_, z.repformer),
      need(&by_row_, back * z.candidates),
      need(&by_row_repformer_, layers ? back * z.candidates : 0),
      need(&parameters_, n * fitting_.parameters),
      need(&tabulated_, state_.embedding.table ? n + 1 : 0),
      need(&tabulated3_, state_.embedding3.table ? n + 1 : 0),
      need(&crowded_, warp_pairs_ ? n + 1 : 0),
      need(&moment_, moments * 4 * model_.repinit.ng),
      need(&rep_out_, outputs * state_.repinit_width),
      need(&drep_out_, layers ? 0 : back * chunk * state_.repinit_width),
      need(&g1_slope_, node * f.g1_dim),
      need(&mlp_slope_, back * slopes),
      need(&self_slope_, back * f.g1_out_mlp * slopes),
      need(&g1_, layers ? (layers + 1) * g1 : 0),
      need(&dg1_, layers ? back * 2 * g1 : 0),
      need(&g2_, kept_g2(z.forces) * g2 + (layers > 1 ? g2_chunk : 0)),
      need(&g2_first_, layers ? g2_chunk : 0),
      need(&dg2_, back * std::max(layers ? g2 : 0, numbers)),
      need(&kept_norm_, attentions * g2 + again * g2_chunk),
      need(&kept_rstd_, attentions * z.repformer + again * z.chunk_repformer),
      need(&h2_, layers ? (layers - 1) * h2 : 0),
      need(&dh2_, back * std::min<std::size_t>(layers, 2) * h2),
      need(&dgg1_, back * z.chunk_repformer * f.g1_dim),
      need(&cat_, layers ? chunk * f.linear1_in() : 0),
      need(&conv_, f.has_conv && f.g1_out_conv ? node_chunk * f.g1_dim : 0),
      need(&query_, attention),
      need(&dquery_, back * attention),
      need(&weighted_, attention),
      need(&fitting_x_, 2 * fitting_rows(chunk) * fitting_widest()),
      need(&fitting_slope_, back * fitting_rows(chunk) * fitting_.net.total),
      need(&fitting_seed_, fitting_rows(chunk)),
      need(&pair_force_, back * 3 * z.chunk_pairs),
      need(&results_, 2 * kCounts + kSums * z.result_frames + n + back * (3 + 9) * z.nrows),
      need(&tiles_, tiles),
      need(&frame_tile_, z.result_frames + 1),
      need(&tile_sums_, kSums * tiles),
  };
  const auto add = [&](EnvBuffers* env, std::size_t pairs) {
    for (const Need& x : {need(&env->em, 4 * pairs), need(&env->dem, back * 4 * pairs), need(&env->sw, pairs),
                          need(&env->dsw, back * pairs)})
      out.push_back(x);
  };
  add(&repinit_env_, z.chunk_pairs);
  add(&three_env_, z.chunk_three);
  add(&repformer_env_, z.repformer);
  return out;
}

template <class T>
std::vector<Need> GpuBackend<T>::plan(const StepSizes& z) {
  std::vector<Need> out = list_plan(z);
  for (const Need& x : step_plan(z)) out.push_back(x);
  return out;
}

// Memory that does not grow with the atoms: weights, tables, scratch beyond shared memory.
template <class T>
std::size_t GpuBackend<T>::fixed_memory() const {
  return weights_.capacity() + doubles_.capacity() + (tables_ ? tables_->capacity() : 0) + slab_.capacity();
}

template <class T>
double GpuBackend<T>::total(const StepSizes& z) {
  auto sum = static_cast<double>(fixed_memory());
  for (const Need& x : plan(z)) sum += static_cast<double>(Storage::with_room(x.bytes));
  return sum;
}

// `needed` counts the kept attention if it fits; `atoms` is the largest step that fits without it.
template <class T>
DeviceMemory GpuBackend<T>::memory(std::int64_t natoms) {
  if (sizes_.natoms == 0) return {};
  use_device(device_);
  const auto fixed = static_cast<double>(fixed_memory());
  double available = fixed + static_cast<double>(free_memory());
  for (const Need& x : plan(sizes_)) available += static_cast<double>(x.storage->capacity());
  StepSizes z = sizes_.scaled_to(natoms);
  z.keep_attention = false;
  const double least = total(z);
  z.keep_attention = true;
  const double most = total(z);
  return {most <= available ? most : least, available,
          std::max(0.0, (available - fixed) / (least - fixed) * static_cast<double>(natoms))};
}

template <class T>
bool GpuBackend<T>::fits(const std::vector<Need>& needs) const {
  std::size_t more = 0;
  for (const Need& x : needs) more += x.storage->grown_to(x.bytes) - x.storage->capacity();
  return more == 0 || more <= free_memory();
}

// Throws Error if the step does not fit, after it has freed the arrays of `needs`.
template <class T>
void GpuBackend<T>::check_memory(const std::vector<Need>& needs) {
  if (fits(needs)) return;
  const DeviceMemory m = memory(state_.natoms);
  char text[300];
  std::snprintf(
      text, sizeof(text),
      "a step of %d atoms needs %.3g GB of GPU memory and %.3g GB are free, enough for about %.0f such "
      "atoms: use fewer atoms%s.",
      state_.natoms, m.needed / 1e9, m.free / 1e9, std::floor(m.atoms),
      single() ? " or more GPUs" : ", more GPUs or precision float32");
  for (const Need& x : needs) x.storage->clear();
  list_version_ = 0;
  bounds_known_ = reserved_ = false;
  throw Error(text);
}

// Reserves the scratch beyond shared memory: starts every stage of layer 0 in sizing mode. Other layers need
// the same.
template <class T>
void GpuBackend<T>::reserve_scratch() {
  const Range a = chunks_.front();  // none is larger
  sizing_ = true;
  const auto order = launches_.order();
  for (const StageInfo& s : kStageTable) {
    if (has_stage(model_, s.stage) && (input_.forces || !s.backward)) stage(s.stage, 0, a);
  }
  sizing_ = false;
  launches_.set_order(order);
}

template <class T>
void GpuBackend<T>::reserve() {
  if (reserved_) return;
  State<T>& s = state_;
  g1_stride_ = g2_stride_ = h2_stride_ = 0;  // nothing is there yet
  reserve_scratch();
  sizes_.keep_attention = true;
  std::vector<Need> needs = plan(sizes_);
  if (!fits(needs)) {
    sizes_.keep_attention = false;
    kept_norm_.clear(), kept_rstd_.clear();
    needs = plan(sizes_);
    check_memory(needs);
  }
  for (const Need& x : needs) x.storage->resize_bytes(x.bytes);
  g1_stride_ = sizes_.nrows * rep().g1_dim;
  g2_stride_ = sizes_.repformer * rep().g2_dim, h2_stride_ = sizes_.repformer * kH2Row;
  const auto point = [](const EnvBuffers& from, EnvView<T>* to) {
    to->em = from.em.data(), to->dem = from.dem.data(), to->sw = from.sw.data(), to->dsw = from.dsw.data();
  };
  point(repinit_env_, &s.repinit);
  point(three_env_, &s.three);
  point(repformer_env_, &s.repformer);
  s.tabulated = s.embedding.table ? tabulated_.data() : nullptr;
  s.tabulated3 = s.embedding3.table ? tabulated3_.data() : nullptr;
  s.vec = vec_.data(), s.r = r_.data(), s.type = type_.data(), s.repformer_row = repformer_row_.data();
  s.moment = moment_.data(), s.rep_out = rep_out_.data();
  // In DPA-2 the gradient of [D | three-body] overwrites it, since no later stage reads it.
  s.drep_out = rep().nlayers ? rep_out_.data() : drep_out_.data();
  s.dgg1 = dgg1_.data(), s.pair_force = pair_force_.data();
  reserved_ = true;
  counters_zero_ = false;
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
