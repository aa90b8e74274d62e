#include "engine/engine.h"

#include <chrono>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/threads.h"
#include "engine/devices.h"

namespace dpa2md {
namespace {

std::unique_ptr<Backend> make_backend(const Model& model, const EngineOptions& o) {
  if (o.low_memory && o.device != "cpu")
    throw Error("low memory is for the device cpu: leave it out for device " + o.device + ".");
  const DeviceName device = parse_device(o.device);
  if (device.kind == "cpu") return make_cpu_backend(model, o.precision, o.threads, o.tables, o.low_memory);
  [[maybe_unused]] const int number = device.number < 0 ? 0 : device.number;
#ifdef DPA2MD_CUDA_EMULATION
  if (device.kind == "cuda-emulation")
    return make_emulated_cuda_backend(model, o.precision, number, o.tables);
#endif
#ifdef DPA2MD_CUDA
  return make_cuda_backend(model, o.precision, number, o.tables);
#else
  throw Error("this dpa2md was built without CUDA: use device \"cpu\".");
#endif
}

EngineOptions checked(EngineOptions o, const Model& model) {
  if (o.precision.empty()) o.precision = model.precision;
  if (o.precision != "float32" && o.precision != "float64")
    throw Error("the precision \"" + o.precision + "\" is unknown: use \"float32\" or \"float64\".");
  o.threads = checked_threads(o.threads);
  return o;
}

}  // namespace

Engine::Engine(const std::string& path, const EngineOptions& options) : Engine(Model::read(path), options) {}

Engine::Engine(Model model, const EngineOptions& options)
    : model_(std::move(model)),
      options_(checked(options, model_)),
      backend_(make_backend(model_, options_)) {}

const Result& Engine::compute(const Atoms& atoms, bool forces, const double* fparam, const double* aparam,
                              const int* frame, Exchange* exchange) {
  const ThreadScope scope(threads());
  const auto start = std::chrono::steady_clock::now();
  if (!backend_->build_pairs(atoms, forces, &pairs_)) build_pairs(model_, atoms, &pairs_);
  for (std::size_t t = 0; t < expected_types_.size(); ++t) pairs_.types_present[t] |= expected_types_[t];
  pairs_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result_.energy.assign(atoms.natoms, 0);
  result_.force.assign(forces ? 3 * static_cast<std::size_t>(atoms.nrows) : 0, 0);
  result_.virial.assign(forces ? 9 * static_cast<std::size_t>(atoms.nrows) : 0, 0);
  if (model_.fitting.nfparam() && !fparam && model_.fitting.default_fparam.empty()) {
    throw Error("the model needs " + std::to_string(model_.fitting.nfparam()) +
                " frame parameters: give fparam.");
  }
  if (model_.fitting.naparam() && !aparam && atoms.natoms > 0) {
    throw Error("the model needs " + std::to_string(model_.fitting.naparam()) +
                " parameters per atom: give aparam.");
  }
  StepInput input{&pairs_, forces, fparam, frame, aparam};
  backend_->begin(input, {result_.energy.data(), result_.force.data(), result_.virial.data()});
  if (exchange) backend_->set_sent_rows(exchange->sent_rows());
  sweep(forces, exchange);

  for (int i = 0; i < atoms.natoms; ++i) {
    bool ok = std::isfinite(result_.energy[i]);
    for (int c = 0; forces && c < 3; ++c) ok = ok && std::isfinite(result_.force[3 * i + c]);
    if (!ok) {
      throw Error(
          "the energy or force of {atom} is not a finite number: the structure is far outside of what the "
          "model "
          "can describe.",
          i, -1);
    }
  }
  return result_;
}

std::vector<double> Engine::descriptor() {
  const ThreadScope scope(threads());
  std::vector<double> out(static_cast<std::size_t>(pairs_.natoms) * model_.descriptor_dim());
  backend_->run(pairs_.natoms, [&](Range a) { backend_->descriptor(a, out.data()); });
  return out;
}

void Engine::measure_stages() {
  if (clock_) return;
  auto clock = std::make_unique<StageClock>(std::move(backend_), threads());
  clock_ = clock.get();
  backend_ = std::move(clock);
}

std::map<std::string, double> Engine::stage_seconds() {
  std::map<std::string, double> seconds;
  if (clock_) seconds = clock_->take();
  seconds["pairs"] = pairs_seconds_;
  pairs_seconds_ = 0;
  return seconds;
}

// ---- the stages: names and order are those of docs/story.md

void Engine::embedding(Range a) {
  Backend& b = *backend_;
  b.env_mat(a);
  b.repinit(a);
  if (model_.has_three_body) b.three_body(a);
  if (!model_.is_dpa2) return;
  b.g1_transform(a);
  b.pair_init(a);
}

void Engine::layer(int l, Range a) {
  Backend& b = *backend_;
  if (l > 0) b.pair_step(l - 1, a);
  b.node_step(l, a);
}

// From d g1(l + 1) to d g1(l). A pair step's reverse needs nothing from other atoms unless the step reads g1:
// it then belongs to the layer whose g1 that is, else it goes ahead, while the pairs are in cache.
void Engine::layer_backward(int l, Range a) {
  Backend& b = *backend_;
  const bool pairs_read_g1 = model_.repformer.has_g1g1;
  if (pairs_read_g1 && l + 1 < model_.repformer.nlayers) b.pair_step_backward(l, a);
  b.node_step_backward(l, a);
  if (!pairs_read_g1 && l > 0) b.pair_step_backward(l - 1, a);
}

void Engine::embedding_backward(Range a) {
  Backend& b = *backend_;
  if (model_.is_dpa2) {
    b.pair_init_backward(a);
    b.g1_transform_backward(a);
  }
  if (model_.has_three_body) b.three_body_backward(a);
  b.repinit_backward(a);
  b.env_mat_backward(a);
}

// Every exchange ends a run over all atoms; what stands between two of them goes block by block. So the last
// layer turns round within a block, and a model without layers has one run only.
void Engine::sweep(bool forces, Exchange* exchange) {
  Backend& b = *backend_;
  const int natoms = pairs_.natoms, last = model_.repformer.nlayers - 1, width = model_.repformer.g1_dim;
  const auto turn = [&](Range a) {
    last < 0 ? embedding(a) : layer(last, a);
    b.fitting(a);
    if (forces) last < 0 ? embedding_backward(a) : layer_backward(last, a);
  };
  const auto gather = [&](int l) -> std::function<void(Range)> {
    if (!forces) return {};
    if (l < 0) return [&b](Range a) { b.forces(a); };
    return [&b, l](Range a) { b.gather_g1_gradient(l, a); };
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
