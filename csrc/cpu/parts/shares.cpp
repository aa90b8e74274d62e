#include "cpu/parts/shares.h"

#include <algorithm>

namespace dpa2md {
namespace DPA2MD_ISA {

namespace {

// The last list in which each row occurred, and the row's number there.
struct Seen {
  std::vector<int> stamp, place;
  explicit Seen(int rows) : stamp(rows, -1), place(rows) {}
  // The number of `row` in `list`; appends the row if it has not occurred since `now` began.
  int number(std::int32_t row, int now, std::size_t begin, std::vector<std::int32_t>* list) {
    if (stamp[row] != now) {
      stamp[row] = now, place[row] = static_cast<int>(list->size() - begin);
      list->push_back(row);
    }
    return place[row];
  }
};

// Groups the span's slots by row; slot_row (slots).
void group_by_row(int now, const std::vector<std::int32_t>& slot_row, Seen* seen, Shares::Span* c) {
  c->row.clear();
  std::vector<std::int32_t>& first = c->row_first;
  first.assign(1, 0);
  for (const std::int32_t row : slot_row) {
    const std::size_t k = seen->number(row, now, 0, &c->row);
    if (k + 1 == first.size()) first.push_back(0);
    ++first[k + 1];
  }
  for (std::size_t k = 1; k < first.size(); ++k) first[k] += first[k - 1];
  c->row_slot.resize(slot_row.size());
  for (std::size_t s = slot_row.size(); s-- > 0;) {
    // from the last to the first: a row's end moves down to its beginning
    c->row_slot[--first[seen->place[slot_row[s]] + 1]] = static_cast<std::int32_t>(s);
  }
  first.erase(first.begin());
  first.push_back(static_cast<std::int32_t>(slot_row.size()));
}

}  // namespace

void Shares::build(const PairList& pairs, const Prefix& prefix, int block, int blocks) {
  block_ = block, blocks_ = blocks;
  const int natoms = pairs.natoms, in_span = block * blocks, spans = (natoms + in_span - 1) / in_span;
  slot.resize(static_cast<std::size_t>(prefix.first[natoms]));
  span.resize(spans);
#pragma omp parallel
  {
    Seen in_block(pairs.nrows), by_span(pairs.nrows);
    std::vector<std::int32_t> slot_row;
#pragma omp for schedule(static)
    for (int c = 0; c < spans; ++c) {
      slot_row.clear();
      span[c].first.assign(1, 0);
      for (int b = c * blocks; b < std::min((c + 1) * blocks, (natoms + block - 1) / block); ++b) {
        const std::size_t begin = slot_row.size();
        for (int i = b * block; i < std::min(natoms, (b + 1) * block); ++i) {
          const std::int32_t* row = pairs.row.data() + pairs.repinit.first[i];
          for (int j = 0; j < prefix.count[i]; ++j) {
            slot[prefix.first[i] + j] =
                static_cast<std::int32_t>(begin) + in_block.number(row[j], b, begin, &slot_row);
          }
        }
        span[c].first.push_back(static_cast<std::int32_t>(slot_row.size()));
      }
      group_by_row(c, slot_row, &by_span, &span[c]);
    }
  }
}

std::size_t Shares::size() const {
  std::int32_t most = 0;
  for (const Span& c : span) most = std::max(most, c.first.back());
  return static_cast<std::size_t>(most);
}

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
