// Sums and transposes across vector lanes, and the slots of neighbours' gradients, against plain loops; built
// once per instruction set.
#include <algorithm>
#include <cmath>
#include <random>
#include <set>
#include <vector>

#include "check.h"
#include "cpu/parts/shares.h"
#include "cpu/vector/lanes.h"
#include "isa.h"

using namespace dpa2md::DPA2MD_ISA;

namespace {

template <class T>
std::vector<T> numbers(std::size_t n) {
  static std::mt19937 random(5);
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<T> out(n);
  for (T& x : out) x = static_cast<T>(uniform(random));
  return out;
}

template <class T>
int whole(int n) {
  return (n + lanes<T>() - 1) / lanes<T>() * lanes<T>();
}

template <class T>
void test_sum_rows(int rows, int width) {
  const std::vector<T> x = numbers<T>(rows * width), y = numbers<T>(rows * width);
  std::vector<T> out(whole<T>(rows), T(99));
  sum_rows<T>(rows, [&](int r) { return product_lanes(width, &x[r * width], &y[r * width]); }, out.data());
  // a sum of `width` products in any order: at most width + 1 roundings of the sum of magnitudes
  const double eps = sizeof(T) == 4 ? std::ldexp(1.0, -24) : std::ldexp(1.0, -53);
  bool right = true;
  for (int r = 0; r < rows; ++r) {
    long double sum = 0, magnitude = 0;
    for (int c = 0; c < width; ++c) {
      const long double term = static_cast<long double>(x[r * width + c]) * y[r * width + c];
      sum += term, magnitude += std::abs(term);
    }
    right = right && std::abs(out[r] - sum) <= (width + 1) * eps * magnitude;
  }
  CHECK(right);
}

template <class T>
void test_transpose(int rows, int columns) {
  const int ld = whole<T>(rows);
  const std::vector<T> in = numbers<T>(rows * columns);
  std::vector<T> out(static_cast<std::size_t>(columns) * ld, T(99));
  transpose_padded(rows, columns, in.data(), out.data(), ld);
  bool right = true;
  for (int c = 0; c < columns; ++c) {
    for (int r = 0; r < ld; ++r) right = right && out[c * ld + r] == (r < rows ? in[r * columns + c] : T(0));
  }
  CHECK(right);
}

template <class T>
void test_lanes() {
  for (int rows : {0, 1, 2, 3, 7, 8, 15, 16, 17, 33}) {
    for (int width : {1, 2, 5, 8, 16, 31, 32, 40}) {
      test_sum_rows<T>(rows, width);
      test_transpose<T>(rows, width);
    }
  }
}

// Pairs of random atoms to random rows.
void test_shares(int natoms, int nrows, int block, int blocks) {
  std::mt19937 random(natoms);
  dpa2md::PairList pairs;
  pairs.natoms = natoms, pairs.nrows = nrows;
  for (dpa2md::Prefix* p : {&pairs.repinit, &pairs.repformer}) p->first.assign(1, 0);
  for (int i = 0; i < natoms; ++i) {
    const int all = static_cast<int>(random() % 9), near = all ? static_cast<int>(random() % all) : 0;
    pairs.repinit.count.push_back(all), pairs.repinit.first.push_back(pairs.repinit.first.back() + all);
    pairs.repformer.count.push_back(near),
        pairs.repformer.first.push_back(pairs.repformer.first.back() + near);
    for (int k = 0; k < all; ++k) pairs.row.push_back(static_cast<int>(random() % nrows));
  }
  Shares shares;
  shares.build(pairs, pairs.repformer, block, blocks);

  std::size_t most = 0;
  for (int from = 0; from < natoms; from += block * blocks) {
    const Shares::Span& c = shares.of_atom(from);
    const std::size_t slots = c.row_slot.size();
    most = std::max(most, slots);
    CHECK(c.row_first.size() == c.row.size() + 1 && c.row_first.back() == static_cast<int>(slots));
    CHECK(std::set<int>(c.row.begin(), c.row.end()).size() == c.row.size());  // no row twice
    std::vector<int> row_of(slots, -1);
    for (std::size_t r = 0; r < c.row.size(); ++r) {
      for (int k = c.row_first[r]; k < c.row_first[r + 1]; ++k) {
        CHECK(row_of[c.row_slot[k]] == -1);  // a slot has one row
        row_of[c.row_slot[k]] = c.row[r];
        CHECK(k == c.row_first[r] || c.row_slot[k] > c.row_slot[k - 1]);  // block after block
      }
    }
    int expected = 0;  // first slot of the block
    for (int b = from; b < std::min(natoms, from + block * blocks); b += block) {
      std::set<int> rows;
      CHECK(shares.begin(b) == expected);
      for (int i = b; i < std::min(natoms, b + block); ++i) {
        for (int k = 0; k < pairs.repformer.count[i]; ++k) {
          const int row = pairs.row[pairs.repinit.first[i] + k];
          const int slot = shares.slot[pairs.repformer.first[i] + k];
          rows.insert(row);
          CHECK(slot >= shares.begin(i) && slot < shares.end(i));
          CHECK(row_of[slot] == row);
        }
      }
      expected += static_cast<int>(rows.size());  // none twice
      CHECK(shares.end(b) == expected);
    }
    CHECK(expected == static_cast<int>(slots));
  }
  CHECK(shares.size() == most);
}

}  // namespace

int main() {
  if (!processor_has_isa()) return kSkipped;
  test_lanes<float>();
  test_lanes<double>();
  for (int natoms : {0, 1, 7, 40}) {
    for (int block : {1, 4, 32}) {
      for (int blocks : {1, 2, 100}) test_shares(natoms, 5 + natoms, block, blocks);
    }
  }
  return check_result();
}
