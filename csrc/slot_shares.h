// The attention of an atom with more neighbours than its model has slots for, in a model that takes them all
// (all_neighbors). DeePMD-kit's graph route puts into the denominator of the softmax, for n > N neighbours
// with the logits z_k and the switches w_k and P = e^-20 for an empty slot,
//   sum_k e_k - (n - N) P + sum_{z_k < -20} (1 - s_k) (P - e_k) (1 - c_k)      e_k = e^z_k, c_k =
//   (e_k/P)^(1/s_k)
// where s_k = h(u w_k) is the share of a slot that neighbour k holds: h(t) = t (2 - t) up to t = 1, then 1,
// and the level u makes all shares sum to N. A neighbour at the cutoff has z = -20 and adds nothing, so that
// the sum has no jump there; logits below -20 would make it zero or negative without the last term.
#pragma once

#include "scalar_math.h"

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

// The level u of n > `slots` neighbours. sum(f) gives the sum of f(w_k) over them. Newton's iteration from
// below, where it climbs without overshooting: h is concave.
template <class Sum>
DPA2MD_HD double slot_level(int slots, const Sum& sum) {
  const double all = sum([](double w) { return w; });
  if (!(all > 1e-300)) return 0;  // nobody is switched on
  double u = slots / (2 * all);
  for (int k = 0; k < 200; ++k) {
    const double left = slots - sum([u](double w) { return slot_share(u * w).value; });
    const double slope = sum([u](double w) { return w * slot_share(u * w).slope; });
    if (!(left > 1e-13 * slots) || !(slope > 0)) break;
    u += left / slope;
  }
  return u;
}

// The last term of the denominator for a logit with `above` = z + 20, and its derivatives by z and by the
// share of a neighbour whose switch is `opening` / level. `own` is e_k and `slot` P, in the unit of the
// denominator.
template <class T>
struct LowLogit {
  T value, of_logit, of_share;
};
template <class T>
DPA2MD_HD LowLogit<T> low_logit(T above, T own, T slot, T opening) {
  if (!(above < T(0))) return {T(0), T(0), T(0)};
  const T share = slot_share(opening).value, less = slot - own, rest = T(1) - share;
  if (share < T(1e-18)) return {less, -own, -less};
  const T power = above / share > T(-80) ? above / share : T(-80), c = math::exp(power);
  return {rest * less * (T(1) - c), rest * (-own * (T(1) - c) - less * c / share),
          -less * (T(1) - c) + rest * less * c * power / share};
}

// What the shares' gradients g_k mean for the switches: u h'_k (g_k - mean), where `mean` is the average of g
// weighted with h'_k w_k, since the shares always sum to N.
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
