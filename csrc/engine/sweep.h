// One step over all atoms: the stages in their order, forward and in reverse.
#pragma once

#include "engine/backend.h"
#include "engine/exchange.h"
#include "engine/stage_clock.h"

namespace dpa2md {

class Sweep {
 public:
  // clock: null, or what times the stages.
  Sweep(const Model& model, Backend* backend, StageClock* clock)
      : model_(model), backend_(backend), clock_(clock) {}
  // After the backend's begin(). `exchange` is null on a single rank.
  void run(int natoms, bool forces, Exchange* exchange);

 private:
  void stage(Stage stage, Range a, int layer = 0);
  void embedding(Range a);
  void layer(int l, Range a);
  void layer_backward(int l, Range a);
  void embedding_backward(Range a);

  const Model& model_;
  Backend* backend_;
  StageClock* clock_;
};

}  // namespace dpa2md
