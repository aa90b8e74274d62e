#include "neighbors/pairs.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/error.h"
#include "model/model.h"

namespace dpa2md {
namespace {

struct Near {
  double vec[3];
  double r;
  int position;
  int place;  // among the atom's candidates
};
bool closer(const Near& a, const Near& b) {
  return nearer({a.r, a.position, a.place}, {b.r, b.position, b.place});
}

// From an atom to the image of another: the vector, and its length, which decides what is inside a cutoff.
// (Compiled without fused multiply-adds: whoever asks must get the same answer to the last bit.)
inline double pair_vector(const double* xi, const double* xj, const double* shift, double* v) {
  for (int c = 0; c < 3; ++c) v[c] = xj[c] + shift[c] - xi[c];
  return std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
}

// All candidates of atom i within rcut, in the candidates' order.
void collect(const Atoms& atoms, int i, double rcut, std::vector<Near>* out) {
  out->clear();
  if (atoms.type[i] < 0) return;
  const Candidates& c = *atoms.candidates;
  const double* xi = atoms.x + 3 * i;
  // Every candidate is written and the place kept only if it is inside: a branch that nobody can foretell
  // costs more.
  out->resize(static_cast<std::size_t>(c.first[i + 1] - c.first[i]));
  Near* next = out->data();
  for (std::int64_t k = c.first[i]; k < c.first[i + 1]; ++k) {
    const int j = c.atom[k];
    const double* xj = atoms.x + 3 * static_cast<std::int64_t>(j);
    const double* s = c.shift_vectors.data() + 3 * static_cast<std::int64_t>(c.shift[k]);
    Near p{{}, 0, j, static_cast<int>(k - c.first[i])};
    p.r = pair_vector(xi, xj, s, p.vec);
    *next = p;
    next += (p.r <= rcut) & (atoms.type[j] >= 0);
  }
  out->resize(static_cast<std::size_t>(next - out->data()));
}

struct Selection {
  std::vector<Near> near;
  int repinit = 0, three_body = 0, repformer = 0;
  int zeroed = 0;    // removed by descriptor exclusion
  int overfull = 0;  // neighbours inside a cutoff whose nsel is too small
  int nsel = 0;      // that nsel
};

// How many of the `inside` neighbours sub-network `b` sees, excluded pairs counted: they use up their slots.
// Notes an overfull list.
int slots(const Subnet& b, int inside, Selection* s) {
  if (inside > b.room && inside > s->overfull) s->overfull = inside, s->nsel = b.nsel;
  return std::min(inside, b.room);
}
// slots() for all sub-networks. inside(rcut): the number of neighbours within rcut.
template <class F>
void all_slots(const Model& m, F&& inside, Selection* s) {
  s->overfull = s->zeroed = 0;
  s->repinit = slots(m.repinit, inside(m.repinit.rcut), s);
  s->three_body = m.has_three_body ? slots(m.three_body, inside(m.three_body.rcut), s) : 0;
  s->repformer = m.repformer.nlayers ? slots(m.repformer, inside(m.repformer.rcut), s) : 0;
}

// Counts as `select` would, for a model without exclusions, by distance alone.
void count(const Model& m, const Atoms& atoms, int i, std::vector<double>* distance, Selection* s) {
  const Candidates& c = *atoms.candidates;
  const std::int64_t first = c.first[i];
  const int n = atoms.type[i] < 0 ? 0 : static_cast<int>(c.first[i + 1] - first);
  const double* xi = atoms.x + 3 * static_cast<std::int64_t>(i);
  distance->resize(n);
  double* r = distance->data();
  for (int k = 0; k < n; ++k) {
    const int j = c.atom[first + k];
    const double* xj = atoms.x + 3 * static_cast<std::int64_t>(j);
    const double* shift = c.shift_vectors.data() + 3 * static_cast<std::int64_t>(c.shift[first + k]);
    double v[3];
    const double length = pair_vector(xi, xj, shift, v);
    r[k] = atoms.type[j] >= 0 ? length : INFINITY;
  }
  all_slots(
      m,
      [&](double rcut) {
        int inside = 0;
        for (int k = 0; k < n; ++k) inside += r[k] <= rcut;
        return inside;
      },
      s);
}

// Brings the neighbours that sub-network `b` keeps to the front of the first `end`: all inside its cutoff, or
// of an overfull list the nearest.
void keep_in_front(const Subnet& b, int kept, int end, std::vector<Near>* near) {
  const auto front = near->begin() + kept;
  const auto middle =
      std::partition(near->begin(), near->begin() + end, [&](const Near& p) { return p.r <= b.rcut; });
  if (middle > front) std::nth_element(near->begin(), front, middle, closer);
}

// Orders `near` so that each sub-network's neighbours are a prefix, cuts it at repinit's, and drops excluded
// pairs.
void select(const Model& m, const Atoms& atoms, int i, Selection* s) {
  collect(atoms, i, m.repinit.rcut, &s->near);
  auto& near = s->near;
  all_slots(
      m,
      [&](double rcut) {
        return static_cast<int>(
            std::count_if(near.begin(), near.end(), [&](const Near& p) { return p.r <= rcut; }));
      },
      s);
  struct Cut {
    int kept;
    const Subnet* subnet;
  } cuts[3] = {{s->repinit, &m.repinit}, {s->three_body, &m.three_body}, {s->repformer, &m.repformer}};
  std::sort(cuts, cuts + 3, [](const Cut& a, const Cut& b) { return a.kept > b.kept; });
  int end = static_cast<int>(near.size());
  for (const Cut& c : cuts) {
    if (c.kept < end) keep_in_front(*c.subnet, c.kept, end, &near);
    end = c.kept;
  }
  near.resize(s->repinit);

  const int nt = m.ntypes(), ti = atoms.type[i];
  int kept = 0;
  const int three_body = s->three_body, repformer = s->repformer;
  for (int k = 0; k < s->repinit; ++k) {
    const int tj = atoms.type[near[k].position];
    const bool by_model = m.pair_exclude[ti * nt + tj], by_descriptor = m.descriptor_exclude[ti * nt + tj];
    if (!by_model && by_descriptor) ++s->zeroed;
    if (by_model || by_descriptor) {
      s->three_body -= k < three_body;
      s->repformer -= k < repformer;
    } else {
      near[kept++] = near[k];
    }
  }
  s->repinit = kept;
  near.resize(kept);
}

void start(Prefix* p, int natoms) {
  p->count.assign(natoms, 0);
  p->first.assign(natoms + 1, 0);
}
void finish(Prefix* p) {
  for (std::size_t i = 0; i < p->count.size(); ++i) p->first[i + 1] = p->first[i] + p->count[i];
}

bool excludes_pairs(const Model& m) {
  const auto any = [](const std::vector<char>& pairs) {
    return std::any_of(pairs.begin(), pairs.end(), [](char x) { return x != 0; });
  };
  return any(m.pair_exclude) || any(m.descriptor_exclude);
}

// The most neighbours of an atom, and the most beyond the room for them.
void find_crowded(const std::vector<int>& overfull, const std::vector<int>& nsel, PairList* out) {
  out->max_count = out->overfull_count = out->overfull_nsel = 0;
  out->overfull_atom = -1;
  if (overfull.empty()) return;
  out->max_count = *std::max_element(out->repinit.count.begin(), out->repinit.count.end());
  const auto most = std::max_element(overfull.begin(), overfull.end());
  out->overfull_count = *most;
  if (*most <= 0) return;
  out->overfull_atom = static_cast<int>(most - overfull.begin());
  out->overfull_nsel = nsel[out->overfull_atom];
}

// The prefixes of all atoms.
void count_pairs(const Model& model, const Atoms& atoms, PairList* out) {
  const int n = atoms.natoms;
  const bool exclusions = excludes_pairs(model);
  for (Prefix* p : {&out->repinit, &out->three_body, &out->repformer}) start(p, n);
  out->zeroed.assign(n, 0);
  std::vector<int> overfull(n, 0), nsel(n, 0);
#pragma omp parallel
  {
    Selection s;
    std::vector<double> distance;
#pragma omp for schedule(static, 64)
    for (int i = 0; i < n; ++i) {
      if (exclusions) {
        select(model, atoms, i, &s);
      } else {
        count(model, atoms, i, &distance, &s);
      }
      out->repinit.count[i] = s.repinit;
      out->three_body.count[i] = s.three_body;
      out->repformer.count[i] = s.repformer;
      out->zeroed[i] = s.zeroed;
      overfull[i] = s.overfull;
      nsel[i] = s.nsel;
    }
  }
  for (Prefix* p : {&out->repinit, &out->three_body, &out->repformer}) finish(p);
  find_crowded(overfull, nsel, out);
}

// The pairs themselves, and the types among them. Throws Error for coincident atoms.
void fill_pairs(const Model& model, const Atoms& atoms, PairList* out) {
  const auto size = static_cast<std::size_t>(out->size);
  out->vec.resize(3 * size);
  out->row.resize(size);
  out->type.resize(size);
  out->types_present.assign(model.ntypes(), 0);
  int coincident = -1;
#pragma omp parallel
  {
    Selection s;
    std::vector<char> present(model.ntypes(), 0);
#pragma omp for schedule(static, 64)
    for (int i = 0; i < atoms.natoms; ++i) {
      select(model, atoms, i, &s);
      if (atoms.type[i] >= 0) present[atoms.type[i]] = 1;
      std::int64_t k = out->repinit.first[i];
      for (const Near& p : s.near) {
        for (int c = 0; c < 3; ++c) out->vec[3 * k + c] = p.vec[c];
        out->row[k] = atoms.row ? atoms.row[p.position] : p.position;
        out->type[k] = atoms.type[p.position];
        present[out->type[k]] = 1;
        if (p.r < kCoincident) {
#pragma omp critical
          coincident = coincident < 0 ? i : std::min(coincident, i);
        }
        ++k;
      }
    }
#pragma omp critical
    for (std::size_t t = 0; t < present.size(); ++t) out->types_present[t] |= present[t];
  }
  if (coincident >= 0) refuse_coincident(coincident);
}

}  // namespace

void check_atoms(const Model& m, const Atoms& atoms) {
  for (int i = 0; i < atoms.natoms; ++i) {
    if (atoms.type[i] >= m.ntypes()) {
      throw Error("{atom} has type " + std::to_string(atoms.type[i]) + ", but the model has " +
                      std::to_string(m.ntypes()) + " elements: check the type map.",
                  i, -1);
    }
  }
}

void refuse_coincident(int atom) {
  throw Error("{atom} sits on top of another atom (closer than 0.0001 angstrom): remove one of the two.",
              atom, -1);
}

void build_pairs(const Model& model, const Atoms& atoms, PairList* out) {
  check_atoms(model, atoms);
  out->natoms = atoms.natoms, out->nrows = atoms.nrows;
  out->center_type.assign(atoms.type, atoms.type + atoms.natoms);
  count_pairs(model, atoms, out);
  out->size = out->repinit.first[out->natoms];
  fill_pairs(model, atoms, out);
}

}  // namespace dpa2md
