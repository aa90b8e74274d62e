// The stages of a step in one table, which engine, backends, clock, memory plan, drawing and tests read.
#pragma once

#include "model/model.h"

namespace dpa2md {

// Some of the atoms of a rank.
struct Range {
  int begin, end;
  int size() const { return end - begin; }
};

// The stages in a step's order. Engine::layer and Engine::layer_backward have the order within a layer.
enum class Stage {
  kEnvMat,
  kRepinit,
  kThreeBody,
  kG1Transform,
  kPairInit,
  kPairStep,
  kNodeStep,
  kFitting,
  kNodeStepBackward,
  kPairStepBackward,
  kGatherG1Gradient,
  kPairInitBackward,
  kG1TransformBackward,
  kThreeBodyBackward,
  kRepinitBackward,
  kEnvMatBackward,
  kForces,
};
constexpr int kStages = static_cast<int>(Stage::kForces) + 1;

// Models that have a stage.
enum class Models { kAll, kThreeBody, kDpa2, kLayers, kSeveralLayers };

struct StageInfo {
  Stage stage;
  const char* name;
  Models models;
  bool layered;   // once a repformer layer
  bool backward;  // only with forces
  const char* gives;
};

constexpr StageInfo kStageTable[kStages] = {
    {Stage::kEnvMat, "env_mat", Models::kAll, false, false, "em, sw of every pair"},
    {Stage::kRepinit, "repinit", Models::kAll, false, false, "two-body descriptor"},
    {Stage::kThreeBody, "three_body", Models::kThreeBody, false, false, "in models that have it"},
    {Stage::kG1Transform, "g1_transform", Models::kDpa2, false, false, "g1: a row per atom"},
    {Stage::kPairInit, "pair_init", Models::kDpa2, false, false, "g2, h2: a row per pair"},
    {Stage::kPairStep, "pair_step", Models::kSeveralLayers, true, false, "g2, h2 of this layer"},
    {Stage::kNodeStep, "node_step", Models::kLayers, true, false, "g1 of the next layer"},
    {Stage::kFitting, "fitting", Models::kAll, false, false, "energies, and their dE/dg1"},
    {Stage::kNodeStepBackward, "node_step_backward", Models::kLayers, true, true, "dE/dg1"},
    {Stage::kPairStepBackward, "pair_step_backward", Models::kSeveralLayers, true, true, "dE/dg2, dE/dh2"},
    {Stage::kGatherG1Gradient, "gather_g1_gradient", Models::kLayers, true, true,
     "pairs' shares, row by row"},
    {Stage::kPairInitBackward, "pair_init_backward", Models::kDpa2, false, true, "dE/dem"},
    {Stage::kG1TransformBackward, "g1_transform_backward", Models::kDpa2, false, true, "dE/d(descriptor)"},
    {Stage::kThreeBodyBackward, "three_body_backward", Models::kThreeBody, false, true,
     "adds to dE/dem, dE/dsw"},
    {Stage::kRepinitBackward, "repinit_backward", Models::kAll, false, true, "adds to dE/dem, dE/dsw"},
    {Stage::kEnvMatBackward, "env_mat_backward", Models::kAll, false, true, "a 3-vector per pair"},
    {Stage::kForces, "forces", Models::kAll, false, true, "pairs' vectors onto atoms"},
};

constexpr bool in_order_of_stages() {
  for (int k = 0; k < kStages; ++k) {
    if (kStageTable[k].stage != static_cast<Stage>(k)) return false;
  }
  return true;
}
static_assert(in_order_of_stages());

constexpr const StageInfo& info(Stage stage) { return kStageTable[static_cast<int>(stage)]; }

inline bool has_stage(const Model& model, Stage stage) {
  switch (info(stage).models) {
    case Models::kAll:
      return true;
    case Models::kThreeBody:
      return model.has_three_body;
    case Models::kDpa2:
      return model.is_dpa2;
    case Models::kLayers:
      return model.repformer.nlayers > 0;
    case Models::kSeveralLayers:
      return model.repformer.nlayers > 1;
  }
  return false;
}

// The member function of a backend that is the stage.
template <class Stages>
void call_stage(Stages* to, Stage stage, int layer, Range a) {
  switch (stage) {
    case Stage::kEnvMat:
      return to->env_mat(a);
    case Stage::kRepinit:
      return to->repinit(a);
    case Stage::kThreeBody:
      return to->three_body(a);
    case Stage::kG1Transform:
      return to->g1_transform(a);
    case Stage::kPairInit:
      return to->pair_init(a);
    case Stage::kPairStep:
      return to->pair_step(layer, a);
    case Stage::kNodeStep:
      return to->node_step(layer, a);
    case Stage::kFitting:
      return to->fitting(a);
    case Stage::kNodeStepBackward:
      return to->node_step_backward(layer, a);
    case Stage::kPairStepBackward:
      return to->pair_step_backward(layer, a);
    case Stage::kGatherG1Gradient:
      return to->gather_g1_gradient(layer, a);
    case Stage::kPairInitBackward:
      return to->pair_init_backward(a);
    case Stage::kG1TransformBackward:
      return to->g1_transform_backward(a);
    case Stage::kThreeBodyBackward:
      return to->three_body_backward(a);
    case Stage::kRepinitBackward:
      return to->repinit_backward(a);
    case Stage::kEnvMatBackward:
      return to->env_mat_backward(a);
    case Stage::kForces:
      return to->forces(a);
  }
}

}  // namespace dpa2md
