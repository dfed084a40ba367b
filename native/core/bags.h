// The bags of a step: checked before any table is looked at, and put into the form that kernels read.
#ifndef DROVER_CORE_BAGS_H_
#define DROVER_CORE_BAGS_H_

#include "program.h"

namespace drover {

struct BagWords {
  uint32_t* words;
  uint64_t count;
};
// Reads the part of a step behind its tail, all of it. Numbers are rewritten in place.
drover_code decode_bags(drover_program& program, BagWords words, uint32_t rows, uint32_t inputs, uint32_t policy,
                        drover_error* error);
// A step without bags runs no op that reads some.
drover_code check_no_bags(const drover_program& program, const Step& step, drover_error* error);

}  // namespace drover

#endif  // DROVER_CORE_BAGS_H_
