#include "../simd/codes_avx2.h"
#define DROVER_RECOMMEND recommend_avx2
#include "../recommend/table.inl"
