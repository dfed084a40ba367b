#define DROVER_NEONDOT 1
#include "../simd/matrix_neon.h"
#define DROVER_KERNELS kernels_neoni8mm
#define DROVER_ISA_NAME "neoni8mm"
#include "../table.inl"
