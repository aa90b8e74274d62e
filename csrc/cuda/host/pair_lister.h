// Builds the pair list of every step on the device, from the candidates (pair_list.h).
//
// Measured counts are upper bounds for the steps after, so that the host starts their kernels without waiting
// for the counts. within_bounds() says afterwards whether a step kept them.
#pragma once

#include <algorithm>
#include <vector>

#include "cuda/host/candidate_list.h"
#include "cuda/host/chunks.h"
#include "cuda/host/prefix_sums.h"
#include "cuda/host/starter.h"
#include "cuda/host/step_sizes.h"
#include "cuda/kernels/pair_list.h"
#include "model/model.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// The sum of each count over all atoms, and the largest.
struct PairTotals {
  std::int64_t sum[kCounts], most[kCounts];
};

class PairLister {
 public:
  // few: atoms with more neighbours in the repformers are listed as crowded; 0: no list.
  PairLister(const Model& model, Exclusions exclusions, int few, const CandidateList& candidates,
             Starter* starter)
      : model_(model), exclusions_(exclusions), few_(few), candidates_(candidates), starter_(starter) {}

  // ---- to count: what that needs, before the step's other arrays are there
  void plan_counts(const StepSizes& z, std::vector<Need>* needs);
  // Counts the pairs, divides the atoms into chunks and sets both in *sizes; refuses coincident atoms.
  // with_room: the counts get some room, as bounds for the next steps.
  void measure(bool with_room, StepSizes* sizes);
  // Counts the pairs; if they exceed the bounds, all counts become zero.
  void count_within_bounds();

  bool bounds_known() const { return bounds_known_; }
  void forget_bounds() { bounds_known_ = false; }
  // The list changed; bounds stay only if it has about as many candidates.
  void list_changed(const StepSizes& z);

  // ---- to write the pairs
  void plan(const StepSizes& z, std::vector<Need>* needs);
  // Points the state at the list.
  template <class T>
  void point(State<T>* s) const;
  // Numbers the pairs, and with one chunk writes them. For a reverse sweep, pair_of has memory for two
  // numbers of every candidate, and the pairs are grouped by row.
  void number(std::int32_t* pair_of);
  // Writes a chunk's pairs.
  void fill(Range a) { fill(a, nullptr, false, true); }

  // ---- the list
  const Chunks& chunks() const { return chunks_; }
  int most(int subnet) const { return most_[subnet]; }  // pairs of one atom
  // The number of crowded atoms, then which; null: no atom is.
  const int* crowded() const { return few_ && most_[kRepformer] > few_ ? crowded_.data() : nullptr; }
  int* crowded_counter() const { return few_ ? crowded_.data() : nullptr; }
  // A chunk's pairs by row, all (kRepinit) or the repformers'.
  RowPairs by_row(int subnet, Range a) const;

  // ---- after the step
  const std::int64_t* totals() const { return first_.total.data(); }  // (2, kCounts): PairTotals
  bool within_bounds(const PairTotals& t) const;
  // The host's summary of the list.
  void describe(const PairTotals& t, PairList* out) const;

 private:
  SelectPairs selection() const;
  std::vector<int> atom_counts(int which) const;
  void refuse_coincident_atoms(const PairTotals& t) const;
  void fill(Range a, std::int32_t* pair_of, bool numbers, bool pairs);
  const int* counts(int which) const { return count_.data() + std::int64_t{which} * natoms_; }
  const std::int64_t* first(int which) const {
    return first_.first.data() + std::int64_t{which} * (natoms_ + 1);
  }
  bool has(int subnet) const {
    return subnet == kRepinit ||
           (subnet == kThreeBody ? model_.has_three_body : model_.repformer.nlayers > 0);
  }

  const Model& model_;
  Exclusions exclusions_;
  int few_;
  const CandidateList& candidates_;
  Starter* starter_;

  int natoms_ = 0, nrows_ = 0;
  Chunks chunks_;
  int most_[kSubnets] = {};
  PairNumbers bound_;
  bool bounds_known_ = false;
  std::size_t measured_candidates_ = 0;

  Buffer<int> count_, zeroed_, row_count_;  // (kCounts, natoms), (natoms), (2, nrows)
  PrefixSums first_;                        // of count_
  Buffer<double> vec_, r_;
  Buffer<std::int32_t> type_, repformer_row_, by_row_, by_row_repformer_;
  Buffer<int> crowded_;
};

inline void PairLister::plan_counts(const StepSizes& z, std::vector<Need>* needs) {
  append({need(&count_, kCounts * z.natoms), need(&zeroed_, z.natoms),
          need(&row_count_, 2 * z.forces * z.nrows)},
         needs);
  first_.plan(kCounts, z.natoms, needs);
}

inline void PairLister::plan(const StepSizes& z, std::vector<Need>* needs) {
  const std::size_t back = z.forces;
  append({need(&vec_, 3 * z.chunk_pairs), need(&r_, z.chunk_pairs), need(&type_, z.chunk_pairs),
          need(&repformer_row_, z.repformer), need(&by_row_, back * z.candidates),
          need(&by_row_repformer_, has(kRepformer) ? back * z.candidates : 0),
          need(&crowded_, few_ ? z.natoms + 1 : 0)},
         needs);
}

inline void PairLister::list_changed(const StepSizes& z) {
  const double more = static_cast<double>(z.candidates) / static_cast<double>(measured_candidates_);
  if (!(more > 0.9 && more < 1.05)) bounds_known_ = false;
}

// The kernel that marks and counts the pairs.
inline SelectPairs PairLister::selection() const {
  const Subnet* subnets[kSubnets] = {&model_.repinit, &model_.three_body, &model_.repformer};
  SelectPairs kernel{
      candidates_.view(), {}, exclusions_.model, exclusions_.descriptor, candidates_.most(), count_.data(),
      zeroed_.data()};
  for (int v = 0; v < kSubnets; ++v) {
    if (has(v)) kernel.cutoff[v] = {subnets[v]->rcut, subnets[v]->room};
  }
  return kernel;
}

inline void PairLister::measure(bool with_room, StepSizes* sizes) {
  natoms_ = static_cast<int>(sizes->natoms), nrows_ = static_cast<int>(sizes->nrows);
  starter_->start(selection(), natoms_);
  first_.scan(starter_, kCounts, natoms_, count_);
  PairTotals t;
  static_assert(sizeof(t) == 2 * kCounts * sizeof(std::int64_t));
  first_.total.download(t.sum, 2 * kCounts);
  refuse_coincident_atoms(t);
  const auto bound = [&](int which) {
    const std::int64_t n = t.sum[which];
    return with_room ? n + std::min<std::int64_t>(n / 20, 65536) + 16 : n;
  };
  bound_ = {bound(kRepinit), bound(kThreeBody), bound(kRepformer)};
  sizes->pairs = bound_.pairs, sizes->repformer = bound_.repformer;
  chunks_.divide(natoms_, bound_, first_.first, sizes);
  for (int v = 0; v < kSubnets; ++v) most_[v] = static_cast<int>(t.most[v]);
  bounds_known_ = with_room;
  measured_candidates_ = sizes->candidates;
}

inline void PairLister::count_within_bounds() {
  starter_->start(selection(), natoms_);
  ScanLimit limit[kCounts];
  limit[kRepinit] = {bound_.pairs, most_[kRepinit]};
  limit[kThreeBody] = {bound_.three, most_[kThreeBody]};
  limit[kRepformer] = {bound_.repformer, most_[kRepformer]};
  limit[kCoincidentPairs] = {0, 0};
  first_.scan(starter_, kCounts, natoms_, count_, limit);
}

inline bool PairLister::within_bounds(const PairTotals& t) const {
  bool within = t.sum[kRepinit] <= bound_.pairs && t.sum[kThreeBody] <= bound_.three &&
                t.sum[kRepformer] <= bound_.repformer && t.most[kCoincidentPairs] == 0;
  for (int v = 0; v < kSubnets; ++v) within = within && t.most[v] <= most_[v];
  return within;
}

inline void PairLister::refuse_coincident_atoms(const PairTotals& t) const {
  if (t.most[kCoincidentPairs] == 0) return;
  const std::vector<int> coincident = atom_counts(kCoincidentPairs);
  refuse_coincident(static_cast<int>(
      std::find_if(coincident.begin(), coincident.end(), [](int c) { return c > 0; }) - coincident.begin()));
}

// Downloads one count (kRepinit ... kCoincidentPairs) of every atom.
inline std::vector<int> PairLister::atom_counts(int which) const {
  std::vector<int> out(natoms_);
  if (!out.empty()) copy_to_host(out.data(), counts(which), out.size() * sizeof(int));
  return out;
}

inline void PairLister::describe(const PairTotals& t, PairList* out) const {
  out->size = t.sum[kRepinit];
  out->max_count = static_cast<int>(t.most[kRepinit]);
  out->overfull_atom = -1;
  out->overfull_count = out->overfull_nsel = 0;
  if (overfull_count(static_cast<int>(t.most[kOverfull])) == 0) return;
  const std::vector<int> code = atom_counts(kOverfull);
  const auto most = std::max_element(code.begin(), code.end(),
                                     [](int a, int b) { return overfull_count(a) < overfull_count(b); });
  const int nsel[kSubnets] = {model_.repinit.nsel, model_.three_body.nsel, model_.repformer.nsel};
  out->overfull_atom = static_cast<int>(most - code.begin());
  out->overfull_count = overfull_count(*most);
  out->overfull_nsel = nsel[overfull_subnet(*most)];
}

template <class T>
void PairLister::point(State<T>* s) const {
  EnvView<T>* const subnets[kSubnets] = {&s->repinit, &s->three, &s->repformer};
  for (int v = 0; v < kSubnets; ++v) {
    if (has(v)) subnets[v]->count = counts(v), subnets[v]->first = first(v);
  }
  s->center_type = candidates_.types(), s->zeroed = zeroed_.data();
  s->vec = vec_.data(), s->r = r_.data(), s->type = type_.data(), s->repformer_row = repformer_row_.data();
}

inline void PairLister::number(std::int32_t* pair_of) {
  fill({0, natoms_}, pair_of, true, chunks_.one());
  if (!pair_of) return;
  starter_->launches().beside(true);  // first read in the reverse sweep
  starter_->start(FillRows{candidates_.most_of_row(),
                           candidates_.row_first(),
                           candidates_.by_row(),
                           {pair_of, pair_of + candidates_.size()},
                           {by_row_.data(), has(kRepformer) ? by_row_repformer_.data() : nullptr},
                           {row_count_.data(), row_count_.data() + nrows_}},
                  nrows_);
  starter_->launches().beside(false);
}

// Writes the pairs' numbers, or the pairs (vector, distance, type), or both.
inline void PairLister::fill(Range a, std::int32_t* pair_of, bool numbers, bool pairs) {
  FillPairs kernel = {};
  kernel.c = candidates_.view();
  kernel.most = candidates_.most();
  kernel.count = counts(kRepinit), kernel.first = first(kRepinit);
  if (has(kRepformer))
    kernel.repformer_count = counts(kRepformer), kernel.repformer_first = first(kRepformer);
  if (numbers) {
    if (crowded())
      kernel.few = few_, kernel.crowded = crowded_.data(), kernel.crowded_atom = crowded_.data() + 1;
    kernel.repformer_row = repformer_row_.data();
    if (pair_of) kernel.pair_of = pair_of, kernel.repformer_of = pair_of + candidates_.size();
  }
  if (pairs) {
    const std::int64_t before = chunks_.pairs_before(a.begin).pairs;
    kernel.vec = moved(vec_.data(), before, 3);
    kernel.r = moved(r_.data(), before, 1);
    kernel.type = moved(type_.data(), before, 1);
  }
  starter_->start(kernel, a);
}

inline RowPairs PairLister::by_row(int subnet, Range a) const {
  const bool all = subnet == kRepinit;
  const PairNumbers &begin = chunks_.pairs_before(a.begin), &end = chunks_.pairs_before(a.end);
  return {candidates_.row_first(),
          row_count_.data() + (all ? 0 : std::int64_t{nrows_}),
          all ? by_row_.data() : by_row_repformer_.data(),
          chunks_.one(),
          all ? begin.pairs : begin.repformer,
          all ? end.pairs : end.repformer};
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
