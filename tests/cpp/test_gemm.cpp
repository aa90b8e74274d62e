// The small matrix products against a plain triple loop, built once per instruction set.
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "check.h"
#include "cpu/vector/gemm.h"
#include "isa.h"

using namespace dpa2md::DPA2MD_ISA;

namespace {

using Random = std::mt19937;
constexpr double kGuard = 12345;  // stands where nothing may be written

int size(Random& random, int most) { return 1 + static_cast<int>(random() % static_cast<unsigned>(most)); }

template <class T>
std::vector<T> numbers(Random& random, std::size_t n) {
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<T> out(n);
  for (T& x : out) x = static_cast<T>(uniform(random));
  return out;
}

// The arrays end with their last element, so that the sanitizer sees every read beyond it.
template <class T>
void check_gemm(Random& random, int m, int n, int k, bool strided, bool add) {
  const int gap = static_cast<int>(random() % 4);
  const int lda = (strided ? m : k) + gap, ldb = n + gap, ldc = n + static_cast<int>(random() % 4);
  const auto a = numbers<T>(random, k ? (strided ? (k - 1) * lda + m : (m - 1) * lda + k) : 0);
  const auto b = numbers<T>(random, k ? (k - 1) * ldb + n : 0);
  std::vector<T> c(static_cast<std::size_t>(m - 1) * ldc + n, T(kGuard));
  const auto before = numbers<T>(random, static_cast<std::size_t>(m) * n);
  for (int i = 0; add && i < m; ++i)
    for (int j = 0; j < n; ++j) c[i * ldc + j] = before[i * n + j];
  gemm(m, n, k, strided ? transposed(a.data(), lda) : plain(a.data(), lda), b.data(), ldb, c.data(), ldc,
       add);

  // A sum of k products in any order: at most k + 1 roundings of the sum of magnitudes.
  const double eps = sizeof(T) == 4 ? std::ldexp(1.0, -24) : std::ldexp(1.0, -53);
  bool right = true, guarded = true;
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < ldc && i * ldc + j < static_cast<int>(c.size()); ++j) {
      if (j >= n) {
        guarded = guarded && c[i * ldc + j] == T(kGuard);
        continue;
      }
      long double sum = add ? before[i * n + j] : T(0), magnitude = std::abs(sum);
      for (int p = 0; p < k; ++p) {
        const long double term =
            static_cast<long double>(strided ? a[p * lda + i] : a[i * lda + p]) * b[p * ldb + j];
        sum += term, magnitude += std::abs(term);
      }
      right = right && std::abs(c[i * ldc + j] - sum) <= (k + 1) * eps * magnitude;
    }
  }
  if (!right || !guarded) std::fprintf(stderr, "m %d n %d k %d strided %d add %d\n", m, n, k, strided, add);
  CHECK(right);
  CHECK(guarded);
}

template <class T>
void test_gemm() {
  Random random(3);
  // every tail: of a tile's rows, of two vectors, one vector and its halves
  for (int m = 1; m <= 2 * kTileRows + 1; ++m)
    for (int n = 1; n <= 4 * lanes<T>() + 1; n += m % 3 + 1) check_gemm<T>(random, m, n, 3, n % 2, m % 2);
  for (int i = 0; i < 300; ++i) {
    check_gemm<T>(random, size(random, 40), size(random, 140), size(random, 130), random() % 2, random() % 2);
  }
  check_gemm<T>(random, 5, 9, 0, false, false);  // an empty contraction is zero
  check_gemm<T>(random, 5, 9, 0, false, true);   // or leaves C as it is
}

template <class T>
void test_vectors() {
  Random random(5);
  const double eps = sizeof(T) == 4 ? std::ldexp(1.0, -24) : std::ldexp(1.0, -53);
  for (int n = 0; n <= 4 * lanes<T>() + 3; ++n) {
    const auto x = numbers<T>(random, n), y = numbers<T>(random, n);
    auto z = y;
    long double sum = 0, magnitude = 0;
    for (int i = 0; i < n; ++i) {
      sum += static_cast<long double>(x[i]) * y[i];
      magnitude += std::abs(static_cast<long double>(x[i]) * y[i]);
    }
    CHECK(std::abs(dot(n, x.data(), y.data()) - sum) <= (n + 1) * eps * magnitude);
    axpy(n, T(0.75), x.data(), z.data());
    bool right = true;
    for (int i = 0; i < n; ++i) right = right && std::abs(z[i] - (y[i] + 0.75L * x[i])) <= 4 * eps;
    CHECK(right);
  }
  const auto a = numbers<T>(random, 7 * 11);
  std::vector<T> t(11 * 9, T(kGuard));
  transpose(7, 11, a.data(), 11, t.data(), 9);
  bool right = true;
  for (int i = 0; i < 9; ++i)
    for (int j = 0; j < 11; ++j) right = right && t[j * 9 + i] == (i < 7 ? a[i * 11 + j] : T(kGuard));
  CHECK(right);
}

}  // namespace

int main() {
  if (!processor_has_isa()) return kSkipped;
  test_gemm<double>();
  test_gemm<float>();
  test_vectors<double>();
  test_vectors<float>();
  return check_result();
}
