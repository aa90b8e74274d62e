#include "engine.h"

#include <chrono>
#include <cmath>

#include "devices.h"
#include "error.h"
#include "threads.h"

namespace dpa2md {
namespace {

std::unique_ptr<Backend> make_backend(const Model& model, const std::string& precision, int threads,
                                      const std::string& name, bool tables) {
  const DeviceName device = parse_device(name);
  if (device.kind == "cpu") return make_cpu_backend(model, precision, threads, tables);
  [[maybe_unused]] const int number = device.number < 0 ? 0 : device.number;
#ifdef DPA2MD_CUDA_EMULATION
  if (device.kind == "cuda-emulation") return make_emulated_cuda_backend(model, precision, number, tables);
#endif
#ifdef DPA2MD_CUDA
  return make_cuda_backend(model, precision, number, tables);
#else
  throw Error("this dpa2md was built without CUDA: use device \"cpu\".");
#endif
}

std::string choose_precision(const Model& model, const std::string& wanted) {
  if (wanted.empty()) return model.precision;
  if (wanted == "float32" || wanted == "float64") return wanted;
  throw Error("the precision \"" + wanted + "\" is unknown: use \"float32\" or \"float64\".");
}

}  // namespace

Engine::Engine(const std::string& path, const std::string& precision, int threads, const std::string& device,
               bool tables)
    : model_(Model::read(path)),
      precision_(choose_precision(model_, precision)),
      threads_(threads > 0 ? threads : default_threads()),
      backend_(make_backend(model_, precision_, threads_, device, tables)) {}

const Result& Engine::compute(const Atoms& atoms, bool forces, const double* fparam, const double* aparam,
                              const int* frame, Exchange* exchange) {
  const ThreadScope scope(threads_);
  const auto start = std::chrono::steady_clock::now();
  if (!backend_->build_pairs(atoms, forces, &pairs_)) build_pairs(model_, atoms, forces, &pairs_);
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
  forward(exchange);
  if (forces) backward(exchange);

  for (int i = 0; i < atoms.natoms; ++i) {
    bool ok = std::isfinite(result_.energy[i]);
    for (int c = 0; forces && c < 3; ++c) ok = ok && std::isfinite(result_.force[3 * i + c]);
    if (!ok) {
      throw Error("the energy or force of atom " + std::to_string(i) +
                  " is not a finite number: the structure is far outside of what the model can describe.");
    }
  }
  return result_;
}

std::vector<double> Engine::descriptor() {
  const ThreadScope scope(threads_);
  std::vector<double> out(static_cast<std::size_t>(pairs_.natoms) * model_.descriptor_dim());
  backend_->run(pairs_.natoms, [&](Range a) { backend_->descriptor(a, out.data()); });
  return out;
}

void Engine::measure_stages() {
  if (clock_) return;
  auto clock = std::make_unique<StageClock>(std::move(backend_), threads_);
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

// The names and their order are those of docs/story.md.
void Engine::forward(Exchange* exchange) {
  Backend& b = *backend_;
  const int natoms = pairs_.natoms, layers = model_.repformer.nlayers;
  const int width = model_.repformer.g1_dim;
  b.run(natoms, [&](Range a) {
    b.env_mat(a);
    b.repinit(a);
    if (model_.has_three_body) b.three_body(a);
    if (!model_.is_dpa2) return;
    b.g1_transform(a);
    b.pair_init(a);
  });
  for (int l = 0; l < layers; ++l) {
    if (exchange) {
      exchange->forward(b.g1_rows(l), width, b.single());
      b.put_g1_rows(l);
    }
    b.run(natoms, [&](Range a) {
      b.node_step(l, a);
      if (l + 1 < layers) b.pair_step(l, a);
    });
  }
  b.run(natoms, [&](Range a) { b.fitting(a); });
}

void Engine::backward(Exchange* exchange) {
  Backend& b = *backend_;
  const int natoms = pairs_.natoms, nrows = pairs_.nrows, layers = model_.repformer.nlayers;
  const int width = model_.repformer.g1_dim;
  for (int l = layers - 1; l >= 0; --l) {
    b.run(natoms, [&](Range a) {
      b.node_step_backward(l, a);
      if (l + 1 < layers) b.pair_step_backward(l, a);
    });
    b.run(nrows, [&](Range rows) { b.gather_g1_gradient(l, rows); });
    if (exchange) {
      exchange->reverse(b.g1_gradient_rows(l), width, b.single());
      b.put_g1_gradient_rows(l);
    }
  }
  b.run(natoms, [&](Range a) {
    if (model_.is_dpa2) {
      b.pair_init_backward(a);
      b.g1_transform_backward(a);
    }
    if (model_.has_three_body) b.three_body_backward(a);
    b.repinit_backward(a);
    b.env_mat_backward(a);
  });
  b.run(nrows, [&](Range rows) { b.forces(rows); });
}

}  // namespace dpa2md
