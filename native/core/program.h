// The program: a flat list of ops on tensors that lie in one planned arena, and its binary encoding.
//
// Everything is little-endian u32 words. TypeScript (lib/program/encode.ts) writes it, decode() below reads and
// verifies it: no byte string may crash the process, so every index, offset, stride, dtype and shape is checked here
// once, and every dynamic input is checked again per step.
//
// Program
//   header, kProgramHeaderWords words:
//     0 magic "DRVP"  1 version (1)  2 total words  3 max rows  4 max outputs  5 max sequences  6 max page entries
//     7 tensor count  8 weight count  9 op count  10 argument words  11 arena size in units of 64 bytes
//     12 kv layers  13 kv heads  14 kv head_dim  15 kv dtype (f32, f16, q8_0)  16 kv pages (0: no cache)  17 vocabulary
//     18..23 zero
//   tensors, kTensorWords words each:
//     0 dtype (f32, u32, a8_32, a8_256)  1 cols  2 row stride in units of 64 bytes
//     3 row dimension (0 rows, 1 outputs, 2 fixed)  4 row count when fixed  5 offset in the arena, units of 64 bytes
//     6..7 zero
//   weights, kWeightWords words each:
//     0 region  1 dtype  2 offset low  3 offset high (bytes)  4 rows  5 cols  6 flags (1: prepare for gemm)  7 zero
//     (a weight that embed and gemm share is listed once; embed then reads the prepared form)
//   ops, kOpWords words each:  0 opcode (position in ops.def)  1 first argument word  2 argument count  3 zero
//   arguments
//
// Step
//   header, kStepHeaderWords words:
//     0 magic "DRVS"  1 total words  2 rows  3 outputs  4 sequences  5 page entries  6 first op  7 end op (exclusive)
//     8 flags (1: profile, 2: has targets, 4: has sampling records)  9 tail words  10..15 zero
//   tokens      i32[rows]
//   positions   i32[rows]      RoPE positions (usually the cache position, but free)
//   sequences   5 words each:  0 first row  1 row count  2 cache position of the first row  3 first page entry
//                              4 page entries.  Sequences cover the rows in order without gaps; a page may be written
//                              by one sequence only.
//   pages       u32[page entries]
//   output rows u32[outputs]
//   targets     i32[outputs]                        when flag 2
//   sampling    kSamplingWords words per output     when flag 4 (see SamplingRecord in native/kernels/sampling.h)
//   tail        words that sampling records point into
#ifndef DROVER_CORE_PROGRAM_H_
#define DROVER_CORE_PROGRAM_H_

#include <cstdint>

namespace drover {

inline constexpr uint32_t kProgramMagic = 0x50565244;  // "DRVP"
inline constexpr uint32_t kStepMagic = 0x53565244;     // "DRVS"
inline constexpr uint32_t kProgramVersion = 1;
inline constexpr uint32_t kProgramHeaderWords = 24;
inline constexpr uint32_t kTensorWords = 8;
inline constexpr uint32_t kWeightWords = 8;
inline constexpr uint32_t kOpWords = 4;
inline constexpr uint32_t kStepHeaderWords = 16;
inline constexpr uint32_t kSequenceWords = 5;
inline constexpr uint32_t kNone = 0xffffffffu;

}  // namespace drover

#endif  // DROVER_CORE_PROGRAM_H_
