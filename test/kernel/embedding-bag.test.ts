/** Embedding bags: the fixture's pooled rows in every format, layouts of FBGEMM, indices of both widths, policies, errors. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { cpuDevice } from '../../lib/device/cpu.js'
import * as kernels from '../../lib/kernels.js'
import { type Bags, type DroverError, type EmbeddingTable, PreparedTables } from '../../lib/kernels.js'
import { ProgramBuilder } from '../../lib/program/builder.js'
import { bagStep } from '../../lib/program/step.js'
import { parameterBytes, rowBytes, rowwiseDTypes, type TableDType } from '../../lib/tensor.js'
import { readStored, type Stored, storedTensor } from '../format/stored.js'
import { assertClose, fixture, randomSource, thrownBy } from '../support.js'

const tableRows = [1, 3, 31, 50, 177, 1000, 2003]
const dim = 20
const batch = 17

let expected: ReadonlyMap<string, Stored> = new Map()
let model: ReadonlyMap<string, Stored> = new Map()
test.before(async () => {
  expected = await readStored(fixture('dlrm-dot/expected.safetensors'))
  model = await readStored(fixture('dlrm-dot/model.safetensors'))
})

const bytesOf = (name: string): Uint8Array => storedTensor(expected, name).bytes
const floatsOf = (name: string): Float32Array => new Float32Array(bytesOf(name).slice().buffer)
const int64 = (name: string): BigInt64Array => new BigInt64Array(bytesOf(name).slice().buffer)
const narrow = (values: BigInt64Array): Int32Array => Int32Array.from(values, Number)
const modelBytes = (t: number): Uint8Array => storedTensor(model, `emb_l.${t}.weight`).bytes

interface Format {
  readonly name: string
  readonly dtype: TableDType
  readonly rows: (t: number) => Uint8Array
}
const formats: readonly Format[] = [
  { name: 'fp32', dtype: 'f32', rows: modelBytes },
  { name: 'fp16', dtype: 'f16', rows: (t) => bytesOf(`fp16.t${t}.table`) },
  { name: 'int8', dtype: 'i8_rowwise', rows: (t) => bytesOf(`int8.t${t}.packed`) },
  { name: 'int8h', dtype: 'i8h_rowwise', rows: (t) => bytesOf(`int8h.t${t}.packed`) },
  { name: 'int4', dtype: 'i4_rowwise', rows: (t) => bytesOf(`int4.t${t}.packed`) },
]
const tablesOf = ({ dtype, rows }: Format): EmbeddingTable[] =>
  tableRows.map((count, t) => ({ dtype, data: rows(t), shape: [count, dim] }))

const bagsOf = (weighted: boolean, wide: boolean): Bags[] =>
  tableRows.map((_, t) => {
    const indices = int64(`t${t}.indices`)
    const offsets = int64(`t${t}.offsets`)
    return {
      indices: wide ? indices : narrow(indices),
      offsets: wide ? offsets : narrow(offsets),
      ...(weighted ? { weights: floatsOf(`t${t}.weights`) } : {}),
    }
  })

test('pooled sums, with and without weights, in every format of the fixture', () => {
  for (const format of formats) {
    for (const kind of ['sum', 'weighted']) {
      const pooled = kernels.embeddingBag(tablesOf(format), bagsOf(kind === 'weighted', true))
      assertClose(pooled, floatsOf(`${format.name}.${kind}.pooled`), 1e-5, `${format.name} ${kind}`, 1e-5)
    }
  }
})

test('means and maxima', () => {
  for (const pooling of ['mean', 'max'] as const) {
    const pooled = kernels.embeddingBag(tablesOf(formats[0]!), bagsOf(false, false), { pooling })
    assertClose(pooled, floatsOf(`fp32.${pooling}.pooled`), 1e-5, pooling, 1e-5)
  }
})

test("rows of FBGEMM's table-batched operator: scale and bias first, at any stride", () => {
  const input = bagsOf(false, true)[3]!
  const weighted = bagsOf(true, true)[3]!
  const third = (name: string): Float32Array => {
    const all = floatsOf(name)
    return Float32Array.from({ length: batch * dim }, (_, i) => {
      const [row, col] = [Math.floor(i / dim), i % dim]
      return all[(row * tableRows.length + 3) * dim + col]!
    })
  }
  for (const [name, dtype] of [
    ['tbe_int8', 'i8h_rowwise'],
    ['tbe_int4', 'i4_rowwise'],
  ] as const) {
    const data = bytesOf(`${name}.t3.rows`)
    const row = data.length / 50
    const table = { dtype, data, shape: [50, dim], stride: row, parameters: 'first' } as const
    assertClose(kernels.embeddingBag(table, input), third(`${name}.sum.pooled`), 1e-5, name, 1e-5)
    assertClose(kernels.embeddingBag(table, weighted), third(`${name}.weighted.pooled`), 1e-5, name, 1e-5)
    // The same rows further apart, and the same rows with scale and bias last, give the same bits.
    const padded = new Uint8Array(50 * 48).fill(0xaa)
    const turned = new Uint8Array(data.length)
    for (let r = 0; r < 50; r++) {
      const source = data.subarray(r * row, (r + 1) * row)
      padded.set(source, r * 48)
      turned.set(source.subarray(4), r * row)
      turned.set(source.subarray(0, 4), r * row + row - 4)
    }
    const first = kernels.embeddingBag(table, input)
    assert.equal(kernels.embeddingBag({ ...table, data: padded, stride: 48 }, input), first)
    assert.equal(kernels.embeddingBag({ ...table, data: turned, parameters: 'last' }, input), first)
  }
  const halves = kernels.embeddingBag(tablesOf(formats[1]!), bagsOf(false, false))
  assertClose(halves, floatsOf('tbe_fp16.sum.pooled'), 1e-5, 'tbe_fp16', 1e-5)
})

test('indices and offsets of 32 and 64 bits, mixed, are the same', () => {
  const tables = tablesOf(formats[2]!)
  const first = kernels.embeddingBag(tables, bagsOf(true, true))
  assert.equal(kernels.embeddingBag(tables, bagsOf(true, false)), first)
  const wide = bagsOf(true, true)
  const mixed = bagsOf(true, false).map((bags, t) =>
    t % 2 === 0 ? { ...bags, indices: wide[t]!.indices } : { ...bags, offsets: wide[t]!.offsets },
  )
  assert.equal(kernels.embeddingBag(tables, mixed), first)
})

test('quantisers write the bytes of the fixture, and rows come back', () => {
  for (const [name, dtype] of [
    ['int8', 'i8_rowwise'],
    ['int8h', 'i8h_rowwise'],
    ['int4', 'i4_rowwise'],
    ['int2', 'i2_rowwise'],
  ] as const) {
    tableRows.forEach((rows, t) => {
      if (name === 'int2' && t !== 3) return // the fixture has this one
      const values = new Float32Array(modelBytes(t).slice().buffer)
      assert.equal(kernels.quantize(dtype, values, [rows, dim]), bytesOf(`${name}.t${t}.packed`), `${name} ${t}`)
    })
    const rows = kernels.dequantize(dtype, bytesOf(`${name}.t3.packed`), [50, dim])
    assert.equal(rows, floatsOf(`${name}.t3.dequantized`), `${name} back`)
  }
})

test('rows that no scale can describe: equal numbers, numbers that are not finite, one column', () => {
  for (const dtype of rowwiseDTypes) {
    const equal = kernels.quantize(dtype, new Float32Array(9).fill(0.5), [1, 9])
    assert.equal(kernels.dequantize(dtype, equal, [1, 9]), new Float32Array(9).fill(0.5))
    const single = kernels.quantize(dtype, Float32Array.of(-2, 3), [2, 1])
    assert.equal(kernels.dequantize(dtype, single, [2, 1]), Float32Array.of(-2, 3))
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const values = new Float32Array(600).fill(1)
      values[570] = bad
      const error = thrownBy(() => kernels.quantize(dtype, values, [2, 300]))
      assert.is(error.code, 'E_RANGE')
      assert.is(error.field, 'values[570]')
    }
  }
})

const plain = (rows: number, cols: number): EmbeddingTable => ({
  dtype: 'f32',
  data: Float32Array.from({ length: rows * cols }, (_, i) => Math.floor(i / cols) + (i % cols) / 1000),
  shape: [rows, cols],
})
const i32 = (...values: number[]): Int32Array => Int32Array.from(values)

test('errors name table, bag, position and value', () => {
  const tables = [plain(5, 3), plain(4, 2)]
  const good = { indices: i32(0, 4, 2), offsets: i32(0, 1, 3) }
  const cases: [string, Bags, RegExp][] = [
    ['past the end', { ...good, indices: i32(0, 3, 4) }, /bag 1, position 1: index 4 is out of range.*4 rows/],
    ['negative', { ...good, indices: i32(-1, 3, 1) }, /bag 0, position 0: index -1/],
    ['wide', { ...good, indices: BigInt64Array.of(0n, 1n << 32n, 1n) }, /bag 1, position 0: index 4294967296/],
    [
      'wide negative',
      { ...good, indices: BigInt64Array.of(0n, 1n, -(1n << 63n)) },
      /position 1: index -9223372036854775808/,
    ],
    ['falling', { indices: i32(0, 1, 2), offsets: i32(0, 2, 1) }, /offset 2 is 1, below the one before it, 2/],
    ['first', { indices: i32(0, 1, 2), offsets: i32(1, 2, 3) }, /offset 0 is 1, not 0/],
    ['last', { indices: i32(0, 1, 2), offsets: i32(0, 1, 2) }, /the last offset is 2, but there are 3 indices/],
    ['too far', { indices: i32(0, 1, 2), offsets: i32(0, 4, 4) }, /offset 1 is 4, but there are 3 indices/],
    ['negative offset', { indices: i32(0, 1, 2), offsets: i32(0, -1, 3) }, /offset 1 is -1/],
    [
      'wide offset',
      { indices: i32(0, 1, 2), offsets: BigInt64Array.of(0n, 1n << 40n, 3n) },
      /offset 1 is 1099511627776/,
    ],
  ]
  for (const [what, second, message] of cases) {
    const error = thrownBy(() => kernels.embeddingBag(tables, [good, second]))
    assert.is(error.code, 'E_RANGE', what)
    assert.is(error.field, 'tables[1]', what)
    assert.match(error.message, message, what)
  }
  const shapes: [string, Bags][] = [
    ['another number of bags', { indices: i32(0), offsets: i32(0, 1) }],
    ['weights', { ...good, indices: i32(0, 1, 2), weights: new Float32Array(2) }],
  ]
  for (const [what, second] of shapes)
    assert.is(thrownBy(() => kernels.embeddingBag(tables, [good, second])).code, 'E_SHAPE', what)
  const weighted = { indices: i32(0, 1, 2), offsets: i32(0, 1, 3), weights: new Float32Array(3) }
  assert.match(
    thrownBy(() => kernels.embeddingBag(tables, [good, weighted], { pooling: 'max' })).message,
    /takes no weights/,
  )
  const any = (value: unknown) => value as never
  assert.is(thrownBy(() => kernels.embeddingBag(any([]), [])).code, 'E_ARGUMENT')
  assert.is(thrownBy(() => kernels.embeddingBag(tables, [good])).code, 'E_SHAPE')
  assert.is(thrownBy(() => kernels.embeddingBag(tables, any([good, {}]))).code, 'E_ARGUMENT')
  assert.is(thrownBy(() => kernels.embeddingBag(tables, any([good, { ...good, indices: [1] }]))).code, 'E_ARGUMENT')
  assert.is(thrownBy(() => kernels.embeddingBag(any({ ...plain(3, 2), dtype: 'q8_0' }), good)).code, 'E_ARGUMENT')
  assert.is(thrownBy(() => kernels.embeddingBag({ ...plain(3, 2), shape: [4, 2] }, good)).code, 'E_SHAPE')
  assert.is(thrownBy(() => kernels.embeddingBag({ ...plain(3, 2), stride: 7 }, good)).code, 'E_ARGUMENT')
  const tall = thrownBy(() => kernels.embeddingBag({ ...plain(3, 2), shape: [2 ** 31, 2] }, good))
  assert.is(tall.code, 'E_ARGUMENT', 'no 32-bit index would reach its end')
  assert.is(thrownBy(() => kernels.embeddingBag(plain(3, 2), good, any({ pool: 'sum' }))).code, 'E_ARGUMENT')
})

test('policies: indices out of range are skipped or taken for the nearest row, and counted', async () => {
  const table = plain(5, 2)
  for (const wide of [false, true]) {
    const numbers = (...values: number[]) => (wide ? BigInt64Array.from(values, BigInt) : i32(...values))
    const bags = {
      indices: numbers(1, 9, 2, -3, 7, 4),
      offsets: numbers(0, 3, 3, 5, 6),
      weights: Float32Array.of(1, 10, 2, 3, 5, 1),
    }
    const skipping = PreparedTables.prepare(table, 4, { indices: 'skip' })
    const row = (index: number): number[] => [index, index + 0.001]
    const close = (found: Float32Array, right: number[]): void => assertClose(found, right, 1e-5, 'policy')
    close(skipping.pool(bags), [...row(1).map((v, i) => v + 2 * row(2)[i]!), 0, 0, 0, 0, ...row(4)])
    assert.equal(skipping.bagCounts(), { skipped: 3, clamped: 0 })
    skipping.pool({ indices: numbers(0), offsets: numbers(0, 1, 1, 1, 1) })
    assert.equal(skipping.bagCounts(), { skipped: 0, clamped: 0 })
    const clamping = PreparedTables.prepare(table, 4, { indices: 'clamp' })
    const first = row(1).map((v, i) => v + 10 * row(4)[i]! + 2 * row(2)[i]!)
    close(await clamping.poolAsync(bags), [...first, 0, 0, ...row(0).map((v, i) => 3 * v + 5 * row(4)[i]!), ...row(4)])
    assert.equal(clamping.bagCounts(), { skipped: 0, clamped: 3 })
    // The caller's arrays are as they were.
    assert.equal(Array.from(bags.indices, Number), [1, 9, 2, -3, 7, 4])
    await Promise.all([skipping.close(), clamping.close()])
    assert.is(thrownBy(() => clamping.pool(bags)).code, 'E_CLOSED')
  }
  // Of a mean, only what counts is divided by.
  const mean = kernels.embeddingBag(
    table,
    { indices: i32(1, 9, 3), offsets: i32(0, 3) },
    { pooling: 'mean', indices: 'skip' },
  )
  assertClose(mean, [2, 2.001], 1e-6, 'mean')
})

test('16-bit outputs are the f32 ones, rounded', () => {
  const tables = [formats[0]!, formats[4]!].flatMap((format) => tablesOf(format).slice(3, 6))
  const odd = { ...plain(50, 7) }
  const bags = [...bagsOf(true, false).slice(3, 6), ...bagsOf(true, false).slice(3, 6)]
  const input = bags[0]!
  const floats = kernels.embeddingBag([...tables, odd], [...bags, input])
  for (const output of ['f16', 'bf16'] as const) {
    const codes = kernels.embeddingBag([...tables, odd], [...bags, input], { output })
    assert.instance(codes, Uint16Array)
    const rounded = kernels.quantize(output, floats, [batch, floats.length / batch])
    assert.equal(new Uint8Array(codes.buffer, codes.byteOffset, codes.byteLength), rounded, output)
  }
})

/** Random bytes of a table whose scales are small numbers. */
const randomTable = (dtype: TableDType, rows: number, cols: number, random: () => number): EmbeddingTable => {
  const values = Float32Array.from({ length: rows * cols }, () => random() * 2 - 1)
  return { dtype, data: kernels.quantize(dtype, values, [rows, cols]), shape: [rows, cols] }
}

test('threads and neighbours change no bit, of long bags neither', async () => {
  const random = randomSource(5)
  const integer = (below: number): number => Math.floor(random() * below)
  const dtypes: TableDType[] = ['f32', 'i8_rowwise', 'i4_rowwise']
  const cols = [64, 33, 200]
  const tables = dtypes.map((dtype, t) => randomTable(dtype, 500, cols[t]!, random))
  const rows = 40
  const bags = tables.map((_, t): Bags => {
    const lengths = Array.from({ length: rows }, (_, row) =>
      row === 7 ? 4096 * 2 + t * 5 : row === 9 ? 4097 : integer(30),
    )
    let end = 0
    const all = [0, ...lengths.map((length) => (end += length))]
    const indices = Int32Array.from({ length: end }, () => integer(500))
    return {
      indices,
      offsets: Int32Array.from(all),
      ...(t === 2 ? {} : { weights: Float32Array.from(indices, () => random()) }),
    }
  })
  const run = (threads: number, placement: 'mapped' | 'copied'): Float32Array => {
    const b = new ProgramBuilder(cpuDevice.layout, {
      maxRows: rows,
      maxOutputs: 0,
      maxSequences: 0,
      maxPages: 0,
      vocabulary: 0,
      activations: 'auto',
    })
    const sources = tables.map(({ dtype, shape }, t) => ({
      name: `t${t}`,
      dtype,
      rows: shape[0],
      cols: shape[1],
      region: t,
      offset: 0,
    }))
    const out = b.embeddingBag('bags', sources, { pooling: 'sum', placement })
    b.output('out', out)
    const regions = tables.map(({ data }) => ({ data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) }))
    const program = cpuDevice.loadSync(b.finish(), regions, { threads })
    program.runSync(bagStep(rows, bags))
    const pooled = program.read(out.index, 0, rows)
    void program.close()
    return pooled
  }
  const first = run(1, 'mapped')
  assert.ok(first.every(Number.isFinite))
  for (const threads of [1, 2, 0])
    for (const placement of ['mapped', 'copied'] as const) assert.equal(run(threads, placement), first)
  // Each table alone, and each of some bags alone.
  let column = 0
  const width = cols.reduce((a, b) => a + b)
  for (const [t, table] of tables.entries()) {
    const { indices, offsets, weights } = bags[t]!
    for (const row of [0, 7, 8, 9, 39]) {
      const [from, to] = [Number(offsets[row]), Number(offsets[row + 1])]
      const alone = kernels.embeddingBag(table, {
        indices: indices.slice(from, to) as Int32Array,
        offsets: i32(0, to - from),
        weights: weights?.slice(from, to),
      })
      assert.equal(alone, first.slice(row * width + column, row * width + column + cols[t]!), `table ${t}, bag ${row}`)
    }
    column += cols[t]!
  }
})

test('a table of any width, in every format, is what its decoded rows give', () => {
  const random = randomSource(11)
  for (const dtype of ['f32', 'f16', 'bf16', ...rowwiseDTypes] as const) {
    for (const cols of [1, 2, 3, 5, 15, 16, 17, 31, 48, 63, 96, 127, 128, 129, 256, 1000, 1024]) {
      const table = randomTable(dtype, 9, cols, random)
      const decoded = kernels.dequantize(dtype, table.data as Uint8Array, [9, cols])
      const bags = { indices: i32(8, 0, 3, 3, 8), offsets: i32(0, 2, 2, 5), weights: Float32Array.of(1, -1, 0.5, 2, 3) }
      const right = (positions: number[]): number[] =>
        Array.from({ length: cols }, (_, d) =>
          positions.reduce((sum, i) => sum + bags.weights[i]! * decoded[bags.indices[i]! * cols + d]!, 0),
        )
      const pooled = kernels.embeddingBag(table, bags)
      assertClose(
        pooled,
        [...right([0, 1]), ...new Array(cols).fill(0), ...right([2, 3, 4])],
        2e-5,
        `${dtype} ${cols}`,
        1e-5,
      )
      assert.is(rowBytes(dtype, cols) * 9, table.data.byteLength)
    }
  }
  assert.is(parameterBytes('i8_rowwise'), 8)
})

test('no bags, no lookups', () => {
  assert.is(kernels.embeddingBag(plain(3, 4), { indices: i32(), offsets: i32(0) }).length, 0)
  assert.equal(kernels.embeddingBag(plain(3, 4), { indices: i32(), offsets: i32(0, 0, 0) }), new Float32Array(8))
})

test('a call is aborted, and arrays are copied at the call', async () => {
  const table = plain(10, 8)
  const bags = { indices: i32(1, 2, 3), offsets: i32(0, 3) }
  const pending = kernels.embeddingBagAsync(table, bags)
  bags.indices.fill(99)
  ;(table.data as Float32Array).fill(Number.NaN)
  assertClose((await pending).subarray(0, 1), [6], 1e-6, 'copied')
  const error = await kernels
    .embeddingBagAsync(plain(3, 2), bags, { signal: AbortSignal.abort() })
    .catch((e: unknown) => e)
  assert.is((error as DroverError).code, 'E_ABORTED')
})

test.run()
