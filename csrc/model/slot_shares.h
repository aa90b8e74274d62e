// The attention of an atom with more neighbours than its model has slots for, in a model that takes them all
// (all_neighbors). DeePMD-kit's graph route puts into the denominator of the softmax, for n > N neighbours
// with the logits z_k and the switches w_k, and P = e^-20 for an empty slot,
//   sum_k e^z_k f_k,   f = 1 - (1 - s) P / e^z where z >= -20,   else s + (1 - s) (1 - P / e^z) (e^z / P)^(1
//   / s)
// where s_k = h(u w_k) is the share of a slot that neighbour k holds: h(t) = t (2 - t) up to t = 1, then 1,
// and the level u makes all shares sum to N. Above -20 this is sum_k e^z_k - (n - N) P: a neighbour at the
// cutoff has z = -20 and adds nothing, so that there is no jump; below, the terms stay positive.
#pragma once

#include "base/dual.h"

namespace dpa2md {

// h(t) and its derivative.
template <class T>
struct SlotShare {
  T value, slope;
};
template <class T>
DPA2MD_HD SlotShare<T> slot_share(T t) {
  if (t >= T(1)) return {T(1), T(0)};
  return {t * (T(2) - t), T(2) - T(2) * t};
}

// The level u of an atom with more than `slots` switched-on neighbours; 0 for other atoms. sum(f) returns the
// sum of f(w_k) over all. Newton's iteration from below, which does not overshoot, since h is concave.
template <class Sum>
DPA2MD_HD double slot_level(int slots, const Sum& sum) {
  if (sum([](double w) { return w > 0 ? 1.0 : 0.0; }) <= slots) return 0;
  double u = slots / (2 * sum([](double w) { return w; }));
  for (int k = 0; k < 200; ++k) {
    const double left = slots - sum([u](double w) { return slot_share(u * w).value; });
    const double slope = sum([u](double w) { return w * slot_share(u * w).slope; });
    if (!(left > 1e-13 * slots) || !(slope > 0)) break;
    u += left / slope;
  }
  return u;
}

// f of a neighbour whose logit is `above` -20 and whose switch is `opening` / u; and the derivatives of e^z f
// by z and by the share, divided by e^z.
template <class T>
struct SlotTerm {
  T value, of_logit, of_share;
};
template <class T>
DPA2MD_HD SlotTerm<T> slot_term(T above, T opening) {
  const T share = slot_share(opening).value, rest = T(1) - share;
  if (above >= T(0)) {
    const T slot = math::exp(-above);
    return {T(1) - rest * slot, T(1), slot};
  }
  if (share < T(1e-12)) return {share, share, T(1)};
  const T y = math::exp(above * rest / share), x = y * math::exp(above);
  return {share + rest * (x - y), share + rest * (x + (x - y) / share),
          T(1) - (x - y) * (T(1) + rest * above / (share * share))};
}

// The switches' gradients from the shares' gradients g_k: u h'_k (g_k - mean), where `mean` is the average of
// g weighted with h'_k w_k, since the shares always sum to N. sum(f) returns the sum of f(w_k, g_k).
template <class T, class Sum>
DPA2MD_HD T slot_gradient_mean(T level, const Sum& sum) {
  const T all = sum([level](T w, T) { return w * slot_share(level * w).slope; });
  const T weighted = sum([level](T w, T g) { return g * w * slot_share(level * w).slope; });
  return all > T(0) ? weighted / all : T(0);
}
template <class T>
DPA2MD_HD T slot_gradient(T level, T w, T g, T mean) {
  return level * slot_share(level * w).slope * (g - mean);
}

}  // namespace dpa2md
