// The Python module dpa2md._core: the engine and its neighbour list, arrays in and out. Everything a user
// meets is in python/dpa2md.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <mutex>
#include <optional>

#include "engine.h"
#include "error.h"
#include "neighbors.h"
#include "threads.h"

namespace py = pybind11;
namespace dpa2md {
namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Ints = py::array_t<int, py::array::c_style | py::array::forcecast>;

// An engine with the neighbour list of one process: no ghosts, frames side by side.
class PeriodicEngine {
 public:
  PeriodicEngine(const std::string& path, const std::string& precision, int threads,
                 const std::string& device, bool tables, bool low_memory)
      : engine_(path, precision, threads, device, tables, low_memory) {}

  const Engine& engine() const { return engine_; }
  void measure_stages() { engine_.measure_stages(); }
  std::map<std::string, double> stage_seconds() { return engine_.stage_seconds(); }

  // (needed, free, atoms that fit) of the device, or None.
  py::object device_memory(std::int64_t natoms) {
    DeviceMemory m;
    {
      py::gil_scoped_release release;
      const std::lock_guard<std::mutex> guard(mutex_);
      m = engine_.device_memory(natoms);
    }
    if (m.needed == 0) return py::none();
    return py::make_tuple(m.needed, m.free, m.atoms);
  }

  // The next computation lists neighbours anew.
  void forget_neighbors() {
    py::gil_scoped_release release;
    const std::lock_guard<std::mutex> guard(mutex_);
    neighbors_.reset();
  }

  // positions (n, 3), types (n), frame_start (frames + 1), cells (frames, 3, 3), pbc (frames, 3)
  py::dict compute(Doubles positions, Ints types, Ints frame_start, Doubles cells, Ints pbc, double skin,
                   bool forces, std::optional<Doubles> fparam, std::optional<Doubles> aparam,
                   bool descriptors) {
    check(positions, types, frame_start, cells, pbc, fparam, aparam);
    const int n = static_cast<int>(positions.shape(0)), frames = static_cast<int>(cells.shape(0));
    const std::vector<int> start(frame_start.data(), frame_start.data() + frames + 1);
    std::vector<Cell> boxes(frames);
    std::vector<int> frame(n);
    for (int f = 0; f < frames; ++f) {
      std::copy(cells.data() + 9 * f, cells.data() + 9 * f + 9, boxes[f].h);
      for (int a = 0; a < 3; ++a) boxes[f].periodic[a] = pbc.data()[3 * f + a] != 0;
      std::fill(frame.begin() + start[f], frame.begin() + start[f + 1], f);
    }
    // one computation at a time: the engine's buffers are its own; never wait for it with the GIL in hand
    std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
    {
      py::gil_scoped_release release;
      lock.lock();
    }
    const double* x = positions.data();
    const int* type = types.data();
    const double* fp = fparam ? fparam->data() : nullptr;
    const double* ap = aparam ? aparam->data() : nullptr;
    bool rebuilt = false;
    const Result* result = nullptr;
    {
      py::gil_scoped_release release;
      const ThreadScope scope(engine_.threads());
      if (!neighbors_ || skin != skin_)
        neighbors_ = std::make_unique<NeighborList>(engine_.model().rcut(), skin_ = skin);
      neighbors_->leave_search(engine_.searches());
      rebuilt = neighbors_->update(x, type, start, boxes);
      Atoms atoms{n, n, x, type, nullptr, &neighbors_->candidates()};
      result = &engine_.compute(atoms, forces, fp, ap, frame.data(), nullptr);
    }
    py::dict out = pack(*result, start, rebuilt, forces);
    if (descriptors) out["descriptors"] = array({n, engine_.model().descriptor_dim()}, engine_.descriptor());
    return out;
  }

 private:
  void check(const Doubles& positions, const Ints& types, const Ints& frame_start, const Doubles& cells,
             const Ints& pbc, const std::optional<Doubles>& fparam,
             const std::optional<Doubles>& aparam) const {
    const auto need = [](bool ok, const char* what) {
      if (!ok) throw Error(std::string("the array '") + what + "' has the wrong shape.");
    };
    need(positions.ndim() == 2 && positions.shape(1) == 3, "positions");
    const py::ssize_t n = positions.shape(0);
    need(types.ndim() == 1 && types.shape(0) == n, "types");
    need(cells.ndim() == 3 && cells.shape(1) == 3 && cells.shape(2) == 3, "cells");
    const py::ssize_t frames = cells.shape(0);
    need(pbc.ndim() == 2 && pbc.shape(0) == frames && pbc.shape(1) == 3, "pbc");
    need(frame_start.ndim() == 1 && frame_start.shape(0) == frames + 1, "frame_start");
    const int* s = frame_start.data();
    bool ordered = s[0] == 0 && s[frames] == n;
    for (py::ssize_t f = 0; f < frames; ++f) ordered = ordered && s[f] <= s[f + 1];
    need(ordered, "frame_start");
    const Fitting& f = engine_.model().fitting;
    need(!fparam || (fparam->ndim() == 2 && fparam->shape(0) == frames && fparam->shape(1) == f.nfparam()),
         "fparam");
    need(!aparam || (aparam->ndim() == 2 && aparam->shape(0) == n && aparam->shape(1) == f.naparam()),
         "aparam");
  }

  static Doubles array(std::vector<py::ssize_t> shape, const std::vector<double>& values) {
    Doubles out(shape);
    std::copy(values.begin(), values.end(), out.mutable_data());
    return out;
  }

  py::dict pack(const Result& r, const std::vector<int>& start, bool rebuilt, bool forces) const {
    const py::ssize_t n = static_cast<py::ssize_t>(r.energy.size()),
                      frames = static_cast<py::ssize_t>(start.size()) - 1;
    std::vector<double> total(frames, 0.0), virial(9 * frames, 0.0);
    for (py::ssize_t f = 0; f < frames; ++f) {
      for (int i = start[f]; i < start[f + 1]; ++i) {
        total[f] += r.energy[i];
        for (int c = 0; forces && c < 9; ++c)
          virial[9 * f + c] += r.virial[9 * static_cast<std::size_t>(i) + c];
      }
    }
    py::dict out;
    out["energy"] = array({frames}, total);
    out["energies"] = array({n}, r.energy);
    if (forces) {
      out["forces"] = array({n, 3}, r.force);
      out["virial"] = array({frames, 3, 3}, virial);
      out["virials"] = array({n, 3, 3}, r.virial);
    }
    const PairList& p = engine_.pairs();
    out["rebuilt"] = rebuilt;
    out["pairs"] = p.size;
    out["overfull"] = p.overfull_atom < 0
                          ? py::object(py::none())
                          : py::object(py::make_tuple(p.overfull_atom, p.overfull_count, p.overfull_nsel));
    return out;
  }

  Engine engine_;
  std::mutex mutex_;
  double skin_ = -1;
  std::unique_ptr<NeighborList> neighbors_;
};

py::dict model_info(const Model& m) {
  py::dict d;
  d["kind"] = m.is_dpa2 ? "dpa2" : "dpa1";
  d["elements"] = m.elements;
  d["precision"] = m.precision;
  d["descriptor_dim"] = m.descriptor_dim();
  d["rcut"] = m.rcut();
  d["nsel"] = m.repinit.nsel;
  d["all_neighbors"] = m.all_neighbors;
  d["nfparam"] = m.fitting.nfparam();
  d["naparam"] = m.fitting.naparam();
  d["default_fparam"] = m.fitting.default_fparam.data;
  d["nlayers"] = m.repformer.nlayers;
  d["g1_dim"] = m.repformer.g1_dim;
  d["g2_dim"] = m.repformer.g2_dim;
  d["meta"] = m.meta;
  return d;
}

// All pairs within rcut of one frame: positions (n, 3), cell (3, 3), pbc (3). Returns first (n + 1) and, in
// CSR order, the neighbours and their shift vectors (npairs, 3) in angstrom.
py::tuple neighbor_list(Doubles positions, Doubles cell, Ints pbc, double rcut, int threads) {
  if (positions.ndim() != 2 || positions.shape(1) != 3 || cell.size() != 9 || pbc.size() != 3)
    throw Error("neighbor_list needs positions (n, 3), cell (3, 3) and pbc (3).");
  const int n = static_cast<int>(positions.shape(0));
  Cell box;
  std::copy(cell.data(), cell.data() + 9, box.h);
  for (int a = 0; a < 3; ++a) box.periodic[a] = pbc.data()[a] != 0;
  NeighborList list(rcut, 0.0);
  {
    py::gil_scoped_release release;
    const ThreadScope scope(threads > 0 ? threads : default_threads());
    list.update(positions.data(), std::vector<int>(n, 0).data(), {0, n}, {box});
  }
  const Candidates& c = list.candidates();
  const auto size = static_cast<py::ssize_t>(c.atom.size());
  Doubles vectors({size, py::ssize_t{3}});
  for (py::ssize_t k = 0; k < size; ++k)
    std::copy_n(c.shift_vectors.data() + 3 * static_cast<std::size_t>(c.shift[k]), 3,
                vectors.mutable_data() + 3 * k);
  return py::make_tuple(py::array_t<std::int64_t>(static_cast<py::ssize_t>(c.first.size()), c.first.data()),
                        py::array_t<std::int32_t>(size, c.atom.data()), vectors);
}

}  // namespace
}  // namespace dpa2md

PYBIND11_MODULE(_core, module) {
  using namespace dpa2md;
  module.doc() = "Compiled core of dpa2md.";
  module.attr("__version__") = DPA2MD_VERSION;
  py::register_exception<Error>(module, "CoreError", PyExc_ValueError);
  module.def("neighbor_list", &neighbor_list, py::arg("positions"), py::arg("cell"), py::arg("pbc"),
             py::arg("rcut"), py::arg("threads") = 1);
  py::class_<PeriodicEngine>(module, "Engine")
      .def(py::init<const std::string&, const std::string&, int, const std::string&, bool, bool>(),
           py::arg("path"), py::arg("precision") = "", py::arg("threads") = 0, py::arg("device") = "cpu",
           py::arg("tables") = true, py::arg("low_memory") = false, py::call_guard<py::gil_scoped_release>())
      .def("compute", &PeriodicEngine::compute, py::arg("positions"), py::arg("types"),
           py::arg("frame_start"), py::arg("cells"), py::arg("pbc"), py::arg("skin"),
           py::arg("forces") = true, py::arg("fparam") = py::none(), py::arg("aparam") = py::none(),
           py::arg("descriptors") = false)
      .def("forget_neighbors", &PeriodicEngine::forget_neighbors)
      .def("device_memory", &PeriodicEngine::device_memory, py::arg("natoms"))
      .def("measure_stages", &PeriodicEngine::measure_stages)
      .def("stage_seconds", &PeriodicEngine::stage_seconds)
      .def_property_readonly("info", [](const PeriodicEngine& e) { return model_info(e.engine().model()); })
      .def_property_readonly("precision", [](const PeriodicEngine& e) { return e.engine().precision(); })
      .def_property_readonly("description", [](const PeriodicEngine& e) { return e.engine().description(); });
}
