#define DROVER_AVXVNNI 1
#include "../simd/dot_avx2.h"
#define DROVER_KERNELS kernels_avxvnni
#define DROVER_ISA_NAME "avxvnni"
#include "../table.inl"
