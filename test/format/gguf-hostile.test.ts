/** GGUF files made to hurt: each must be refused with an error that says where and why, at once and in little memory. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join as joinPath } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { ErrorCode } from '../../lib/errors.js'
import { fromBytes, memoryFolder, openFile } from '../../lib/format/file.js'
import { readGguf, readGgufFrom } from '../../lib/format/gguf.js'
import { ggmlTypes, refusedGgmlTypes } from '../../lib/format/gguf-types.js'
import {
  arrayValue,
  f32,
  ggufBytes,
  join,
  type RawGguf,
  string,
  stringValue,
  typeId,
  u8,
  u32,
  u32Value,
  u64,
} from './gguf-bytes.js'
import { assertRefused } from './refusals.js'

const test = suite('hostile GGUF files')
const folder = mkdtempSync(joinPath(tmpdir(), 'drover-hostile-gguf-'))
test.after(() => rmSync(folder, { recursive: true }))

const refuse = (what: string, code: ErrorCode, field: string | RegExp | undefined, bytes: Uint8Array) =>
  assertRefused(what, code, field, () => readGgufFrom(memoryFolder(new Map([['m.gguf', bytes]])), 'm.gguf'))

const notUtf8 = Uint8Array.of(0x74, 0xff, 0xfe)
const huge = [2n ** 63n, 2n ** 64n - 1n, 2n ** 53n, 2n ** 32n]
const rich: RawGguf = {
  entries: [
    ['general.architecture', stringValue('llama')],
    ['numbers', arrayValue(typeId('f32'), 3, join(f32(1), f32(2), f32(3)))],
    ['tokens', arrayValue(typeId('string'), 3, join(string('a'), string('b'), string('c')))],
    ['nested', arrayValue(typeId('array'), 1, join(u32(typeId('u8')), u64(2), Uint8Array.of(1, 2)))],
  ],
  tensors: [
    { name: 'a', dimensions: [8, 2] },
    { name: 'b', offset: 64 },
  ],
  data: 96,
}

test('a file cut anywhere', async () => {
  const bytes = ggufBytes(rich)
  for (let length = 0; length < bytes.length; length++) {
    await refuse(`${length} of ${bytes.length} bytes`, 'E_FORMAT', undefined, bytes.slice(0, length))
  }
})

test('files of other formats', async () => {
  await refuse('empty', 'E_FORMAT', 'magic', new Uint8Array(0))
  await refuse('zeros', 'E_FORMAT', 'magic', new Uint8Array(1000))
  for (const magic of ['ggml', 'NOPE', 'gguf', 'PK\x03\x04']) {
    await refuse(magic, 'E_FORMAT', 'magic', ggufBytes({ magic }))
  }
  for (const magic of ['lmgg', 'fmgg', 'tjgg', 'algg']) {
    const error = await refuse(magic, 'E_UNSUPPORTED', 'magic', ggufBytes({ magic }))
    assert.is(error.found, [...magic].reverse().join(''))
  }
})

test('other versions', async () => {
  for (const version of [0, 1, 4, 100, 0x10003]) {
    await refuse(`version ${version}`, 'E_UNSUPPORTED', 'version', ggufBytes({ version }))
  }
  const error = await refuse('big endian', 'E_UNSUPPORTED', 'version', ggufBytes({ version: 3 << 24 }))
  assert.is(error.found, 'big endian')
})

test('counts that no file could hold', async () => {
  for (const count of [...huge, 1000]) {
    await refuse(`${count} tensors`, 'E_FORMAT', 'tensor count', ggufBytes({ tensorCount: count }))
    await refuse(`${count} entries`, 'E_FORMAT', 'metadata count', ggufBytes({ entryCount: count }))
    const array = (type: number) => ggufBytes({ entries: [['k', arrayValue(type, count, u64(0))]] })
    for (const type of ['u8', 'u64', 'bool', 'string', 'array'] as const) {
      await refuse(`${count} of ${type}`, 'E_FORMAT', /^k/, array(typeId(type)))
    }
    const text = join(u32(typeId('string')), u64(count))
    await refuse(`text of ${count}`, 'E_FORMAT', 'k', ggufBytes({ entries: [['k', text]] }))
    const inner = arrayValue(typeId('string'), 1, u64(count))
    await refuse(`array with a text of ${count}`, 'E_FORMAT', 'k[0]', ggufBytes({ entries: [['k', inner]] }))
  }
  const key = join(Buffer.from('GGUF'), u32(3), u64(0), u64(1), u64(2n ** 63n), new Uint8Array(100))
  await refuse('a key of 2^63 bytes', 'E_FORMAT', 'metadata key 0', key)
  const name = join(Buffer.from('GGUF'), u32(3), u64(1), u64(0), u64(2n ** 63n), new Uint8Array(100))
  await refuse('a name of 2^63 bytes', 'E_FORMAT', 'tensor name 0', name)
  await refuse('a long key', 'E_FORMAT', 'metadata key 0', ggufBytes({ entries: [['k'.repeat(65536), u32Value(1)]] }))
})

test('names that occur twice or are not UTF-8', async () => {
  const twice = ['k', u32Value(1)] as const
  await refuse('key', 'E_FORMAT', 'k', ggufBytes({ entries: [twice, twice] }))
  const tensors = [{ name: 't' }, { name: 't', offset: 32 }]
  await refuse('tensor', 'E_FORMAT', 't', ggufBytes({ tensors, data: 64 }))
  await refuse('bad key', 'E_FORMAT', 'metadata key 0', ggufBytes({ entries: [[notUtf8, u32Value(1)]] }))
  await refuse('bad name', 'E_FORMAT', 'tensor name 0', ggufBytes({ tensors: [{ name: notUtf8 }] }))
  const value = join(u32(typeId('string')), string(notUtf8))
  await refuse('bad value', 'E_FORMAT', 'k', ggufBytes({ entries: [['k', value]] }))
  const array = arrayValue(typeId('string'), 2, join(string('a'), string(notUtf8)))
  await refuse('bad element', 'E_FORMAT', 'k[1]', ggufBytes({ entries: [['k', array]] }))
  // The character that is cut off would be whole with the first byte of the next length.
  const cut = arrayValue(typeId('string'), 2, join(string(Uint8Array.of(0xc3)), string('x'.repeat(0x80))))
  await refuse('cut element', 'E_FORMAT', 'k[0]', ggufBytes({ entries: [['k', cut]] }))
  const long = new Uint8Array(700_000).fill(0x61)
  long[650_000] = 0xff
  const text = join(u32(typeId('string')), string(long))
  await refuse('bad long value', 'E_FORMAT', 'k', ggufBytes({ entries: [['k', text]] }))
  const overlong = [0xc0, 0x80, 0xed, 0xa0, 0x80, 0xf4, 0x90, 0x80, 0x80, 0xe2, 0x82]
  for (const [from, to] of [
    [0, 2],
    [2, 5],
    [5, 9],
    [9, 11],
  ]) {
    const key = Uint8Array.from(overlong.slice(from, to))
    await refuse(`bad key ${key}`, 'E_FORMAT', 'metadata key 0', ggufBytes({ entries: [[key, u32Value(1)]] }))
  }
})

test('values of types that do not exist', async () => {
  for (const type of [13, 255, 0xffffffff]) {
    await refuse(`scalar ${type}`, 'E_FORMAT', 'k', ggufBytes({ entries: [['k', join(u32(type), u64(0))]] }))
    await refuse(`array of ${type}`, 'E_FORMAT', 'k', ggufBytes({ entries: [['k', arrayValue(type, 1, u64(0))]] }))
  }
  await refuse('bool 2', 'E_FORMAT', 'k', ggufBytes({ entries: [['k', join(u32(typeId('bool')), u8(2))]] }))
  const bools = arrayValue(typeId('bool'), 2, Uint8Array.of(1, 7))
  await refuse('bool 7', 'E_FORMAT', 'k[1]', ggufBytes({ entries: [['k', bools]] }))
})

test('arrays nested deep and wide', async () => {
  let deep = arrayValue(typeId('u8'), 1, u8(1)).subarray(4)
  for (let depth = 0; depth < 1000; depth++) deep = join(u32(typeId('array')), u64(1), deep)
  await refuse('deep', 'E_FORMAT', /^k/, ggufBytes({ entries: [['k', join(u32(typeId('array')), deep)]] }))
  const empty = join(u32(typeId('u8')), u64(0))
  const wide = arrayValue(typeId('array'), 70_000, new Uint8Array(empty.length * 70_000))
  await refuse('wide', 'E_FORMAT', 'k', ggufBytes({ entries: [['k', wide]] }))
})

test('alignments that are no small power of two', async () => {
  for (const value of [0, 3, 48, 2 ** 31, 0xffffffff]) {
    const entries = [['general.alignment', u32Value(value)]] as const
    await refuse(`alignment ${value}`, 'E_FORMAT', 'general.alignment', ggufBytes({ entries }))
  }
  for (const value of [
    stringValue('32'),
    join(u32(typeId('u64')), u64(32)),
    join(u32(typeId('f32')), f32(32)),
    arrayValue(typeId('u32'), 1, u32(32)),
  ]) {
    await refuse(
      'alignment type',
      'E_FORMAT',
      'general.alignment',
      ggufBytes({ entries: [['general.alignment', value]] }),
    )
  }
})

test('tensors that are too large, misplaced or misaligned', async () => {
  const one = (tensor: Partial<NonNullable<RawGguf['tensors']>[number]>, data = 32): Uint8Array =>
    ggufBytes({ tensors: [{ name: 't', ...tensor }], data })
  for (const size of huge) {
    await refuse(`dimension ${size}`, 'E_FORMAT', 't', one({ dimensions: [size] }))
    await refuse(`offset ${size}`, 'E_FORMAT', 't', one({ offset: size }))
  }
  await refuse('a product beyond 2^64', 'E_FORMAT', 't', one({ dimensions: [2 ** 40, 2 ** 40, 2 ** 40, 2 ** 40] }))
  await refuse('a product of 2^64', 'E_FORMAT', 't', one({ dimensions: [2 ** 32, 2 ** 32] }))
  await refuse('bytes of 2^53', 'E_FORMAT', 't', one({ dimensions: [2 ** 51] }))
  await refuse('dimension 0', 'E_FORMAT', 't', one({ dimensions: [0] }))
  await refuse('dimension 0 beside a huge one', 'E_FORMAT', 't', one({ dimensions: [0, 2n ** 63n] }))
  await refuse('five dimensions', 'E_FORMAT', 't', one({ dimensions: [1, 1, 1, 1, 1] }))
  await refuse('2^32 dimensions', 'E_FORMAT', 't', one({ rank: 0xffffffff }))
  await refuse('one byte too many', 'E_FORMAT', 't', one({ dimensions: [8] }, 31))
  await refuse('at the end of the file', 'E_FORMAT', 't', one({ offset: 32 }))
  await refuse('misaligned', 'E_FORMAT', 't', one({ dimensions: [1], offset: 4 }))
  for (const [type, dtype] of ggmlTypes) {
    if (type >= 2 && ![24, 25, 26, 27, 28, 30].includes(type)) {
      await refuse(`half a block of ${dtype}`, 'E_FORMAT', 't', one({ dimensions: [16, 16], type }, 4096))
    }
  }
})

test('tensors that overlap', async () => {
  const overlapping = [
    [{ name: 'a' }, { name: 'b' }],
    [
      { name: 'a', dimensions: [9] },
      { name: 'b', offset: 32 },
    ],
    [
      { name: 'b', offset: 32 },
      { name: 'a', dimensions: [32] },
    ],
    [
      { name: 'a', dimensions: [32] },
      { name: 'c', offset: 96 },
      { name: 'b', offset: 64, dimensions: [1] },
    ],
  ]
  for (const tensors of overlapping) {
    await refuse(JSON.stringify(tensors), 'E_FORMAT', /^[abc]$/, ggufBytes({ tensors, data: 256 }))
  }
})

test('tensor types that do not exist, and those that are not read', async () => {
  for (const type of [42, 99, 0xffffffff]) {
    await refuse(`type ${type}`, 'E_FORMAT', 't', ggufBytes({ tensors: [{ name: 't', type }] }))
  }
  for (const [type, name] of refusedGgmlTypes) {
    const error = await refuse(name, 'E_UNSUPPORTED', 't', ggufBytes({ tensors: [{ name: 't', type }] }))
    assert.is(error.found, name)
  }
})

const part = (number: number, count: number): string =>
  `m-${String(number).padStart(5, '0')}-of-${String(count).padStart(5, '0')}.gguf`

test('split models whose parts are missing or contradict each other', async () => {
  const make = (number: number, count: number, tensor: string, total?: number): Uint8Array =>
    ggufBytes({
      entries: [
        ['split.no', u32Value(number)],
        ['split.count', u32Value(count)],
        ...(total === undefined ? [] : [['split.tensors.count', u32Value(total)] as const]),
      ],
      tensors: [{ name: tensor }],
    })
  const read = (
    what: string,
    code: ErrorCode,
    field: string | RegExp,
    second: Uint8Array | undefined,
    name = part(1, 2),
  ) => {
    const files = new Map([[name, make(0, 2, 'a')]])
    if (second !== undefined) files.set(part(2, 2), second)
    return assertRefused(what, code, field, () => readGgufFrom(memoryFolder(files), name))
  }
  const missing = await read('missing', 'E_IO', 'split.count', undefined)
  assert.match(missing.file ?? '', part(2, 2))
  await read('the first one twice', 'E_FORMAT', 'split.no', make(0, 2, 'b'))
  await read('of another split', 'E_FORMAT', 'split.count', make(1, 3, 'b'))
  await read('not split', 'E_FORMAT', 'split.count', ggufBytes())
  await read('same tensor', 'E_FORMAT', 'a', make(1, 2, 'a'))
  await read('another total', 'E_FORMAT', 'split.tensors.count', make(1, 2, 'b', 2))
  await read('wrong name', 'E_FORMAT', 'split.count', make(1, 2, 'b'), 'other.gguf')
  await read('name of another count', 'E_FORMAT', 'split.count', make(1, 2, 'b'), part(1, 3))
  await read('broken', 'E_FORMAT', 'magic', new Uint8Array(64))
  const wrongTotal = new Map([1, 2].map((i) => [part(i, 2), make(i - 1, 2, `t${i}`, 3)]))
  await assertRefused('wrong total', 'E_FORMAT', 'split.tensors.count', () =>
    readGgufFrom(memoryFolder(wrongTotal), part(1, 2)),
  )
  const alone = new Map([[part(1, 2), ggufBytes()]])
  await assertRefused('part without metadata', 'E_FORMAT', 'split.count', () =>
    readGgufFrom(memoryFolder(alone), part(1, 2)),
  )
  for (const value of [
    stringValue('2'),
    join(u32(typeId('i32')), u32(0xffffffff)),
    join(u32(typeId('f32')), f32(1.5)),
  ]) {
    await refuse(
      'split.count of another type',
      'E_FORMAT',
      'split.count',
      ggufBytes({ entries: [['split.count', value]] }),
    )
  }
})

test('a split of 99,999 parts is given up at the first that is missing', async () => {
  let opened = 0
  const bytes = ggufBytes({
    entries: [
      ['split.no', u32Value(0)],
      ['split.count', u32Value(99_999)],
    ],
  })
  const inner = memoryFolder(new Map([[part(1, 99_999), bytes]]))
  const open = (name: string) => {
    opened++
    return inner.open(name)
  }
  await assertRefused('missing', 'E_IO', 'split.count', () => readGgufFrom({ ...inner, open }, part(1, 99_999)))
  assert.ok(opened <= 3)
})

test('counts that would fit into a huge sparse file are bounded by the header limit', async () => {
  // A file of 4 TB that is nearly all zeros, as a sparse file can be: every count below fits into it.
  const size = 2 ** 42
  const claims: [string, Uint8Array][] = [
    ['u8', arrayValue(typeId('u8'), 2 ** 41, u8(0))],
    ['u64', arrayValue(typeId('u64'), 2 ** 27, u8(0))],
    ['string', arrayValue(typeId('string'), 2 ** 27, u8(0))],
    ['array', arrayValue(typeId('array'), 2 ** 27, u8(0))],
    ['text', join(u32(typeId('string')), u64(2 ** 35))],
  ]
  const before = process.memoryUsage()
  for (const [what, value] of claims) {
    const start = ggufBytes({ entries: [['k', value]], tensors: [] })
    const inner = fromBytes('sparse', start)
    const source = {
      ...inner,
      size,
      read: async (offset: number, length: number) => {
        assert.ok(length <= 2 ** 20, 'reads are small')
        const bytes = new Uint8Array(length)
        bytes.set(start.subarray(offset, offset + length))
        return bytes
      },
    }
    const sparse = { path: 'sparse', open: async () => source, list: async () => [] }
    await assertRefused(what, 'E_FORMAT', 'k', () => readGgufFrom(sparse, 'm.gguf'))
  }
  const after = process.memoryUsage()
  assert.ok(after.arrayBuffers - before.arrayBuffers < 2 ** 26, 'nothing is allocated for what a header claims')
})

test('paths that are no regular files', async () => {
  mkdirSync(joinPath(folder, 'folder.gguf'))
  execFileSync('mkfifo', [joinPath(folder, 'pipe.gguf')])
  symlinkSync('loop.gguf', joinPath(folder, 'loop.gguf'))
  for (const name of ['none.gguf', 'folder.gguf', 'pipe.gguf', 'loop.gguf']) {
    await assertRefused(name, 'E_IO', undefined, () => readGguf(joinPath(folder, name)))
  }
  await assertRefused('/dev/zero', 'E_IO', undefined, () => readGguf('/dev/zero'))
})

test('a file that shrinks while it is read', async () => {
  const path = joinPath(folder, 'shrinks.gguf')
  writeFileSync(path, ggufBytes({ entries: [['k', stringValue('x'.repeat(3_000_000))]] }))
  const shrinking = {
    ...memoryFolder(new Map()),
    open: async () => {
      const source = await openFile(path)
      truncateSync(path, 1_000_000)
      return source
    },
  }
  await assertRefused('shrinks', 'E_IO', undefined, () => readGgufFrom(shrinking, 'shrinks.gguf'))
})

test.run()
