// Buffers sized once a step, blocks of atoms handed to threads.
#include "cpu/cpu_backend.h"

#include <algorithm>
#include <exception>

#include "cpu/parts/memory_limit.h"
#include "model/embedding_tables.h"

namespace dpa2md {
namespace DPA2MD_ISA {

namespace {

constexpr int kGroups = 8;  // of atoms, at most, for gradients by weights

#define DPA2MD_STRING(x) DPA2MD_STRING_(x)
#define DPA2MD_STRING_(x) #x

}  // namespace

template <class T>
CpuBackend<T>::CpuBackend(const Model& model, int threads, bool tables, bool low_memory)
    : model_(model),
      work_(model, threads, low_memory),
      use_tables_(tables),
      moving_(false),
      types_(cast<T>(model.type_embedding)),
      env_(model),
      repinit_(work_, types_),
      three_body_(model, types_),
      transform_(model),
      fitting_(model, types_),
      embedded_width_(model.repinit.ng * model.repinit_axis +
                      (model.has_three_body ? model.three_body.ng : 0)),
      repformers_(work_, &env_.repformer) {}

template <class T>
template <class R>
CpuBackend<T>::CpuBackend(CpuBackend<R>& plain)
    : model_(plain.model_),
      plain_(&plain),
      work_(model_, plain.work_.threads, false),
      use_tables_(plain.use_tables_),
      moving_(true),
      types_(cast<T>(model_.type_embedding)),
      env_(model_),
      repinit_(work_, types_, plain.repinit_, &gradients_),
      three_body_(model_, types_, plain.three_body_, &gradients_),
      transform_(model_, plain.transform_, &gradients_),
      fitting_(model_, plain.fitting_, &gradients_),
      embedded_width_(plain.embedded_width_),
      repformers_(work_, &env_.repformer, &plain.repformers_, &gradients_) {}

template <class T>
std::unique_ptr<Backend> CpuBackend<T>::make_gradient_backend() {
  if constexpr (is_dual<T>) {
    return nullptr;
  } else {
    begin_moving();
    fitting_.keep_values();
    return std::make_unique<CpuBackend<Dual<T>>>(*this);
  }
}

template <class T>
void CpuBackend<T>::prepare() {
  types_ = cast<T>(model_.type_embedding);
  repinit_.prepare();
  three_body_.prepare();
  transform_.prepare();
  fitting_.prepare();
  repformers_.prepare();
  if (is_dual<T>) return;
  begin_moving();
  tabulated_.clear();  // the next step makes the tables
}

template <class T>
void CpuBackend<T>::add_gradient([[maybe_unused]] Model* to) {
  if constexpr (is_dual<T>) {
    gradients_.finish(work_);
    repinit_.add_gradient(to, work_);
    three_body_.add_gradient(to, work_);
    transform_.add_gradient(to);
    fitting_.add_gradient(to);
    repformers_.add_gradient(to);
  }
}

template <class T>
std::string CpuBackend<T>::description() const {
  return std::string("cpu (") + (DPA2MD_STRING(DPA2MD_ISA) + 4) + ", " + (single() ? "float32" : "float64") +
         ", " + std::to_string(work_.threads) + (work_.threads == 1 ? " thread" : " threads") +
         (work_.low_memory ? ", low memory)" : ")");
}

template <class T>
void CpuBackend<T>::begin(const StepInput& input, const StepOutput& output) {
  work_.input = input;
  work_.output = output;
  work_.block = block_size(pairs().natoms);
  const int blocks = (pairs().natoms + work_.block - 1) / work_.block;
  work_.group_atoms = std::max(1, (blocks + kGroups - 1) / kGroups) * work_.block;
  build_tables();
  env_.begin(work_, span_blocks());
  repformers_.begin(span_blocks());
  reserve();
}

// Rebuilds the tables if new types have appeared. Once weights move, they are made fast, in float32; in
// float64, where these would not be exact enough, the nets are used. A gradient backend has the same tables.
template <class T>
void CpuBackend<T>::build_tables() {
  if constexpr (is_dual<T>) {
    if (!use_tables_ || !single()) return;
    repinit_.adopt_tables();
    if (model_.has_three_body) three_body_.adopt_tables(plain_->three_body_);
  } else {
    build_tables(pairs().types_present);
  }
}

template <class T>
void CpuBackend<T>::build_tables(const std::vector<char>& types) {
  if constexpr (!is_dual<T>) {
    if (!use_tables_ || (moving_ && !single()) || !add_types(types, &tabulated_)) return;
    if (moving_) {
      repinit_.follow_tables(tabulated_, work_);
      if (model_.has_three_body) three_body_.follow_tables(tabulated_, work_);
      return;
    }
    repinit_.build_tables(tabulated_);
    if (model_.has_three_body) three_body_.build_tables(tabulated_);
    repformers_.build_tables(tabulated_);
  }
}

// From now on weights move.
template <class T>
void CpuBackend<T>::begin_moving() {
  if (moving_) return;
  moving_ = true;
  drop_tables();
}

template <class T>
void CpuBackend<T>::drop_tables() {
  if constexpr (!is_dual<T>) {
    const std::vector<char> none(model_.ntypes(), 0);
    tabulated_.clear();
    repinit_.build_tables(none);
    if (model_.has_three_body) three_body_.build_tables(none);
    repformers_.build_tables(none);
  }
}

template <class T>
void CpuBackend<T>::reserve() {
  const std::size_t n = pairs().natoms;
  const std::size_t blocks = static_cast<std::size_t>(work_.threads) * work_.block;  // atoms at work
  MemoryPlan plan;
  env_.plan(work_, &plan);
  repinit_.plan(work_, &plan);
  transform_.plan(pairs().natoms, &plan);
  fitting_.plan(work_, &plan);
  plan.add(&embedded_, blocks * embedded_width_);
  plan.add(&dembedded_, work_.input.forces ? blocks * embedded_width_ : 0);
  repformers_.plan(&plan);
  if constexpr (is_dual<T>)
    gradients_.plan(pairs().natoms, (pairs().natoms + work_.group_atoms - 1) / work_.group_atoms, &plan);
  check_memory(plan.needed(), plan.held(), static_cast<std::int64_t>(n), work_.low_memory);
  plan.resize();
  step_bytes_ = plan.needed();
  if constexpr (is_dual<T>) gradients_.clear(work_);
}

// ---- the inputs and outputs of each stage

template <class T>
void CpuBackend<T>::repinit(Range a) {
  repinit_.forward(work_, env_.repinit, a, embedded(embedded_, a));
}
template <class T>
void CpuBackend<T>::three_body(Range a) {
  three_body_.forward(work_, env_.three_body, a, three_body_part(embedded(embedded_, a)));
}
template <class T>
void CpuBackend<T>::g1_transform(Range a) {
  transform_.forward(work_, a, embedded(embedded_, a), rows_of(g1(0), a).data);
}
template <class T>
void CpuBackend<T>::fitting(Range a) {
  const int l = rep().nlayers;
  const bool dpa2 = model_.is_dpa2;
  const Rows<T> features = dpa2 ? rows_of(g1(l), a) : embedded(embedded_, a);
  Rows<T> gradient{};
  if (work_.input.forces) gradient = dpa2 ? rows_of(dg1(l), a) : embedded(dembedded_, a);
  fitting_.run(work_, a, features, gradient);
}
template <class T>
void CpuBackend<T>::g1_transform_backward(Range a) {
  transform_.backward(work_, a, rows_of(dg1(0), a).data, embedded(dembedded_, a));
}
template <class T>
void CpuBackend<T>::three_body_backward(Range a) {
  env_.again(work_, &env_.three_body, a);
  three_body_.backward(work_, &env_.three_body, a, three_body_part(embedded(dembedded_, a)));
}
template <class T>
void CpuBackend<T>::repinit_backward(Range a) {
  if (model_.is_dpa2) env_.again(work_, &env_.repinit, a);
  repinit_.backward(work_, &env_.repinit, a, embedded(dembedded_, a));
}

template <class T>
void CpuBackend<T>::descriptor(Range range, double* out) {
  const int width = model_.is_dpa2 ? rep().g1_dim : embedded_width_, dim = model_.descriptor_dim();
  for (int i = range.begin; i < range.end; ++i) {
    double* row = out + static_cast<std::size_t>(i) * dim;
    const int type = pairs().center_type[i];
    if (type < 0) {
      std::fill(row, row + dim, 0.0);
      continue;
    }
    if (model_.is_dpa2) {
      const T* from = g1(rep().nlayers) + static_cast<std::size_t>(i) * width;
      for (int c = 0; c < width; ++c) row[c] = value_of(from[c]);
    } else {
      repinit_.descriptor(i, row);
    }
    const Real<T>* tebd = types_.data() + type * (dim - width);
    std::copy(tebd, tebd + (dim - width), row + width);  // nothing without concat_output_tebd
  }
}

// ---- blocks of atoms

// 4 to 32 atoms: weights meet many rows at once, and threads share the work evenly.
template <class T>
int CpuBackend<T>::block_size(int count) const {
  if (is_dual<T>) return std::clamp((count + kGroups - 1) / kGroups, 4, 32);  // whatever the threads
  return std::clamp(count / (4 * work_.threads), 4, 32);
}

// Few enough that their shares stay in cache, enough that no thread waits long for the others.
template <class T>
int CpuBackend<T>::span_blocks() const {
  if (is_dual<T>) return pairs().natoms / work_.block + 1;  // all
  return 16 * work_.threads;
}

template <class T>
void CpuBackend<T>::run(int natoms, const std::function<void(Range)>& stage,
                        const std::function<void(Range)>& gather) {
  const int block = block_size(natoms), span = gather ? span_blocks() * block : std::max(natoms, 1);
  const int unit = is_dual<T> ? work_.group_atoms : block;  // of one thread
  std::exception_ptr failure;                               // must not leave a parallel region
  for (int from = 0; from < natoms && !failure; from += span) {
    const int to = std::min(natoms, from + span);
#pragma omp parallel for schedule(dynamic) if (work_.threads > 1)
    for (int first = from; first < to; first += unit) {
      try {
        for (int begin = first; begin < std::min(to, first + unit); begin += block)
          stage({begin, std::min(to, begin + block)});
      } catch (...) {
#pragma omp critical
        failure = std::current_exception();
      }
    }
    if (gather && !failure) gather({from, to});
  }
  if (failure) std::rethrow_exception(failure);
}

template class CpuBackend<float>;
template class CpuBackend<double>;

std::unique_ptr<Backend> make_backend(const Model& model, bool single, int threads, bool tables,
                                      bool low_memory) {
  if (single) return std::make_unique<CpuBackend<float>>(model, threads, tables, low_memory);
  return std::make_unique<CpuBackend<double>>(model, threads, tables, low_memory);
}

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
