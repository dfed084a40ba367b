// Checks a step's dynamic inputs and runs its ops.
#include "bags.h"
#include "cpu.h"
#include "ops/op.h"
#include "program.h"
#include "status.h"

namespace drover {
namespace {

struct Reader {
  const uint32_t* data;
  uint64_t count, at = 0;
  const uint32_t* take(uint64_t n) {
    if (n > count - at) return nullptr;
    const uint32_t* here = data + at;
    at += n;
    return here;
  }
};

bool finite(float value) { return value - value == 0.0f; }

drover_code check_sampling(const drover_program& p, const Step& step, drover_error* error) {
  for (uint32_t row = 0; row < step.outputs; row++) {
    const SamplingRecord& s = step.sampling[row];
    const auto no = [&](const char* what, int64_t found, int64_t expected) {
      return fail(error, DROVER_RANGE, -1, found, expected, "sampling record %u: %s", row, what);
    };
    const bool numbers = finite(s.temperature) && finite(s.top_p) && finite(s.min_p) && finite(s.typical_p) &&
                         finite(s.repetition_penalty) && finite(s.presence_penalty) && finite(s.frequency_penalty);
    if (!numbers) return no("parameters are finite", 0, 0);
    if (s.temperature < 0 || s.repetition_penalty <= 0)
      return no("temperature and repetition penalty out of range", 0, 0);
    const uint32_t begins[2] = {s.bias_begin, s.history_begin}, counts[2] = {s.bias_count, s.history_count};
    for (uint32_t list = 0; list < 2; list++) {
      if (begins[list] > step.tail_words || counts[list] > (step.tail_words - begins[list]) / 2) {
        return no("a list ends past the tail", begins[list], step.tail_words);
      }
      for (uint32_t i = 0; i < counts[list]; i++) {
        const uint32_t token = step.tail[begins[list] + 2 * i];
        if (token >= p.vocabulary) return no("a token is outside the vocabulary", token, p.vocabulary);
        // A bias of -infinity bans a token; NaN and +infinity would spoil the row.
        const float bias = __builtin_bit_cast(float, step.tail[begins[list] + 2 * i + 1]);
        if (list == 0 && !(bias <= 3.4028235e38f)) return no("a bias is NaN or +infinity", token, 0);
      }
    }
    const uint32_t mask_words = (p.vocabulary + 31) / 32;
    if (s.mask_begin != kNone && (s.mask_begin > step.tail_words || mask_words > step.tail_words - s.mask_begin)) {
      return no("the mask ends past the tail", s.mask_begin, step.tail_words);
    }
    if ((s.flags & 1) != 0) {
      const double uniform = __builtin_bit_cast(double, uint64_t{s.uniform_high} << 32 | s.uniform_low);
      if (!(uniform >= 0 && uniform < 1)) return no("the uniform is in [0, 1)", 0, 1);
    }
  }
  return DROVER_OK;
}

drover_code check_sequences(drover_program& p, Step& step, const uint32_t* words, uint32_t sequences,
                            const uint32_t* pages, uint32_t page_entries, drover_error* error) {
  uint32_t next_row = 0;
  p.step_number++;
  for (uint32_t i = 0; i < sequences; i++) {
    const uint32_t* w = words + uint64_t{i} * kSequenceWords;
    const auto no = [&](const char* what, int64_t found, int64_t expected) {
      return fail(error, DROVER_RANGE, -1, found, expected, "sequence %u: %s", i, what);
    };
    if (w[0] != next_row) return no("sequences cover the rows in order", w[0], next_row);
    if (w[1] == 0 || w[1] > step.rows - next_row) return no("row count out of range", w[1], step.rows - next_row);
    next_row += w[1];
    if (w[3] > page_entries || w[4] > page_entries - w[3]) return no("page entries out of range", w[3], page_entries);
    const uint64_t end = uint64_t{w[2]} + w[1];
    if (end > uint64_t{w[4]} * kPagePositions) {
      return no("its pages hold fewer positions than it needs", int64_t{w[4]} * kPagePositions,
                static_cast<int64_t>(end));
    }
    for (uint32_t page = 0; page < w[4]; page++) {
      const uint32_t id = pages[w[3] + page];
      if (id >= p.kv_pages) return no("page out of range", id, p.kv_pages);
      if (page < w[2] / kPagePositions) continue;  // read only
      if (p.page_step[id] == p.step_number) return no("a page is written twice", id, p.page_writer[id]);
      p.page_step[id] = p.step_number;
      p.page_writer[id] = i;
    }
    step.sequences.push_back({w[0], w[1], w[2], pages + w[3], w[4]});
  }
  if (next_row != step.rows) return fail(error, DROVER_RANGE, -1, next_row, step.rows, "sequences cover all rows");
  return DROVER_OK;
}

// Runs an op and adds to its line of the profile: start, end, and the nanoseconds that each worker was busy. What an op
// takes in all blocks is told as if it had run once, behind what the ops before it had taken by then.
void run_timed(const Run& run, uint32_t index) {
  drover_program& p = run.program;
  uint64_t* line = p.profile.data() + index * profile_words(p.threads);
  for (WorkerTime& time : p.worker_times) time.busy_ns = 0;
  const uint64_t parallel = run.team.parallel_ns(), begin = now_ns();
  kOps[p.ops[index].opcode].implementation->run(run, p.ops[index]);
  const uint64_t taken = now_ns() - begin;
  if (line[0] == 0) line[0] = line[1] = begin;
  line[1] += taken;
  // What an op does outside of parallel(), its leader does alone.
  p.worker_times[0].busy_ns += taken - (run.team.parallel_ns() - parallel);
  for (uint32_t worker = 0; worker < p.threads; worker++) line[2 + worker] += p.worker_times[worker].busy_ns;
}

// Ops of several blocks took turns: each begins where the one before it ends.
void line_up(drover_program& p, const Step& step) {
  for (uint32_t i = step.first_op + 1; i < step.end_op; i++) {
    uint64_t* line = p.profile.data() + i * profile_words(p.threads);
    const uint64_t begin = line[1 - static_cast<int64_t>(profile_words(p.threads))];
    line[1] += begin - line[0];
    line[0] = begin;
  }
}

void run_ops(const Run& run) {
  const drover_program& p = run.program;
  const bool profile = (run.step.flags & kStepProfile) != 0;
  for (uint32_t i = run.step.first_op; i < run.step.end_op && !run.team.cancelled(); i++) {
    const OpImplementation& op = *kOps[p.ops[i].opcode].implementation;
    if (profile) {
      run_timed(run, i);  // one by one: each has a line of its own
    } else if (const uint32_t together =
                   op.run_together == nullptr ? 0 : op.run_together(run, &p.ops[i], run.step.end_op - i);
               together != 0) {
      i += together - 1;
    } else {
      op.run(run, p.ops[i]);
    }
  }
}

// Takes a view of the program to rows [begin, begin + rows) of its step.
void move_to(BlockView& view, const drover_program& p, uint32_t begin, uint32_t rows) {
  for (size_t i = 0; i < p.tensors.size(); i++) {
    const Tensor& whole = p.tensors[i];
    if (!whole.in_block && whole.dimension == RowDimension::kRows) {
      view.tensors[i].data = whole.data + begin * whole.stride;
    }
  }
  for (size_t i = 0; i < p.bags.size(); i++) {
    view.bags[i] = p.bags[i];
    view.bags[i].offsets += begin;
  }
  view.long_bags.clear();
  uint32_t parts = 0;
  for (LongBag bag : p.long_bags) {
    if (bag.bag < begin || bag.bag - begin >= rows) continue;
    bag.bag -= begin;
    bag.first_part = parts;
    parts += parts_of(view.bags[bag.input], bag.bag);
    view.long_bags.push_back(bag);
  }
}

void run_block(drover_program& p, const Step& step, BlockView& view, uint32_t begin, uint32_t rows, Team& team) {
  move_to(view, p, begin, rows);
  Step block = step;
  block.rows = rows;
  run_ops({p, block, team, view.tensors.data(), view.bags.data(), view.long_bags});
}

// Rows per thread from which on every thread takes blocks of its own. Their values stay in its second-level cache, and
// nobody waits for anybody; but each reads all weights, which must not come from memory for each (a DCNv2 of 62 MB lost
// 12 % by that).
constexpr uint32_t kOwnBlockRows = 32;

constexpr uint64_t kUnknownL3 = 8u << 20;  // where the system does not tell

bool own_blocks(const drover_program& p, const Step& step) {
  const uint64_t l3 = machine().info.l3_bytes;
  return p.block_rows != 0 && step.rows >= p.threads * kOwnBlockRows && (step.flags & kStepProfile) == 0 &&
         p.weight_bytes <= (l3 == 0 ? kUnknownL3 : l3);
}

void run_blocks(drover_program& p, const Step& step, bool own, Team& team) {
  const uint32_t threads = team.threads();
  const uint32_t least = (step.rows + p.block_rows - 1) / p.block_rows;
  const uint32_t blocks = own ? (least + threads - 1) / threads * threads : least;
  if (blocks == 0) return;
  const uint32_t rows = (step.rows + blocks - 1) / blocks;
  const auto count = [&](uint32_t begin) { return step.rows - begin < rows ? step.rows - begin : rows; };
  if (!own) {
    for (uint32_t begin = 0; begin < step.rows; begin += rows) {
      run_block(p, step, p.views[0], begin, count(begin), team);
    }
    return;
  }
  team.parallel(blocks, [&](uint32_t block, uint32_t worker) {
    if (block * rows >= step.rows) return;
    Team alone = Team::alone(worker, &p.cancel);
    run_block(p, step, p.views[worker], block * rows, count(block * rows), alone);
  });
}

}  // namespace

drover_code decode_step(drover_program& p, uint32_t* words, uint64_t count, Step& step, drover_error* error) {
  const auto no = [&](const char* what, int64_t found, int64_t expected) {
    return fail(error, DROVER_RANGE, -1, found, expected, "step: %s", what);
  };
  Reader reader{words, count};
  p.bag_counts = {};
  const uint32_t* h = reader.take(kStepHeaderWords);
  if (h == nullptr || h[0] != kStepMagic || h[1] != count)
    return no("not a step", static_cast<int64_t>(count), kStepHeaderWords);
  step.rows = h[2];
  step.outputs = h[3];
  step.first_op = h[6];
  step.end_op = h[7];
  step.flags = h[8];
  if (step.rows > p.max_rows) return no("too many rows", step.rows, p.max_rows);
  if (step.outputs > p.max_outputs) return no("too many outputs", step.outputs, p.max_outputs);
  if (h[4] > p.max_sequences) return no("too many sequences", h[4], p.max_sequences);
  if (h[5] > p.max_pages) return no("too many page entries", h[5], p.max_pages);
  if (step.first_op > step.end_op || step.end_op > p.ops.size())
    return no("op range", step.end_op, static_cast<int64_t>(p.ops.size()));
  // What the ops before left of a block is gone.
  if (p.block_rows != 0 && step.first_op != 0)
    return no("a program of blocks runs from its first op", step.first_op, 0);
  if ((step.flags & ~(kStepProfile | kStepTargets | kStepSampling | kStepBags)) != 0)
    return no("unknown flags", step.flags, 15);
  const bool has_bags = (step.flags & kStepBags) != 0;
  const uint32_t token_rows = has_bags ? 0 : step.rows;
  const uint32_t* tokens = reader.take(token_rows);
  const uint32_t* positions = tokens == nullptr ? nullptr : reader.take(token_rows);
  const uint32_t* sequences = positions == nullptr ? nullptr : reader.take(uint64_t{h[4]} * kSequenceWords);
  const uint32_t* pages = sequences == nullptr ? nullptr : reader.take(h[5]);
  const uint32_t* outputs = pages == nullptr ? nullptr : reader.take(step.outputs);
  const uint32_t* targets =
      outputs == nullptr ? nullptr : reader.take((step.flags & kStepTargets) != 0 ? step.outputs : 0);
  const uint32_t* sampling =
      targets == nullptr ? nullptr
                         : reader.take((step.flags & kStepSampling) != 0 ? uint64_t{step.outputs} * kSamplingWords : 0);
  const uint32_t* tail = sampling == nullptr ? nullptr : reader.take(h[9]);
  if (tail == nullptr || (reader.at != count && !has_bags))
    return no("length differs from its header", static_cast<int64_t>(count), static_cast<int64_t>(reader.at));
  if (const drover_code code =
          has_bags ? decode_bags(p, {words + reader.at, count - reader.at}, step.rows, h[10], h[11], error)
                   : check_no_bags(p, step, error))
    return code;
  step.tokens = reinterpret_cast<const int32_t*>(tokens);
  step.positions = reinterpret_cast<const int32_t*>(positions);
  step.output_rows = outputs;
  step.targets = (step.flags & kStepTargets) != 0 ? reinterpret_cast<const int32_t*>(targets) : nullptr;
  step.sampling = (step.flags & kStepSampling) != 0 ? reinterpret_cast<const SamplingRecord*>(sampling) : nullptr;
  step.tail = tail;
  step.tail_words = h[9];
  for (uint32_t i = 0; i < token_rows; i++) {
    if (step.tokens[i] < 0 || (p.vocabulary != 0 && tokens[i] >= p.vocabulary))
      return no("token outside the vocabulary", step.tokens[i], p.vocabulary);
    if (step.positions[i] < 0) return no("negative position", step.positions[i], 0);
  }
  for (uint32_t i = 0; i < step.outputs; i++) {
    if (outputs[i] >= step.rows) return no("output row out of range", outputs[i], step.rows);
    if (step.targets != nullptr && targets[i] >= p.vocabulary)
      return no("target outside the vocabulary", step.targets[i], p.vocabulary);
  }
  if (step.sampling != nullptr) {
    if (const drover_code code = check_sampling(p, step, error)) return code;
  }
  // A program without a cache has rows but no sequences.
  if (p.kv_pages == 0 && h[4] == 0) return DROVER_OK;
  return check_sequences(p, step, sequences, h[4], pages, h[5], error);
}

drover_code run_step(drover_program& p, const Step& step, drover_error* error) {
  const bool own = own_blocks(p, step);
  Team team(p.threads, &p.cancel, own);
  const bool profile = (step.flags & kStepProfile) != 0;
  if (profile) {
    p.profile.assign(p.profile.size(), 0);
    team.measure(p.worker_times.data());
  }
  if (p.block_rows == 0) {
    run_ops({p, step, team, p.tensors.data(), p.bags.data(), p.long_bags});
  } else {
    run_blocks(p, step, own, team);
    if (profile && step.rows > p.block_rows) line_up(p, step);
  }
  if (team.cancelled()) return fail(error, DROVER_ABORTED, -1, 0, 0, "the step was aborted");
  return DROVER_OK;
}

}  // namespace drover
