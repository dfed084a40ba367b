#define DROVER_NEONDOT 1
#include "../simd/dot_neon.h"
#define DROVER_KERNELS kernels_neondot
#define DROVER_ISA_NAME "neondot"
#include "../table.inl"
