/** What a caller sees of a generation: pieces of text, stop texts, several readers, leaving early. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type GeneratedToken, GenerationStream } from '../../lib/generate/generation.js'
import { PenaltyWindow } from '../../lib/generate/penalties.js'
import { StopFinder } from '../../lib/generate/stops.js'
import { GeneratedText, textOfToken } from '../../lib/generate/text.js'
import type { Tokenizer } from '../../lib/text/tokenizer.js'
import { between, pick } from '../program/random-programs.js'
import { randomSource } from '../support.js'
import { withBytesModel, withStories } from './models.js'

const pieces = (list: readonly string[]) => ({
  push: (token: number) => list[token] ?? '',
  end: () => '',
  pending: false,
})

const collect = async (iterable: AsyncIterable<GeneratedToken>): Promise<GeneratedToken[]> => {
  const items: GeneratedToken[] = []
  for await (const item of iterable) items.push(item)
  return items
}

test('stop texts in pieces: nothing is given too early, nothing is kept too long', () => {
  const random = randomSource(2)
  const word = (most: number): string =>
    Array.from({ length: between(random, 1, most) }, () => pick(random, ['a', 'b', 'é'])).join('')
  for (let round = 0; round < 3000; round++) {
    const stops = Array.from({ length: between(random, 0, 3) }, () => word(5))
    const finder = new StopFinder(stops)
    let whole = ''
    let given = ''
    for (let i = 0; i < 12; i++) {
      const piece = random() < 0.2 ? '' : word(4)
      whole += piece
      const { text, stopped } = finder.push(piece)
      given += text
      const places = stops.map((stop) => whole.indexOf(stop)).filter((place) => place !== -1)
      assert.is(stopped, places.length > 0)
      if (stopped) {
        assert.is(given, whole.slice(0, Math.min(...places)))
        break
      }
      let start = 0
      while (start < whole.length && !stops.some((stop) => stop.startsWith(whole.slice(start)))) start++
      assert.is(given, whole.slice(0, start), JSON.stringify([stops, whole]))
      assert.is(given + finder.held, whole)
    }
    if (given.length + finder.held.length === whole.length) assert.is(given + finder.end(), whole)
  }
})

test('an item waits while its text may be the start of a stop text', async () => {
  const out = new GenerationStream(pieces(['ab', 'c', 'd', 'x']), ['bcd', 'dz'], 1)
  const items: GeneratedToken[] = []
  const reading = (async () => {
    for await (const item of out) items.push(item)
  })()
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
  out.push({ token: 0 })
  await turn()
  assert.equal(items, [])
  out.push({ token: 1 })
  await turn()
  assert.equal(items, [{ token: 0, text: 'a' }])
  out.push({ token: 3 })
  await turn()
  assert.equal(items.slice(1), [
    { token: 1, text: '' },
    { token: 3, text: 'bcx' },
  ])
  out.push({ token: 2 })
  out.finish('length')
  await reading
  assert.equal(items.at(-1), { token: 2, text: 'd' }, 'what waited belongs to the last')
  assert.is((await out.result()).text, 'abcxd')
})

test('every reader gets every token, whenever it comes', async () => {
  const out = new GenerationStream(pieces(['a', 'b', 'c']), [], 1)
  const early = [collect(out), collect(out)]
  out.push({ token: 0 })
  const late = collect(out)
  await new Promise((resolve) => setImmediate(resolve))
  out.push({ token: 1 })
  out.push({ token: 2 })
  out.finish('length')
  const expected = ['a', 'b', 'c'].map((text, token) => ({ token, text }))
  for (const items of await Promise.all([...early, late, collect(out)])) assert.equal(items, expected)
  const iterator = out[Symbol.asyncIterator]()
  const all = await Promise.all([1, 2, 3, 4, 5].map(() => iterator.next()))
  assert.equal(
    all.map(({ value }) => value?.text),
    ['a', 'b', 'c', undefined, undefined],
    'next() need not be awaited',
  )
})

test('the last reader that leaves ends the production, before the first token or between two', async () => {
  let cancelled = 0
  const make = (): GenerationStream => {
    const out = new GenerationStream(pieces(['a']), [], 1)
    out.onCancel = () => {
      cancelled++
      out.finish('aborted')
    }
    return out
  }
  const unread = make()[Symbol.asyncIterator]()
  assert.equal(await unread.return!(), { value: undefined, done: true })
  assert.is(cancelled, 1, 'before the first next()')
  const out = make()
  const iterator = out[Symbol.asyncIterator]()
  const pending = iterator.next()
  await iterator.return!()
  assert.is(cancelled, 2, 'while next() waits')
  assert.equal(await pending, { value: undefined, done: true })
  assert.equal(await iterator.next(), { value: undefined, done: true })
  assert.is((await out.result()).finishReason, 'aborted')
  const shared = make()
  const [one, two] = [shared[Symbol.asyncIterator](), shared[Symbol.asyncIterator]()]
  await one.return!()
  assert.is(cancelled, 2, 'another is reading')
  shared.push({ token: 0 })
  assert.equal(await two.next(), { value: { token: 0, text: 'a' }, done: false })
  await two.return!()
  await two.return!()
  assert.is(cancelled, 3)
  const ended = make()
  ended.finish('length')
  for await (const _ of ended) assert.unreachable()
  await ended[Symbol.asyncIterator]().return!()
  assert.is(cancelled, 3, 'there is nothing to end')
})

test('a failure reaches readers behind the tokens, and result()', async () => {
  const out = new GenerationStream(pieces(['a', 'b']), [], 1)
  out.push({ token: 0 })
  const failure = new Error('on purpose')
  out.fail(failure)
  out.fail(new Error('another'))
  out.finish('length')
  for (let reader = 0; reader < 2; reader++) {
    const items: GeneratedToken[] = []
    try {
      for await (const item of out) items.push(item)
      assert.unreachable()
    } catch (error) {
      assert.is(error, failure)
    }
    assert.equal(items, [{ token: 0, text: 'a' }])
  }
  await out.result().then(
    () => assert.unreachable(),
    (error) => assert.is(error, failure),
  )
})

test('characters whose bytes are spread over tokens, cut off or broken', () =>
  withBytesModel({}, {}, async ({ tokenizer }) => {
    const random = randomSource(6)
    const byte = (value: number): number => value + 3
    const texts = ['é', '漢字', '😀', 'a', '\u{10ffff}', '߿', '￿']
    for (let round = 0; round < 400; round++) {
      const bytes = Array.from({ length: between(random, 1, 5) }, () => [...Buffer.from(pick(random, texts))]).flat()
      if (random() < 0.4) bytes.splice(between(random, 0, bytes.length - 1), 1)
      if (random() < 0.4) bytes.splice(between(random, 0, bytes.length), 0, between(random, 128, 255))
      bytes.length = between(random, Math.min(1, bytes.length), bytes.length)
      const out = new GenerationStream(new GeneratedText(tokenizer, [1, byte(97)]), ['never'], 1)
      const reading = collect(out)
      for (const value of bytes) {
        out.push({ token: byte(value) })
        if (random() < 0.5) await new Promise((resolve) => setImmediate(resolve))
      }
      await new Promise((resolve) => setImmediate(resolve))
      out.finish('length')
      const items = await reading
      const expected = Buffer.from(bytes).toString()
      assert.is((await out.result()).text, expected, JSON.stringify(bytes))
      assert.is(items.map(({ text }) => text).join(''), expected, 'a reader gets it all')
      assert.is(items.length, bytes.length)
    }
  }))

test('a whole character is handed out at once', async () => {
  await withBytesModel({}, {}, async ({ tokenizer }) => {
    const out = new GenerationStream(new GeneratedText(tokenizer, [1]), [], 1)
    const iterator = out[Symbol.asyncIterator]()
    for (const value of Buffer.from('é漢')) out.push({ token: value + 3 })
    const items = await Promise.all([1, 2, 3, 4, 5].map(() => iterator.next()))
    assert.equal(
      items.map(({ value }) => value?.text),
      ['', 'é', '', '', '漢'],
    )
    await iterator.return!()
  })
})

test('the space in front of a text belongs to it only when something stands before', () =>
  withStories(async ({ tokenizer }) => {
    const [token] = tokenizer.encode('Once') as unknown as [number]
    const first = (prompt: number[], ...tokens: number[]): string => {
      const text = new GeneratedText(tokenizer, prompt)
      return tokens.map((one) => text.push(one)).join('')
    }
    const piece = textOfToken(tokenizer, token)
    assert.ok(piece.startsWith(' '))
    assert.is(first([1], token, token), piece.slice(1) + piece)
    assert.is(first([1], 1, token), piece.slice(1))
    assert.is(first([1, token], token), piece)
  }))

test('tokens beyond the tokenizer have no text', () => {
  const tokenizer = {
    vocabularySize: 2,
    tokenBytes: (token: number) => {
      if (token >= 2) throw new Error('no such token')
      return Buffer.from('ab'[token]!)
    },
    decode: (tokens: ArrayLike<number>) => Array.from(tokens, (token) => 'ab'[token]).join(''),
  } as unknown as Tokenizer
  const text = new GeneratedText(tokenizer, [5])
  assert.equal([text.push(0), text.push(9), text.push(1), text.end()], ['a', '', 'b', ''])
  assert.is(textOfToken(tokenizer, 9), '')
})

test('a model may have more tokens than its tokenizer, and draw them', () =>
  withBytesModel({ known: 260 }, {}, async (model) => {
    const options = { maxTokens: 10, logitBias: { 299: 50 }, logprobs: 2 }
    const { tokens, text, finishReason } = await model.generate([1, 2], options).result()
    assert.equal([tokens, text, finishReason], [new Array(10).fill(299), '', 'length'])
  }))

test('the window of penalties slides', () => {
  const random = randomSource(7)
  for (let round = 0; round < 200; round++) {
    const size = between(random, 0, 12)
    const tokens = Array.from({ length: between(random, 0, 30) }, () => between(random, 0, 5))
    const window = new PenaltyWindow(tokens, size)
    for (let i = 0; i < 30; i++) {
      const expected = new Map<number, number>()
      for (const token of size === 0 ? [] : tokens.slice(-size)) expected.set(token, (expected.get(token) ?? 0) + 1)
      assert.equal(new Map(window.counts()), expected)
      tokens.push(between(random, 0, 5))
      if (random() < 0.3) tokens.push(between(random, 0, 5))
    }
  }
})

test.run()
