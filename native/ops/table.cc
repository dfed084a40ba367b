#include "op.h"

namespace drover {

const OpEntry kOps[] = {
#define DROVER_OP(name, signature) {#name, signature, &op_##name},
#include "core/ops.def"
#undef DROVER_OP
};
const uint32_t kOpCount = sizeof kOps / sizeof kOps[0];

}  // namespace drover
