#include "../simd/dot_avx2.h"
#define DROVER_KERNELS kernels_avx2
#define DROVER_ISA_NAME "avx2"
#include "../table.inl"
