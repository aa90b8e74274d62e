// The tiles of tensor-core products (csrc/cuda/block/tensor.h): a warp's lanes are walked through one after
// another, and the product of their fragments is made here, by the tables of the PTX manual.
#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "check.h"
#include "cuda/block/tensor.h"

using namespace dpa2md::gpu_emulated;
using dpa2md::tensor_core_sum;

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
      float of_column[8];
      for (int k = 0; k < 8; ++k) of_column[k] = right[k][column];
      c[lane][i] = tensor_core_sum(c[lane][i], left[row], of_column, 8);
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

// As multiply() of tensor.h, all lanes in step.
template <int NT, class Tile>
void multiply(std::vector<Tile>* w, int rest, float) {
  float high[kLanes][4], low[kLanes][4];
  SplitFloat right[kLanes][2][NT];
  for (int lane = 0; lane < kLanes; ++lane) {
    SplitFloat left[2][2];
    (*w)[lane].template take<true>(rest, left, right[lane]);
    for (int e = 0; e < 4; ++e)
      high[lane][e] = left[e / 2][e % 2].high, low[lane][e] = left[e / 2][e % 2].low;
  }
  for (int q = 0; q < NT; ++q) {
    float h[kLanes][2], l[kLanes][2], part[kLanes][4] = {};
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int e = 0; e < 2; ++e) h[lane][e] = right[lane][e][q].high, l[lane][e] = right[lane][e][q].low;
    }
    mma(low, h, part), mma(high, l, part), mma(high, h, part);
    for (int e = 0; e < 4 * kLanes; ++e) (*w)[e / 4].c[q][e % 4] += part[e / 4][e % 4];
  }
}
template <int NT, class Tile>
void multiply(std::vector<Tile>* w, int rest, double) {
  double left[2][2][kLanes], right[2][NT][kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    double a[2][2], b[2][NT];
    (*w)[lane].template take<true>(rest, a, b);
    for (int e = 0; e < 4; ++e) left[e / 2][e % 2][lane] = a[e / 2][e % 2];
    for (int e = 0; e < 2 * NT; ++e) right[e / NT][e % NT][lane] = b[e / NT][e % NT];
  }
  for (int half = 0; half < 2; ++half) {
    for (int q = 0; q < NT; ++q) {
      for (int h = 0; h < 2; ++h) {
        double c[kLanes][2];
        for (int lane = 0; lane < kLanes; ++lane) std::copy_n((*w)[lane].c[q] + 2 * h, 2, c[lane]);
        mma(left[half][h], right[half][q], c);
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
  int rows, columns;
  std::unique_ptr<T[]> data;
  std::vector<T> fragments;
  Factor(int rows, int columns) : rows(rows), columns(columns) {
    const std::vector<T> from = numbers<T>(static_cast<std::size_t>(rows) * columns);
    data.reset(new T[from.size()]);
    std::copy(from.begin(), from.end(), data.get());
    fragments = fragments_of<T>(std::vector<double>(from.begin(), from.end()).data(), 1, rows, columns);
  }
  Plain<T> as_plain() const { return plain<T>(data.get(), columns); }
  Transposed<T> as_transposed() const { return transposed<T>(data.get(), rows); }
  Weight<T> as_weight() const { return {data.get(), fragments.data(), rows, columns}; }
};

template <class T, int NT, class X, class Y>
void test_product(int m, int n, int k, X x, Y y, bool add) {
  if (NT > 1 && Right<Y, NT>::kWhole && n % (8 * NT)) return;
  const std::vector<T> before = numbers<T>(static_cast<std::size_t>(m) * n);
  std::vector<T> out = before;
  for (int i0 = 0; i0 < m; i0 += 16) {
    for (int j0 = 0; j0 < n; j0 += 8 * NT) {
      std::vector<TensorTile<T, X, Y, NT>> warp;
      for (int lane = 0; lane < kLanes; ++lane) warp.emplace_back(lane, i0, j0, m, n, x, y);
      for (int rest = k; rest > 0; rest -= 8) multiply<NT>(&warp, rest, T());
      for (int lane = 0; lane < kLanes; ++lane) warp[lane].store(lane, i0, j0, m, n, out.data(), n, add);
    }
  }
  // float32: 2^-22 of every product is left out at most, and sums are cut or rounded for every eight. (Plain
  // tf32 would be off by 2^-11.)
  const double eps = sizeof(T) == 4 ? std::ldexp(1.0, -22) : std::ldexp(1.0, -52);
  bool right = true;
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      double sum = add ? before[i * n + j] : 0, size = std::abs(sum);
      for (int p = 0; p < k; ++p) {
        sum += double(x.at(i, p)) * y.at(p, j);
        size += std::abs(double(x.at(i, p)) * y.at(p, j));
      }
      right = right && std::abs(out[i * n + j] - sum) <= (1 + std::sqrt(k)) * eps * size;
    }
  }
  if (!right) std::fprintf(stderr, "%d x %d x %d, %d columns\n", m, n, k, 8 * NT);
  CHECK(right);
  // what the emulated device makes of it, which walks through no lanes: of floats, the same bits
  std::vector<T> emulated = before;
  gemm_tensor(ThreadBlock{0, 1, 0, 1, 0, 1, nullptr}, m, n, k, x, y, emulated.data(), n, add);
  CHECK(sizeof(T) == 8 || emulated == out);
}

template <class T, int NT>
void test_factors(int m, int n, int k) {
  const Factor<T> x(m, k), y(k, n);
  test_product<T, NT>(m, n, k, x.as_plain(), y.as_plain(), true);
  test_product<T, NT>(m, n, k, x.as_plain(), y.as_transposed(), false);
  test_product<T, NT>(m, n, k, x.as_plain(), y.as_weight(), true);
  test_product<T, NT>(m, n, k, x.as_transposed(), y.as_plain(), false);
}

template <class T>
void test_shapes() {
  for (const int m : {9, 16, 27}) {
    for (const int n : {8, 27, 35, 64, 80}) {
      for (const int k : {4, 8, 27, 32}) {
        test_factors<T, 1>(m, n, k);
        test_factors<T, 2>(m, n, k);
        test_factors<T, kWidest<T> - 1>(m, n, k);
        test_factors<T, kWidest<T>>(m, n, k);
      }
    }
  }
}

// How many lanes of a group find their numbers in the same bank, at most.
template <class T, class F>
int conflicts(F address) {
  constexpr int banks = 128 / sizeof(T);  // also lanes that are served at the same time
  int most = 0;
  for (int first = 0; first < kLanes; first += banks) {
    std::vector<int> lanes(banks, 0);
    for (int lane = first; lane < first + banks; ++lane)
      most = std::max(most, ++lanes[address(lane / 4, lane % 4) % banks]);
  }
  return most;
}

// The lanes find their numbers in different banks, whichever way a factor lies; two share one at most where
// floats along the contraction come in pairs and where doubles are stored.
template <class T>
void test_banks() {
  constexpr bool pairs = Right<Plain<T>, 1>::kPairs;
  for (int n = 1; n <= 200; ++n) {
    const int ld = spread(n);
    CHECK(ld >= n && ld < n + 8);
    CHECK(conflicts<T>([&](int g, int t) { return g * ld + t; }) == 1);
    CHECK(conflicts<T>([&](int g, int t) { return column_of<T>(g) * ld + t; }) == 1);
    CHECK(conflicts<T>([&](int g, int t) { return g * ld + first_of<pairs>(t); }) <= 2);
    CHECK(conflicts<T>([&](int g, int t) { return first_of<pairs>(t) * ld + column_of<T>(g); }) == 1);
    CHECK(conflicts<T>([&](int g, int t) { return g * ld + column_of<T>(2 * t); }) <= (pairs ? 1 : 2));
  }
}

void test_split() {
  std::vector<float> all = numbers<float>(1000);
  for (const float x : {0.0f, 1.0f, std::nextafter(1.0f, 0.0f), std::nextafter(2.0f, 0.0f)}) all.push_back(x);
  for (const float x : all) {
    const SplitFloat s = split(x);
    CHECK(s.high + s.low == x && seen_tf32(s.high) == s.high);
    CHECK(std::abs(s.low) <= std::ldexp(std::abs(x), -11));
  }
}

// What an H200 made of c + p0 + ... + p7 (mma.m16n8k8 with tf32, the p times 1): c, p0 ... p7, the sum. Of
// 512 such lines those that other models, with fewer bits, sums of four or other roundings, would not
// explain.
void test_tensor_core() {
  const float lines[][10] = {
      {-0x1.4c571cp-12f, 0x1.758p-6f, 0x1.128p-2f, 0x1.cbp-5f, -0x1.e18p-4f, -0x1.554p-5f, 0x1.5a4p-6f,
       -0x1.244p-2f, 0x1.35cp-5f, -0x1.4038acp-5f},
      {-0x1.41efep-14f, 0x1.48cp-5f, 0x1.23cp-2f, 0x1.9bp-10f, -0x1.06cp-5f, 0x1.5a8p-10f, -0x1.d98p-6f,
       -0x1.08p-2f, 0x1.6f4p-6f, 0x1.01eb0cp-5f},
      {0x1.d09e36p-16f, 0x1.bfp-7f, -0x1.208p-9f, 0x1.63p-4f, 0x1.8f4p-7f, -0x1.f7p-3f, 0x1.5acp-6f,
       0x1.0cp-4f, 0x1.8dp-7f, -0x1.2b9deep-5f},
      {0x1.4bbb78p-10f, 0x1.554p-4f, -0x1.d2p-4f, 0x1.2d4p-9f, 0x1.538p-6f, -0x1.124p-7f, 0x1.a7p-7f,
       -0x1.a38p-4f, 0x1.0dcp-3f, 0x1.c543b4p-6f},
      {0x1.7ba688p-13f, -0x1.75p-10f, -0x1.288p-5f, -0x1.0f8p-2f, -0x1.7f4p-7f, -0x1.98cp-7f, 0x1.1ap-4f,
       0x1.364p-3f, 0x1.cbcp-5f, -0x1.9bec5cp-5f},
      {-0x1.a4fd52p-13f, 0x1.edp-12f, 0x1.7ecp-6f, 0x1.9acp-12f, 0x1.1dcp-5f, -0x1.be4p-7f, -0x1.f2p-8f,
       -0x1.13cp-2f, -0x1.f2p-6f, -0x1.0c48aep-2f},
      {0x1.1d5bc4p-10f, 0x1.444p-3f, -0x1.27cp-2f, -0x1.138p-2f, 0x1.65p-4f, 0x1.01cp-1f, 0x1.3ep-4f,
       0x1.764p-4f, 0x1.7c8p-6f, 0x1.89955ap-2f},
      {0x1.27ed1p+5f, -0x1.fb4p-3f, 0x1.f14p-4f, 0x1.0d8p-5f, 0x1.4acp-4f, 0x1.29cp-10f, 0x1.e88p-2f,
       -0x1.a64p-10f, 0x1.38cp-3f, 0x1.2cdbf6p+5f},
      {0x1.6a6bfp-10f, 0x1.0e4p-3f, 0x1.0dcp-3f, 0x1.b58p-10f, -0x1.1d8p-2f, 0x1.73p-6f, 0x1.cb8p-7f,
       0x1.228p-4f, 0x1.98cp-4f, 0x1.8ff7d6p-3f},
      {0x1.0ba9a2p+6f, 0x1.9c8p-5f, 0x1.42cp-5f, 0x1.1c8p-5f, 0x1.5dcp-4f, 0x1.6ecp-4f, -0x1.278p-13f,
       0x1.5fcp-4f, 0x1.ad4p-7f, 0x1.0d416ep+6f},
      {0x1.457b66p+6f, 0x1.1bp-2f, 0x1.014p-9f, 0x1.a78p-7f, 0x1.1bp-5f, 0x1.5p-4f, 0x1.3d4p-3f, -0x1.0bp-5f,
       -0x1.7ecp-10f, 0x1.4798c6p+6f},
      {-0x1.6202e2p-13f, 0x1.204p-2f, 0x1.31p-4f, 0x1.a4p-5f, 0x1.bd8p-10f, 0x1.5fcp-10f, 0x1.8a4p-4f,
       0x1.accp-7f, 0x1.a4cp-7f, 0x1.10868p-1f},
  };
  float ones[8];
  std::fill_n(ones, 8, 1.0f);
  for (const auto& line : lines) CHECK(tensor_core_sum(line[0], line + 1, ones, 8) == line[9]);
  for (const auto& line : lines) CHECK(tensor_core_sum(line[0], ones, line + 1, 8) == line[9]);
  // a float's exponents end at both sides
  const float tiny[8] = {0x1p-149f, 0x1.8p-127f}, huge[8] = {0x1p127f};
  CHECK(tensor_core_sum(0x1p-148f, tiny, ones, 8) == 0x1p-148f + 0x1p-149f + 0x1.8p-127f);
  CHECK(std::isinf(tensor_core_sum(0, huge, std::vector<float>(8, 4.0f).data(), 8)));
  CHECK(std::isnan(tensor_core_sum(NAN, tiny, ones, 8)));
}

// Long sums of one sign: the mean error, which all atoms share, is below the rounding of a single sum. (In
// one accumulator over the whole contraction it is 1.3e-5.)
void test_bias() {
  constexpr int m = 64, n = 64, k = 1200;
  const std::vector<float> signs = numbers<float>(m * k), weights = numbers<float>(k * n);
  std::vector<float> x(m * k), y(k * n), out(m * n);
  for (int e = 0; e < m * k; ++e) x[e] = std::abs(signs[e]);
  for (int e = 0; e < k * n; ++e) y[e] = std::abs(weights[e]);
  gemm_tensor(ThreadBlock{0, 1, 0, 1, 0, 1, nullptr}, m, n, k, plain(x.data(), k), plain(y.data(), n),
              out.data(), n, false);
  double bias = 0;
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      double sum = 0;
      for (int p = 0; p < k; ++p) sum += double(x[i * k + p]) * y[p * n + j];
      bias += (out[i * n + j] / sum - 1) / (m * n);
    }
  }
  CHECK(std::abs(bias) < std::ldexp(1.0, -24));
}

}  // namespace

int main() {
  test_tensor_core();
  test_bias();
  test_split();
  test_banks<float>();
  test_banks<double>();
  test_shapes<float>();
  test_shapes<double>();
  return check_result();
}
