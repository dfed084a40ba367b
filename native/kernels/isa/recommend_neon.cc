#include "../simd/codes_neon.h"
#define DROVER_RECOMMEND recommend_neon
#include "../recommend/table.inl"
