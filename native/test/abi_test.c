/* A whole program through drover.h alone: y = softmax(x · wᵀ) for x [rows, 2] and w [3, 2], built word by word. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "drover.h"

static uint32_t number_of(const char* (*name)(uint32_t), const char* wanted) {
  uint32_t i = 0;
  while (name(i) != NULL && strcmp(name(i), wanted) != 0) i++;
  return i;
}

int main(void) {
  const float weight[3][2] = {{1, 2}, {3, -1}, {0, 0.5f}}, x[2][2] = {{0.5f, -1}, {2, 0.25f}};
  const uint32_t f32 = number_of(drover_dtype_name, "f32"), none = 0xffffffffu;
  const uint32_t gemm = number_of(drover_op_name, "gemm"), softmax = number_of(drover_op_name, "softmax");
  /* The layout is described in native/core/program.h. */
  const uint32_t program[] = {0x50565244, 1,       24 + 3 * 8 + 8 + 2 * 4 + 8,
                              2,          1,       1,
                              0,          3,       1,
                              2,          8,       6,
                              0,          0,       0,
                              0,          0,       0,
                              0,          0,       0,
                              0,          0,       0,
                              f32,        2,       1,
                              0,          0,       0,
                              0,          0, /* x: 2 columns, rows 64 bytes apart, at 0 */
                              f32,        3,       1,
                              0,          0,       2,
                              0,          0, /* h */
                              f32,        3,       1,
                              0,          0,       4,
                              0,          0, /* y */
                              0,          f32,     0,
                              0,          3,       2,
                              1,          0, /* w: region 0, offset 0, [3, 2], prepared */
                              gemm,       0,       6,
                              0,          softmax, 6,
                              2,          0,       1,
                              0,          0,       none,
                              none,       0,       2,
                              1};
  const uint32_t step[] = {0x53565244, 16 + 4, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  drover_error error = {0};
  drover_region* region = NULL;
  drover_program* loaded = NULL;
  float y[2][3];
  int failed =
      drover_region_copy(weight, sizeof weight, &region, &error) != DROVER_OK ||
      drover_program_load((const uint8_t*)program, sizeof program, &region, 1, NULL, &loaded, &error) != DROVER_OK ||
      drover_program_write(loaded, 0, 0, 2, x, sizeof x, &error) != DROVER_OK ||
      drover_program_run(loaded, (const uint8_t*)step, sizeof step, &error) != DROVER_OK ||
      drover_program_read(loaded, 2, 0, 2, y, sizeof y, &error) != DROVER_OK;
  if (failed)
    printf("%s (found %lld, expected %lld)\n", error.message, (long long)error.found, (long long)error.expected);
  for (int r = 0; r < 2 && !failed; r++) {
    double e[3], sum = 0;
    for (int c = 0; c < 3; c++) sum += e[c] = exp((double)x[r][0] * weight[c][0] + (double)x[r][1] * weight[c][1]);
    for (int c = 0; c < 3; c++) failed |= !(fabs(y[r][c] - e[c] / sum) < 1e-6);
  }
  drover_program_release(loaded);
  drover_region_release(region);
  printf("%d passed, %d failed\n", !failed, failed);
  return failed;
}
