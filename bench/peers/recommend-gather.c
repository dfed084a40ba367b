/* The machine's rate of random rows: a table of rows that lie as a number format has them, read in the order of a
 * stream of indices, one load per cache line, rows 8 to 256 ahead asked for. No kernel that adds such rows up can be
 * faster, if the best distance was among those tried. Prints JSON.
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
/* Lookups of a pass: some milliseconds, so that starting threads does not count. */
static const size_t chunk = (size_t)1 << 18;
static const size_t huge_page = (size_t)2 << 20;

typedef struct {
  const uint8_t* table;
  size_t row_bytes;
  const int32_t* indices;
  size_t count;
  size_t ahead;
  int level; /* what a row is fetched into: 3 the first cache, 2 the second, 0 past them */
  uint64_t sum;
} part_t;

/* Adds a word of every line that the rows of a part touch, in order of its indices: the last one and `words` before it,
 * 64 bytes apart. `words` and `level` are constants wherever this is inlined, so that nothing branches per row. */
static inline __attribute__((always_inline)) uint64_t rows_of(const part_t* part, size_t words, int level) {
  const uint8_t* table = part->table;
  const size_t bytes = part->row_bytes;
  const size_t near_end = part->count > part->ahead ? part->count - part->ahead : 0;
  uint64_t sum = 0;
  for (size_t i = 0; i < part->count; i++) {
    const uint8_t* coming = table + (size_t)part->indices[i < near_end ? i + part->ahead : i] * bytes;
    const uint8_t* row = table + (size_t)part->indices[i] * bytes;
    for (size_t w = 0; w <= words; w++) {
      const uint8_t* p = coming + (w < words ? w * line : bytes - 1);
      if (level == 3)
        __builtin_prefetch(p, 0, 3);
      else if (level == 2)
        __builtin_prefetch(p, 0, 2);
      else
        __builtin_prefetch(p, 0, 0);
    }
    for (size_t w = 0; w <= words; w++) {
      uint64_t word;
      memcpy(&word, row + (w < words ? w * line : bytes - sizeof word), sizeof word);
      sum += word;
    }
  }
  return sum;
}

#define CASE(words)                    \
  case words:                          \
    part->sum = at_level(part, words); \
    break

static inline __attribute__((always_inline)) uint64_t at_level(const part_t* part, size_t words) {
  if (part->level == 3) return rows_of(part, words, 3);
  return part->level == 2 ? rows_of(part, words, 2) : rows_of(part, words, 0);
}

static void* gather(void* argument) {
  part_t* part = argument;
  /* Rows of whole lines begin with one; others may lie in one line more than their bytes need. */
  const size_t bytes = part->row_bytes;
  switch (bytes % line == 0 ? bytes / line - 1 : (bytes - sizeof(uint64_t) + line - 1) / line) {
    CASE(0);
    CASE(1);
    CASE(2);
    CASE(3);
    CASE(4);
    CASE(5);
    CASE(6);
    CASE(7);
    CASE(8);
    default:
      exit(2);
  }
  return NULL;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Seconds of one pass over the parts by all threads. */
static double pass(part_t* parts, size_t threads) {
  pthread_t handles[most_threads];
  const double start = now();
  for (size_t i = 1; i < threads; i++)
    if (pthread_create(&handles[i], NULL, gather, &parts[i]) != 0) exit(1);
  gather(&parts[0]);
  for (size_t i = 1; i < threads; i++) pthread_join(handles[i], NULL);
  return now() - start;
}

/* KiB of huge pages behind an address, as the kernel tells. */
static long huge_kib(const void* address) {
  FILE* file = fopen("/proc/self/smaps", "r");
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

int main(int count, char** arguments) {
  if (count != 6) return 2;
  const size_t rows = strtoull(arguments[1], NULL, 10);
  const size_t row_bytes = strtoull(arguments[2], NULL, 10);
  const size_t threads = strtoull(arguments[3], NULL, 10);
  const double seconds = strtod(arguments[5], NULL) / 1000;
  if (threads < 1 || threads > most_threads) return 2;
  /* A line more: the last one is read whole. */
  const size_t bytes = (rows * row_bytes + line + huge_page - 1) / huge_page * huge_page;
  uint8_t* memory = mmap(NULL, bytes + huge_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  uint8_t* table = (uint8_t*)(((uintptr_t)memory + huge_page - 1) & ~(uintptr_t)(huge_page - 1));
  madvise(table, bytes, MADV_HUGEPAGE);
  memset(table, 1, bytes);

  FILE* file = fopen(arguments[4], "rb");
  if (file == NULL) return 1;
  fseek(file, 0, SEEK_END);
  const size_t stream = (size_t)ftell(file) / sizeof(int32_t);
  rewind(file);
  int32_t* indices = malloc(stream * sizeof(int32_t));
  if (indices == NULL || fread(indices, sizeof(int32_t), stream, file) != stream) return 1;
  fclose(file);
  if (stream < chunk) return 1;
  for (size_t i = 0; i < stream; i++)
    if (indices[i] < 0 || (size_t)indices[i] >= rows) return 1;

  static const size_t distances[] = {8, 16, 32, 48, 64, 96, 128, 192, 256};
  static const int levels[] = {0, 2, 3};
  double best = 0;
  size_t best_ahead = 0;
  int best_level = 0;
  uint64_t sum = 0;
  printf("{\"ahead\":{");
  for (size_t d = 0; d < sizeof distances / sizeof *distances; d++) {
    double least = 1e9;
    int level = 0;
    for (size_t l = 0; l < sizeof levels / sizeof *levels; l++) {
      size_t passes = 0;
      for (const double until = now() + seconds / 3; passes < 3 || now() < until; passes++) {
        const int32_t* from = indices + passes % (stream / chunk) * chunk;
        part_t parts[most_threads];
        for (size_t i = 0; i < threads; i++) {
          const size_t begin = chunk * i / threads, end = chunk * (i + 1) / threads;
          parts[i] = (part_t){table, row_bytes, from + begin, end - begin, distances[d], levels[l], 0};
        }
        const double taken = pass(parts, threads);
        if (taken < least) {
          least = taken;
          level = levels[l];
        }
        sum += parts[0].sum;
      }
    }
    const double rate = (double)chunk / least;
    printf("%s\"%zu\":%.0f", d == 0 ? "" : ",", distances[d], rate);
    if (rate > best) {
      best = rate;
      best_ahead = distances[d];
      best_level = level;
    }
  }
  const int is_huge = huge_kib(table) >= (long)(bytes / 1024 / 2);
  printf("},\"rowsPerSecond\":%.0f,\"bestAhead\":%zu,\"bestLevel\":%d,\"pages\":\"%s\",\"sum\":%llu}\n", best,
         best_ahead, best_level, is_huge ? "2 MiB" : "4 KiB", (unsigned long long)sum);
  return 0;
}
