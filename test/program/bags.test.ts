/** Bags in a step, tables in a program: their words, what they cost, where the rows lie. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { cpuDevice } from '../../lib/device/cpu.js'
import { referenceDevice } from '../../lib/device/reference.js'
import { quantize } from '../../lib/kernels.js'
import type { Bags } from '../../lib/program/bags.js'
import { ProgramBuilder, type Value } from '../../lib/program/builder.js'
import { opCost } from '../../lib/program/cost.js'
import { disassemble } from '../../lib/program/disassemble.js'
import { bagStep, encodeStep } from '../../lib/program/step.js'
import type { TableSource } from '../../lib/program/tables.js'
import { rowBytes } from '../../lib/tensor.js'
import { thrownBy } from '../support.js'

const builder = (maxRows = 8, vocabulary = 0): ProgramBuilder =>
  new ProgramBuilder(cpuDevice.layout, {
    maxRows,
    maxOutputs: 0,
    maxSequences: 0,
    maxPages: 0,
    vocabulary,
    activations: 'auto',
  })

const i32 = (...values: number[]): Int32Array => Int32Array.from(values)

test('bags lie behind the other words of a step, as they are', () => {
  const long = Int32Array.from({ length: 100 }, (_, i) => 7 * i)
  const bags: Bags[] = [
    { indices: i32(5, -1), offsets: i32(0, 1, 2), weights: Float32Array.of(1, -0) },
    { indices: BigInt64Array.of(1n, -1n, 1n << 40n), offsets: BigInt64Array.of(0n, 0n, 3n) },
    { indices: long, offsets: i32(0, 40, 100) },
  ]
  const words = encodeStep(bagStep(2, bags, 'clamp'), 9)
  assert.equal([...words.subarray(0, 12)], [0x53565244, words.length, 2, 0, 0, 0, 0, 9, 8, 0, 3, 2])
  const rest = [
    ...[4, 2, 3, 3, 0, 100], // flags and index counts
    ...[0, 1, 2, 5, 0xffffffff, 0x3f800000, 0x80000000],
    ...[0, 0, 0, 0, 3, 0, 1, 0, 0xffffffff, 0xffffffff, 0, 256],
    ...[0, 40, 100, ...long],
  ]
  assert.equal([...words.subarray(16)], rest)
  // In memory that held something else, and is larger.
  const room = new Uint32Array(1000).fill(0xabcdef)
  const again = encodeStep(bagStep(2, bags, 'clamp'), 9, room)
  assert.is(again.buffer, room.buffer)
  assert.equal(again, words)
  assert.is.not(encodeStep(bagStep(2, bags), 9, new Uint32Array(20)).length, 20)
})

test('arrays that do not fit each other are refused by name', () => {
  const good: Bags = { indices: i32(1), offsets: i32(0, 1) }
  const offsets = thrownBy(() => encodeStep(bagStep(1, [good, { ...good, offsets: i32(0) }]), 1))
  assert.is(offsets.code, 'E_SHAPE')
  assert.is(offsets.field, 'bags[1].offsets')
  const weights = thrownBy(() => encodeStep(bagStep(1, [{ ...good, weights: new Float32Array(2) }]), 1))
  assert.is(weights.field, 'bags[0].weights')
})

const tableOf = (name: string, cols: number, region: number, dtype: TableSource['dtype'] = 'f32'): TableSource => ({
  name,
  dtype,
  rows: 10,
  cols,
  region,
  offset: 0,
})

test('what ops of recommenders cost', () => {
  const b = builder()
  const dense = b.input('dense', 'rows', 4)
  const pooled = b.embeddingBag('pooled', [tableOf('a', 4, 0), tableOf('b', 4, 1, 'i8_rowwise')], {
    pooling: 'sum',
    placement: 'mapped',
  })
  const pairs = b.interaction('pairs', dense, pooled, 'lower')
  b.output('score', b.sigmoid('score', b.cross('cross', pairs, pairs, pairs)))
  const program = b.finish()
  const step = bagStep(2, [
    { indices: i32(1, 2, 3), offsets: i32(0, 1, 3) },
    { indices: i32(1, 2), offsets: i32(0, 1, 2) },
  ])
  const costs = program.ops.map((op) => opCost(program, cpuDevice.layout, step, op))
  assert.equal(
    costs.map(({ flops, bytes }) => [flops, bytes]),
    [
      [2 * (3 * 4 + 2 * 4), 3 * 16 + 2 * 12],
      [2 * 4 * 2 * 3, 0],
      [2 * 2 * 7, 0],
      [4 * 2 * 7, 0],
    ],
  )
  const text = disassemble(program, cpuDevice.layout)
  assert.match(text, /pooled {2}embedding_bag pooled:f32\[rows, 8\], a:f32\[10, 4\] mapped, 2, 0, 0, 0/)
})

test('ops that read the same bags, and values in any number side by side', () => {
  for (const device of [cpuDevice, referenceDevice]) {
    const b = builder()
    const table = tableOf('a', 3, 0)
    const regions = [{ data: new Uint8Array(Float32Array.from({ length: 30 }, (_, i) => i).buffer) }]
    const options = { placement: 'copied', firstBag: 0 } as const
    const kinds = (['sum', 'max', 'mean'] as const).map((pooling) =>
      b.embeddingBag(pooling, [table], { pooling, ...options }),
    )
    const many: Value[] = Array.from({ length: 9 }, () => kinds).flat()
    const all = b.concat('all', many)
    b.output('all', all)
    assert.is(all.cols, 81)
    const program = b.finish()
    assert.is(program.bagInputs, 1)
    const loaded = device.loadSync(program, regions)
    loaded.runSync(bagStep(1, [{ indices: i32(0, 9), offsets: i32(0, 2) }]))
    const once = [27, 29, 31, 27, 28, 29, 13.5, 14.5, 15.5]
    assert.equal([...loaded.read(all.index, 0, 1)], Array.from({ length: 9 }, () => once).flat(), device.name)
    void loaded.close()
  }
})

const inFolder = async (body: (folder: string) => Promise<void>): Promise<void> => {
  const folder = mkdtempSync(join(tmpdir(), 'drover-tables-'))
  try {
    await body(folder)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

test('tables of a file: mapped ones count by what is in memory, copies against the budget', () =>
  inFolder(async (folder) => {
    const [rows, cols] = [20_000, 64]
    const values = Float32Array.from({ length: rows * cols }, (_, i) => Math.sin(i))
    const packed = quantize('i8h_rowwise', values, [rows, cols])
    const path = join(folder, 'tables.bin')
    const size = 3 + 2 * packed.length
    const data = new Uint8Array(size)
    data.set(packed, 3)
    data.set(packed, 3 + packed.length)
    writeFileSync(path, data)
    const source = (i: number): TableSource => ({
      ...{ name: `t${i}`, dtype: 'i8h_rowwise', rows, cols, region: 0 },
      offset: 3 + i * packed.length,
    })
    const load = (placement: 'mapped' | 'copied', tables: number[], budget?: number) => {
      const b = builder()
      const out = b.embeddingBag('bags', tables.map(source), { pooling: 'sum', placement })
      b.output('out', out)
      const options = { ...(budget === undefined ? {} : { memoryBudget: budget }), verifyWeights: true }
      return { out, program: cpuDevice.loadSync(b.finish(), [{ path, bytes: size }], options) }
    }
    const bags = { indices: i32(rows - 1, 0, 777), offsets: i32(0, 1, 1, 3) }
    const pooled = (placement: 'mapped' | 'copied'): Float32Array => {
      const { out, program } = load(placement, [0, 1])
      program.runSync(bagStep(3, [bags, bags]))
      const result = program.read(out.index, 0, 3)
      const { tables, mapped } = program.memoryUsage()
      assert.is(mapped, size)
      if (placement === 'mapped') {
        assert.is(tables, 0)
        assert.ok(program.residentBytes() > 0 && program.residentBytes() <= 2 * packed.length)
      } else {
        assert.ok(tables! >= 2 * packed.length && tables! < 2 * packed.length + 2 ** 16)
        assert.is(program.residentBytes(), 0)
      }
      void program.close()
      return result
    }
    assert.equal(pooled('copied'), pooled('mapped'))
    // Tables that are the same rows share a copy.
    const { program } = load('copied', [1, 1, 1])
    assert.ok(program.memoryUsage().tables! < packed.length + 2 ** 16)
    void program.close()
    const short = thrownBy(() => load('copied', [0, 1], packed.length))
    assert.is(short.code, 'E_MEMORY')
    load('mapped', [0, 1], packed.length).program.close()
  }))

test('tables are copied also where prepared weights come from a file', () =>
  inFolder(async (folder) => {
    const [rows, cols, outputs] = [50, 16, 32]
    const path = join(folder, 'model')
    const values = Float32Array.from({ length: (rows + outputs) * cols }, (_, i) => Math.sin(i))
    writeFileSync(path, values)
    const pooled = (): Float32Array => {
      const b = builder()
      const table: TableSource = { name: 'table', dtype: 'f32', rows, cols, region: 0, offset: 0 }
      const weight = { name: 'layer', dtype: 'f32', rows: outputs, cols, region: 0, offset: rows * cols * 4 } as const
      const out = b.linear('out', b.embeddingBag('bags', [table], { pooling: 'sum', placement: 'copied' }), weight)
      b.output('out', out)
      const preparedCache = join(folder, 'cache')
      mkdirSync(preparedCache, { recursive: true })
      const program = cpuDevice.loadSync(b.finish(), [{ path, bytes: values.byteLength }], { preparedCache })
      program.runSync(bagStep(1, [{ indices: i32(3, 49), offsets: i32(0, 2) }]))
      const result = program.read(out.index, 0, 1)
      assert.ok(program.memoryUsage()['preparedMapped']! > 0)
      void program.close()
      return result
    }
    const first = pooled()
    assert.ok(first.some((value) => value !== 0))
    assert.equal(pooled(), first)
  }))

test('a step with bags has no tokens and no positions: ops that read them, and programs without bags, refuse', () => {
  const table = { name: 'a', dtype: 'f32', rows: 4, cols: 8, region: 0, offset: 0 } as const
  const data = new Uint8Array(4 * 8 * 4)
  const load = (build: (b: ProgramBuilder) => void, vocabulary: number) => {
    const b = builder(8, vocabulary)
    build(b)
    return cpuDevice.loadSync(b.finish(), [{ data }])
  }
  const embed = (b: ProgramBuilder) => b.output('token', b.embed('token', table))
  const pool = (b: ProgramBuilder) =>
    b.output('bags', b.embeddingBag('bags', [table], { pooling: 'sum', placement: 'mapped' }))
  const mixed = thrownBy(() => load((b) => [embed(b), pool(b)], 4))
  assert.is(mixed.code, 'E_PROGRAM')
  assert.match(mixed.message, /embed reads tokens/)
  const rotated = thrownBy(() =>
    load((b) => [b.output('rope', b.ropeTable('rope', { ...table, rows: 1 })), pool(b)], 4),
  )
  assert.match(rotated.message, /rope_table reads positions/)
  const plain = load(embed, 4)
  const bags = { indices: i32(3), offsets: i32(0, 1) }
  for (const inputs of [[], [bags]]) {
    assert.match(thrownBy(() => plain.runSync(bagStep(1, inputs))).message, /bags, of which the program reads none/)
  }
  void plain.close()
})

test('a table that does not fit its file, or holds a scale that is no number, is refused', () => {
  const table = { ...tableOf('a', 5, 0, 'i4_rowwise'), rows: 4 }
  const row = rowBytes('i4_rowwise', 5)
  const data = quantize('i4_rowwise', new Float32Array(20).fill(1), [4, 5])
  const load = (source: TableSource, bytes: Uint8Array) => {
    const b = builder()
    b.output('out', b.embeddingBag('bags', [source], { pooling: 'sum', placement: 'mapped' }))
    return cpuDevice.loadSync(b.finish(), [{ data: bytes }], { verifyWeights: true })
  }
  void load(table, data).close()
  void load({ ...table, rows: 2, stride: row * 2 }, data).close()
  const cases: [string, TableSource][] = [
    ['rows', { ...table, rows: 5 }],
    ['offset', { ...table, offset: 1 }],
    ['stride', { ...table, stride: row + 1 }],
    ['overlap', { ...table, stride: row - 1 }],
    ['columns', { ...table, cols: 5000 }],
  ]
  for (const [what, source] of cases) assert.is(thrownBy(() => load(source, data)).code, 'E_PROGRAM', what)
  data.fill(0xff, row - 4, row - 2)
  assert.is(thrownBy(() => load(table, data)).code, 'E_FORMAT')
})

test.run()
