import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type BookName, evenSigns, gridOf } from '../../lib/format/decode/grids.js'
import { root } from '../support.js'

const text = readFileSync(join(root, 'native/kernels/iq_grids.inl'), 'utf8')

/** The words of a C array, split into bytes, the lowest first. */
const bytesOf = (name: string): { words: number; bytes: Uint8Array } => {
  const [, type, count, body] = new RegExp(`(uint\\d+)_t ${name}\\[(\\d+)\\] = \\{([^}]*)\\}`).exec(text) ?? []
  const words = (body ?? '').match(/0x[0-9a-f]+/g) ?? []
  assert.is(words.length, Number(count), name)
  const width = Number(type?.slice(4)) / 8
  const bytes = words.flatMap((word) =>
    Array.from({ length: width }, (_, i) => Number((BigInt(word) >> BigInt(8 * i)) & 255n)),
  )
  return { words: words.length, bytes: Uint8Array.from(bytes) }
}

const books: readonly [BookName, string, number][] = [
  ['iq2xxs', 'kIq2XxsGrid', 256],
  ['iq2xs', 'kIq2XsGrid', 512],
  ['iq2s', 'kIq2SGrid', 1024],
  ['iq3xxs', 'kIq3XxsGrid', 256],
  ['iq3s', 'kIq3SGrid', 512],
  ['iq1s', 'kIq1SGrid', 2048],
]

test('the code books of the native decoder are those of the reference', () => {
  for (const [book, name, vectors] of books) {
    const { words, bytes } = bytesOf(name)
    const grid = gridOf(book)
    assert.is(words, vectors, name)
    assert.equal(new Int8Array(bytes.buffer), grid, name)
  }
})

test('no book holds a vector twice', () => {
  for (const [book, , vectors] of books) {
    const grid = gridOf(book)
    const width = grid.length / vectors
    const seen = new Set(Array.from({ length: vectors }, (_, i) => grid.subarray(i * width, (i + 1) * width).join()))
    assert.is(seen.size, vectors, book)
  }
})

test('sign masks have an even number of minus signs', () => {
  assert.equal(bytesOf('kEvenSigns').bytes, evenSigns)
  for (const [i, signs] of evenSigns.entries()) {
    assert.is(signs & 127, i)
    assert.is(signs.toString(2).replaceAll('0', '').length % 2, 0)
  }
})

test.run()
