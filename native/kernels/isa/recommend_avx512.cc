#include "../simd/codes_avx512.h"
#define DROVER_RECOMMEND recommend_avx512
#include "../recommend/table.inl"
