// How the core says that something failed: fills a drover_error and returns its code.
#ifndef DROVER_CORE_STATUS_H_
#define DROVER_CORE_STATUS_H_

#include "drover.h"

namespace drover {

// One sentence, printf style. `found` and `expected` are the numbers behind it.
__attribute__((format(printf, 6, 7))) drover_code fail(drover_error* error, drover_code code, int32_t op, int64_t found,
                                                       int64_t expected, const char* format, ...);

}  // namespace drover

#endif  // DROVER_CORE_STATUS_H_
