// Emulates a tensor core of an H100 or H200: the sum of a float and products of tf32 or f16.
#pragma once

#include <cstdint>
#include <vector>

namespace dpa2md {

// c + a[0] b[0] + ... + a[count - 1] b[count - 1], of what one mma instruction adds at once: count is 8 for
// tf32, 16 for f16. The products are exact. All addends are cut, towards zero, behind the 25th bit after
// the highest that c or a product can have (a product's by the sum of its factors' exponents). The sum of
// what is left, exact, is cut to a float, towards zero too. For tf32 this gives the bits of an H200
// (test_gpu_tensor), whose samples have one factor 1; the rest is from Khattak and Mikaitis, arXiv
// 2512.07004.
float tensor_core_sum(float c, const float* a, const float* b, int count);

// A row x (k) times y (k, n), every number of them a sum of two tf32, as a warp makes it with add_product()
// of block/tensor.h.
class TensorCoreProduct {
 public:
  TensorCoreProduct(int k, int n);
  void set_x(int p, float high, float low);
  void set_y(int p, int j, float high, float low);
  // c (n)
  void row(float* c) const;

  static constexpr int kColumns = 64;  // that row() does at once
  template <int N>
  struct Factors {
    double factor[N];
    std::int32_t exponent[N];
    void set(int at, float x);
  };
  template <int N>
  struct Split {
    Factors<N> high, low;
  };

 private:
  int k_, n_;
  std::vector<Split<1>> x_;         // (k), k a multiple of 8 here
  std::vector<Split<kColumns>> y_;  // (n / kColumns, k)
};

}  // namespace dpa2md
