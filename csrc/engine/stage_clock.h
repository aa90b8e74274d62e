// A backend that measures another one: the time of every stage, summed over threads. The engine goes through
// it only when asked to (Engine::measure_stages), so that a normal step pays nothing.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/threads.h"
#include "engine/backend.h"

namespace dpa2md {

class StageClock final : public Backend {
 public:
  StageClock(std::unique_ptr<Backend> inner, int threads) : inner_(std::move(inner)), slots_(threads) {}

  // stage -> seconds since the last call
  std::map<std::string, double> take() {
    std::map<std::string, double> total;
    for (Slot& s : slots_) {
      for (const auto& [stage, seconds] : s.seconds) total[stage] += seconds;
      s.seconds.clear();
    }
    return total;
  }

  void begin(const StepInput& input, const StepOutput& output) override { inner_->begin(input, output); }
  bool finish(PairList* pairs) override { return inner_->finish(pairs); }
  bool results_by_finish() const override { return inner_->results_by_finish(); }
  void run(int natoms, const std::function<void(Range)>& stage,
           const std::function<void(Range)>& gather) override {
    inner_->run(natoms, stage, gather);
  }
  void env_mat(Range a) override { time("env_mat", &Backend::env_mat, a); }
  void repinit(Range a) override { time("repinit", &Backend::repinit, a); }
  void three_body(Range a) override { time("three_body", &Backend::three_body, a); }
  void g1_transform(Range a) override { time("g1_transform", &Backend::g1_transform, a); }
  void pair_init(Range a) override { time("pair_init", &Backend::pair_init, a); }
  void pair_step(int l, Range a) override { time("pair_step", &Backend::pair_step, l, a); }
  void node_step(int l, Range a) override { time("node_step", &Backend::node_step, l, a); }
  void fitting(Range a) override { time("fitting", &Backend::fitting, a); }
  void node_step_backward(int l, Range a) override {
    time("node_step_backward", &Backend::node_step_backward, l, a);
  }
  void pair_step_backward(int l, Range a) override {
    time("pair_step_backward", &Backend::pair_step_backward, l, a);
  }
  void start_g1_gradient(int l) override { inner_->start_g1_gradient(l); }
  void gather_g1_gradient(int l, Range a) override {
    time("gather_g1_gradient", &Backend::gather_g1_gradient, l, a);
  }
  void pair_init_backward(Range a) override { time("pair_init_backward", &Backend::pair_init_backward, a); }
  void g1_transform_backward(Range a) override {
    time("g1_transform_backward", &Backend::g1_transform_backward, a);
  }
  void three_body_backward(Range a) override {
    time("three_body_backward", &Backend::three_body_backward, a);
  }
  void repinit_backward(Range a) override { time("repinit_backward", &Backend::repinit_backward, a); }
  void env_mat_backward(Range a) override { time("env_mat_backward", &Backend::env_mat_backward, a); }
  void forces(Range a) override { time("forces", &Backend::forces, a); }
  void set_sent_rows(const std::vector<int>& sent) override { inner_->set_sent_rows(sent); }
  void* g1_rows(int layer) override { return inner_->g1_rows(layer); }
  void* g1_gradient_rows(int layer) override { return inner_->g1_gradient_rows(layer); }
  void put_g1_rows(int layer) override { inner_->put_g1_rows(layer); }
  void put_g1_gradient_rows(int layer) override { inner_->put_g1_gradient_rows(layer); }
  void descriptor(Range a, double* out) override { inner_->descriptor(a, out); }
  DeviceMemory memory(std::int64_t natoms) override { return inner_->memory(natoms); }
  bool build_pairs(const Atoms& atoms, bool forces, bool once, PairList* out) override {
    const bool built = inner_->build_pairs(atoms, forces, once, out);
    inner_->wait();
    return built;
  }
  void measure_kernels(bool yes) override { inner_->measure_kernels(yes); }
  std::vector<KernelTime> kernel_times() override { return inner_->kernel_times(); }
  bool searches() const override { return inner_->searches(); }
  void wait() override { inner_->wait(); }
  bool single() const override { return inner_->single(); }
  std::string description() const override { return inner_->description(); }

 private:
  struct alignas(64) Slot {  // one a thread
    std::map<std::string, double> seconds;
  };

  template <class... Parameters, class... Arguments>
  void time(const char* stage, void (Backend::*member)(Parameters...), Arguments... arguments) {
    const auto start = std::chrono::steady_clock::now();
    (inner_.get()->*member)(arguments...);
    inner_->wait();
    const std::chrono::duration<double> used = std::chrono::steady_clock::now() - start;
    slots_[thread_index()].seconds[stage] += used.count();
  }

  std::unique_ptr<Backend> inner_;
  std::vector<Slot> slots_;
};

}  // namespace dpa2md
