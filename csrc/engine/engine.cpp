#include "engine/engine.h"

#include <chrono>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/threads.h"
#include "engine/sweep.h"
#include "model/parameters.h"

namespace dpa2md {
namespace {

std::unique_ptr<Backend> make_backend(const Model& model, const EngineOptions& o) {
  if (o.low_memory && !o.device.is_cpu())
    throw Error("low memory is for the device cpu: leave it out for device " + name(o.device) + ".");
  if (o.device.is_cpu()) return make_cpu_backend(model, *o.precision, o.threads, o.tables, o.low_memory);
#ifdef DPA2MD_CUDA_EMULATION
  if (o.device.kind == Device::Kind::kCudaEmulation)
    return make_emulated_cuda_backend(model, *o.precision, o.device.gpu(), o.tables);
#endif
#ifdef DPA2MD_CUDA
  return make_cuda_backend(model, *o.precision, o.device.gpu(), o.tables);
#else
  throw Error("this dpa2md was built without CUDA: use device \"cpu\".");
#endif
}

EngineOptions checked(EngineOptions o, const Model& model) {
  if (!o.precision) o.precision = model.precision;
  o.threads = checked_threads(o.threads);
  return o;
}

// The sums over frames.
void add_up(const StepInput& input, const Atoms& atoms, const StepOutput& to) {
  const std::vector<int> all = {0, atoms.nrows};
  const std::vector<int>& start = input.frame_start ? *input.frame_start : all;
  for (int f = 0; f < input.frames(); ++f) {
    double energy = 0, virial[9] = {};
    for (int i = start[f]; i < start[f + 1]; ++i) {
      if (i < atoms.natoms) energy += to.energy[i];
      for (int c = 0; input.forces && c < 9; ++c) virial[c] += to.virial[9 * static_cast<std::size_t>(i) + c];
    }
    to.frame_energy[f] = energy;
    if (input.forces) std::copy(virial, virial + 9, to.frame_virial + 9 * static_cast<std::size_t>(f));
  }
}

// Throws Error for an energy or force that is not finite. Tests the frames' sums first: such a number makes
// its sum not finite too, a force that of the virial.
void check_finite(const StepInput& input, const Atoms& atoms, const StepOutput& to) {
  const auto finite = [](const double* x, std::size_t n) {
    return std::all_of(x, x + n, [](double y) { return std::isfinite(y); });
  };
  const std::size_t frames = input.frames();
  if (finite(to.frame_energy, frames) && (!input.forces || finite(to.frame_virial, 9 * frames))) return;
  for (int i = 0; i < atoms.natoms; ++i) {
    if (finite(to.energy + i, 1) && (!input.forces || finite(to.force + 3 * static_cast<std::size_t>(i), 3)))
      continue;
    throw Error(
        "the energy or force of {atom} is not a finite number: the structure is far outside of what the "
        "model "
        "can describe.",
        i, -1);
  }
}

}  // namespace

EngineOptions read_options(const std::string& precision, int threads, const std::string& device, bool tables,
                           bool low_memory) {
  EngineOptions o;
  if (!precision.empty()) o.precision = parse_precision(precision);
  o.threads = threads, o.device = parse_device(device);
  o.tables = tables, o.low_memory = low_memory;
  return o;
}

Engine::Engine(const std::string& path, const EngineOptions& options) : Engine(Model::read(path), options) {}

Engine::Engine(Model model, const EngineOptions& options)
    : model_(std::move(model)),
      options_(checked(options, model_)),
      backend_(make_backend(model_, options_)) {}

const Result& Engine::compute(const Atoms& atoms, bool forces, const double* fparam, const double* aparam,
                              const int* frame, Exchange* exchange, bool virials) {
  const std::size_t rows = forces ? atoms.nrows : 0;
  result_.energy.resize(atoms.natoms);
  result_.force.resize(3 * rows);
  result_.virial.resize(virials ? 9 * rows : 0);
  StepInput input;
  input.forces = forces, input.fparam = fparam, input.frame = frame, input.aparam = aparam;
  double* virial = virials ? result_.virial.data() : nullptr;
  compute(atoms, input, exchange,
          {result_.energy.data(), result_.force.data(), virial, nullptr, result_.total_virial});
  return result_;
}

void Engine::compute(const Atoms& atoms, const StepInput& given, Exchange* exchange,
                     const StepOutput& wanted) {
  const ThreadScope scope(threads());
  StepInput input = given;
  input.pairs = &pairs_;
  StepOutput to;
  do {
    list_pairs(atoms, input.forces, exchange != nullptr);
    check_parameters(input, atoms.natoms);
    to = with_own_arrays(input, wanted);
    backend_->begin(input, to);
    if (exchange) backend_->set_sent_rows(exchange->sent_rows());
    Sweep(model_, backend_.get(), clock_.get()).run(pairs_.natoms, input.forces, exchange);
  } while (!backend_->finish(&pairs_));
  kept_ = gradients_ && input.forces;
  if (!backend_->results_by_finish()) add_up(input, atoms, to);
  check_finite(input, atoms, to);
}

void Engine::list_pairs(const Atoms& atoms, bool forces, bool once) {
  const auto start = std::chrono::steady_clock::now();
  if (!backend_->build_pairs(atoms, forces, once, &pairs_)) build_pairs(model_, atoms, &pairs_);
  if (clock_) backend_->wait();
  for (std::size_t t = 0; t < expected_types_.size(); ++t) pairs_.types_present[t] |= expected_types_[t];
  pairs_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void Engine::check_parameters(const StepInput& input, int natoms) const {
  if (model_.fitting.nfparam() && !input.fparam && model_.fitting.default_fparam.empty()) {
    throw Error("the model needs " + std::to_string(model_.fitting.nfparam()) +
                " frame parameters: give fparam.");
  }
  if (model_.fitting.naparam() && !input.aparam && natoms > 0) {
    throw Error("the model needs " + std::to_string(model_.fitting.naparam()) +
                " parameters per atom: give aparam.");
  }
}

// Adds the engine's own arrays for missing outputs: energies, forces and the frames' sums, which are checked;
// virials if the backend needs them.
StepOutput Engine::with_own_arrays(const StepInput& input, StepOutput to) {
  const bool adds = !backend_->results_by_finish();
  const std::size_t n = pairs_.natoms, rows = input.forces ? pairs_.nrows : 0, frames = input.frames();
  const auto own = [](double** array, std::vector<double>* instead, std::size_t size, bool zeros) {
    if (!*array) {
      instead->resize(size);
      *array = instead->data();
    }
    if (zeros) std::fill_n(*array, size, 0.0);
  };
  own(&to.energy, &unwanted_.energy, n, adds);
  own(&to.force, &unwanted_.force, 3 * rows, adds);
  if (adds) own(&to.virial, &unwanted_.virial, 9 * rows, true);
  own(&to.frame_energy, &frame_energy_, frames, false);
  own(&to.frame_virial, &frame_virial_, input.forces ? 9 * frames : 0, false);
  return to;
}

std::vector<double> Engine::descriptor() {
  const ThreadScope scope(threads());
  std::vector<double> out(static_cast<std::size_t>(pairs_.natoms) * model_.descriptor_dim());
  backend_->run(pairs_.natoms, [&](Range a) { backend_->descriptor(a, out.data()); });
  return out;
}

void Engine::measure_stages() {
  if (!clock_) clock_ = std::make_unique<StageClock>(threads());
}

std::map<std::string, double> Engine::stage_seconds() {
  std::map<std::string, double> seconds;
  if (clock_) seconds = clock_->take();
  seconds["pairs"] = pairs_seconds_;
  pairs_seconds_ = 0;
  return seconds;
}

// ---- gradients by weights

void Engine::set_parameters(const double* flat) {
  dpa2md::set_parameters(flat, &model_);
  backend_->prepare();
  if (gradients_) gradients_->prepare();
  kept_ = false;
}

void Engine::gradient(const StepInput& given, double* flat) {
  check_trainable(model_);
  const ThreadScope scope(threads());
  if (!gradients_) {
    gradients_ = backend_->make_gradient_backend();
    gradient_ = model_;
  }
  if (!gradients_)
    throw Error("gradients by weights are computed on the device cpu only: train with device cpu.");
  StepInput input = given;
  input.pairs = &pairs_, input.forces = true;
  if (!kept_) {
    backend_->begin(input, with_own_arrays(input, {}));
    Sweep(model_, backend_.get(), clock_.get()).run(pairs_.natoms, true, nullptr);
    kept_ = true;
  }
  gradients_->begin(input, {});
  Sweep(model_, gradients_.get(), clock_.get()).run(pairs_.natoms, true, nullptr);
  clear_parameters(&gradient_);
  gradients_->add_gradient(&gradient_);
  get_parameters(gradient_, flat);
}

}  // namespace dpa2md
