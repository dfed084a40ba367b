// The KV cache's writer and its reader.
#include "core/tuning.h"
#include "kernels/attention_scratch.h"
#include "kernels/kv.h"
#include "op.h"

namespace drover {

uint64_t attention_scratch_bytes(uint32_t heads, uint32_t kv_heads, uint32_t head_dim) {
  return AttentionScratch().place(nullptr, heads / kv_heads, head_dim);
}

const OpImplementation op_kv_write = {
    [](Check& c) {
      for (uint32_t i = 0; i < 2; i++) {
        c.dtype(c.tensor(i), DType::f32, "kv_write stores f32 rows");
        c.follows(c.tensor(i), RowDimension::kRows, "kv_write stores one row per row of the step");
        c.cols(c.tensor(i), uint64_t{c.program.kv_heads} * c.program.kv_head_dim,
               "kv_write's rows are kv heads x head_dim");
      }
      c.require(c.program.kv_pages > 0, "kv_write needs a cache", c.program.kv_pages, 1);
      c.require(c.word(2) < c.program.kv_layers, "kv_write's layer exists", c.word(2), c.program.kv_layers);
    },
    [](const Run& run, const Op& op) {
      const drover_program& p = run.program;
      const Tensor& k = p.tensors[op.argument[0]];
      const Tensor& v = p.tensors[op.argument[1]];
      for (const Sequence& sequence : run.step.sequences) {
        for_rows(run, sequence.rows, k.cols, [&](uint32_t row, uint32_t) {
          const uint32_t position = sequence.cache_start + row;
          uint8_t* block = p.kv.data() + sequence.pages[position / kPagePositions] * p.kv_page_bytes +
                           uint64_t{op.argument[2]} * p.kv_heads * p.kv_block_bytes;
          for (uint32_t head = 0; head < p.kv_heads; head++, block += p.kv_block_bytes) {
            const uint64_t at = uint64_t{head} * p.kv_head_dim;
            p.kernels->kv_write(p.kv_dtype, row_f32(k, sequence.first_row + row) + at,
                                row_f32(v, sequence.first_row + row) + at, p.kv_head_dim, position % kPagePositions,
                                block);
          }
        });
      }
    },
    nullptr};

const OpImplementation op_attention = {
    [](Check& c) {
      for (uint32_t i = 0; i < 2; i++) {
        c.dtype(c.tensor(i), DType::f32, "attention reads and writes f32");
        c.follows(c.tensor(i), RowDimension::kRows, "attention works on rows of the step");
        c.cols(c.tensor(i), uint64_t{c.word(3)} * c.program.kv_head_dim, "attention's rows are heads x head_dim");
      }
      c.apart(c.tensor(0), c.tensor(1), "attention does not work in place");
      c.require(c.program.kv_pages > 0, "attention needs a cache", c.program.kv_pages, 1);
      c.require(c.word(2) < c.program.kv_layers, "attention's layer exists", c.word(2), c.program.kv_layers);
      c.require(c.word(3) != 0 && c.program.kv_heads != 0 && c.word(3) % c.program.kv_heads == 0,
                "attention's heads are a multiple of the kv heads", c.word(3), c.program.kv_heads);
      c.require(c.real(4) > 0 && c.real(4) < 1e6f, "attention's scale is positive", c.word(4), 0);
      c.require(c.word(5) <= 1, "attention's causal flag is 0 or 1", c.word(5), 1);
      c.require(c.word(6) <= (c.program.kv_dtype == DType::q8_0 ? 1 : 0), "attention's byte queries need a q8_0 cache",
                c.word(6), 0);
    },
    [](const Run& run, const Op& op) {
      const drover_program& p = run.program;
      const Tensor& out = p.tensors[op.argument[0]];
      const Tensor& q = p.tensors[op.argument[1]];
      AttentionArgs args{};
      args.q = row_f32(q, 0);
      args.q_stride = q.stride / 4;
      args.out = row_f32(out, 0);
      args.out_stride = out.stride / 4;
      args.kv = p.kv.data() + uint64_t{op.argument[2]} * p.kv_heads * p.kv_block_bytes;
      args.page_stride_bytes = p.kv_page_bytes;
      args.block_bytes = p.kv_block_bytes;
      args.heads = op.argument[3];
      args.kv_heads = p.kv_heads;
      args.head_dim = p.kv_head_dim;
      args.causal = op.argument[5] == 1;
      args.byte_queries = op.argument[6] == 1;
      args.follows = tuning().requests == 1;
      args.scale = __builtin_bit_cast(float, op.argument[4]);
      // Tasks over all sequences: (sequence, rows, kv head); heads of the same rows follow each other.
      uint32_t tasks = 0;
      for (const Sequence& s : run.step.sequences) tasks += (s.rows + kAttentionRows - 1) / kAttentionRows * p.kv_heads;
      run.team.parallel(tasks, [&](uint32_t task, uint32_t worker) {
        const Sequence* s = run.step.sequences.data();
        for (;; s++) {
          const uint32_t here = (s->rows + kAttentionRows - 1) / kAttentionRows * p.kv_heads;
          if (task < here) break;
          task -= here;
        }
        AttentionArgs mine = args;
        mine.pages = s->pages;
        mine.first_row = s->first_row;
        mine.cache_start = s->cache_start;
        mine.cache_end = s->cache_start + s->rows;
        const uint32_t begin = task / p.kv_heads * kAttentionRows;
        const uint32_t end = begin + kAttentionRows < s->rows ? begin + kAttentionRows : s->rows;
        p.kernels->attention(p.kv_dtype, mine, task % p.kv_heads, begin, end, run.scratch(worker));
      });
    },
    [](const drover_program& program, const Op& op) -> uint64_t {
      return attention_scratch_bytes(op.argument[3], program.kv_heads, program.kv_head_dim);
    }};

}  // namespace drover
