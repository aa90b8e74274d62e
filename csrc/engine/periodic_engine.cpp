#include "engine/periodic_engine.h"

#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/threads.h"

namespace dpa2md {

// One computation at a time: the engine's buffers are its own.
class PeriodicEngine::Turn {
 public:
  explicit Turn(PeriodicEngine* of) : of_(of) {
    of->check_process();
    ++of->turns_;
    of->mutex_.lock();
  }
  ~Turn() {
    of_->mutex_.unlock();
    --of_->turns_;
  }
  Turn(const Turn&) = delete;

 private:
  PeriodicEngine* of_;
};

PeriodicEngine::PeriodicEngine(const std::string& path, const EngineOptions& options)
    : own_threads_(options.threads > 0), process_(getpid()) {
  run_on_threads(checked_threads(options.threads),
                 [&] { engine_ = std::make_unique<Engine>(path, options); });
}

PeriodicEngine::PeriodicEngine(const PeriodicEngine& other)
    : own_threads_(other.own_threads_), process_(getpid()) {
  const EngineOptions& options = other.engine().options();
  run_on_threads(options.threads,
                 [&] { engine_ = std::make_unique<Engine>(other.engine().model(), options); });
}

// A forked process has a copy of everything but the other threads and the GPU.
void PeriodicEngine::check_process() {
  if (process_ == getpid()) return;
  if (turns_ > 0)
    throw Error(
        "this process was forked while another thread computed with the model, and that computation will "
        "never "
        "end here: fork at another time, or start processes with spawn.");
  if (!engine_->options().device.is_cpu())
    throw Error("this process was forked after the model was loaded on " + name(engine_->options().device) +
                ", and a GPU does not follow: load the model here, or start processes with spawn.");
  if (!own_threads_) engine_->limit_threads(default_threads());
  process_ = getpid();
}

// frame: keeps the atoms' frames.
StepInput PeriodicEngine::step_input(const Structures& s, std::vector<int>* frame) const {
  StepInput input;
  input.fparam = s.fparam, input.aparam = s.aparam;
  input.frame_start = &s.start;
  if (s.frames() == 1) return input;
  frame->resize(s.natoms());
  for (int f = 0; f < s.frames(); ++f)
    std::fill(frame->begin() + s.start[f], frame->begin() + s.start[f + 1], f);
  input.frame = frame->data();
  return input;
}

void PeriodicEngine::set_parameters(const double* flat) {
  const Turn turn(this);
  run_on_threads(engine_->threads(), [&] { engine_->set_parameters(flat); });
}

void PeriodicEngine::gradient(const Structures& s, const Direction& along, double* flat) {
  std::vector<int> frame;
  StepInput input = step_input(s, &frame);
  input.along = &along;
  const Turn turn(this);
  run_on_threads(engine_->threads(), [&] { engine_->gradient(input, flat); });
}

ListFacts PeriodicEngine::compute(const Structures& s, double skin, const StructureResults& to) {
  std::vector<int> frame;
  StepInput input = step_input(s, &frame);
  const bool forces = to.forces || to.virial || to.virials;
  const Turn turn(this);
  ListFacts facts;
  run_on_threads(engine_->threads(), [&] {
    if (!neighbors_ || skin != skin_)
      neighbors_ = std::make_unique<NeighborList>(engine_->model().rcut(), skin_ = skin);
    neighbors_->leave_search(engine_->searches());
    facts.rebuilt = neighbors_->update(s.x, s.type, s.start, s.cells);
    const Atoms atoms{s.natoms(), s.natoms(), s.x, s.type, nullptr, &neighbors_->candidates()};
    input.forces = forces;
    engine_->compute(atoms, input, nullptr, {to.energies, to.forces, to.virials, to.energy, to.virial});
    if (!to.descriptors) return;
    const std::vector<double> descriptors = engine_->descriptor();
    std::copy(descriptors.begin(), descriptors.end(), to.descriptors);
  });
  const PairList& p = engine_->pairs();
  facts.pairs = p.size;
  facts.overfull_atom = p.overfull_atom;
  facts.overfull_count = p.overfull_count;
  facts.overfull_nsel = p.overfull_nsel;
  return facts;
}

void PeriodicEngine::forget_neighbors() {
  const Turn turn(this);
  neighbors_.reset();
}

DeviceMemory PeriodicEngine::device_memory(std::int64_t natoms) {
  const Turn turn(this);
  return engine_->device_memory(natoms);
}

}  // namespace dpa2md
