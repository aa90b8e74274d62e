// Small formulas of the model for all backends, compiled by the host compiler and by nvcc.
#pragma once

#include <cmath>

#include "base/scalar_math.h"

namespace dpa2md {

constexpr double kAttentionShift = 20.0;  // DeePMD-kit's attnw_shift: the logit of an empty slot is -20
constexpr int kH2Row = 4;  // numbers from one h2 to the next: h2 of layer 0 are the last three columns of em

// Whether neighbour a is nearer than b: by distance, then by position, then by place among the candidates.
// Images of one atom may be equally far; the order decides which of them an overfull list keeps.
struct Nearness {
  double r;
  int position, place;
};
DPA2MD_HD bool nearer(const Nearness& a, const Nearness& b) {
  return a.r < b.r ||
         (a.r == b.r && (a.position < b.position || (a.position == b.position && a.place < b.place)));
}

// 1/N of conv for n neighbours, and the factor of the symmetrised moments: N is nsel in a smooth model.
DPA2MD_HD double inverse_count(bool smooth, int nsel, int n) {
  return 1.0 / (smooth ? double(nsel) : 1e-4 + n);
}
DPA2MD_HD double inverse_moment(bool smooth, bool use_sqrt_nnei, int nsel, int n) {
  if (!use_sqrt_nnei) return inverse_count(smooth, nsel, n);
  return 1.0 / (smooth ? std::sqrt(double(nsel)) : 1e-4 + std::sqrt(double(n)));
}

// The first columns of the parts of linear1's input: g1 at 0, then those that the model has.
struct Linear1Columns {
  int conv = 0, grrg = 0, drrd = 0, end = 0;
};
struct Linear1Parts {
  bool g1, conv, grrg, drrd;
};
DPA2MD_HD Linear1Columns linear1_columns(const Linear1Parts& has, int g1, int g2, int axis) {
  Linear1Columns c;
  c.conv = has.g1 ? g1 : 0;
  c.grrg = c.conv + (has.conv ? g2 : 0);
  c.drrd = c.grrg + (has.grrg ? axis * g2 : 0);
  c.end = c.drrd + (has.drrd ? axis * g1 : 0);
  return c;
}

// An atom's energy from the fitting net's value (less that of the vacuum). A type < 0 is a virtual atom;
// zero_type is the fitting net's exclude_types, exclude the model's.
struct AtomEnergy {
  double value;  // eV
  bool counts;   // whether the net's value is in it, so that it has a gradient
};
DPA2MD_HD AtomEnergy atom_energy(int type, double net, const double* bias_atom_e, const double* out_bias,
                                 const char* zero_type, const char* exclude) {
  if (type < 0 || exclude[type]) return {0.0, false};
  const bool counts = !zero_type[type];
  return {(counts ? net + bias_atom_e[type] : 0.0) + out_bias[type], counts};
}

// Calls put() for each number that follows an atom's descriptor in the fitting net's input. fparam (nfparam):
// of its frame, or null for the default; aparam (naparam). F is model.h's Fitting.
template <class F, class Put>
void fitting_parameters(const F& f, const double* fparam, const double* aparam, const Put& put) {
  for (int c = 0; c < f.nfparam(); ++c) {
    const double p = fparam ? fparam[c] : f.default_fparam.data[c];
    put((p - f.fparam_avg.data[c]) * f.fparam_inv_std.data[c]);
  }
  for (int c = 0; c < f.naparam(); ++c) put((aparam[c] - f.aparam_avg.data[c]) * f.aparam_inv_std.data[c]);
  for (const double c : f.case_embedding.data) put(c);
}

}  // namespace dpa2md
