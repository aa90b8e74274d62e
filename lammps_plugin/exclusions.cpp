#include "exclusions.h"

#include "atom.h"
#include "group.h"
#include "lammps.h"
#include "neighbor.h"

namespace dpa2md {
namespace {

constexpr int kAll = 0;  // LAMMPS's first group holds all atoms

// (types + 1) types that are excluded against every type.
std::vector<char> excluded_types(const LAMMPS_NS::Neighbor& neighbor, int ntypes) {
  std::vector<char> out(ntypes + 1, 0);
  if (neighbor.nex_type == 0) return out;
  for (int t = 1; t <= ntypes; ++t) {
    out[t] = 1;
    for (int other = 1; other <= ntypes; ++other) out[t] = out[t] && neighbor.ex_type[t][other];
  }
  return out;
}

// Bits of groups that are excluded against the group all.
int excluded_groups(const LAMMPS_NS::Neighbor& neighbor) {
  int bits = 0;
  for (int k = 0; k < neighbor.nex_group; ++k) {
    if (neighbor.ex1_group[k] == kAll) bits |= neighbor.ex2_bit[k];
    if (neighbor.ex2_group[k] == kAll) bits |= neighbor.ex1_bit[k];
  }
  return bits;
}

}  // namespace

std::vector<char> excluded_atoms(LAMMPS_NS::LAMMPS* lmp) {
  const LAMMPS_NS::Neighbor& neighbor = *lmp->neighbor;
  const LAMMPS_NS::Atom& atom = *lmp->atom;
  std::vector<char> out(atom.nlocal + atom.nghost, 0);
  if (!neighbor.exclude && !neighbor.includegroup) return out;
  const std::vector<char> by_type = excluded_types(neighbor, atom.ntypes);
  const int by_group = excluded_groups(neighbor);
  const int included = neighbor.includegroup ? lmp->group->bitmask[neighbor.includegroup] : ~0;
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = by_type[atom.type[i]] || (atom.mask[i] & by_group) || !(atom.mask[i] & included);
  return out;
}

bool excludes_pairs_only(LAMMPS_NS::LAMMPS* lmp) {
  const LAMMPS_NS::Neighbor& neighbor = *lmp->neighbor;
  if (neighbor.nex_mol) return true;
  for (int k = 0; k < neighbor.nex_group; ++k) {
    if (neighbor.ex1_group[k] != kAll && neighbor.ex2_group[k] != kAll) return true;
  }
  if (neighbor.nex_type == 0) return false;
  const int ntypes = lmp->atom->ntypes;
  const std::vector<char> whole = excluded_types(neighbor, ntypes);
  for (int s = 1; s <= ntypes; ++s) {
    for (int t = 1; t <= ntypes; ++t) {
      if (neighbor.ex_type[s][t] && !whole[s] && !whole[t]) return true;
    }
  }
  return false;
}

}  // namespace dpa2md
