/** Importance matrices of both forms, and files that only look like one. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { memoryFolder } from '../../lib/format/file.js'
import { type ImportanceMatrix, readImportanceFrom } from '../../lib/format/imatrix.js'
import { f32, join, u32 } from './gguf-bytes.js'
import { importanceGguf, importanceList } from './imatrix-bytes.js'
import { assertRefused } from './refusals.js'

const test = suite('importance matrices')

const read = (bytes: Uint8Array): Promise<ImportanceMatrix> =>
  readImportanceFrom(memoryFolder(new Map([['m', bytes]])), 'm')

test('the older form: sums of calls become means', async () => {
  const matrix = await read(
    importanceList({ 'a.weight': { calls: 4, values: [4, 8, 0] }, ü: { calls: 0, values: [3] } }),
  )
  assert.equal([...matrix.keys()], ['a.weight', 'ü'])
  assert.equal([...matrix.get('a.weight')!], [1, 2, 0])
  assert.equal([...matrix.get('ü')!], [3])
})

test('the newer form: sums and counts', async () => {
  const matrix = await read(importanceGguf())
  assert.equal([...matrix.get('a.weight')!], [1, 2])
  assert.equal([...matrix.get('b.weight')!], [0], 'never seen')
})

test('hostile files are refused with their reasons', async () => {
  const refuse = (what: string, bytes: Uint8Array, field?: string | RegExp) =>
    assertRefused(what, 'E_FORMAT', field, () => read(bytes))
  const good = importanceList({ a: { calls: 1, values: [1, 2] } })
  const entries = good.length - 12
  for (let length = 0; length < entries; length++) await refuse(`${length} bytes`, good.slice(0, length))
  assert.is((await read(good.slice(0, entries))).size, 1, 'the tail may be missing')
  await refuse('no entries', u32(0), 'entries')
  await refuse('more entries than bytes', join(u32(60000), new Uint8Array(100)), 'entries')
  await refuse('a negative count', join(u32(0xffffffff), new Uint8Array(100)), 'entries')
  await refuse('a huge name', join(u32(1), u32(0x7fffffff), new Uint8Array(100)), 'entry 0')
  await refuse('huge columns', join(u32(1), u32(1), Buffer.from('a'), u32(1), u32(1 << 24), new Uint8Array(100)), 'a')
  await refuse('two of a name', importanceTwice(), 'a')
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, -1]) {
    await refuse(`${value}`, importanceList({ a: { calls: 1, values: [1, value] } }), 'a[1]')
  }
  await refuse('another GGUF', importanceGguf('model'), 'general.type')
  const negative = importanceGguf()
  new DataView(negative.buffer).setFloat32(negative.length - 128, -2, true)
  await refuse('a negative sum', negative, 'a.weight.in_sum2[0]')
})

const importanceTwice = (): Uint8Array => {
  const one = join(u32(1), Buffer.from('a'), u32(1), u32(1), f32(1))
  return join(u32(2), one, one)
}

test.run()
