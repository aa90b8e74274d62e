// Starts of kernels on the device. Those of a step may wait until all are known and then start as one CUDA
// graph, which costs host and device less than a hundred starts: what small systems spend most of their time
// with. From step to step few arguments change (how many pairs there are), and only these are told to CUDA.
// In a graph, some kernels may run beside the others.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "cuda/host/kernel_clock.h"
#include "cuda/host/runtime.h"

namespace dpa2md {
namespace gpu {

class Launches {
 public:
  explicit Launches(int device) {
    use_device(device);
    multiprocessors_ = attribute(cudaDevAttrMultiProcessorCount);
    most_shared_ = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  }
  Launches(const Launches&) = delete;
  Launches& operator=(const Launches&) = delete;
  ~Launches() { forget(); }

  int multiprocessors() const { return multiprocessors_; }
  std::size_t most_shared() const { return static_cast<std::size_t>(most_shared_); }  // of a block
  // Warps of a block for so many atoms, one each: few blocks of one warp where that fills the multiprocessors
  // better.
  int warps_for(int atoms) const { return atoms >= 16 * multiprocessors_ ? 4 : 1; }

  // Bytes of global memory that a launch needs for its scratch; 0 where `bytes` of it fit into shared memory.
  std::size_t slab_bytes(int items, std::size_t bytes) const {
    return bytes <= static_cast<std::size_t>(most_shared_) ? 0 : slab_blocks(items) * bytes;
  }

  // kernel(block, item, scratch) for items begin ... end - 1; `bytes` of scratch, in shared memory or in
  // `slab` (slab_bytes). Does not wait, and may be put off until submit() or flush().
  template <class Kernel>
  void launch(const Kernel& kernel, int begin, int end, std::size_t bytes, char* slab) {
    const int items = end - begin;
    if (items == 0) return;
    constexpr int most = MostThreads<Kernel>::value;
    const bool few = most > kThreads && items <= multiprocessors_;
    Call call;
    call.function = reinterpret_cast<const void*>(run_items<Kernel>);
    call.threads = few ? most : kThreads;
    if constexpr (HasWarpAtoms<Kernel>::value) call.threads = 32 * kernel.warps;
    call.blocks = slab || MayHaveNone<Kernel>::value ? slab_blocks(items) : items;
    call.shared = slab ? 0 : bytes;
    call.items = {begin, end, slab, slab ? bytes : 0};
    if (call.shared > kSharedUnasked) ask_for_shared(call.function);
    if (clock_)
      return clock_->time<Kernel>(call.function, call.blocks, call.threads, call.shared,
                                  [&] { call.start(&kernel); });
    if (!recording_) return call.start(&kernel);
    find_place(&call);
    record(call, reinterpret_cast<const char*>(&kernel), sizeof(kernel));
  }

  // What is launched from here on waits for
  void record() {
    if (clock_) return;
    recorded_ = 0;
    recording_ = true;
    order_ = {};
  }
  // this: it starts all at once,
  void submit() {
    if (!recording_) return;
    recording_ = false;
    if (!executable_ || recorded_ != calls_.size()) build();
    check(cudaGraphLaunch(executable_, nullptr));
  }
  // or this: one by one, as does what comes after it.
  void flush() {
    if (!recording_) return;
    recording_ = false;
    for (std::size_t k = 0; k < recorded_; ++k) calls_[k].start(calls_[k].kernel.data());
  }

  // A step that came to neither has ended all the same.
  void discard() { recording_ = false; }

  // Every kernel by itself, timed.
  void measure(bool yes) { clock_ = yes ? std::make_unique<KernelClock>() : nullptr; }
  std::vector<KernelTime> times() { return clock_ ? clock_->take() : std::vector<KernelTime>(); }

  // What is launched after fork() between aside(true) and aside(false) need not wait for what is launched
  // outside; what follows join() waits for both.
  void fork() { order_.side = order_.main; }
  void aside(bool yes) { order_.aside = yes; }
  void join() { order_.joining = true; }
  // The same once a step, for what is launched between beside(true) and beside(false): it waits for what was
  // launched before, and what follows join_beside() waits for it.
  void beside(bool yes) {
    if (yes) order_.beside = order_.main;
    order_.is_beside = yes;
  }
  void join_beside() { order_.joining_beside = true; }
  // What is launched next waits for no more than what was launched last, and what follows waits for both.
  void twin() { order_.twin = true; }
  // What these calls have left for the next launch.
  struct Order {
    bool aside = false, joining = false, is_beside = false, joining_beside = false, twin = false;
    std::vector<int> main, side, beside;  // the last kernels
  };
  const Order& order() const { return order_; }
  void set_order(Order order) { order_ = std::move(order); }

 private:
  struct Call {
    const void* function = nullptr;
    int blocks = 0, threads = 0;
    std::size_t shared = 0;
    Items items{};
    std::vector<char> kernel;  // its object
    std::vector<int> after;    // of the step's kernels
    cudaGraphNode_t node = nullptr;

    void start(const void* object) {
      void* arguments[] = {const_cast<void*>(object), &items};
      check(cudaLaunchKernel(function, dim3(blocks), dim3(threads), arguments, shared, nullptr));
    }
    bool same_node(const Call& other) const { return function == other.function && after == other.after; }
    bool same(const Call& other, const char* object) const {
      return blocks == other.blocks && threads == other.threads && shared == other.shared &&
             items == other.items && std::memcmp(kernel.data(), object, kernel.size()) == 0;
    }
    template <class F>
    void with_parameters(F use) {
      void* arguments[] = {kernel.data(), &items};
      cudaKernelNodeParams p = {};
      p.func = const_cast<void*>(function);
      p.gridDim = dim3(blocks), p.blockDim = dim3(threads);
      p.sharedMemBytes = static_cast<unsigned>(shared);
      p.kernelParams = arguments;
      use(&p);
    }
  };

  // Blocks that share global memory for their scratch, or go through many items: enough to keep every
  // multiprocessor busy.
  int slab_blocks(int items) const { return std::min(items, 4 * multiprocessors_); }

  // All of it, once for every kernel: a graph's nodes may differ in what they take.
  void ask_for_shared(const void* function) {
    if (std::find(asked_.begin(), asked_.end(), function) != asked_.end()) return;
    check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, most_shared_));
    asked_.push_back(function);
  }

  // Whom it comes after.
  void find_place(Call* call) {
    std::vector<int>& last = order_.is_beside ? order_.beside : order_.aside ? order_.side : order_.main;
    const int own = static_cast<int>(recorded_);
    const auto wait_for = [&](const std::vector<int>& calls) {
      for (const int k : calls) {
        if (std::find(call->after.begin(), call->after.end(), k) == call->after.end())
          call->after.push_back(k);
      }
    };
    if (std::exchange(order_.twin, false) && !last.empty()) {
      call->after = calls_[last.back()].after;
      last.push_back(own);
      return;
    }
    wait_for(last);
    if (std::exchange(order_.joining, false)) wait_for(order_.side);
    if (std::exchange(order_.joining_beside, false)) wait_for(std::exchange(order_.beside, {}));
    last = {own};
  }

  void record(const Call& call, const char* object, std::size_t size) {
    if (recorded_ == calls_.size()) {
      forget();
      calls_.emplace_back();
    }
    Call& kept = calls_[recorded_++];
    const bool there = executable_ && kept.same_node(call);
    if (there && kept.same(call, object)) return;
    const cudaGraphNode_t node = kept.node;
    kept = call;
    kept.kernel.assign(object, object + size);
    kept.node = node;
    if (!there || !change(&kept)) forget();
  }
  bool change(Call* call) {
    cudaError_t error = cudaSuccess;
    call->with_parameters([&](cudaKernelNodeParams* p) {
      error = cudaGraphExecKernelNodeSetParams(executable_, call->node, p);
    });
    return error == cudaSuccess || (cudaGetLastError(), false);
  }

  void build() {
    forget();
    calls_.resize(recorded_);
    check(cudaGraphCreate(&graph_, 0));
    for (Call& call : calls_) {
      std::vector<cudaGraphNode_t> before;
      for (const int k : call.after) before.push_back(calls_[k].node);
      call.with_parameters([&](cudaKernelNodeParams* p) {
        check(cudaGraphAddKernelNode(&call.node, graph_, before.data(), before.size(), p));
      });
    }
    check(cudaGraphInstantiate(&executable_, graph_, 0));
  }
  void forget() {  // also after a failure, so without a check
    if (executable_) cudaGraphExecDestroy(executable_);
    if (graph_) cudaGraphDestroy(graph_);
    executable_ = nullptr, graph_ = nullptr;
  }

  int multiprocessors_ = 0, most_shared_ = 0;
  std::vector<const void*> asked_;  // kernels that may have it

  std::unique_ptr<KernelClock> clock_;  // while kernels are measured
  bool recording_ = false;
  Order order_;
  std::vector<Call> calls_;   // of this step, then of the last one
  std::size_t recorded_ = 0;  // those of this step
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace gpu
}  // namespace dpa2md
