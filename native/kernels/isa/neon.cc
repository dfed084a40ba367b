#include "../simd/dot_neon.h"
#define DROVER_KERNELS kernels_neon
#define DROVER_ISA_NAME "neon"
#include "../table.inl"
