// The shares of the slots among an atom's neighbours that exceed them (slot_shares.h): scratch of both
// attentions for one atom.
#pragma once

#include "cuda/kernels/views.h"
#include "model/slot_shares.h"

namespace dpa2md {
namespace DPA2MD_GPU {

template <class T>
struct SlotShares {
  T* level;     // (1)
  T* mean;      // (rows) mean gradient of a row's probabilities
  T* gradient;  // (entries) of the shares
  DPA2MD_KERNEL SlotShares(Scratch* s, const RepformerView& f, int rows, int entries, bool back)
      : level(s->take<T>(f.crowds)),
        mean(s->take<T>(f.crowds && back ? rows : 0)),
        gradient(s->take<T>(f.crowds && back ? entries : 0)) {}

  // The level of the shares; 0 if there are slots for all neighbours.
  DPA2MD_KERNEL T find_level(const ThreadBlock& b, const State<T>& s, int n, const T* sw) const {
    if (!s.rep.crowds || n <= s.repformer.nsel) return T(0);
    b.each_warp(1, [&](int) {
      const double u = slot_level(s.repformer.nsel, [&](auto f) {
        double sum = 0;
        for (int k = b.lane; k < n; k += b.lanes) sum += f(double(sw[k]));
        return b.lane_sum(sum);
      });
      if (b.lane == 0) *level = T(u);
    });
    return *level;
  }

  // Adds the shares' gradient to d sw; neighbour k's gradient is entry k * stride.
  DPA2MD_KERNEL void to_switches(const ThreadBlock& b, int n, const T* sw, int stride, T* dsw) const {
    b.each_warp(1, [&](int) {
      const T u = *level, mean_share = slot_gradient_mean(u, [&](auto f) {
                            T sum = 0;
                            for (int k = b.lane; k < n; k += b.lanes) sum += f(sw[k], gradient[k * stride]);
                            return b.lane_sum(sum);
                          });
      for (int k = b.lane; k < n; k += b.lanes)
        dsw[k] += slot_gradient(u, sw[k], gradient[k * stride], mean_share);
    });
  }
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
