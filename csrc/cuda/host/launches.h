// Launches kernels, one by one or recorded and submitted as one CUDA graph per step. A graph costs host and
// device less than a hundred launches, which take most of a small system's time. The graph is kept from step
// to step; only nodes whose arguments change (the numbers of pairs) are updated. Independent kernels of a
// graph may run concurrently.
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
  // Warps per block for kernels with a warp per atom: one for few atoms, to occupy more multiprocessors.
  int warps_for(int atoms) const { return atoms >= 16 * multiprocessors_ ? 4 : 1; }

  // Bytes of global memory for a launch's scratch; 0 if a block's `bytes` fit into shared memory.
  std::size_t slab_bytes(int items, std::size_t bytes) const {
    return bytes <= static_cast<std::size_t>(most_shared_) ? 0 : slab_blocks(items) * bytes;
  }

  // Launches kernel(block, item, scratch) for items begin ... end - 1, with `bytes` of scratch per block in
  // shared memory or in `slab` (slab_bytes). Does not wait. While recording, submit() or flush() starts it.
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

  // Begins to record launches; submit() or flush() starts them. Does nothing while kernels are measured.
  void record() {
    if (clock_) return;
    recorded_ = 0;
    recording_ = true;
    order_ = {};
  }
  // Starts the recorded launches as one graph.
  void submit() {
    if (!recording_) return;
    recording_ = false;
    if (!executable_ || recorded_ != calls_.size()) build();
    check(cudaGraphLaunch(executable_, nullptr));
  }
  // Starts the recorded launches one by one, and stops recording.
  void flush() {
    if (!recording_) return;
    recording_ = false;
    for (std::size_t k = 0; k < recorded_; ++k) calls_[k].start(calls_[k].kernel.data());
  }

  // Drops the recorded launches.
  void discard() { recording_ = false; }

  // Times every kernel by itself, without graphs.
  void measure(bool yes) { clock_ = yes ? std::make_unique<KernelClock>() : nullptr; }
  std::vector<KernelTime> times() { return clock_ ? clock_->take() : std::vector<KernelTime>(); }

  // Opens a side branch of the graph at fork(). Launches between aside(true) and aside(false) go to the
  // branch and run concurrently with the others; the launch after join() waits for both.
  void fork() { order_.side = order_.main; }
  void aside(bool yes) { order_.aside = yes; }
  void join() { order_.joining = true; }
  // A second side branch, once a step: launches between beside(true) and beside(false) wait for those before
  // them, and the launch after join_beside() waits for the branch.
  void beside(bool yes) {
    if (yes) order_.beside = order_.main;
    order_.is_beside = yes;
  }
  void join_beside() { order_.joining_beside = true; }
  // Gives the next launch the dependencies of the last one, so that both run concurrently; the launch after
  // them waits for both.
  void twin() { order_.twin = true; }
  // The state of fork, aside, join, beside and twin for the next launch.
  struct Order {
    bool aside = false, joining = false, is_beside = false, joining_beside = false, twin = false;
    std::vector<int> main, side, beside;  // the last kernels of each branch
  };
  const Order& order() const { return order_; }
  void set_order(Order order) { order_ = std::move(order); }

 private:
  struct Call {
    const void* function = nullptr;
    int blocks = 0, threads = 0;
    std::size_t shared = 0;
    Items items{};
    std::vector<char> kernel;  // bytes of the kernel object
    std::vector<int> after;    // indices of the calls that this one depends on
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

  // Blocks of a launch that has its scratch in global memory, or whose blocks loop over items: enough to
  // occupy every multiprocessor.
  int slab_blocks(int items) const { return std::min(items, 4 * multiprocessors_); }

  // Allows a kernel all shared memory, once, since nodes of one graph may differ in what they take.
  void ask_for_shared(const void* function) {
    if (std::find(asked_.begin(), asked_.end(), function) != asked_.end()) return;
    check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, most_shared_));
    asked_.push_back(function);
  }

  // Finds the launches that this one depends on.
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
  std::vector<const void*> asked_;  // kernels that may take all shared memory

  std::unique_ptr<KernelClock> clock_;  // while kernels are measured
  bool recording_ = false;
  Order order_;
  std::vector<Call> calls_;   // this step's calls, then what is left of the last step's
  std::size_t recorded_ = 0;  // number of this step's calls
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace gpu
}  // namespace dpa2md
