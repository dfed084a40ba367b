#include "../simd/avx2.h"
#define DROVER_AVXVNNI 1
#define DROVER_KERNELS kernels_avxvnni
#define DROVER_ISA_NAME "avxvnni"
#include "../table.inl"
