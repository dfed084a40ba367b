/** Sampling: distributions against transformers, draws against their probabilities and the reference. */
import { readFileSync } from 'node:fs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { distribution, draw, likeliest, logProbabilities, uniformOf } from '../../lib/device/reference-sampling.js'
import {
  type SampleOptions,
  sample,
  sampleAsync,
  sampleProbabilities,
  sampleProbabilitiesAsync,
} from '../../lib/kernels.js'
import { between } from '../program/random-programs.js'
import { assertClose, fixture, randomSource } from '../support.js'
import { openFixture } from './fixture.js'
import { randomLogits, randomParameters } from './sampling.js'

interface Case {
  name: string
  temperature?: number
  top_k?: number
  top_p?: number
  min_p?: number
  typical_p?: number
  repetition_penalty?: number
  frequency_penalty?: number
  presence_penalty?: number
  logit_bias?: Record<string, number>
  no_repeat_ngram_size?: number
  epsilon_cutoff?: number
  eta_cutoff?: number
  kept?: number[]
}

const rows = 7
const vocabulary = 1003

const cases = (JSON.parse(readFileSync(fixture('sampling/cases.json'), 'utf8')) as Case[]).filter(
  // Filters that drover does not offer.
  (c) => c.no_repeat_ngram_size === undefined && c.epsilon_cutoff === undefined && c.eta_cutoff === undefined,
)

const occurrences = (tokens: ArrayLike<number>): [number, number][] => {
  const counts = new Map<number, number>()
  for (const token of Array.from(tokens)) counts.set(token, (counts.get(token) ?? 0) + 1)
  return [...counts]
}

const optionsOf = (c: Case, history: ArrayLike<number>): SampleOptions => ({
  temperature: c.temperature ?? 1,
  topK: c.top_k ?? 0,
  topP: c.top_p ?? 1,
  minP: c.min_p ?? 0,
  typicalP: c.typical_p ?? 1,
  repetitionPenalty: c.repetition_penalty ?? 1,
  frequencyPenalty: c.frequency_penalty ?? 0,
  presencePenalty: c.presence_penalty ?? 0,
  bias: Object.entries(c.logit_bias ?? {}).map(([token, value]) => [Number(token), value] as const),
  history: occurrences(history),
})

const opened = async () => {
  const stored = await openFixture('sampling')
  const history = new Int32Array(stored.bytes('history').slice().buffer)
  const rowOf = <T extends Float32Array | Int32Array>(values: T, row: number): T =>
    values.subarray((row * values.length) / rows, ((row + 1) * values.length) / rows) as T
  const optionsPerRow = (c: Case): SampleOptions[] =>
    Array.from({ length: rows }, (_, row) => optionsOf(c, rowOf(history, row)))
  return { stored, logits: stored.floats('logits'), rowOf, optionsPerRow }
}

test('the fixture has the cases that are expected of it', () => {
  assert.is(cases.length, 30)
})

for (const c of cases) {
  test(`${c.name}: the distribution of every row`, async () => {
    const { stored, logits, rowOf, optionsPerRow } = await opened()
    const found = sampleProbabilities(logits, [rows, vocabulary], optionsPerRow(c))
    const expected = stored.floats(`${c.name}.probs`)
    assertClose(found, expected, 1e-6, c.name)
    for (let row = 0; row < rows; row++) {
      const [mine, theirs] = [rowOf(found, row), rowOf(expected, row)]
      // Probabilities too small for f32 are zero in both; those that were cut must be zero here.
      theirs.forEach((probability, token) => {
        if (probability === 0 && mine[token]! > 1e-30) assert.unreachable(`row ${row}: token ${token} is not cut`)
      })
      const survivors = mine.reduce((count, probability) => count + (probability > 0 ? 1 : 0), 0)
      const cut = theirs.reduce((count, probability) => count + (probability > 0 ? 1 : 0), 0)
      assert.is(survivors, cut, `row ${row}: survivors`)
      assertClose([mine.reduce((sum, probability) => sum + probability, 0)], [1], 1e-5, `row ${row}: sum`)
    }
  })
}

for (const name of ['plain', 'temperature_0.7', 'top_p_0.9', 'combo_b']) {
  test(`${name}: draws for given numbers`, async () => {
    const { stored, logits, optionsPerRow } = await opened()
    const options = optionsPerRow(cases.find((c) => c.name === name)!)
    const uniforms = stored.floats(`${name}.u`)
    const draws = new Int32Array(stored.bytes(`${name}.draws`).slice().buffer)
    const perRow = draws.length / rows
    for (let i = 0; i < perRow; i++) {
      const given = options.map((entry, row) => ({ ...entry, uniform: uniforms[row * perRow + i]! }))
      const found = sample(logits, [rows, vocabulary], given).map(({ token }) => token)
      assert.equal(
        found,
        options.map((_, row) => draws[row * perRow + i]),
        `draw ${i}`,
      )
    }
  })
}

test('log-probabilities are those of the raw logits, whatever is drawn', async () => {
  const { stored, logits, rowOf } = await opened()
  const expected = stored.floats('logprobs')
  const ids = new Int32Array(stored.bytes('top_logprobs.ids').slice().buffer)
  const values = stored.floats('top_logprobs.values')
  for (const options of [{ temperature: 0 }, { temperature: 3, topK: 50, seed: 9n }]) {
    const found = sample(logits, [rows, vocabulary], { ...options, logprobs: true, topLogprobs: 5 })
    found.forEach(({ token, logprob, topLogprobs }, row) => {
      assertClose([logprob!], [rowOf(expected, row)[token]!], 1e-4, `row ${row}`)
      assertClose(
        topLogprobs.map((top) => top.logprob),
        rowOf(values, row),
        1e-4,
        `row ${row}: best`,
      )
      topLogprobs.forEach((top, i) => {
        // Equal logits may come in either order.
        const other = rowOf(logits, row)[rowOf(ids, row)[i]!]!
        assert.is(rowOf(logits, row)[top.token], other, `row ${row}: best ${i}`)
      })
    })
  }
})

test('tokens tied at the border of a filter', async () => {
  const { stored } = await opened()
  const logits = stored.floats('tie.logits')
  for (const [name, options] of [
    ['top_k_3', { topK: 3 }],
    ['top_p_0.8', { topP: 0.8 }],
    ['min_p_0.2', { minP: 0.2 }],
  ] as const) {
    const found = sampleProbabilities(logits, [1, 8], options)
    const kept = stored.bytes(`tie.${name}.kept`)
    assert.equal(
      [...found].map((probability) => Number(probability > 0)),
      [...kept],
      name,
    )
  }
})

test('a flat distribution over 128,256 tokens is cut nowhere', () => {
  const size = 128256
  const flat = new Float32Array(size)
  assertClose(sampleProbabilities(flat, [1, size]), new Float32Array(size).fill(1 / size), 0, 'flat', 1e-6)
  // The last token is as likely as the first.
  assert.is(sample(flat, [1, size], { uniform: 1 - 2 ** -53 })[0]!.token, size - 1)
  const nearlyFlat = Float32Array.from(flat, (_, i) => (i % 1000) * 1e-6)
  const half = sampleProbabilities(nearlyFlat, [1, size], { topP: 0.5 })
  const kept = half.reduce((count, probability) => count + (probability > 0 ? 1 : 0), 0)
  assert.ok(Math.abs(kept - size / 2) < 200, `${kept} tokens are kept`)
  for (const topK of [1, 777, 128255]) {
    const ranked = Float32Array.from(flat, (_, i) => -((i * 7919) % size) / size)
    const found = sampleProbabilities(ranked, [1, size], { topK })
    assert.is(
      found.reduce((count, probability) => count + (probability > 0 ? 1 : 0), 0),
      topK,
    )
  }
})

test('the native sampler agrees with the reference on random logits and parameters', () => {
  const random = randomSource(5)
  let none = 0
  for (let round = 0; round < 1500; round++) {
    const size = round % 50 === 0 ? 5000 : between(random, 1, 300)
    const logits = randomLogits(random, size)
    const parameters = randomParameters(random, size)
    const what = `round ${round}: ${JSON.stringify({ ...parameters, seed: String(parameters.seed) })}`
    const expected = distribution(logits, parameters)
    if (expected === undefined) {
      none++
      assert.throws(() => sample(logits, [1, size], parameters), /E_RANGE/, what)
      assert.throws(() => sampleProbabilities(logits, [1, size], parameters), /E_RANGE/, what)
      continue
    }
    assertClose(sampleProbabilities(logits, [1, size], parameters), expected, 1e-12, what, 2e-7)
    const [found] = sample(logits, [1, size], parameters)
    assert.is(found!.token, draw(expected, parameters), what)
    const raw = logProbabilities(logits)
    const best = likeliest(raw, parameters.topLogprobs)
    assert.equal(
      found!.topLogprobs.map(({ token }) => token),
      best,
      what,
    )
    assertClose(
      found!.topLogprobs.map(({ logprob }) => logprob),
      best.map((token) => raw[token]!),
      1e-6,
      what,
      1e-6,
    )
    if (parameters.logprobs) assertClose([found!.logprob!], [raw[found!.token]!], 1e-6, what, 1e-6)
    else assert.is(found!.logprob, undefined)
  }
  assert.ok(none > 0, 'some rows leave nothing to draw')
})

test('greedy takes the likeliest, the lowest of equal ones, after penalties, bias and mask', () => {
  const logits = Float32Array.of(1, 3, 3, 2, -5)
  const one = (options: SampleOptions): number => sample(logits, [1, 5], { temperature: 0, ...options })[0]!.token
  assert.is(one({}), 1)
  assert.is(one({ history: [[1, 1]], presencePenalty: 0.5 }), 2)
  assert.is(one({ history: [[1, 1]], repetitionPenalty: 2 }), 2)
  assert.is(one({ bias: [[4, 9]] }), 4)
  assert.is(one({ mask: Uint32Array.of(0b11001) }), 3)
  assert.equal([...sampleProbabilities(logits, [1, 5], { temperature: 0 })], [0, 1, 0, 0, 0])
})

test('draws come as often as their probabilities say', () => {
  const size = 40
  const random = randomSource(11)
  const logits = Float32Array.from({ length: size }, () => 4 * random())
  const draws = 200_000
  const perCall = 10_000
  const many = new Float32Array(perCall * size)
  for (let row = 0; row < perCall; row++) many.set(logits, row * size)
  for (const options of [{}, { temperature: 0.6, topP: 0.9 }]) {
    const expected = distribution(logits, options)!
    const counts = new Float64Array(size)
    for (let from = 0; from < draws; from += perCall) {
      const list = Array.from({ length: perCall }, (_, i) => ({ ...options, seed: 77n, counter: from + i }))
      for (const { token } of sample(many, [perCall, size], list)) counts[token]!++
    }
    let chiSquared = 0
    let freedom = -1
    counts.forEach((count, token) => {
      const mean = expected[token]! * draws
      if (mean === 0) assert.is(count, 0, `token ${token} has no probability`)
      else {
        chiSquared += (count - mean) ** 2 / mean
        freedom++
      }
    })
    // The draws are fixed by the seed; six sigma would be chance once in a billion seeds.
    const sigmas = (chiSquared - freedom) / Math.sqrt(2 * freedom)
    assert.ok(Math.abs(sigmas) < 6, `${sigmas} sigmas over ${freedom} degrees of freedom`)
  }
})

test('neighbouring seeds and counters draw independently', () => {
  const size = 2
  const rowsOf = 20_000
  const flat = new Float32Array(size * rowsOf)
  const bits = (of: (i: number) => SampleOptions): number[] =>
    sample(
      flat,
      [rowsOf, size],
      Array.from({ length: rowsOf }, (_, i) => of(i)),
    ).map(({ token }) => token)
  for (const list of [
    bits((i) => ({ seed: BigInt(i) })),
    bits((i) => ({ seed: 4n, counter: i })),
    bits((i) => ({ seed: BigInt(i) << 32n })),
  ]) {
    const ones = list.reduce((sum, bit) => sum + bit, 0)
    const same = list.reduce((sum, bit, i) => sum + (i > 0 && bit === list[i - 1] ? 1 : 0), 0)
    const limit = 6 * Math.sqrt(rowsOf / 4)
    assert.ok(Math.abs(ones - rowsOf / 2) < limit, `${ones} ones`)
    assert.ok(Math.abs(same - rowsOf / 2) < limit, `${same} pairs`)
  }
})

/** Philox 4x32-10 by the paper's description, on BigInt-free 32-bit halves: no line is shared with the library. */
const philoxByHand = (counter: number[], key: number[]): number[] => {
  const multiply = (a: number, b: number): [high: number, low: number] => {
    const [ah, al, bh, bl] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff]
    const middle = ah * bl + Math.floor((al * bl) / 65536)
    const carry = al * bh + (middle % 65536)
    return [ah * bh + Math.floor(middle / 65536) + Math.floor(carry / 65536), Math.imul(a, b) >>> 0]
  }
  let [c0, c1, c2, c3] = counter as [number, number, number, number]
  let [k0, k1] = key as [number, number]
  for (let round = 0; round < 10; round++) {
    if (round > 0) {
      k0 = (k0 + 0x9e3779b9) >>> 0
      k1 = (k1 + 0xbb67ae85) >>> 0
    }
    const [high0, low0] = multiply(c0, 0xd2511f53)
    const [high1, low1] = multiply(c2, 0xcd9e8d57)
    ;[c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0]
  }
  return [c0, c1, c2, c3]
}

// Known answers that come with Random123.
const knownAnswers: [counter: number[], key: number[], answer: number[]][] = [
  [
    [0, 0, 0, 0],
    [0, 0],
    [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
  ],
  [
    [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    [0xffffffff, 0xffffffff],
    [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
  ],
  [
    [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
    [0xa4093822, 0x299f31d0],
    [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  ],
]

test('the generator is Philox 4x32-10', () => {
  for (const [counter, key, answer] of knownAnswers) assert.equal(philoxByHand(counter, key), answer)
  const random = randomSource(3)
  const size = 2 ** 20
  const flat = new Float32Array(size)
  let brackets = 0
  for (let i = 0; i < 40; i++) {
    const [low, high, counter] = i === 0 ? [0, 0, 0] : [0, 0, 0].map(() => Math.floor(random() * 2 ** 32))
    const seed = (BigInt(high!) << 32n) | BigInt(low!)
    const [first, second] = philoxByHand([counter!, 0, 0, 0], [low!, high!])
    const uniform = (Math.floor(first! / 32) * 2 ** 26 + Math.floor(second! / 64)) / 2 ** 53
    assert.is(uniformOf(seed, counter!), uniform, 'the reference')
    const drawn = sample(flat, [1, size], { seed, counter: counter! })[0]!.token
    assert.is(drawn, Math.floor(uniform * size), `seed ${seed}, counter ${counter}`)
    // The lower bits: a first token of weight w in front of the even ones moves the border just below and just above.
    const place = uniform * size
    for (const shift of [-1e-6, 1e-6]) {
      const wanted = drawn + shift - place // where the border is to lie, relative to the number
      const weight = (wanted + 1) / (1 - uniform)
      if (!(weight > 1e-3 && weight < 1)) continue
      const shaped = new Float32Array(size + 1)
      shaped[0] = Math.log(weight)
      const exact = Math.exp(shaped[0])
      const position = uniform * (exact + size)
      brackets++
      const expected = position < exact ? 0 : 1 + Math.floor(position - exact)
      assert.is(sample(shaped, [1, size + 1], { seed, counter: counter! })[0]!.token, expected, `shift ${shift}`)
    }
  }
  assert.ok(brackets > 30)
})

test('a row does not depend on the others, nor on how many there are', async () => {
  const random = randomSource(21)
  const size = 777
  const parameters = Array.from({ length: 33 }, () => randomParameters(random, size))
  const logits = Float32Array.from({ length: 33 * size }, () => 6 * random())
  const together = sample(logits, [33, size], parameters)
  assert.equal(await sampleAsync(logits, [33, size], parameters), together)
  parameters.forEach((entry, row) => {
    const alone = sample(logits.slice(row * size, (row + 1) * size), [1, size], entry)
    assert.equal(alone, [together[row]], `row ${row}`)
  })
  const wide = sampleProbabilities(logits, [33, size], parameters)
  assert.equal(await sampleProbabilitiesAsync(logits, [33, size], parameters), wide)
  assert.equal(
    sampleProbabilities(logits.slice(0, size), [1, size], parameters[0]!),
    wide.slice(0, size),
    'the first row alone',
  )
})

test('undefined stands for what is left out', () => {
  const logits = Float32Array.of(0, 1, 2)
  const options = { temperature: undefined, seed: undefined, bias: undefined, mask: undefined } as unknown as object
  assert.equal(sample(logits, [1, 3], options), sample(logits, [1, 3]))
})

test('rows that leave nothing to draw', () => {
  for (const logits of [
    Float32Array.of(0, Number.NaN, 1),
    Float32Array.of(0, Number.POSITIVE_INFINITY, 1),
    new Float32Array(3).fill(Number.NEGATIVE_INFINITY),
  ]) {
    assert.throws(() => sample(logits, [1, 3]), /E_RANGE.*row 0/)
    assert.throws(() => sampleProbabilities(logits, [1, 3]), /E_RANGE.*row 0/)
  }
  const two = Float32Array.of(0, 0, 0, 0, 0, 0)
  const masks = [{}, { mask: Uint32Array.of(0) }]
  assert.throws(() => sample(two, [2, 3], masks), /E_RANGE.*row 1/)
  assert.throws(() => sampleProbabilities(two, [2, 3], masks), /E_RANGE.*row 1/)
})

const wrong: [name: string, options: unknown, field: string][] = [
  ['a negative temperature', { temperature: -1 }, 'options.temperature'],
  ['NaN as temperature', { temperature: Number.NaN }, 'options.temperature'],
  ['half a top-k', { topK: 1.5 }, 'options.topK'],
  ['top-p above one', { topP: 1.1 }, 'options.topP'],
  ['min-p as text', { minP: '0.1' }, 'options.minP'],
  ['typical-p below zero', { typicalP: -0.1 }, 'options.typicalP'],
  ['a repetition penalty of zero', { repetitionPenalty: 0 }, 'options.repetitionPenalty'],
  ['an infinite presence penalty', { presencePenalty: Number.POSITIVE_INFINITY }, 'options.presencePenalty'],
  ['a frequency penalty that is null', { frequencyPenalty: null }, 'options.frequencyPenalty'],
  ['a seed that is no bigint', { seed: 1 }, 'options.seed'],
  ['a seed of 65 bits', { seed: 1n << 64n }, 'options.seed'],
  ['a negative counter', { counter: -1 }, 'options.counter'],
  ['logprobs as a number', { logprobs: 3 }, 'options.logprobs'],
  ['more candidates than tokens', { topLogprobs: 4 }, 'options.topLogprobs'],
  ['bias as an object', { bias: { 1: 2 } }, 'options.bias'],
  ['bias of a token that is not there', { bias: [[3, 1]] }, 'options.bias[0][0]'],
  ['an infinite bias', { bias: [[0, Number.NEGATIVE_INFINITY]] }, 'options.bias[0][1]'],
  ['a history without counts', { history: [1] }, 'options.history[0]'],
  ['a history that counts zero', { history: [[1, 0]] }, 'options.history[0][1]'],
  ['a mask of the wrong length', { mask: new Uint32Array(2) }, 'options.mask'],
  ['a mask of bytes', { mask: new Uint8Array(1) }, 'options.mask'],
  ['a uniform of one', { uniform: 1 }, 'options.uniform'],
  ['an unknown name', { topk: 3 }, 'options.topk'],
  ['a list that is too short', [], 'options'],
  ['a wrong entry of a list', [{ minP: 2 }], 'options[0].minP'],
]
for (const [name, options, field] of wrong) {
  test(`${name} is refused`, () => {
    for (const call of [sample, sampleProbabilities]) {
      try {
        call(Float32Array.of(0, 1, 2), [1, 3], options as SampleOptions)
      } catch (error) {
        const { code, field: found } = error as { code: string; field: string }
        assert.ok(['E_ARGUMENT', 'E_SHAPE'].includes(code), String(error))
        assert.is(found, field)
        continue
      }
      assert.unreachable(`${call.name} takes it`)
    }
  })
}

test('arrays are copied at the call', async () => {
  const logits = Float32Array.from({ length: 5000 }, (_, i) => Math.sin(i))
  const mask = new Uint32Array(157).fill(0xffffffff)
  const bias: [number, number][] = [[7, 3]]
  const options = { seed: 3n, mask, bias }
  const expected = sample(logits, [1, 5000], options)
  const pending = sampleAsync(logits, [1, 5000], options)
  logits.fill(0)
  mask.fill(0)
  bias[0]![0] = 9
  assert.equal(await pending, expected)
})

test.run()
