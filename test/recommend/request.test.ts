/** What a request must be: every refusal names the argument, and where an index is wrong the table, bag, position and value. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { DroverError, type ErrorCode } from '../../lib/errors.js'
import { findIndexError, mergeParts } from '../../lib/recommend/merge.js'
import { checkRequest, type OwnBags, type RequestShape, type ScoreRequest } from '../../lib/recommend/request.js'
import { randomSource, thrownBy } from '../support.js'
import { randomRequest } from './folders.js'

const shape: RequestShape = {
  denseFeatures: 2,
  tables: [
    { name: 'user', rows: 10 },
    { name: 'history', rows: 1000 },
  ],
  policy: 'error',
  weighted: true,
}

const valid = (): ScoreRequest => ({
  dense: Float32Array.of(1, 2, 3, 4),
  sparse: [
    { indices: Int32Array.of(1, 9), offsets: Int32Array.of(0, 1, 2) },
    {
      indices: BigInt64Array.of(5n, 6n, 999n),
      offsets: BigInt64Array.of(0n, 3n, 3n),
      weights: Float32Array.of(1, 2, 3),
    },
  ],
})

/** The valid request with its second table changed. */
const withHistory = (changes: Record<string, unknown>): unknown => {
  const { dense, sparse } = valid()
  return { dense, sparse: [sparse[0], { ...sparse[1], ...changes }] }
}

/** What is said of a request, the same whether it would be copied or not. */
const refusal = (request: unknown, model = shape): DroverError => {
  const [copied, borrowed] = [false, true].map((borrow) => thrownBy(() => checkRequest(request, model, borrow)))
  assert.is(`${copied}`, `${borrowed}`)
  return copied as DroverError
}

test('a request is copied, whatever its integers', () => {
  const request = valid()
  const { batch, dense, bags } = checkRequest(request, shape, false)
  assert.is(batch, 2)
  assert.equal([...dense], [1, 2, 3, 4])
  assert.equal(
    bags.map(({ indices }) => [...indices]),
    [
      [1, 9],
      [5, 6, 999],
    ],
  )
  assert.equal([...(bags[1]?.offsets ?? [])], [0, 3, 3])
  assert.equal([...(bags[1]?.weights ?? [])], [1, 2, 3])
  assert.is(bags[0]?.weights, undefined)
  request.dense.fill(0)
  ;(request.sparse[0] as { indices: Int32Array }).indices.fill(0)
  assert.equal([...dense], [1, 2, 3, 4])
  assert.equal([...(bags[0]?.indices ?? [])], [1, 9])
})

test('a request whose caller waits is used as it is', () => {
  const request = valid()
  const { dense, bags } = checkRequest(request, shape, true)
  assert.is(dense, request.dense)
  assert.is(bags[0]?.indices, request.sparse[0]?.indices)
  assert.is(bags[1]?.weights, request.sparse[1]?.weights)
  assert.equal(checkRequest(request, shape, false), { batch: 2, dense, bags: bags.map((one) => ({ ...one })) })
})

test('views of shared and of larger memory are read once', () => {
  const memory = new SharedArrayBuffer(64)
  const indices = new Int32Array(memory, 8, 2)
  indices.set([3, 4])
  const request = {
    dense: new Float32Array(8).subarray(2, 6),
    sparse: [{ ...valid().sparse[0], indices }, valid().sparse[1]],
  }
  const { bags, dense } = checkRequest(request, shape, false)
  indices.fill(77)
  assert.equal([...(bags[0]?.indices ?? [])], [3, 4])
  assert.not.ok((bags[0] as OwnBags).indices.buffer instanceof SharedArrayBuffer)
  assert.is(dense.length, 4)
})

const refused: readonly [string, ErrorCode, string, unknown][] = [
  ['nothing', 'E_ARGUMENT', 'request.dense', undefined],
  ['null', 'E_ARGUMENT', 'request', null],
  ['a misspelled part', 'E_ARGUMENT', 'request.Sparse', { ...valid(), Sparse: [] }],
  ['dense as numbers', 'E_ARGUMENT', 'request.dense', { ...valid(), dense: [1, 2] }],
  ['dense of doubles', 'E_ARGUMENT', 'request.dense', { ...valid(), dense: new Float64Array(4) }],
  ['half a row', 'E_SHAPE', 'request.dense', { ...valid(), dense: new Float32Array(3) }],
  ['another number of rows', 'E_SHAPE', 'request.sparse[0].offsets', { ...valid(), dense: new Float32Array(6) }],
  ['no tables', 'E_ARGUMENT', 'request.sparse', { dense: new Float32Array(4) }],
  ['tables in an object', 'E_ARGUMENT', 'request.sparse', { ...valid(), sparse: { length: 2 } }],
  ['too few tables', 'E_SHAPE', 'request.sparse', { ...valid(), sparse: valid().sparse.slice(1) }],
  [
    'a table that is nothing',
    'E_ARGUMENT',
    'request.sparse[0].indices',
    { ...valid(), sparse: [undefined, valid().sparse[1]] },
  ],
  ['a table that is a list', 'E_ARGUMENT', 'request.sparse[0]', { ...valid(), sparse: [[1, 2], valid().sparse[1]] }],
  ['indices as numbers', 'E_ARGUMENT', 'request.sparse[1].indices', withHistory({ indices: [1, 2, 3] })],
  ['unsigned indices', 'E_ARGUMENT', 'request.sparse[1].indices', withHistory({ indices: new Uint32Array(3) })],
  ['offsets as floats', 'E_ARGUMENT', 'request.sparse[1].offsets', withHistory({ offsets: new Float32Array(3) })],
  ['offsets without an end', 'E_SHAPE', 'request.sparse[1].offsets', withHistory({ offsets: Int32Array.of(0, 3) })],
  [
    'a first offset above 0',
    'E_RANGE',
    'request.sparse[1].offsets[0]',
    withHistory({ offsets: Int32Array.of(1, 3, 3) }),
  ],
  ['a negative offset', 'E_RANGE', 'request.sparse[1].offsets[1]', withHistory({ offsets: Int32Array.of(0, -1, 3) })],
  ['decreasing offsets', 'E_RANGE', 'request.sparse[1].offsets[2]', withHistory({ offsets: Int32Array.of(0, 4, 3) })],
  ['a last offset below', 'E_RANGE', 'request.sparse[1].offsets[2]', withHistory({ offsets: Int32Array.of(0, 1, 2) })],
  ['a last offset above', 'E_RANGE', 'request.sparse[1].offsets[2]', withHistory({ offsets: Int32Array.of(0, 1, 4) })],
  [
    'a huge offset',
    'E_RANGE',
    'request.sparse[1].offsets[1]',
    withHistory({ offsets: BigInt64Array.of(0n, 1n << 40n, 3n) }),
  ],
  ['weights as numbers', 'E_ARGUMENT', 'request.sparse[1].weights', withHistory({ weights: [1, 2, 3] })],
  ['too few weights', 'E_SHAPE', 'request.sparse[1].weights', withHistory({ weights: new Float32Array(2) })],
  ['a misspelled array', 'E_ARGUMENT', 'request.sparse[1].weight', withHistory({ weight: new Float32Array(3) })],
]

for (const [what, code, field, request] of refused) {
  test(`refused: ${what}`, () => {
    const error = refusal(request)
    assert.is(error.code, code, error.message)
    assert.is(error.field, field, error.message)
  })
}

test('weights are refused where bags give their maximum', () => {
  const error = refusal(valid(), { ...shape, weighted: false })
  assert.is(error.code, 'E_ARGUMENT')
  assert.is(error.field, 'request.sparse[1].weights')
})

test('an index that 32 bits do not hold is named, or left to the policy', () => {
  const request = withHistory({ indices: BigInt64Array.of(1n, -(1n << 40n), 1n << 33n) })
  const error = refusal(request)
  assert.is(error.code, 'E_RANGE')
  assert.is(error.field, 'request.sparse[1].indices[1]')
  assert.is(error.found, -(1n << 40n))
  assert.match(error.message, /table history, bag 0, position 1/)
  const second = withHistory({ indices: BigInt64Array.of(1n, 2n, 1n << 33n), offsets: Int32Array.of(0, 1, 3) })
  assert.is(refusal(second).field, 'request.sparse[1].indices[2]')
  assert.match(refusal(second).message, /table history, bag 1, position 1/, 'counted within the bag')
  for (const policy of ['skip', 'clamp'] as const) {
    const { bags } = checkRequest(request, { ...shape, policy }, false)
    assert.equal([...(bags[1]?.indices ?? [])], [1, -(2 ** 31), 2 ** 31 - 1], policy)
  }
})

test('a 64-bit index at the edge of 32 bits is as it is', () => {
  const values = [2n ** 31n - 1n, -(2n ** 31n), 2n ** 31n]
  const { bags } = checkRequest(
    withHistory({ indices: BigInt64Array.from(values) }),
    { ...shape, policy: 'clamp' },
    false,
  )
  assert.equal([...(bags[1]?.indices ?? [])], [2 ** 31 - 1, -(2 ** 31), 2 ** 31 - 1])
})

test('getters and proxies are asked once', () => {
  let reads = 0
  const { sparse } = valid()
  const request = {
    get dense() {
      reads++
      return reads === 1 ? new Float32Array(4) : new Float32Array(1)
    },
    sparse,
  }
  assert.is(checkRequest(request, shape, false).batch, 2)
  assert.is(reads, 1)
  class Strange extends Int32Array {
    static get [Symbol.species](): Int32ArrayConstructor {
      throw new Error('asked for a class')
    }
  }
  const strange = { dense: new Float32Array(4), sparse: [{ ...sparse[0], indices: Strange.of(1, 2) }, sparse[1]] }
  assert.equal([...(checkRequest(strange, shape, false).bags[0]?.indices ?? [])], [1, 2])
})

test('long lists in the wrong place are told by kind and length', () => {
  const { dense, sparse } = valid()
  const numbers = new Array(1_000_000).fill(1)
  for (const [field, found, request] of [
    ['request', 'Float32Array of 4000000 bytes', new Float32Array(1_000_000)],
    ['request', 'an array of 1000000 entries', numbers],
    ['request.sparse[0]', 'Int32Array of 4000000 bytes', { dense, sparse: [new Int32Array(1_000_000), sparse[1]] }],
    ['request.sparse[0]', 'an array of 1000000 entries', { dense, sparse: [numbers, sparse[1]] }],
  ]) {
    const error = refusal(request)
    assert.is(error.field, field)
    assert.is(error.found, found)
  }
})

test('messages show the beginning of a value, and look at no more of it', () => {
  let looks = 0
  const item = {
    toJSON: () => {
      looks++
      return 'x'
    },
  }
  const rows = new Array(1000).fill(new Array(1000).fill(item))
  const { message } = new DroverError('E_ARGUMENT', 'no', { found: { rows } })
  assert.match(message, /found: \{"rows":\[\["x","x",.*…$/)
  assert.ok(message.length < 300)
  assert.ok(looks < 1000, `${looks}`)
  assert.match(
    new DroverError('E_ARGUMENT', 'no', { found: new Int32Array(9) }).message,
    /found: Int32Array of 36 bytes$/,
  )
  assert.match(new DroverError('E_ARGUMENT', 'no', { found: [1, 'a', null] }).message, /found: \[1,"a",null\]$/)
})

test('memory that a copy does not get', () => {
  const request = {
    get dense(): Float32Array {
      throw new RangeError('Array buffer allocation failed')
    },
    sparse: [],
  }
  assert.is(refusal(request).code, 'E_MEMORY')
})

test('values that refuse to be text are refused all the same', () => {
  const circle: unknown[] = [Symbol('x')]
  circle.push(circle)
  const { sparse } = valid()
  assert.is(refusal({ dense: new Float32Array(4), sparse: [circle, sparse[1]] }).code, 'E_ARGUMENT')
  const mute = {
    toJSON: () => {
      throw new Error('no')
    },
  }
  assert.is(refusal({ ...valid(), sparse: [Object.assign([], mute), sparse[1]] }).field, 'request.sparse[0]')
})

test('parts of requests merge into the rows that they are', () => {
  const random = randomSource(7)
  const model = { dense: 3, rows: [5, 100] }
  const like: RequestShape = {
    denseFeatures: 3,
    tables: model.rows.map((rows, t) => ({ name: `t${t}`, rows })),
    policy: 'error',
    weighted: true,
  }
  for (let round = 0; round < 50; round++) {
    const parts = Array.from({ length: 1 + Math.floor(random() * 4) }, () => {
      const batch = 1 + Math.floor(random() * 9)
      const request = checkRequest(randomRequest(random, model, batch, random() < 0.5), like, random() < 0.5)
      const from = Math.floor(random() * batch)
      return { request, from, rows: 1 + Math.floor(random() * (batch - from)) }
    })
    const merged = mergeParts(parts, 3)
    let row = 0
    for (const { request, from, rows } of parts) {
      assert.equal(
        [...merged.dense.subarray(row * 3, (row + rows) * 3)],
        [...request.dense.subarray(from * 3, (from + rows) * 3)],
      )
      for (const [t, bags] of merged.bags.entries()) {
        const own = request.bags[t] as OwnBags
        for (let i = 0; i < rows; i++) {
          const [start, end] = [bags.offsets[row + i] as number, bags.offsets[row + i + 1] as number]
          const [ownStart, ownEnd] = [own.offsets[from + i] as number, own.offsets[from + i + 1] as number]
          assert.equal([...bags.indices.subarray(start, end)], [...own.indices.subarray(ownStart, ownEnd)])
          const wanted = own.weights?.subarray(ownStart, ownEnd) ?? new Float32Array(end - start).fill(1)
          if (bags.weights !== undefined) assert.equal([...bags.weights.subarray(start, end)], [...wanted])
        }
      }
      row += rows
    }
    assert.is(merged.rows, row)
    for (const { offsets, indices } of merged.bags) assert.is(offsets.at(-1), indices.length)
  }
})

test('the first bad index of a part is found, not those of other parts', () => {
  const request = checkRequest(
    {
      dense: new Float32Array(8),
      sparse: [
        { indices: Int32Array.of(1, 2, 10, 4), offsets: Int32Array.of(0, 1, 2, 3, 4) },
        { indices: Int32Array.of(-1), offsets: Int32Array.of(0, 0, 0, 0, 1) },
      ],
    },
    shape,
    true,
  )
  assert.is(findIndexError({ request, from: 0, rows: 2 }, shape), undefined)
  assert.is(findIndexError({ request, from: 2, rows: 1 }, shape)?.field, 'request.sparse[0].indices[2]')
  assert.is(findIndexError({ request, from: 3, rows: 1 }, shape)?.field, 'request.sparse[1].indices[0]')
})

test.run()
