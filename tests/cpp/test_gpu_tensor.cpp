// The tiles of tensor-core products (csrc/cuda/tensor.h): a warp's lanes are walked through one after
// another, and the product of their fragments is made here, by the tables of the PTX manual.
#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "check.h"
#include "cuda/tensor.h"

using namespace dpa2md::gpu_emulated;

namespace {

constexpr int kLanes = 32;

// D = A B + C for mma.m16n8k8 with tf32; a (lane, 4), b (lane, 2), c (lane, 4). "Warp-level Matrix
// Instructions", PTX ISA: of A row = groupID (a0, a2) or groupID + 8 (a1, a3), column = threadID_in_group
// (a0, a1) or + 4 (a2, a3); of B row = threadID_in_group (b0) or + 4 (b1), column = groupID; of C row =
// groupID (c0, c1) or + 8 (c2, c3), column = 2 threadID_in_group + (i & 1).
void mma(const float (*a)[4], const float (*b)[2], float (*c)[4]) {
  float left[16][8], right[8][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    const int group = lane >> 2, thread = lane % 4;
    left[group][thread] = seen_tf32(a[lane][0]);
    left[group + 8][thread] = seen_tf32(a[lane][1]);
    left[group][thread + 4] = seen_tf32(a[lane][2]);
    left[group + 8][thread + 4] = seen_tf32(a[lane][3]);
    right[thread][group] = seen_tf32(b[lane][0]);
    right[thread + 4][group] = seen_tf32(b[lane][1]);
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = (lane >> 2) + (i < 2 ? 0 : 8), column = lane % 4 * 2 + (i & 1);
      for (int k = 0; k < 8; ++k) c[lane][i] += left[row][k] * right[k][column];
    }
  }
}

// mma.m8n8k4 with f64: of A row = groupID, column = threadID_in_group; of B row = threadID_in_group, column =
// groupID; of C row = groupID, column = 2 threadID_in_group + i.
void mma(const double* a, const double* b, double (*c)[2]) {
  double left[8][4], right[4][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    left[lane >> 2][lane % 4] = a[lane];
    right[lane % 4][lane >> 2] = b[lane];
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 2; ++i) {
      for (int k = 0; k < 4; ++k) c[lane][i] += left[lane >> 2][k] * right[k][lane % 4 * 2 + i];
    }
  }
}

template <class T, int NT>
using Warp = std::vector<TensorTile<T, NT>>;

// As multiply() of tensor.h, all lanes in step.
template <int NT>
void multiply(Warp<float, NT>* w, int rest) {
  float high[kLanes][4], low[kLanes][4], right[kLanes][2][NT];
  for (int lane = 0; lane < kLanes; ++lane) {
    float left[4];
    (*w)[lane].template take<true>(rest, left, right[lane][0]);
    (*w)[lane].template take<true>(rest - 4, left + 2, right[lane][1]);
    for (int e = 0; e < 4; ++e) split_tf32(left[e], &high[lane][e], &low[lane][e]);
  }
  for (int q = 0; q < NT; ++q) {
    float h[kLanes][2], l[kLanes][2], c[kLanes][4];
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int e = 0; e < 2; ++e) split_tf32(right[lane][e][q], &h[lane][e], &l[lane][e]);
      std::copy_n((*w)[lane].c[q], 4, c[lane]);
    }
    mma(low, h, c), mma(high, l, c), mma(high, h, c);
    for (int lane = 0; lane < kLanes; ++lane) std::copy_n(c[lane], 4, (*w)[lane].c[q]);
  }
}
template <int NT>
void multiply(Warp<double, NT>* w, int rest) {
  for (int half = 0; half < 8; half += 4) {
    double left[2][kLanes], right[NT][kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      double a[2], b[NT];
      (*w)[lane].template take<true>(rest - half, a, b);
      for (int h = 0; h < 2; ++h) left[h][lane] = a[h];
      for (int q = 0; q < NT; ++q) right[q][lane] = b[q];
    }
    for (int q = 0; q < NT; ++q) {
      for (int h = 0; h < 2; ++h) {
        double c[kLanes][2];
        for (int lane = 0; lane < kLanes; ++lane) std::copy_n((*w)[lane].c[q] + 2 * h, 2, c[lane]);
        mma(left[h], right[q], c);
        for (int lane = 0; lane < kLanes; ++lane) std::copy_n(c[lane], 2, (*w)[lane].c[q] + 2 * h);
      }
    }
  }
}

std::mt19937 generator(3);

template <class T>
std::vector<T> numbers(std::size_t n) {
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<T> out(n);
  for (T& x : out) x = static_cast<T>(uniform(generator));
  return out;
}

// Exactly as many numbers as the matrix has, so that sanitizers see a step beyond.
template <class T>
struct Factor {
  std::unique_ptr<T[]> data;
  Matrix<T> matrix;
  Factor(int rows, int columns, bool turned) {
    const std::vector<T> from = numbers<T>(static_cast<std::size_t>(rows) * columns);
    data.reset(new T[from.size()]);
    std::copy(from.begin(), from.end(), data.get());
    matrix = turned ? transposed<T>(data.get(), rows) : plain<T>(data.get(), columns);
  }
  T operator()(int i, int k) const { return matrix.data[i * matrix.row + k * matrix.col]; }
};

template <class T, int NT>
void test_product(int m, int n, int k, bool turn_x, bool turn_y, bool add) {
  const Factor<T> x(m, k, turn_x), y(k, n, turn_y);
  const std::vector<T> before = numbers<T>(static_cast<std::size_t>(m) * n);
  std::vector<T> out = before;
  for (int i0 = 0; i0 < m; i0 += 16) {
    for (int j0 = 0; j0 < n; j0 += 8 * NT) {
      Warp<T, NT> warp;
      for (int lane = 0; lane < kLanes; ++lane) warp.emplace_back(lane, i0, j0, m, n, x.matrix, y.matrix);
      for (int rest = k; rest > 0; rest -= 8) multiply<NT>(&warp, rest);
      for (int lane = 0; lane < kLanes; ++lane) warp[lane].store(lane, i0, j0, m, n, out.data(), n, add);
    }
  }
  // float32: 2^-22 of every product is left out at most, and the three sums are rounded k times each. (Plain
  // tf32 would be off by 2^-11.)
  const double eps = sizeof(T) == 4 ? std::ldexp(1.0, -22) : std::ldexp(1.0, -52);
  bool right = true;
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      double sum = add ? before[i * n + j] : 0, size = std::abs(sum);
      for (int p = 0; p < k; ++p) {
        sum += double(x(i, p)) * y(p, j);
        size += std::abs(double(x(i, p)) * y(p, j));
      }
      right = right && std::abs(out[i * n + j] - sum) <= (1 + std::sqrt(k)) * eps * size;
    }
  }
  if (!right) std::fprintf(stderr, "%d x %d x %d, %d columns\n", m, n, k, 8 * NT);
  CHECK(right);
}

template <class T>
void test_shapes() {
  for (const int m : {9, 16, 27}) {
    for (const int n : {8, 27, 35, 64}) {
      for (const int k : {4, 8, 27, 32}) {
        for (const bool turned : {false, true}) {
          test_product<T, 1>(m, n, k, turned, false, false);
          test_product<T, 2>(m, n, k, false, turned, true);
          test_product<T, 4>(m, n, k, turned, !turned, false);
        }
      }
    }
  }
}

// The lanes of a fragment read from 32 different banks, whichever way a factor lies (two lanes at most share
// one where the contraction runs along rows).
void test_banks() {
  for (int n = 1; n <= 200; ++n) {
    const int ld = spread<float>(n);
    CHECK(ld >= n && ld < n + 8);
    std::vector<int> along(32, 0), across(32, 0);
    for (int lane = 0; lane < kLanes; ++lane) {
      ++along[(lane / 4 * ld + lane % 4) % 32];
      ++across[(lane % 4 * ld + lane / 4) % 32];
    }
    CHECK(*std::max_element(along.begin(), along.end()) == 1);
    CHECK(*std::max_element(across.begin(), across.end()) <= 2);
    CHECK(spread<double>(n) % 2 == 1);
  }
}

void test_split() {
  for (const float x : numbers<float>(1000)) {
    float high, low;
    split_tf32(x, &high, &low);
    CHECK(high + low == x && seen_tf32(high) == high);
    CHECK(std::abs(low) <= std::ldexp(std::abs(x), -11));
  }
  float high, low;
  split_tf32(0.0f, &high, &low);
  CHECK(high == 0 && low == 0);
}

}  // namespace

int main() {
  test_split();
  test_banks();
  test_shapes<float>();
  test_shapes<double>();
  return check_result();
}
