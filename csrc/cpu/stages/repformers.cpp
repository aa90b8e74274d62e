// The repformer layers, put together.
#include "cpu/stages/repformers.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
Repformers<T>::Repformers(const Workspace& work, Env<T>* env, const Repformers<Real<T>>* plain,
                          Gradients<Real<T>>* gradients)
    : state_(work, env, plain ? &plain->state_ : nullptr),
      radial_(&state_),
      sums_(make_sums(gradients)),
      pair_(&state_, &radial_, sums_.get()),
      node_(&state_, &radial_, sums_.get()) {
  prepare();
}

template <class T>
std::unique_ptr<RepformerSums<T>> Repformers<T>::make_sums([[maybe_unused]] Gradients<Real<T>>* gradients) {
  if constexpr (is_dual<T>) {
    if (state_.model.is_dpa2) return std::make_unique<RepformerSums<T>>(&state_, gradients);
  }
  return nullptr;
}

template <class T>
void Repformers<T>::plan(MemoryPlan* to) {
  radial_.begin();
  node_.plan(to);
  state_.plan(to);
  if constexpr (is_dual<T>) {
    if (sums_) sums_->plan(to);
  }
}

template class Repformers<float>;
template class Repformers<double>;
template class Repformers<Dual<float>>;
template class Repformers<Dual<double>>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
