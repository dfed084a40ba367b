/* The machine's rate of random rows: a table of rows that lie as a number format has them, read in the order of a stream
 * of indices, one load per cache line, rows 8 to 256 ahead asked for. No kernel that adds such rows up can be faster, if
 * the best distance was among those tried. Prints JSON.
 *
 *   recommend-gather ROWS ROW_BYTES THREADS INDICES_FILE MILLISECONDS */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { line = 64, most_threads = 64 };
static const size_t huge_page = (size_t)2 << 20;

typedef struct {
  const uint8_t *table;
  size_t row_bytes;
  const int32_t *indices;
  size_t count;
  size_t ahead;
  uint64_t sum;
} part_t;

/* Adds a word of every line that rows [begin, begin + count) of the stream touch. */
static void *gather(void *argument) {
  part_t *part = argument;
  const uint8_t *table = part->table;
  const size_t bytes = part->row_bytes;
  uint64_t sum = 0;
  for (size_t i = 0; i < part->count; i++) {
    const size_t next = i + part->ahead < part->count ? i + part->ahead : part->count - 1;
    const uint8_t *coming = table + (size_t)part->indices[next] * bytes;
    const uint8_t *coming_end = coming + bytes;
    for (const uint8_t *p = (const uint8_t *)((uintptr_t)coming & ~(uintptr_t)(line - 1)); p < coming_end; p += line)
      __builtin_prefetch(p, 0, 3);
    const uint8_t *row = table + (size_t)part->indices[i] * bytes;
    const uint8_t *end = row + bytes;
    for (const uint8_t *p = (const uint8_t *)((uintptr_t)row & ~(uintptr_t)(line - 1)); p < end; p += line)
      sum += *(const volatile uint64_t *)p;
  }
  part->sum = sum;
  return NULL;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Seconds of one pass over the stream by all threads. */
static double pass(part_t *parts, size_t threads) {
  pthread_t handles[most_threads];
  const double start = now();
  for (size_t i = 1; i < threads; i++)
    if (pthread_create(&handles[i], NULL, gather, &parts[i]) != 0) exit(1);
  gather(&parts[0]);
  for (size_t i = 1; i < threads; i++) pthread_join(handles[i], NULL);
  return now() - start;
}

/* KiB of huge pages behind an address, as the kernel tells. */
static long huge_kib(const void *address) {
  FILE *file = fopen("/proc/self/smaps", "r");
  char text[512];
  unsigned long from, to;
  long found = 0;
  int inside = 0;
  while (file != NULL && fgets(text, sizeof text, file) != NULL) {
    if (sscanf(text, "%lx-%lx ", &from, &to) == 2) inside = from <= (uintptr_t)address && (uintptr_t)address < to;
    long kib;
    if (inside && sscanf(text, "AnonHugePages: %ld", &kib) == 1) found = kib;
  }
  if (file != NULL) fclose(file);
  return found;
}

int main(int count, char **arguments) {
  if (count != 6) return 2;
  const size_t rows = strtoull(arguments[1], NULL, 10);
  const size_t row_bytes = strtoull(arguments[2], NULL, 10);
  const size_t threads = strtoull(arguments[3], NULL, 10);
  const double seconds = strtod(arguments[5], NULL) / 1000;
  if (threads < 1 || threads > most_threads) return 2;
  /* A line more: the last one is read whole. */
  const size_t bytes = (rows * row_bytes + line + huge_page - 1) / huge_page * huge_page;
  uint8_t *memory = mmap(NULL, bytes + huge_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  uint8_t *table = (uint8_t *)(((uintptr_t)memory + huge_page - 1) & ~(uintptr_t)(huge_page - 1));
  madvise(table, bytes, MADV_HUGEPAGE);
  memset(table, 1, bytes);

  FILE *file = fopen(arguments[4], "rb");
  if (file == NULL) return 1;
  fseek(file, 0, SEEK_END);
  const size_t stream = (size_t)ftell(file) / sizeof(int32_t);
  rewind(file);
  int32_t *indices = malloc(stream * sizeof(int32_t));
  if (indices == NULL || fread(indices, sizeof(int32_t), stream, file) != stream) return 1;
  fclose(file);
  for (size_t i = 0; i < stream; i++)
    if (indices[i] < 0 || (size_t)indices[i] >= rows) return 1;

  static const size_t distances[] = {8, 16, 32, 64, 96, 128, 192, 256};
  double best = 0;
  size_t best_ahead = 0;
  uint64_t sum = 0;
  printf("{\"ahead\":{");
  for (size_t d = 0; d < sizeof distances / sizeof *distances; d++) {
    part_t parts[most_threads];
    for (size_t i = 0; i < threads; i++) {
      const size_t begin = stream * i / threads, end = stream * (i + 1) / threads;
      parts[i] = (part_t){table, row_bytes, indices + begin, end - begin, distances[d], 0};
    }
    double least = 1e9;
    int passes = 0;
    for (const double until = now() + seconds; passes < 3 || now() < until; passes++) {
      const double taken = pass(parts, threads);
      if (taken < least) least = taken;
      sum += parts[0].sum;
    }
    const double rate = (double)stream / least;
    printf("%s\"%zu\":%.0f", d == 0 ? "" : ",", distances[d], rate);
    if (rate > best) {
      best = rate;
      best_ahead = distances[d];
    }
  }
  const int is_huge = huge_kib(table) >= (long)(bytes / 1024 / 2);
  printf("},\"rowsPerSecond\":%.0f,\"bestAhead\":%zu,\"pages\":\"%s\",\"sum\":%llu}\n", best, best_ahead,
         is_huge ? "2 MiB" : "4 KiB", (unsigned long long)sum);
  return 0;
}
