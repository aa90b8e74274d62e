/* dpa2md from C, and from every language that can call C: a model, a structure in, energies and forces out.
 *
 *   char why[512];
 *   dpa2md_model* model = dpa2md_open("water.dpa2", NULL, why, sizeof why);
 *   if (!model) { puts(why); return 1; }
 *   dpa2md_structure water = {3, positions, types};
 *   dpa2md_results out = {&energy, NULL, forces};
 *   if (dpa2md_compute(model, &water, &out) != 0) puts(dpa2md_error(model));
 *   dpa2md_close(model);
 *
 * Lengths in angstrom, energies in eV. No function prints, ends the program or lets an exception out. Structs
 * are to be set to zero first: later versions may append fields. Since 0.1.0. */
#ifndef DPA2MD_H
#define DPA2MD_H

#include <stddef.h>

#if defined(__GNUC__)
#define DPA2MD_API __attribute__((visibility("default")))
#else
#define DPA2MD_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dpa2md_model dpa2md_model;

typedef struct {
  const char* precision; /* "float32" or "float64"; NULL: that of the training */
  int threads;           /* 0: OMP_NUM_THREADS, or all cores */
  const char* device;    /* "cuda", "cuda:1"; NULL: "cpu" */
  int low_memory;        /* 1: half of the memory, slower, the same numbers; on the CPU only */
} dpa2md_options;

typedef struct {
  int natoms;
  const double* positions; /* (natoms, 3), anywhere */
  const int* types;        /* (natoms), see dpa2md_type; a negative type is no atom */
  const double* cell;      /* (3, 3), rows are vectors; NULL: not periodic */
  int periodic[3];         /* along the three vectors */
  const double* fparam;    /* (dpa2md_nfparam); NULL: the model's default */
  const double* aparam;    /* (natoms, dpa2md_naparam) */
  double skin;             /* the neighbour list is kept until atoms may have moved by half of it */
} dpa2md_structure;

/* NULL: not wanted. Without forces and virials a computation takes a third of the time. */
typedef struct {
  double* energy;      /* (1) */
  double* energies;    /* (natoms) */
  double* forces;      /* (natoms, 3), eV/angstrom */
  double* virial;      /* (3, 3), -dE/dstrain */
  double* virials;     /* (natoms, 3, 3), half of each pair's at either atom */
  double* descriptors; /* (natoms, dpa2md_descriptor_dim) */
} dpa2md_results;

/* "0.1.0" */
DPA2MD_API const char* dpa2md_version(void);

/* Opens a .dpa2 file. options may be NULL. NULL when it can't be opened; then `message` (of `size` bytes,
 * with its final zero; may be NULL) has one sentence. */
DPA2MD_API dpa2md_model* dpa2md_open(const char* path, const dpa2md_options* options, char* message,
                                     size_t size);
/* NULL is allowed. */
DPA2MD_API void dpa2md_close(dpa2md_model* model);

DPA2MD_API double dpa2md_cutoff(const dpa2md_model* model); /* angstrom */
DPA2MD_API int dpa2md_ntypes(const dpa2md_model* model);
DPA2MD_API const char* dpa2md_element(const dpa2md_model* model, int type); /* NULL: there is no such type */
DPA2MD_API int dpa2md_type(const dpa2md_model* model,
                           const char* element); /* -1: the model does not know it */
DPA2MD_API int dpa2md_nfparam(const dpa2md_model* model);
DPA2MD_API int dpa2md_naparam(const dpa2md_model* model);
DPA2MD_API int dpa2md_descriptor_dim(const dpa2md_model* model);

/* 0: done. Else dpa2md_error says what is wrong, and results are undefined. */
DPA2MD_API int dpa2md_compute(dpa2md_model* model, const dpa2md_structure* structure,
                              const dpa2md_results* results);
/* One sentence about the last failure. A model is used by one thread at a time. */
DPA2MD_API const char* dpa2md_error(const dpa2md_model* model);

#ifdef __cplusplus
}
#endif

#endif
