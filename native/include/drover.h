/*
 * drover.h: the C ABI of drover's native core. Every binding (N-API is the first) stands on this file alone.
 *
 * Rules: opaque handles, status codes, no C++ types, no exceptions, nothing printed, nothing aborted. Functions that
 * can fail return a drover_code and fill `error` when it is not NULL. Handles are reference counted inside: a program
 * keeps its regions alive. Calls on one program are refused with DROVER_BUSY while a step of it runs; different
 * programs may be used from different threads at the same time.
 */
#ifndef DROVER_H_
#define DROVER_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DROVER_ABI_VERSION 1

typedef enum drover_code {
  DROVER_OK = 0,
  DROVER_ABORTED = 1,
  DROVER_ARGUMENT = 2,
  DROVER_BUSY = 3,
  DROVER_CLOSED = 4,
  DROVER_IO = 5,
  DROVER_ISA = 6,
  DROVER_MEMORY = 7,
  DROVER_PROGRAM = 8, /* the verifier refused a program */
  DROVER_RANGE = 9,   /* a dynamic input (token, page, row, position) is out of range */
  DROVER_SHAPE = 10,
  DROVER_UNSUPPORTED = 11,
  DROVER_FORMAT = 12, /* weights hold what their format forbids (NaN scales; verify = full) */
  DROVER_INTERNAL = 13
} drover_code;

typedef struct drover_error {
  drover_code code;
  int32_t op;        /* index of the op concerned, or -1 */
  int64_t found;     /* the offending number where there is one, else 0 */
  int64_t expected;  /* the bound it broke where there is one, else 0 */
  int32_t bags;      /* index of the step's bag input concerned, or -1 */
  char message[256]; /* one sentence, NUL-terminated */
} drover_error;

typedef struct drover_region drover_region;   /* read-only bytes: a mapped file or a copy */
typedef struct drover_program drover_program; /* a verified program with its arenas and prepared weights */

/* ---- the machine ---- */

typedef struct drover_cpu_info {
  const char* isa;      /* kernel set in use: "scalar", "avx2", "avxvnni", "avx512", "avx512bf16", "neon", ... */
  const char* isa_best; /* the best this CPU has */
  const char* features; /* comma separated: "avx2,fma,f16c,..." */
  uint32_t logical_cpus, physical_cores;
  uint32_t affinity_cpus;     /* CPUs the cpuset allows */
  double quota_cpus;          /* cgroup v1/v2 quota in CPUs, 0 = none */
  uint32_t threads;           /* workers of the pool */
  const char* threads_reason; /* one sentence */
  uint64_t l1d_bytes, l2_bytes, l3_bytes;
  const char* float_path; /* the instructions that multiply floats and bytes in the kernel set in use, for people */
  const char* byte_path;
} drover_cpu_info;

/* Chooses the kernel set on first use; DROVER_ISA in the environment forces one (DROVER_ISA code when it names none
 * that this CPU can run). DROVER_CGROUP_ROOT names another root for the quota files (tests). */
int drover_cpu(drover_cpu_info* out, drover_error* error);

/* Choices that change how fast the GEMM is, never a bit of what it gives. At first they follow caches and vendor. */
typedef struct drover_tuning {
  uint32_t requests; /* 1: a row by itself asks memory for weights once, a KiB ahead; 2: also into the second cache */
  uint32_t float_rows, float_panels; /* of a block of the float GEMM: 16 to 256 and 4 to 32 */
  uint64_t byte_rows;                /* bytes of 8-bit rows that a task of the integer GEMM takes at most */
} drover_tuning;
void drover_tuning_get(drover_tuning* out);
/* DROVER_RANGE for what no kernel does; nothing is set then. For steps that begin later. */
int drover_tuning_set(const drover_tuning* tuning, drover_error* error);

/* ---- op and dtype tables, so that no number is written in two languages ---- */

/* i-th op: its name and operand signature (see ops.def); NULL past the end. */
const char* drover_op_name(uint32_t i);
const char* drover_op_signature(uint32_t i);
/* i-th dtype: name, elements and bytes per block; NULL past the end. */
const char* drover_dtype_name(uint32_t i);
int drover_dtype_block(uint32_t i, uint32_t* elements, uint32_t* bytes);
/* Bytes of one activation row (dtype f32, u32, a8_32, a8_256, a8_row, f8_row) of `cols` elements; a multiple of 64; 0
 * if invalid. */
uint64_t drover_activation_row_bytes(uint32_t dtype, uint32_t cols);
/* Bytes of one KV page for all layers and heads; 0 if invalid. A page holds DROVER_PAGE_POSITIONS positions. */
#define DROVER_PAGE_POSITIONS 64
uint64_t drover_kv_page_bytes(uint32_t kv_dtype, uint32_t layers, uint32_t kv_heads, uint32_t head_dim);
/* Bytes of the prepared form of a weight, 0 when the dtype has none. */
uint64_t drover_prepared_bytes(uint32_t dtype, uint32_t rows, uint32_t cols);
/* The dtype of activations that a prepared weight of this dtype multiplies (f32, a8_32, a8_256, a8_row, f8_row); the
 * number of dtypes when it has no prepared form. */
uint32_t drover_gemm_activations(uint32_t dtype);

/* What the machine can do at most. Operations count two per multiply-add. */
typedef struct drover_limits {
  uint64_t buffer_bytes; /* what each loop of the reading read */
  double read_bytes_per_second;
  double f32_per_second;  /* fused multiply-adds */
  double int8_per_second; /* products of bytes, summed as the integer kernels do */
  double bf16_per_second; /* BF16 dot products; 0 where the CPU or the kernel set has none */
} drover_limits;
/* Measures the limits of `threads` threads (0: the pool's) with the kernel set in use, each as the best of many loops.
 * Reads `buffer_bytes` of memory (0: eight times the last cache, at least 512 MiB). Blocks for some seconds. */
int drover_probe(uint32_t threads, uint64_t buffer_bytes, drover_limits* out, drover_error* error);

/* Rows of a table read at random, by nothing but the reading: the most that any kernel for lookups can reach. */
typedef struct drover_gather {
  uint64_t rows, stride;  /* what the table has: rows, and bytes between them */
  uint32_t row_bytes;     /* of a row, read by its lines */
  uint32_t distance;      /* out: how many rows ahead memory was asked for when it was fastest */
  double rows_per_second; /* out */
} drover_gather;
/* Measures it with `threads` threads (0: the pool's) as the best of many loops, 8 to 256 rows ahead, on huge pages
 * where allowed. Blocks for about a second. */
int drover_probe_gather(uint32_t threads, drover_gather* gather, drover_error* error);

/* ---- number formats ---- */

typedef struct drover_quantize_options {
  uint32_t struct_bytes;   /* sizeof(drover_quantize_options) */
  uint32_t threads;        /* cap on workers, 0 = the pool's size */
  const float* importance; /* [cols], not negative: what a column's squared error counts; NULL: all the same */
  uint32_t finite;         /* 1: numbers that are not finite in `to` are refused for float formats, too */
  uint32_t reserved;
  const int32_t* cancel; /* polled per row; nonzero aborts; may be NULL */
} drover_quantize_options;

/* 1 when drover_quantize writes this dtype. */
uint32_t drover_can_quantize(uint32_t dtype);
/* Rows [rows, cols] of dtype `from` into dtype `to`, on the pool; blocks. DROVER_RANGE: `to` cannot hold a number (not
 * finite, or too large for a scale); error->found is the index of the first element of its piece of 256. */
int drover_quantize(uint32_t from, const uint8_t* source, uint64_t source_bytes, uint32_t to, uint8_t* out,
                    uint64_t out_bytes, uint32_t rows, uint32_t cols, const drover_quantize_options* options,
                    drover_error* error);

/* ---- weights ---- */

/* Maps a file read-only. Its size must be `bytes` (checked at open; a file that shrinks later kills the process). */
int drover_region_map(const char* path, uint64_t bytes, drover_region** out, drover_error* error);
/* Copies bytes into an aligned region. */
int drover_region_copy(const void* data, uint64_t bytes, drover_region** out, drover_error* error);
void drover_region_retain(drover_region* region);
void drover_region_release(drover_region* region);

/* ---- programs ---- */

typedef struct drover_load_options {
  uint32_t struct_bytes;   /* sizeof(drover_load_options) */
  uint32_t threads;        /* cap on workers of this program's steps, 0 = the pool's size */
  uint64_t memory_budget;  /* bytes of arenas + prepared weights in memory allowed, 0 = unlimited */
  uint32_t verify_weights; /* 1: read every weight; NaN or infinite values and scales are DROVER_FORMAT */
  uint32_t reserved;
  void (*progress)(void* user, uint64_t done_bytes, uint64_t total_bytes); /* from any thread; may be NULL */
  void* user;
  const int32_t* cancel; /* polled per tile; nonzero aborts the load; may be NULL */
  /* UTF-8 path of a folder, or NULL: prepared weights are kept in memory. With a folder they are in a file there that
   * is mapped: the first load writes it, later loads and other processes share it. Files of the folder are trusted; it
   * must belong to this user or to the system, and not be writable by everybody (DROVER_IO). verify_weights compares
   * the file with the weights, and writes it again where they differ. */
  const char* prepared_cache;
} drover_load_options;

/* Verifies `bytes` (see native/core/program.h for the encoding), allocates arenas, prepares flagged weights. Blocks. */
int drover_program_load(const uint8_t* bytes, uint64_t length, drover_region* const* regions, uint32_t region_count,
                        const drover_load_options* options, drover_program** out, drover_error* error);
/* Runs one step to its end on the pool; blocks the caller. */
int drover_program_run(drover_program* program, const uint8_t* step, uint64_t length, drover_error* error);
/* The same on the calling thread, or not at all: DROVER_BUSY when the pool's threads run or await other steps. */
int drover_program_try_run(drover_program* program, const uint8_t* step, uint64_t length, drover_error* error);
/* Copies the step, queues it and returns; `done` is called exactly once from a pool thread, also after an abort. */
typedef void (*drover_done)(void* user, int code, const drover_error* error);
int drover_program_submit(drover_program* program, const uint8_t* step, uint64_t length, drover_done done, void* user,
                          drover_error* error);
/* Makes the step in flight, if any, end with DROVER_ABORTED at its next tile. */
void drover_program_abort(drover_program* program);
/* Copies rows of an activation tensor (as stored, without row padding) after a step. */
int drover_program_read(drover_program* program, uint32_t tensor, uint32_t row, uint32_t rows, void* out,
                        uint64_t out_bytes, drover_error* error);
/* Writes rows of an activation tensor before a step (inputs of eager programs). */
int drover_program_write(drover_program* program, uint32_t tensor, uint32_t row, uint32_t rows, const void* data,
                         uint64_t bytes, drover_error* error);
/* head_dim of the cache; 0 without one. */
uint32_t drover_program_kv_head_dim(const drover_program* program);
/* Reads one head of one sequence's cache as f32: out [positions, head_dim]; what: 0 = k (after RoPE), 1 = v. */
int drover_program_read_kv(drover_program* program, uint32_t layer, uint32_t kv_head, uint32_t what,
                           const uint32_t* pages, uint32_t positions, float* out, drover_error* error);
/* What the last step did to indices out of range, by the policy that it asked for. */
typedef struct drover_bag_counts {
  uint64_t skipped, clamped;
} drover_bag_counts;
int drover_program_bag_counts(drover_program* program, drover_bag_counts* out, drover_error* error);
/* Bytes of tables read from mapped files that are in memory now. Asks the system for every page. */
uint64_t drover_program_resident_bytes(const drover_program* program);
/* Copies one KV page onto another (prefix sharing: a page is copied before it is written to). */
int drover_program_copy_page(drover_program* program, uint32_t from, uint32_t to, drover_error* error);

/* Workers of this program's steps. */
uint32_t drover_program_threads(const drover_program* program);
/* Times of the last step that asked for it (step flag 1), 2 + threads numbers per op: when it began and ended, by the
 * monotonic clock, and how long each worker was busy with it; all in nanoseconds, zeros for ops that did not run. `out`
 * holds `count` numbers, as many as all ops have. */
int drover_program_profile(drover_program* program, uint64_t* out, uint64_t count, drover_error* error);

typedef struct drover_memory {
  uint64_t activations, kv, prepared, scratch; /* bytes that we allocated */
  uint64_t mapped;                             /* bytes of mapped files, not counted against the budget */
  uint64_t prepared_mapped;                    /* bytes of the mapped file of prepared weights, apart from `mapped` */
  uint64_t tables; /* embedding tables that are not read from a file; counted against the budget */
} drover_memory;
int drover_program_memory(drover_program* program, drover_memory* out);
/* Aborts and waits for a step in flight, then frees. NULL is allowed. */
void drover_program_release(drover_program* program);

#ifdef __cplusplus
}
#endif
#endif /* DROVER_H_ */
