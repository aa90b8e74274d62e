"""Every tolerance that several files share, with its reason."""

from __future__ import annotations

# Each is the largest deviation allowed; those that multiply a scale of the case say so.
TOLERANCES = {
    # float64 against DeePMD-kit's float64. Both carry rounding of about 1e-16 times the few thousand
    # terms of an atom, times at most 1e3 where short distances or small dstd amplify it.
    "energy": 1e-10,  # eV, times max(1, |energy|)
    "atom_energy": 1e-10,  # eV, times max(1, |atom energy|)
    "forces": 1e-9,  # eV/angstrom: a derivative divides by distances and dstd of about 0.1
    "virial": 1e-8,  # eV: sums forces times distances over all pairs
    # float32: our error over DeePMD-kit's own float32 error, as the geometric mean over the
    # structures of a model. Both are rounding errors of the same size, in another order of sums; an
    # arithmetic that loses a digit is ten times worse everywhere.
    "float32_factor": 3.0,
    # ... and for a single structure. Its atoms may share one rounding error, so that the ratio is
    # that of two random numbers: above 10 once in a hundred even when everything is right ...
    "float32_factor_single": 10.0,
    # ... and much oftener for a dimer, so that smaller structures count in the mean only.
    "float32_single_atoms": 14,
    # Units in the last place of float32 (2^-24) of the quantity itself, added to both errors:
    # DeePMD-kit's may be zero by luck or by symmetry.
    "float32_floor": 4 * 2.0**-24,
    # Symmetry operations change only the order of sums and the rounding of positions (1e-15 of
    # distances up to 1e2 angstrom), amplified as above.
    "invariance": 1e-9,  # eV and eV/angstrom, times max(1, the quantity)
    # Central differences: their order of convergence, fitted over halved steps. Pairs that cross a
    # cutoff, where the third derivative jumps, bend it a little.
    "order_of_convergence": 0.25,
    # Richardson's extrapolation removes the h^2 term; what is left are such jumps and the rounding
    # of the energy, 1e-13 eV divided by the smallest step, 6e-5.
    "extrapolated_derivative": 2e-7,  # eV/angstrom or eV, times max(1, the derivative)
}
