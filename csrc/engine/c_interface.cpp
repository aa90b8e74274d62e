// dpa2md.h over PeriodicEngine: exceptions become sentences here.
#include <algorithm>
#include <cstring>
#include <new>

#include "base/error.h"
#include "dpa2md.h"
#include "engine/periodic_engine.h"

struct dpa2md_model {
  dpa2md_model(const char* path, const dpa2md::EngineOptions& options) : engine(path, options) {}
  const dpa2md::Model& model() const { return engine.engine().model(); }

  dpa2md::PeriodicEngine engine;
  std::string error;
};

namespace {

// Runs `work`; returns what went wrong, or nothing.
template <class F>
std::string failure_of(F&& work) {
  try {
    work();
    return "";
  } catch (const dpa2md::Error& e) {
    return e.named("atom " + std::to_string(e.atom()), "");
  } catch (const std::bad_alloc&) {
    return "out of memory: use fewer atoms.";
  } catch (const std::exception& e) {
    return e.what();
  }
}

dpa2md::EngineOptions engine_options(const dpa2md_options* given) {
  if (!given) return {};
  return dpa2md::read_options(given->precision ? given->precision : "", given->threads,
                              given->device ? given->device : "cpu", true, given->low_memory != 0);
}

dpa2md::Structures structures_of(const dpa2md_structure& s, const dpa2md::Fitting& fitting) {
  if (s.natoms < 0 || (s.natoms > 0 && (!s.positions || !s.types)))
    throw dpa2md::Error("the structure has no positions or types: set them, and natoms.");
  if (fitting.naparam() && !s.aparam)
    throw dpa2md::Error("the model needs " + std::to_string(fitting.naparam()) +
                        " parameters per atom: give aparam.");
  dpa2md::Structures out;
  out.x = s.positions;
  out.type = s.types;
  out.start = {0, s.natoms};
  dpa2md::Cell cell{};
  for (int a = 0; s.cell && a < 3; ++a) cell.periodic[a] = s.periodic[a] != 0;
  if (s.cell) std::copy(s.cell, s.cell + 9, cell.h);
  out.cells = {cell};
  out.fparam = fitting.nfparam() ? s.fparam : nullptr;
  out.aparam = fitting.naparam() ? s.aparam : nullptr;
  return out;
}

}  // namespace

extern "C" {

const char* dpa2md_version(void) { return DPA2MD_VERSION; }

dpa2md_model* dpa2md_open(const char* path, const dpa2md_options* options, char* message, size_t size) {
  dpa2md_model* model = nullptr;
  const std::string failure = failure_of([&] { model = new dpa2md_model(path, engine_options(options)); });
  if (message && size > 0) {
    const size_t length = std::min(failure.size(), size - 1);
    std::memcpy(message, failure.data(), length);
    message[length] = '\0';
  }
  return model;
}

void dpa2md_close(dpa2md_model* model) { delete model; }

double dpa2md_cutoff(const dpa2md_model* model) { return model->model().rcut(); }
int dpa2md_ntypes(const dpa2md_model* model) { return model->model().ntypes(); }

const char* dpa2md_element(const dpa2md_model* model, int type) {
  const std::vector<std::string>& known = model->model().elements;
  return type < 0 || type >= static_cast<int>(known.size()) ? nullptr : known[type].c_str();
}

int dpa2md_type(const dpa2md_model* model, const char* element) {
  const std::vector<std::string>& known = model->model().elements;
  const auto at = std::find(known.begin(), known.end(), element);
  return at == known.end() ? -1 : static_cast<int>(at - known.begin());
}

int dpa2md_nfparam(const dpa2md_model* model) { return model->model().fitting.nfparam(); }
int dpa2md_naparam(const dpa2md_model* model) { return model->model().fitting.naparam(); }
int dpa2md_descriptor_dim(const dpa2md_model* model) { return model->model().descriptor_dim(); }

int dpa2md_compute(dpa2md_model* model, const dpa2md_structure* s, const dpa2md_results* r) {
  model->error = failure_of([&] {
    const dpa2md::StructureResults to{r->energy, r->energies, r->forces,
                                      r->virial, r->virials,  r->descriptors};
    model->engine.compute(structures_of(*s, model->model().fitting), s->skin, to);
  });
  return model->error.empty() ? 0 : 1;
}

const char* dpa2md_error(const dpa2md_model* model) { return model->error.c_str(); }

}  // extern "C"
