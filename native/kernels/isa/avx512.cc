#define DROVER_AVX512 1
#include "../simd/dot_avx512.h"
#define DROVER_KERNELS kernels_avx512
#define DROVER_ISA_NAME "avx512"
#include "../table.inl"
