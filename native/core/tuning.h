// Choices among ways that give the same bits and differ in speed only. They begin with what caches and vendor suggest;
// lib/device/tuning.ts measures and sets them.
#ifndef DROVER_CORE_TUNING_H_
#define DROVER_CORE_TUNING_H_

#include "drover.h"

namespace drover {

// What is set now; a step may see a change half made, which gives the same bits too.
drover_tuning tuning();
drover_code set_tuning(const drover_tuning& tuning, drover_error* error);

}  // namespace drover

#endif  // DROVER_CORE_TUNING_H_
