#include "neighbors/lattice.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/error.h"

namespace dpa2md {
namespace {

constexpr double kLargest = 1e9;      // angstrom; beyond it, round-off is no longer small against a bond
constexpr double kShortest = 1e-3;    // angstrom; no pair list could hold the images of a thinner cell
constexpr double kMostTilted = 1e15;  // coefficients in to_cell: integers that a double still holds exactly
constexpr double kSmallestVolume = 1e-9;  // of the periodic vectors, relative to the product of their lengths

double dot(const double* a, const double* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

void cross(const double* a, const double* b, double* out) {
  out[0] = a[1] * b[2] - a[2] * b[1];
  out[1] = a[2] * b[0] - a[0] * b[2];
  out[2] = a[0] * b[1] - a[1] * b[0];
}

void normalize(double* a) {
  const double scale = 1.0 / std::sqrt(dot(a, a));
  for (int k = 0; k < 3; ++k) a[k] *= scale;
}

// Sets the rows of the axes that are not periodic to unit vectors orthogonal to all others.
void complete_basis(double* h, const bool* periodic) {
  const int count = periodic[0] + periodic[1] + periodic[2];
  if (count == 0) {
    for (int k = 0; k < 9; ++k) h[k] = k % 4 == 0 ? 1.0 : 0.0;
  } else if (count == 1) {
    const int a = periodic[0] ? 0 : periodic[1] ? 1 : 2;
    const double* p = h + 3 * a;
    int least = 0;  // the Cartesian axis farthest from p's direction
    for (int k = 1; k < 3; ++k)
      if (std::abs(p[k]) < std::abs(p[least])) least = k;
    double e[3] = {0.0, 0.0, 0.0};
    e[least] = 1.0;
    double* u = h + 3 * ((a + 1) % 3);
    double* v = h + 3 * ((a + 2) % 3);
    cross(p, e, u);
    normalize(u);
    cross(p, u, v);
    normalize(v);
  } else if (count == 2) {
    const int a = !periodic[0] ? 0 : !periodic[1] ? 1 : 2;
    cross(h + 3 * ((a + 1) % 3), h + 3 * ((a + 2) % 3), h + 3 * a);
    normalize(h + 3 * a);
  }
}

double determinant(const double* h) {
  double normal[3];
  cross(h + 3, h + 6, normal);
  return dot(h, normal);
}

void invert(Lattice& lattice) {
  const double volume = determinant(lattice.h);
  for (int a = 0; a < 3; ++a) {
    double normal[3];
    cross(lattice.h + 3 * ((a + 1) % 3), lattice.h + 3 * ((a + 2) % 3), normal);
    lattice.height[a] = std::abs(volume) / std::sqrt(dot(normal, normal));
    for (int k = 0; k < 3; ++k) lattice.inverse[3 * k + a] = normal[k] / volume;
  }
}

void add_row(Lattice& lattice, int to, double factor, int from) {
  for (int k = 0; k < 3; ++k) {
    if (std::abs(factor) * static_cast<double>(std::abs(lattice.to_cell[3 * from + k])) > kMostTilted)
      throw Error(
          "a periodic cell is tilted by more than 1e15 of its own vectors: give shorter lattice vectors.");
    lattice.h[3 * to + k] += factor * lattice.h[3 * from + k];
    lattice.to_cell[3 * to + k] += static_cast<std::int64_t>(factor) * lattice.to_cell[3 * from + k];
  }
}

// One sweep of pairwise (Gauss) reduction; returns whether a vector became shorter.
bool reduce_pairs(Lattice& lattice) {
  bool shorter = false;
  for (int a = 0; a < 3; ++a) {
    for (int b = 0; b < 3; ++b) {
      if (a == b || !lattice.periodic[a] || !lattice.periodic[b]) continue;
      const double* va = lattice.h + 3 * a;
      const double ratio = dot(va, lattice.h + 3 * b) / dot(va, va);
      if (std::abs(ratio) > 0.5 + 1e-9) {
        add_row(lattice, b, -std::nearbyint(ratio), a);
        shorter = true;
      }
    }
  }
  return shorter;
}

// Three vectors at about 120 degrees are pairwise reduced and yet nearly flat: replace the longest by a
// signed sum.
bool reduce_triple(Lattice& lattice) {
  if (!(lattice.periodic[0] && lattice.periodic[1] && lattice.periodic[2])) return false;
  int longest = 0;
  for (int a = 1; a < 3; ++a) {
    const double* v = lattice.h + 3 * a;
    if (dot(v, v) > dot(lattice.h + 3 * longest, lattice.h + 3 * longest)) longest = a;
  }
  const int b = (longest + 1) % 3, c = (longest + 2) % 3;
  const double* v = lattice.h + 3 * longest;
  for (double sign_b : {-1.0, 1.0}) {
    for (double sign_c : {-1.0, 1.0}) {
      double sum[3];
      for (int k = 0; k < 3; ++k)
        sum[k] = v[k] + sign_b * lattice.h[3 * b + k] + sign_c * lattice.h[3 * c + k];
      if (dot(sum, sum) < (1.0 - 1e-9) * dot(v, v)) {
        add_row(lattice, longest, sign_b, b);
        add_row(lattice, longest, sign_c, c);
        return true;
      }
    }
  }
  return false;
}

void check_vectors(const Cell& cell, int frame) {
  for (int a = 0; a < 3; ++a) {
    if (!cell.periodic[a]) continue;
    const double* v = cell.h + 3 * a;
    const std::string name = "cell vector " + std::to_string(a) + "{of}";
    for (int k = 0; k < 3; ++k)
      if (!(std::abs(v[k]) <= kLargest))
        throw Error(
            name +
                " is not finite or longer than 1e9 angstrom: give a sensible vector or make the axis not "
                "periodic.",
            -1, frame);
    if (!(dot(v, v) >= kShortest * kShortest))
      throw Error(
          name +
              " is shorter than 0.001 angstrom although the axis is periodic: give the lattice vector or "
              "make the axis not periodic.",
          -1, frame);
  }
}

}  // namespace

Lattice follow_cell(const Lattice& lattice, const Cell& cell) {
  Lattice out = lattice;
  for (int a = 0; a < 3; ++a) {
    if (!lattice.periodic[a]) continue;
    for (int k = 0; k < 3; ++k) {
      double sum = 0.0;
      for (int b = 0; b < 3; ++b)
        if (lattice.periodic[b]) sum += static_cast<double>(lattice.to_cell[3 * a + b]) * cell.h[3 * b + k];
      out.h[3 * a + k] = sum;
    }
  }
  complete_basis(out.h, out.periodic);
  invert(out);
  return out;
}

Lattice make_lattice(const Cell& cell, int frame) {
  check_vectors(cell, frame);
  Lattice lattice{};
  std::copy(cell.periodic, cell.periodic + 3, lattice.periodic);
  for (int a = 0; a < 3; ++a) lattice.to_cell[4 * a] = 1;
  lattice = follow_cell(lattice, cell);
  double lengths = 1.0;
  for (int a = 0; a < 3; ++a)
    if (cell.periodic[a]) lengths *= std::sqrt(dot(cell.h + 3 * a, cell.h + 3 * a));
  if (!(std::abs(determinant(lattice.h)) > kSmallestVolume * lengths))
    throw Error(
        "the periodic cell vectors{of} are (nearly) linearly dependent: give a cell with a volume or make "
        "one of "
        "its axes not periodic.",
        -1, frame);
  constexpr int kMaxSweeps =
      1000;  // ends by itself after a few dozen; the bound only guards against round-off
  for (int sweep = 0; sweep < kMaxSweeps; ++sweep)
    if (!reduce_pairs(lattice) && !reduce_triple(lattice)) break;
  return follow_cell(lattice, cell);
}

}  // namespace dpa2md
