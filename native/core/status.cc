#include "status.h"

#include <cstdarg>
#include <cstdio>

namespace drover {

drover_code fail(drover_error* error, drover_code code, int32_t op, int64_t found, int64_t expected, const char* format,
                 ...) {
  if (error != nullptr) {
    error->code = code;
    error->op = op;
    error->found = found;
    error->expected = expected;
    error->bags = -1;
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
  }
  return code;
}

}  // namespace drover
