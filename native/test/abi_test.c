/* drover.h from C: y = softmax(x · wᵀ), a program of two ops written word by word (the encoding is described in
 * native/core/program.h), run once. A binding for another language needs nothing else. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "drover.h"

static uint32_t find(const char* (*name_at)(uint32_t), const char* name) {
  uint32_t i = 0;
  while (name_at(i) != NULL && strcmp(name_at(i), name) != 0) i++;
  return i;
}

int main(void) {
  const float w[2][3] = {{1, 2, 3}, {-1, 0.5f, 0}}, x[2][3] = {{1, 0, -1}, {0.5f, 2, 1}};
  const uint32_t f32 = find(drover_dtype_name, "f32"), none = 0xffffffffu;
  /* clang-format off */
  const uint32_t program[] = {
      0x50565244, 1, 64, 1, 0, 0, 0,           /* "DRVP", version, words, most rows, outputs, sequences, pages */
      2, 1, 2, 8, 4,                           /* tensors, weights, ops, arguments, arena in lines of 64 bytes */
      0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,      /* no cache, no vocabulary */
      f32, 3, 1, 2, 2, 0, 0, 0,                /* tensor 0: 3 columns, 1 line per row, fixed 2 rows, at line 0 */
      f32, 2, 1, 2, 2, 2, 0, 0,                /* tensor 1: 2 columns, at line 2 */
      0, f32, 0, 0, 2, 3, 0, 0,                /* weight 0: [2, 3] at the start of region 0 */
      find(drover_op_name, "gemm"), 0, 6, 0,   /* takes the first six arguments, */
      find(drover_op_name, "softmax"), 6, 2, 0, /* the last two */
      1, 0, 0, none, none, 0,                  /* out, x, weight, no bias, no residual, no activation */
      1, 1};                                   /* out, x */
  /* clang-format on */
  const uint32_t step[16] = {0x53565244, 16, 0, 0, 0, 0, 0, 2}; /* "DRVS", words, no rows of tokens; ops [0, 2) */
  drover_error error = {0};
  drover_region* region = NULL;
  drover_program* loaded = NULL;
  float y[2][2] = {{0}};
  const int failed =
      drover_region_copy(w, sizeof w, &region, &error) != DROVER_OK ||
      drover_program_load((const uint8_t*)program, sizeof program, &region, 1, NULL, &loaded, &error) != DROVER_OK ||
      drover_program_write(loaded, 0, 0, 2, x, sizeof x, &error) != DROVER_OK ||
      drover_program_run(loaded, (const uint8_t*)step, sizeof step, &error) != DROVER_OK ||
      drover_program_read(loaded, 1, 0, 2, y, sizeof y, &error) != DROVER_OK;
  if (failed)
    printf("%s (found %lld, expected %lld)\n", error.message, (long long)error.found, (long long)error.expected);
  drover_program_release(loaded);
  drover_region_release(region);

  int right = 0;
  for (int row = 0; row < 2; row++) {
    double product[2] = {0, 0};
    for (int k = 0; k < 6; k++) product[k / 3] += (double)x[row][k % 3] * (double)w[k / 3][k % 3];
    for (int c = 0; c < 2; c++) right += fabs(y[row][c] - 1 / (1 + exp(product[1 - c] - product[c]))) < 1e-6;
  }
  printf("%d passed, %d failed\n", right, 4 - right);
  return right == 4 ? 0 : 1;
}
