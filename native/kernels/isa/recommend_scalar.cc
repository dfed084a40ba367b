#include "../simd/codes_scalar.h"
#define DROVER_RECOMMEND recommend_scalar
#include "../recommend/table.inl"
