// `neigh_modify exclude` and `neigh_modify include` for a many-body model with energies of single atoms.
// LAMMPS keeps an excluded atom in its arrays and only removes its pairs, which suffices if a lone atom has
// no energy. An atom that is excluded against all others is meant to be absent (fix gcmc and fix
// charge/regulation delete atoms so, for a trial), and the model must not see it.
#pragma once

#include <vector>

namespace LAMMPS_NS {
class LAMMPS;
}

namespace dpa2md {

// (nlocal + ghosts) whether an atom is excluded from all interactions: by its group, its type, or as no
// member of the group of `neigh_modify include`. As LAMMPS's lists do, it goes by the groups at the time of
// the list.
std::vector<char> excluded_atoms(LAMMPS_NS::LAMMPS* lmp);

// Whether pairs are excluded whose atoms stay; the model then sees an incomplete structure.
bool excludes_pairs_only(LAMMPS_NS::LAMMPS* lmp);

}  // namespace dpa2md
