// Decodes and verifies programs: whatever the words say, nothing past this file reads out of bounds.
#include "program.h"

#include <algorithm>

#include "kernels/kv.h"
#include "kernels/panels.h"
#include "kernels/prepare.h"
#include "kernels/rowwise.h"
#include "ops/op.h"
#include "status.h"

drover_program::~drover_program() {
  for (drover_region* region : regions) drover_region_release(region);
}

namespace drover {
namespace {

constexpr uint32_t kMostRows = 1u << 20, kMostCols = 1u << 24, kMostEntries = 1u << 22, kMostBagInputs = 1u << 16;
constexpr uint64_t kMostBytes = uint64_t{1} << 46;

// Walks words without ever passing their end.
struct Words {
  const uint32_t* data;
  uint64_t count, at = 0;
  const uint32_t* take(uint64_t n) {
    if (n > count - at) return nullptr;
    const uint32_t* here = data + at;
    at += n;
    return here;
  }
};

drover_code refuse(drover_error* error, const char* what, int64_t found, int64_t expected) {
  return fail(error, DROVER_PROGRAM, -1, found, expected, "program: %s", what);
}

drover_code decode_header(const uint32_t* h, uint64_t count, drover_program& p, drover_error* error) {
  if (h[0] != kProgramMagic) return refuse(error, "not a program", h[0], kProgramMagic);
  if (h[1] != kProgramVersion) return refuse(error, "unknown version", h[1], kProgramVersion);
  if (h[2] != count) return refuse(error, "length differs from the header", static_cast<int64_t>(count), h[2]);
  for (uint32_t i = 21; i < kProgramHeaderWords; i++) {
    if (h[i] != 0) return refuse(error, "reserved words are zero", h[i], 0);
  }
  p.max_rows = h[3];
  p.max_outputs = h[4];
  p.max_sequences = h[5];
  p.max_pages = h[6];
  if (p.max_rows == 0 || p.max_rows > kMostRows) return refuse(error, "max rows out of range", p.max_rows, kMostRows);
  if (p.max_outputs > kMostRows) return refuse(error, "max outputs out of range", p.max_outputs, kMostRows);
  if (p.max_sequences > kMostRows) return refuse(error, "max sequences out of range", p.max_sequences, kMostRows);
  if (p.max_pages > kMostEntries) return refuse(error, "max page entries out of range", p.max_pages, kMostEntries);
  p.arena_bytes = uint64_t{h[11]} * 64;
  p.kv_layers = h[12];
  p.kv_heads = h[13];
  p.kv_head_dim = h[14];
  p.kv_pages = h[16];
  p.vocabulary = h[17];
  if (h[18] > kMostBagInputs) return refuse(error, "bag inputs out of range", h[18], kMostBagInputs);
  p.bag_inputs.resize(h[18]);
  p.block_rows = h[19];
  p.kept_bytes = uint64_t{h[20]} * 64;
  if (p.block_rows != 0 && (h[18] == 0 || h[4] != 0 || h[16] != 0)) {
    return refuse(error, "blocks need bag inputs, no output rows and no cache", h[18], 1);
  }
  if (p.block_rows == 0 ? h[20] != 0 : p.kept_bytes > p.arena_bytes) {
    return refuse(error, "the blocks' tensors begin past the arena", h[20], h[11]);
  }
  p.bags.resize(h[18]);
  if (p.vocabulary > kMostCols) return refuse(error, "vocabulary out of range", p.vocabulary, kMostCols);
  if (p.kv_pages == 0) return DROVER_OK;
  if (p.kv_pages > kMostEntries) return refuse(error, "kv pages out of range", p.kv_pages, kMostEntries);
  if (h[15] >= kDTypeCount || !kv_type_known(static_cast<DType>(h[15]))) {
    return refuse(error, "kv dtype is f32, f16, bf16, q8_0 or f8_e4m3", h[15], static_cast<int64_t>(DType::f16));
  }
  p.kv_dtype = static_cast<DType>(h[15]);
  if (p.kv_layers == 0 || p.kv_layers > 4096) return refuse(error, "kv layers out of range", p.kv_layers, 4096);
  if (p.kv_heads == 0 || p.kv_heads > 4096) return refuse(error, "kv heads out of range", p.kv_heads, 4096);
  if (p.kv_head_dim == 0 || p.kv_head_dim > 4096) return refuse(error, "kv head_dim out of range", p.kv_head_dim, 4096);
  p.kv_block_bytes = kv_block_bytes(p.kv_dtype, p.kv_head_dim);
  p.kv_page_bytes = p.kv_block_bytes * p.kv_heads * p.kv_layers;
  if (p.kv_page_bytes > kMostBytes / p.kv_pages) return refuse(error, "kv cache too large", p.kv_pages, 0);
  return DROVER_OK;
}

drover_code decode_tensor(const uint32_t* t, uint32_t index, const drover_program& p, Tensor& tensor,
                          drover_error* error) {
  const auto no = [&](const char* what, int64_t found, int64_t expected) {
    return fail(error, DROVER_PROGRAM, -1, found, expected, "tensor %u: %s", index, what);
  };
  if (t[0] >= kDTypeCount) return no("unknown dtype", t[0], kDTypeCount - 1);
  tensor.dtype = static_cast<DType>(t[0]);
  if (t[1] == 0 || t[1] > kMostCols) return no("columns out of range", t[1], kMostCols);
  tensor.cols = t[1];
  const uint64_t row = activation_row_bytes(tensor.dtype, tensor.cols);
  if (row == 0) return no("not a dtype of activations", t[0], static_cast<int64_t>(DType::f32));
  tensor.stride = uint64_t{t[2]} * 64;
  if (tensor.stride < row) return no("rows overlap", static_cast<int64_t>(tensor.stride), static_cast<int64_t>(row));
  if (t[3] >= static_cast<uint32_t>(RowDimension::kCount)) return no("unknown row dimension", t[3], 2);
  tensor.dimension = static_cast<RowDimension>(t[3]);
  tensor.fixed_rows = tensor.dimension == RowDimension::kFixed ? t[4] : 0;
  tensor.offset = uint64_t{t[5]} * 64;
  tensor.in_block = p.block_rows != 0 && tensor.offset >= p.kept_bytes;
  const uint32_t rows = tensor.in_block && p.block_rows < p.max_rows ? p.block_rows : p.max_rows;
  tensor.most_rows = tensor.dimension == RowDimension::kRows      ? rows
                     : tensor.dimension == RowDimension::kOutputs ? p.max_outputs
                                                                  : t[4];
  if (tensor.most_rows > kMostRows) return no("too many rows", tensor.most_rows, kMostRows);
  const uint64_t end = tensor.offset + tensor.stride * tensor.most_rows;
  const uint64_t bytes = tensor.in_block || p.block_rows == 0 ? p.arena_bytes : p.kept_bytes;
  if (end > bytes) return no("ends past its part of the arena", static_cast<int64_t>(end), static_cast<int64_t>(bytes));
  if (t[6] != 0 || t[7] != 0) return no("reserved words are zero", t[6], 0);
  return DROVER_OK;
}

Weight weight_of(const uint32_t* w) {
  Weight weight{};
  weight.region = w[0];
  weight.dtype = static_cast<DType>(w[1]);
  weight.offset = uint64_t{w[3]} << 32 | w[2];
  weight.rows = w[4];
  weight.cols = w[5];
  weight.flags = w[6];
  return weight;
}

// A table of embeddings: rows at a stride, as many as 32 bits count.
template <typename Refuse>
drover_code decode_table(const uint32_t* w, const drover_region& region, Weight& weight, Refuse no) {
  weight = weight_of(w);
  if (w[1] >= kDTypeCount || !is_table_dtype(weight.dtype)) return no("not a dtype of tables", w[1], 0);
  if (weight.rows == 0) return no("a table has rows", 0, 1);
  if (weight.cols == 0 || weight.cols > kMostBagDim) return no("columns out of range", weight.cols, kMostBagDim);
  if ((weight.flags & ~(kTable | kCopy | kParametersFirst)) != 0) return no("unknown flags", weight.flags, kTable);
  if ((weight.flags & kParametersFirst) != 0 && !is_rowwise(weight.dtype)) {
    return no("only row-wise formats have a scale and a bias", w[1], 0);
  }
  const uint64_t row = row_bytes(weight.dtype, weight.cols);
  weight.stride = w[7];
  if (weight.stride < row) return no("rows overlap", w[7], static_cast<int64_t>(row));
  const uint64_t bytes = weight.stride * (weight.rows - 1) + row;
  if (weight.offset > region.bytes || bytes > region.bytes - weight.offset) {
    return no("ends past its region", static_cast<int64_t>(weight.offset + bytes), static_cast<int64_t>(region.bytes));
  }
  weight.file = region.data + weight.offset;
  return DROVER_OK;
}

drover_code decode_weight(const uint32_t* w, uint32_t index, drover_region* const* regions, uint32_t region_count,
                          Weight& weight, drover_error* error) {
  const auto no = [&](const char* what, int64_t found, int64_t expected) {
    return fail(error, DROVER_PROGRAM, -1, found, expected, "weight %u: %s", index, what);
  };
  if (w[0] >= region_count) return no("unknown region", w[0], region_count);
  if ((w[6] & kTable) != 0) return decode_table(w, *regions[w[0]], weight, no);
  if (w[1] >= static_cast<uint32_t>(DType::u32))
    return no("not a dtype of weights", w[1], static_cast<int64_t>(DType::u32) - 1);
  weight = weight_of(w);
  if (weight.rows == 0 || weight.rows > kMostCols) return no("rows out of range", weight.rows, kMostCols);
  if (weight.cols == 0 || weight.cols > kMostCols) return no("columns out of range", weight.cols, kMostCols);
  uint32_t block = 1, block_bytes = 1;
  drover_dtype_block(w[1], &block, &block_bytes);
  if (weight.cols % block != 0) return no("a row holds whole blocks", weight.cols, block);
  const drover_region& region = *regions[weight.region];
  const uint64_t bytes = row_bytes(weight.dtype, weight.cols) * weight.rows;
  if (weight.offset > region.bytes || bytes > region.bytes - weight.offset) {
    return no("ends past its region", static_cast<int64_t>(weight.offset + bytes), static_cast<int64_t>(region.bytes));
  }
  if ((weight.flags & ~(kPrepare | kDecode)) != 0 || weight.flags == (kPrepare | kDecode))
    return no("unknown flags", weight.flags, kPrepare);
  if ((weight.flags & kPrepare) != 0 && prepared_bytes(weight.dtype, weight.rows, weight.cols) == 0) {
    return no("this dtype has no prepared form", w[1], 0);
  }
  weight.file = region.data + weight.offset;
  weight.stride = row_bytes(weight.dtype, weight.cols);
  return DROVER_OK;
}

// Word 7 of a weight, once all weights are known. Scales of scales mean nothing: only some formats take them.
drover_code decode_scales(uint32_t word, uint32_t index, drover_program& p, drover_error* error) {
  if (word == 0) return DROVER_OK;
  const auto no = [&](const char* what, int64_t found, int64_t expected) {
    return fail(error, DROVER_PROGRAM, -1, found, expected, "weight %u: %s", index, what);
  };
  if (word > p.weights.size()) return no("unknown scales", word, static_cast<int64_t>(p.weights.size()));
  Weight& weight = p.weights[index];
  const Weight& scales = p.weights[word - 1];
  if (!is_float(scales.dtype)) return no("scales are f32, f16 or bf16", static_cast<int64_t>(scales.dtype), 0);
  if (scales.rows != weight.rows) return no("scales have the weight's rows", scales.rows, weight.rows);
  if (!may_have_scales(weight.dtype, weight.cols, scales.cols)) {
    return no("this dtype has no such groups of scales", scales.cols, weight.cols);
  }
  weight.scales = {scales.file, scales.dtype, scales.cols};
  weight.scales_weight = word;
  return DROVER_OK;
}

drover_code decode_op(const uint32_t* o, uint32_t index, const uint32_t* arguments, uint32_t argument_words,
                      const drover_program& p, Op& op, drover_error* error) {
  const int32_t at = static_cast<int32_t>(index);
  const auto no = [&](const char* what, int64_t found, int64_t expected) {
    return fail(error, DROVER_PROGRAM, at, found, expected, "op %u: %s", index, what);
  };
  if (o[0] >= kOpCount) return no("unknown opcode", o[0], kOpCount - 1);
  op.opcode = o[0];
  const bool reads_tables = kOps[op.opcode].implementation == &op_embedding_bag;
  const char* signature = kOps[op.opcode].signature;
  const uint32_t wanted = static_cast<uint32_t>(std::strlen(signature));
  if (o[2] != wanted || wanted > kMostArguments) return no("wrong number of arguments", o[2], wanted);
  if (o[1] > argument_words || wanted > argument_words - o[1])
    return no("arguments out of range", o[1], argument_words);
  if (o[3] != 0) return no("reserved word is zero", o[3], 0);
  for (uint32_t i = 0; i < wanted; i++) {
    const uint32_t word = arguments[o[1] + i];
    op.argument[i] = word;
    const char kind = signature[i];
    const bool optional = kind == 'p' || kind == 'q';
    if (optional && word == kNone) continue;
    const bool is_tensor = kind == 'o' || kind == 'i' || kind == 'b' || kind == 'p';
    const bool is_weight = kind == 'w' || kind == 'q';
    if (is_tensor && word >= p.tensors.size())
      return no("unknown tensor", word, static_cast<int64_t>(p.tensors.size()));
    if (is_weight && word >= p.weights.size())
      return no("unknown weight", word, static_cast<int64_t>(p.weights.size()));
    if (is_weight && ((p.weights[word].flags & kTable) != 0) != reads_tables)
      return no("tables are read by embedding_bag alone", word, 0);
  }
  Check check(p, op, at, error);
  kOps[op.opcode].implementation->check(check);
  return check.code();
}

}  // namespace

drover_code decode_program(const uint32_t* words, uint64_t count, drover_region* const* regions, uint32_t region_count,
                           drover_program& p, drover_error* error) {
  Words reader{words, count};
  const uint32_t* header = reader.take(kProgramHeaderWords);
  if (header == nullptr)
    return refuse(error, "shorter than its header", static_cast<int64_t>(count), kProgramHeaderWords);
  if (const drover_code code = decode_header(header, count, p, error)) return code;
  const uint32_t tensors = header[7], weights = header[8], ops = header[9], arguments = header[10];
  const uint32_t* t = reader.take(uint64_t{tensors} * kTensorWords);
  const uint32_t* w = t == nullptr ? nullptr : reader.take(uint64_t{weights} * kWeightWords);
  const uint32_t* o = w == nullptr ? nullptr : reader.take(uint64_t{ops} * kOpWords);
  const uint32_t* a = o == nullptr ? nullptr : reader.take(arguments);
  if (a == nullptr || reader.at != count)
    return refuse(error, "length differs from its tables", static_cast<int64_t>(count),
                  static_cast<int64_t>(reader.at));
  p.tensors.resize(tensors);
  p.weights.resize(weights);
  p.ops.resize(ops);
  for (uint32_t i = 0; i < tensors; i++) {
    if (const drover_code code = decode_tensor(t + uint64_t{i} * kTensorWords, i, p, p.tensors[i], error)) return code;
  }
  for (uint32_t i = 0; i < weights; i++) {
    if (const drover_code code =
            decode_weight(w + uint64_t{i} * kWeightWords, i, regions, region_count, p.weights[i], error))
      return code;
  }
  for (uint32_t i = 0; i < weights; i++) {
    if ((p.weights[i].flags & kTable) != 0) continue;
    if (const drover_code code = decode_scales(w[uint64_t{i} * kWeightWords + 7], i, p, error)) return code;
  }
  for (uint32_t i = 0; i < ops; i++) {
    if (const drover_code code = decode_op(o + uint64_t{i} * kOpWords, i, a, arguments, p, p.ops[i], error))
      return code;
  }
  for (uint32_t i = 0; i < region_count; i++) {
    drover_region_retain(regions[i]);
    p.regions.push_back(regions[i]);
    if (regions[i]->mapped) p.mapped_bytes += regions[i]->bytes;
  }
  return DROVER_OK;
}

}  // namespace drover
