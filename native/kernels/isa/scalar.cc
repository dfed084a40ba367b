#define DROVER_SCALAR 1
#include "../simd/dot_scalar.h"
#define DROVER_KERNELS kernels_scalar
#define DROVER_ISA_NAME "scalar"
#include "../table.inl"
