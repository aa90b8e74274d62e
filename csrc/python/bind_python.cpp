// The Python module dpa2md._core: the engine and its neighbour list, arrays in and out. Everything a user
// meets is in python/dpa2md.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>

#include "base/error.h"
#include "base/threads.h"
#include "engine/devices.h"
#include "engine/periodic_engine.h"
#include "model/adam.h"
#include "model/parameters.h"

namespace py = pybind11;
namespace dpa2md {
namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Ints = py::array_t<int, py::array::c_style | py::array::forcecast>;

// PeriodicEngine with arrays.
class ArrayEngine {
 public:
  ArrayEngine(const std::string& path, const EngineOptions& options) : engine_(path, options) {}

  const Engine& engine() const { return engine_.engine(); }
  void measure_stages() { engine_.measure_stages(); }
  std::map<std::string, double> stage_seconds() { return engine_.stage_seconds(); }
  void measure_kernels(bool yes) { engine_.measure_kernels(yes); }
  py::list kernel_times() {
    py::list out;
    for (const KernelTime& k : engine_.kernel_times()) {
      py::dict row;
      row["name"] = k.name;
      row["launches"] = k.launches;
      row["seconds"] = k.seconds;
      row["blocks"] = k.blocks;
      row["threads"] = k.threads;
      row["registers"] = k.registers;
      row["shared_bytes"] = k.shared_bytes;
      row["local_bytes"] = k.local_bytes;
      row["occupancy"] = k.occupancy;
      out.append(row);
    }
    return out;
  }
  // [(record, shape)] of all weights, in the order of the flat arrays
  py::list parameter_layout() {
    py::list out;
    Model model = engine().model();
    each_parameter(&model, [&](const std::string& name, Tensor* t) {
      out.append(py::make_tuple(name, py::tuple(py::cast(t->shape))));
    });
    return out;
  }
  Doubles parameters() {
    Doubles flat(static_cast<py::ssize_t>(parameter_count(engine().model())));
    run_on_threads(1, [&] { get_parameters(engine().model(), flat.mutable_data()); });
    return flat;
  }
  void set_parameters(Doubles flat) {
    if (flat.ndim() != 1 || flat.size() != static_cast<py::ssize_t>(parameter_count(engine().model())))
      throw Error("the array 'flat' has the wrong shape.");
    py::gil_scoped_release release;
    engine_.set_parameters(flat.data());
  }
  // dL/d(parameters) from dL/d(atomic energies) (n), dL/d(forces) (n, 3) and dL/d(virials) (frames, 3, 3),
  // for the structures of the last compute
  Doubles gradient(Doubles denergies, Doubles dforces, Doubles dvirials) {
    if (last_.start.empty()) throw Error("gradient() is for the structures of a compute() before it.");
    const py::ssize_t n = last_.natoms(), frames = last_.frames();
    if (denergies.size() != n || dforces.size() != 3 * n || dvirials.size() != 9 * frames)
      throw Error("the arrays of gradient() have other sizes than the structures of the last compute().");
    last_.fparam = last_fparam_ ? last_fparam_->data() : nullptr;
    last_.aparam = last_aparam_ ? last_aparam_->data() : nullptr;
    // forces are -dE/dx, virials -dE/d(strain)
    std::vector<double> moves(dforces.data(), dforces.data() + 3 * n);
    std::vector<double> strains(dvirials.data(), dvirials.data() + 9 * frames);
    for (double& x : moves) x = -x;
    for (double& x : strains) x = -x;
    Doubles flat(static_cast<py::ssize_t>(parameter_count(engine().model())));
    double* out = flat.mutable_data();
    Direction along;
    along.moves = moves.data(), along.strains = strains.data(), along.seeds = denergies.data();
    py::gil_scoped_release release;
    engine_.gradient(last_, along, out);
    return flat;
  }
  void forget_neighbors() { engine_.forget_neighbors(); }

  // (needed, free, atoms that fit) of the device, or None.
  py::object device_memory(std::int64_t natoms) {
    DeviceMemory m;
    {
      py::gil_scoped_release release;
      m = engine_.device_memory(natoms);
    }
    if (m.needed == 0) return py::none();
    return py::make_tuple(m.needed, m.free, m.atoms);
  }

  // positions (n, 3), types (n), frame_start (frames + 1), cells (frames, 3, 3), pbc (frames, 3)
  py::dict compute(Doubles positions, Ints types, Ints frame_start, Doubles cells, Ints pbc, double skin,
                   bool forces, std::optional<Doubles> fparam, std::optional<Doubles> aparam,
                   bool descriptors, bool virials) {
    check(positions, types, frame_start, cells, pbc, fparam, aparam);
    const py::ssize_t n = positions.shape(0), frames = cells.shape(0);
    Structures s;
    s.x = positions.data();
    s.type = types.data();
    s.start.assign(frame_start.data(), frame_start.data() + frames + 1);
    s.cells.resize(frames);
    for (py::ssize_t f = 0; f < frames; ++f) {
      std::copy(cells.data() + 9 * f, cells.data() + 9 * f + 9, s.cells[f].h);
      for (int a = 0; a < 3; ++a) s.cells[f].periodic[a] = pbc.data()[3 * f + a] != 0;
    }
    s.fparam = fparam ? fparam->data() : nullptr;
    s.aparam = aparam ? aparam->data() : nullptr;
    last_.start = s.start;
    last_.cells = s.cells;
    last_fparam_ = fparam, last_aparam_ = aparam;

    py::dict out;
    const auto array = [&](const char* name, bool wanted, std::vector<py::ssize_t> shape) -> double* {
      if (!wanted) return nullptr;
      Doubles values(shape);
      out[name] = values;
      return values.mutable_data();
    };
    StructureResults to;
    to.energy = array("energy", true, {frames});
    to.energies = array("energies", true, {n});
    to.forces = array("forces", forces, {n, 3});
    to.virial = array("virial", forces, {frames, 3, 3});
    to.virials = array("virials", forces && virials, {n, 3, 3});
    to.descriptors = array("descriptors", descriptors, {n, engine().model().descriptor_dim()});
    ListFacts facts;
    {
      py::gil_scoped_release release;
      facts = engine_.compute(s, skin, to);
    }
    out["rebuilt"] = facts.rebuilt;
    out["pairs"] = facts.pairs;
    out["overfull"] =
        facts.overfull_atom < 0
            ? py::object(py::none())
            : py::object(py::make_tuple(facts.overfull_atom, facts.overfull_count, facts.overfull_nsel));
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
    const Fitting& f = engine().model().fitting;
    need(!fparam || (fparam->ndim() == 2 && fparam->shape(0) == frames && fparam->shape(1) == f.nfparam()),
         "fparam");
    need(!aparam || (aparam->ndim() == 2 && aparam->shape(0) == n && aparam->shape(1) == f.naparam()),
         "aparam");
  }

  PeriodicEngine engine_;
  Structures last_;  // of the last compute, without positions and types
  std::optional<Doubles> last_fparam_, last_aparam_;
};

py::dict model_info(const Model& m) {
  py::dict d;
  d["kind"] = m.is_dpa2 ? "dpa2" : "dpa1";
  d["elements"] = m.elements;
  d["precision"] = name(m.precision);
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
    run_on_threads(checked_threads(threads),
                   [&] { list.update(positions.data(), std::vector<int>(n, 0).data(), {0, n}, {box}); });
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

// Changes the vector and its moments in place, all (n).
using InPlace = py::array_t<double, py::array::c_style>;
void take_adam_step(InPlace vector, InPlace mean, InPlace square, Doubles gradient, double rate, double beta1,
                    double beta2, double epsilon, double weight_decay, bool decoupled, double factor,
                    int count, int threads) {
  const py::ssize_t n = vector.size();
  if (mean.size() != n || square.size() != n || gradient.size() != n)
    throw Error("the arrays of adam_step() have different sizes.");
  double *x = vector.mutable_data(), *m = mean.mutable_data(), *v = square.mutable_data();
  const double* g = gradient.data();
  const AdamStep step = {rate, beta1, beta2, epsilon, weight_decay, decoupled, factor, count};
  py::gil_scoped_release release;
  run_on_threads(checked_threads(threads), [&] { adam_step(step, n, x, m, v, g); });
}

}  // namespace
}  // namespace dpa2md

PYBIND11_MODULE(_core, module) {
  using namespace dpa2md;
  module.doc() = "Compiled core of dpa2md.";
  module.attr("__version__") = DPA2MD_VERSION;
  module.attr("cuda_build") = cuda_build();
  py::list stages;
  for (const StageInfo& s : kStageTable)
    stages.append(py::make_tuple(s.name, s.layered, s.backward, s.gives));
  module.attr("stages") = stages;
  // Its fields tell Python about which atom or frame it is, for better names than numbers.
  static py::exception<Error> core_error(module, "CoreError", PyExc_ValueError);
  py::register_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const Error& error) {
      py::object value = static_cast<const py::object&>(core_error)(error.what());
      value.attr("sentence") = error.sentence();
      value.attr("atom") = error.atom();
      value.attr("frame") = error.frame();
      PyErr_SetObject(core_error.ptr(), value.ptr());
    }
  });
  module.def("neighbor_list", &neighbor_list, py::arg("positions"), py::arg("cell"), py::arg("pbc"),
             py::arg("rcut"), py::arg("threads") = 1);
  module.def("adam_step", &take_adam_step, py::arg("vector").noconvert(), py::arg("mean").noconvert(),
             py::arg("square").noconvert(), py::arg("gradient"), py::arg("rate"), py::arg("beta1"),
             py::arg("beta2"), py::arg("epsilon"), py::arg("weight_decay"), py::arg("decoupled"),
             py::arg("factor"), py::arg("count"), py::arg("threads"));
  py::class_<ArrayEngine>(module, "Engine")
      .def(py::init([](const std::string& path, const std::string& precision, int threads,
                       const std::string& device, bool tables, bool low_memory) {
             return std::make_unique<ArrayEngine>(
                 path, read_options(precision, threads, device, tables, low_memory));
           }),
           py::arg("path"), py::arg("precision") = "", py::arg("threads") = 0, py::arg("device") = "cpu",
           py::arg("tables") = true, py::arg("low_memory") = false, py::call_guard<py::gil_scoped_release>())
      .def(
          "copy", [](const ArrayEngine& e) { return std::make_unique<ArrayEngine>(e); },
          py::call_guard<py::gil_scoped_release>())
      .def("compute", &ArrayEngine::compute, py::arg("positions"), py::arg("types"), py::arg("frame_start"),
           py::arg("cells"), py::arg("pbc"), py::arg("skin"), py::arg("forces") = true,
           py::arg("fparam") = py::none(), py::arg("aparam") = py::none(), py::arg("descriptors") = false,
           py::arg("virials") = true)
      .def("parameter_layout", &ArrayEngine::parameter_layout)
      .def("parameters", &ArrayEngine::parameters)
      .def("set_parameters", &ArrayEngine::set_parameters, py::arg("flat"))
      .def("gradient", &ArrayEngine::gradient, py::arg("denergies"), py::arg("dforces"), py::arg("dvirials"))
      .def_property_readonly("step_bytes", [](const ArrayEngine& e) { return e.engine().step_bytes(); })
      .def("forget_neighbors", &ArrayEngine::forget_neighbors, py::call_guard<py::gil_scoped_release>())
      .def("device_memory", &ArrayEngine::device_memory, py::arg("natoms"))
      .def("measure_stages", &ArrayEngine::measure_stages)
      .def("stage_seconds", &ArrayEngine::stage_seconds)
      .def("measure_kernels", &ArrayEngine::measure_kernels, py::arg("yes"))
      .def("kernel_times", &ArrayEngine::kernel_times)
      .def_property_readonly("info", [](const ArrayEngine& e) { return model_info(e.engine().model()); })
      .def_property_readonly("precision", [](const ArrayEngine& e) { return name(e.engine().precision()); })
      .def_property_readonly("description", [](const ArrayEngine& e) { return e.engine().description(); });
}
