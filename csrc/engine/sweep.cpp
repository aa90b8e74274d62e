#include "engine/sweep.h"

#include <functional>

namespace dpa2md {

void Sweep::stage(Stage stage, Range a, int layer) {
  if (!clock_) return backend_->stage(stage, layer, a);
  clock_->time(stage, [&] {
    backend_->stage(stage, layer, a);
    backend_->wait();
  });
}

// Runs the stages of the table outside the layers.
void Sweep::embedding(Range a) {
  for (const StageInfo& s : kStageTable) {
    if (s.stage < Stage::kPairStep && has_stage(model_, s.stage)) stage(s.stage, a);
  }
}
void Sweep::embedding_backward(Range a) {
  for (const StageInfo& s : kStageTable) {
    if (s.stage > Stage::kGatherG1Gradient && s.stage < Stage::kForces && has_stage(model_, s.stage))
      stage(s.stage, a);
  }
}

void Sweep::layer(int l, Range a) {
  if (l > 0) stage(Stage::kPairStep, a, l - 1);  // pair state l - 1 -> l
  stage(Stage::kNodeStep, a, l);                 // g1 l -> l + 1
}

// From d g1(l + 1) to d g1(l). If a pair step reads g1, its reverse runs with the layer of that g1; else it
// needs nothing from other atoms and runs earlier, while the pairs are in cache.
void Sweep::layer_backward(int l, Range a) {
  const bool pairs_read_g1 = model_.repformer.has_g1g1;
  if (pairs_read_g1 && l + 1 < model_.repformer.nlayers) stage(Stage::kPairStepBackward, a, l);
  stage(Stage::kNodeStepBackward, a, l);
  if (!pairs_read_g1 && l > 0) stage(Stage::kPairStepBackward, a, l - 1);
}

// Every exchange ends a run over all atoms; the stages between two exchanges go block by block. So the last
// layer goes forward and backward within a block, and a model without layers has one run only.
void Sweep::run(int natoms, bool forces, Exchange* exchange) {
  Backend& b = *backend_;
  const int last = model_.repformer.nlayers - 1, width = model_.repformer.g1_dim;
  const auto turn = [&](Range a) {
    last < 0 ? embedding(a) : layer(last, a);
    stage(Stage::kFitting, a);
    if (forces) last < 0 ? embedding_backward(a) : layer_backward(last, a);
  };
  const auto gather = [&](int l) -> std::function<void(Range)> {
    if (!forces) return {};
    if (l < 0) return [this](Range a) { stage(Stage::kForces, a); };
    return [this, l](Range a) { stage(Stage::kGatherG1Gradient, a, l); };
  };

  if (last >= 0) b.run(natoms, [&](Range a) { embedding(a); });
  for (int l = 0; l <= last; ++l) {
    if (exchange) {
      exchange->forward(b.g1_rows(l), width, b.single());
      b.put_g1_rows(l);
    }
    if (l < last) b.run(natoms, [&](Range a) { layer(l, a); });
  }
  if (last >= 0 && forces) b.start_g1_gradient(last);
  b.run(natoms, turn, gather(last));
  for (int l = last; l >= 0 && forces; --l) {
    if (l < last) {
      b.start_g1_gradient(l);
      b.run(natoms, [&](Range a) { layer_backward(l, a); }, gather(l));
    }
    if (exchange) {
      exchange->reverse(b.g1_gradient_rows(l), width, b.single());
      b.put_g1_gradient_rows(l);
    }
  }
  if (last >= 0 && forces) b.run(natoms, [&](Range a) { embedding_backward(a); }, gather(-1));
}

}  // namespace dpa2md
