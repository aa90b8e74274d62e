/* A molecule of water by the C interface: prints its energy and forces, then what failures say.
 * Usage: c_interface MODEL.dpa2 */
#include <stdio.h>
#include <string.h>

#include "dpa2md.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  char why[512];
  dpa2md_options options;
  memset(&options, 0, sizeof options);
  options.precision = "float64";
  options.threads = 1;
  dpa2md_model* model = dpa2md_open(argv[1], &options, why, sizeof why);
  if (!model) {
    fprintf(stderr, "%s\n", why);
    return 1;
  }
  const double positions[9] = {0.0, 0.0, 0.12, 0.0, 0.76, -0.48, 0.0, -0.76, -0.47};
  const double cell[9] = {6, 0, 0, 0, 6, 0, 0, 0, 6};
  const int o = dpa2md_type(model, "O"), h = dpa2md_type(model, "H");
  const int types[3] = {o, h, h};
  double energy, forces[9], virial[9];
  dpa2md_structure water;
  memset(&water, 0, sizeof water);
  water.natoms = 3;
  water.positions = positions;
  water.types = types;
  dpa2md_results out;
  memset(&out, 0, sizeof out);
  out.energy = &energy;
  out.forces = forces;
  out.virial = virial;
  for (int periodic = 0; periodic < 2; ++periodic) {
    water.cell = periodic ? cell : NULL;
    for (int a = 0; a < 3; ++a) water.periodic[a] = periodic;
    if (dpa2md_compute(model, &water, &out) != 0) {
      fprintf(stderr, "%s\n", dpa2md_error(model));
      return 1;
    }
    printf("%.17g\n", energy);
    for (int k = 0; k < 9; ++k) printf("%.17g\n", forces[k]);
    for (int k = 0; k < 9; ++k) printf("%.17g\n", virial[k]);
  }

  const double twice[9] = {0};
  water.positions = twice;
  if (dpa2md_compute(model, &water, &out) == 0) return 1;
  fprintf(stderr, "%s\n", dpa2md_error(model));
  if (dpa2md_type(model, "Xx") != -1 || dpa2md_element(model, 99) || strcmp(dpa2md_element(model, o), "O")) return 1;
  dpa2md_close(model);
  dpa2md_close(NULL);
  if (dpa2md_open("missing.dpa2", NULL, why, 20)) return 1; /* cut at 19 characters */
  fprintf(stderr, "%s|\n", why);
  return 0;
}
