/* The model's matrix products by csrc/cpu/vector/gemm.h and by Eigen, libxsmm, OpenBLAS and oneDNN, on one core.

     apt install libeigen3-dev libxsmm-dev libopenblas-dev
     pip install onednn-devel-cpu-gomp            # into a virtual environment: $VIRTUAL_ENV/include, lib
     g++ -std=c++17 -O3 -fno-math-errno -fno-trapping-math -fopenmp -Wno-psabi \
       -DDPA2MD_ISA=cpu_avx512 -march=skylake-avx512 -mprefer-vector-width=512 \
       -Icsrc -I/usr/include/eigen3 -I$VIRTUAL_ENV/include benchmarks/gemm_libraries.cpp -o gemm_libraries \
       -L$VIRTUAL_ENV/lib -Wl,-rpath,$VIRTUAL_ENV/lib -lxsmm -lopenblas -ldnnl -ldl
     ./gemm_libraries [--csv]

   Our code is compiled as its stages are (CMakeLists.txt). For AVX2 put -DDPA2MD_ISA=cpu_avx2 -mavx2 -mfma in
   the third line, and hold the libraries to it, which choose at run time:
     LIBXSMM_TARGET=hsw OPENBLAS_CORETYPE=Haswell ONEDNN_MAX_CPU_ISA=AVX2 ./gemm_libraries */
#include <cblas.h>
#include <libxsmm.h>
#include <omp.h>

#include <Eigen/Dense>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <oneapi/dnnl/dnnl.hpp>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "cpu/vector/gemm.h"
#include "cpu/vector/memory.h"

namespace ours = dpa2md::DPA2MD_ISA;

namespace {

// C (m, n) = A (m, k) B (k, n), row-major; a transposed A lies as (k, m). lda: numbers from row to row of A.
struct Product {
  const char* part;
  int m, n, k, lda;
  bool transposed;
  double per_atom;  // how often a step of the medium model needs it for each atom
};

constexpr double kLayers = 6, kPairLayers = 5, kHeads = 4, kBlock = 32;  // the last layer leaves g2 alone

const std::vector<Product> kProducts = {
    {"g2 attention: queries and logits", 26, 32, 32, 32, false, 6 * kHeads * kPairLayers},
    {"g2 attention: map times g2", 26, 32, 26, 32, false, 3 * kHeads * kPairLayers},
    {"g2 attention: map transposed", 26, 32, 26, 32, true, 2 * kHeads * kPairLayers},
    {"g2 attention: all heads", 26, 32, 128, 128, false, 3 * kPairLayers},
    {"node: conv", 35, 128, 26, 35, true, kLayers},
    {"node: conv reverse", 26, 128, 35, 35, false, kLayers},
    {"node: conv reverse", 26, 40, 128, 128, false, kLayers},
    {"node: dense", 32, 128, 640, 640, false, kLayers / kBlock},
    {"node: dense reverse", 32, 640, 128, 128, false, kLayers / kBlock},
    {"node: dense", 32, 128, 128, 128, false, 2 * kLayers / kBlock},
    {"fitting", 240, 32, 128, 240, true, 1 / kBlock},
    {"fitting", 240, 32, 240, 240, true, 2 / kBlock},
    {"fitting reverse", 240, 32, 240, 240, false, 2 / kBlock},
};

// The attention of atoms one after the other: the number of neighbours changes, and with it the shape.
std::vector<Product> neighborhoods(std::mt19937& random) {
  std::vector<Product> out;
  for (int atom = 0; atom < 64; ++atom) {
    const int n = 20 + static_cast<int>(random() % 13);
    out.push_back({"", n, 32, 32, 32, false, 0});
    out.push_back({"", n, 32, n, 32, false, 0});
    out.push_back({"", n, 32, n, 32, true, 0});
  }
  return out;
}

// One tile of full height with all its operands in the first cache: what the core can do.
template <class T>
Product peak() {
  return {"peak: one full tile", ours::kTileRows, 2 * ours::lanes<T>(), 128, 128, false, 0};
}

// ---- the contenders: each makes a product ready to run, or an empty function where it cannot do it

using Run = std::function<void()>;
template <class T>
using Maker = Run (*)(const Product&, const T* a, const T* b, T* c);

template <class T>
Run with_ours(const Product& p, const T* a, const T* b, T* c) {
  const auto left = p.transposed ? ours::transposed(a, p.lda) : ours::plain(a, p.lda);
  return [=] { ours::gemm(p.m, p.n, p.k, left, b, p.n, c, p.n, false); };
}

template <class T>
Run with_eigen(const Product& p, const T* a, const T* b, T* c) {
  using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Left = Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>;
  using Right = Eigen::Map<const Matrix>;
  if (p.transposed) {
    return [=] {
      Eigen::Map<Matrix>(c, p.m, p.n).noalias() =
          Left(a, p.k, p.m, Eigen::OuterStride<>(p.lda)).transpose() * Right(b, p.k, p.n);
    };
  }
  return [=] {
    Eigen::Map<Matrix>(c, p.m, p.n).noalias() =
        Left(a, p.m, p.k, Eigen::OuterStride<>(p.lda)) * Right(b, p.k, p.n);
  };
}

// libxsmm is column-major: C^T = B^T A^T.
template <class T>
Run with_libxsmm(const Product& p, const T* a, const T* b, T* c) {
  const libxsmm_mmfunction<T> kernel(p.transposed ? LIBXSMM_GEMM_FLAG_TRANS_B : LIBXSMM_GEMM_FLAG_NONE, p.n,
                                     p.m, p.k, p.n, p.lda, p.n, T(1), T(0));
  if (!kernel) return {};
  return [=] { kernel(b, a, c); };
}

void blas(const Product& p, const float* a, const float* b, float* c) {
  cblas_sgemm(CblasRowMajor, p.transposed ? CblasTrans : CblasNoTrans, CblasNoTrans, p.m, p.n, p.k, 1, a,
              p.lda, b, p.n, 0, c, p.n);
}
void blas(const Product& p, const double* a, const double* b, double* c) {
  cblas_dgemm(CblasRowMajor, p.transposed ? CblasTrans : CblasNoTrans, CblasNoTrans, p.m, p.n, p.k, 1, a,
              p.lda, b, p.n, 0, c, p.n);
}
template <class T>
Run with_openblas(const Product& p, const T* a, const T* b, T* c) {
  return [=] { blas(p, a, b, c); };
}

template <class T>
Run with_onednn(const Product& p, const T* a, const T* b, T* c) {
  using dnnl::memory;
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  static dnnl::stream stream(engine);
  const auto type = sizeof(T) == 4 ? memory::data_type::f32 : memory::data_type::f64;
  const auto strides = p.transposed ? memory::dims{1, p.lda} : memory::dims{p.lda, 1};
  const memory::desc left({p.m, p.k}, type, strides), right({p.k, p.n}, type, memory::dims{p.n, 1}),
      out({p.m, p.n}, type, memory::dims{p.n, 1});
  const dnnl::matmul::primitive_desc plan(engine, left, right, out, dnnl::primitive_attr(), true);
  if (!plan) return {};
  const std::unordered_map<int, memory> arguments = {
      {DNNL_ARG_SRC, memory(left, engine, const_cast<T*>(a))},
      {DNNL_ARG_WEIGHTS, memory(right, engine, const_cast<T*>(b))},
      {DNNL_ARG_DST, memory(out, engine, c)}};
  return [product = dnnl::matmul(plan), arguments] { product.execute(stream, arguments); };
}

constexpr int kContenders = 5;
const char* const kNames[kContenders] = {"ours", "eigen", "libxsmm", "openblas", "onednn"};
template <class T>
const Maker<T> kMakers[kContenders] = {with_ours<T>, with_eigen<T>, with_libxsmm<T>, with_openblas<T>,
                                       with_onednn<T>};

// ---- measuring

// Products done one after the other, on the same operands.
template <class T>
struct Case {
  Product product;  // what is reported of them
  double macs = 0;
  int longest = 0;  // contraction among them
  ours::Buffer<T> a, b, c;
  Run run[kContenders];
  int calls = 1;  // in one measurement
  std::vector<double> seconds[kContenders];

  Case(const Product& reported, const std::vector<Product>& products, std::mt19937& random)
      : product(reported) {
    std::size_t sizes[3] = {};
    for (const Product& p : products) {
      sizes[0] = std::max(sizes[0], static_cast<std::size_t>(p.lda) * (p.transposed ? p.k : p.m));
      sizes[1] = std::max(sizes[1], static_cast<std::size_t>(p.k) * p.n);
      sizes[2] = std::max(sizes[2], static_cast<std::size_t>(p.m) * p.n);
      macs += double(p.m) * p.n * p.k;
      longest = std::max(longest, p.k);
    }
    a.resize(sizes[0]), b.resize(sizes[1]), c.resize(sizes[2]);
    c.zero(0, c.size());
    std::uniform_real_distribution<double> uniform(-1, 1);
    for (auto* numbers : {&a, &b})
      for (std::size_t i = 0; i < numbers->size(); ++i) (*numbers)[i] = static_cast<T>(uniform(random));
    for (int w = 0; w < kContenders; ++w) {
      std::vector<Run> all;
      for (const Product& p : products) all.push_back(kMakers<T>[w](p, a.data(), b.data(), c.data()));
      if (!std::all_of(all.begin(), all.end(), [](const Run& r) { return bool(r); })) continue;
      run[w] = all.size() == 1 ? all[0] : [all] {
        for (const Run& one : all) one();
      };
    }
  }

  // Two sums of k products of numbers below 1 differ by less than their roundings.
  void check() {
    run[0]();
    const std::vector<T> expected(c.data(), c.data() + c.size());
    for (int w = 1; w < kContenders; ++w) {
      if (!run[w]) continue;
      c.zero(0, c.size());
      run[w]();
      for (std::size_t i = 0; i < c.size(); ++i) {
        if (std::abs(c[i] - expected[i]) <= longest * longest * std::numeric_limits<T>::epsilon()) continue;
        std::fprintf(stderr, "%s: a wrong result from %s\n", product.part, kNames[w]);
        std::exit(1);
      }
    }
  }

  double time(int w) {
    run[w]();  // brings the operands into the cache
    const auto start = std::chrono::steady_clock::now();
    for (int call = 0; call < calls; ++call) run[w]();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / calls;
  }

  double median(int w) const {
    if (!run[w]) return NAN;
    auto sorted = seconds[w];
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
};

// Products and contenders alternate, so that whatever else the machine does meets all of them.
template <class T>
std::vector<Case<T>> measure() {
  constexpr int kRounds = 400;
  constexpr double kMeasurement = 10e-6;  // seconds, some hundred times the clock's resolution
  std::mt19937 random(1);
  std::vector<Case<T>> cases;
  cases.emplace_back(peak<T>(), std::vector<Product>{peak<T>()}, random);
  for (const Product& p : kProducts) cases.emplace_back(p, std::vector<Product>{p}, random);
  cases.emplace_back(Product{"g2 attention: 20 to 32 neighbours", 0, 0, 0, 0, false, 0},
                     neighborhoods(random), random);
  for (Case<T>& x : cases) {
    x.check();
    x.calls = std::max(1, static_cast<int>(kMeasurement / x.time(0)));
  }
  for (int round = 0; round < kRounds; ++round) {
    for (int w = 0; w < kContenders; ++w) {
      for (Case<T>& x : cases)
        if (x.run[w]) x.seconds[w].push_back(x.time(w));
    }
  }
  return cases;
}

// ---- reporting

std::string machine() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(": ") + 2);
  }
  return "unknown";
}

void print_line(bool csv, const char* precision, const Product& p, const double* rate) {
  if (csv) {
    static const std::string name = machine();
    std::printf("%s,%s,%s,%s,%d,%d,%d,%s,%g", name.c_str(), LIBXSMM_STRINGIFY(DPA2MD_ISA) + 4, precision,
                p.part, p.m, p.n, p.k, p.transposed ? "yes" : "no", p.per_atom);
    for (int w = 0; w < kContenders; ++w)
      std::isnan(rate[w]) ? std::printf(",") : std::printf(",%.2f", rate[w]);
    std::printf("\n");
    return;
  }
  std::printf("%-8s %-33s", precision, p.part);
  p.m ? std::printf(" %3d x %3d x %3d%s", p.m, p.n, p.k, p.transposed ? " t" : "  ")
      : std::printf("%16s", "");
  for (int w = 0; w < kContenders; ++w) std::printf(" %8.1f", rate[w]);
  for (int w = 1; w < kContenders; ++w) std::printf(" %8.2f", rate[0] / rate[w]);
  std::printf("\n");
}

template <class T>
void report(bool csv, const char* precision) {
  double macs = 0, seconds[kContenders] = {}, rate[kContenders];
  for (const Case<T>& x : measure<T>()) {
    for (int w = 0; w < kContenders; ++w) {
      rate[w] = x.macs / x.median(w) * 1e-9;
      seconds[w] += x.product.per_atom * x.median(w);
    }
    macs += x.product.per_atom * x.macs;
    print_line(csv, precision, x.product, rate);
  }
  for (int w = 0; w < kContenders; ++w) rate[w] = macs / seconds[w] * 1e-9;
  print_line(csv, precision, {"all as often as medium needs", 0, 0, 0, 0, false, 1}, rate);
}

}  // namespace

int main(int argc, char** argv) {
  const bool csv = argc == 2 && !std::strcmp(argv[1], "--csv");
  if (argc > 1 && !csv) {
    std::fprintf(stderr, "usage: gemm_libraries [--csv]\n");
    return 2;
  }
  omp_set_num_threads(1);
  openblas_set_num_threads(1);
  if (csv) {
    std::printf("machine,instruction_set,precision,product,m,n,k,a_transposed,times_per_atom");
    for (const char* name : kNames) std::printf(",%s_gmac_per_s", name);
    std::printf("\n");
  } else {
    std::printf("GMAC/s, then ours / theirs\n%-8s %-33s %15s", "", "", "m x n x k");
    for (const char* name : kNames) std::printf(" %8s", name);
    for (int w = 1; w < kContenders; ++w) std::printf(" %8s", kNames[w]);
    std::printf("\n");
  }
  report<float>(csv, "float32");
  report<double>(csv, "float64");
}
