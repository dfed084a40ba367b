/** Properties of every tokenizer, on random text: there and back, pieces as the published patterns cut them, streams. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { DroverError } from '../../lib/errors.js'
import { loadTokenizer } from '../../lib/text/load.js'
import { gpt2Scanner, llama3Scanner, type Scanner } from '../../lib/text/pretokenize.js'
import { TextStream } from '../../lib/text/stream.js'
import type { Tokenizer } from '../../lib/text/tokenizer.js'
import { fixture, randomSource } from '../support.js'

const random = randomSource(20261125)
const below = (limit: number): number => Math.floor(random() * limit)
const one = <T>(list: readonly T[]): T => list[below(list.length)] as T

/** Code points around everything that splitting and merging look at. */
const ranges: readonly (readonly [number, number])[] = [
  [0x20, 0x7e],
  [0x61, 0x7a],
  [0x30, 0x39],
  [0x00, 0x20],
  [0x80, 0xff],
  [0x0370, 0x052f],
  [0x0590, 0x06ff],
  [0x2000, 0x206f],
  [0x3040, 0x30ff],
  [0x4e00, 0x9fff],
  [0xac00, 0xd7a3],
  [0xfb00, 0xffff],
  [0x1f300, 0x1faff],
  [0x1d400, 0x1d7ff],
  [0x10000, 0x10ffff],
]
const special = [' ', '  ', '\n', '\r\n', '\t', "'s", "'LL", "'\u017f", '\u00a0', '\u0085', '\ufeff', '\u200b', '123']
special.push('<|eot_id|>', '<s>', '</s>', '<mask>', '<0x0A>', 'e\u0301', '\u{1f468}\u200d\u{1f469}', '\ufffd', '\0')

const character = (): string => {
  const [from, to] = one(ranges)
  const code = from + below(to - from + 1)
  // Lone surrogates are dealt with apart.
  return code >= 0xd800 && code <= 0xdfff ? 'x' : String.fromCodePoint(code)
}
const randomText = (): string => {
  const length = below(40)
  let text = ''
  for (let i = 0; i < length; i++) {
    const kind = random()
    if (kind < 0.25) text += one(special)
    else if (kind < 0.5) text += character().repeat(1 + below(6))
    else text += character()
  }
  return text
}

const byteLevel = {
  'Llama 3': 'tokenizer-llama3/tokenizer.model',
  'a small tokenizer.json': 'tokenizer-bpe-small/tokenizer.json',
  RoBERTa: 'tokenizer-roberta-bpe/tokenizer.json',
  'GPT-2, GGUF': 'tokenizer-gguf/ggml-vocab-gpt-2.gguf',
}
const sentencePiece = {
  'Llama 2': 'tokenizer-llama2-spm/tokenizer.model',
  'Llama 2, tokenizer.json': 'tokenizer-llama2-spm/tokenizer.json',
  'Llama 2, GGUF': 'tokenizer-gguf/ggml-vocab-llama-spm.gguf',
  'a small model': 'tokenizer-spm-bpe-small/tokenizer.model',
}

const bytesOf = (tokenizer: Tokenizer, ids: ArrayLike<number>): Uint8Array =>
  Buffer.concat(Array.from(ids, (id) => tokenizer.tokenBytes(id)))

for (const [name, path] of Object.entries({ ...byteLevel, ...sentencePiece })) {
  const test = suite<{ tokenizer: Tokenizer }>(name)
  test.before(async (context) => {
    context.tokenizer = await loadTokenizer(fixture(path))
  })

  test('text comes back from its tokens', ({ tokenizer }) => {
    const specials = new Set(tokenizer.specialTokens.values())
    for (let round = 0; round < 3000; round++) {
      // U+2581 is how SentencePiece writes a space: it cannot come back.
      const text = randomText().replaceAll('\u2581', '_')
      const ids = tokenizer.encode(text)
      assert.is(tokenizer.decode(ids), text, JSON.stringify(text))
      assert.ok(Buffer.from(tokenizer.decodeBytes(ids)).equals(Buffer.from(text)), JSON.stringify(text))
      assert.not.ok(
        ids.some((id) => specials.has(id)),
        JSON.stringify(text),
      )
    }
  })

  test('halves of surrogate pairs become U+FFFD', ({ tokenizer }) => {
    for (let round = 0; round < 300; round++) {
      const units = Array.from({ length: below(12) }, () => one([0xd83d, 0xde00, 0xdbff, 0xdc00, 0x61, 0x20, 0x4e2d]))
      const text = String.fromCharCode(...units)
      assert.is(tokenizer.decode(tokenizer.encode(text)), text.toWellFormed(), JSON.stringify(text))
    }
  })

  test('a stream says what decode says, token by token and for any tokens', ({ tokenizer }) => {
    for (let round = 0; round < 1000; round++) {
      const ids = Array.from({ length: below(30) }, () => below(tokenizer.vocabularySize))
      const stream = new TextStream(tokenizer)
      const pieces = ids.map((id) => stream.push(id))
      pieces.push(stream.end())
      assert.is(pieces.join(''), Buffer.from(bytesOf(tokenizer, ids)).toString(), String(ids))
      for (const piece of pieces) assert.ok(piece.isWellFormed(), String(ids))
    }
  })

  test('a stream never shows half of a character', ({ tokenizer }) => {
    for (let round = 0; round < 500; round++) {
      const text = randomText().replaceAll('\ufffd', '?').replaceAll('\u2581', '_')
      const stream = new TextStream(tokenizer)
      let shown = ''
      for (const id of tokenizer.encode(text)) {
        shown += stream.push(id)
        assert.ok(shown.isWellFormed() && !shown.includes('\ufffd'), JSON.stringify(text))
      }
      assert.is(stream.end(), '')
      // What a stream shows continues a text: SentencePiece's space in front stays.
      assert.ok(shown === text || shown === ` ${text}`, JSON.stringify(text))
    }
  })

  test('arguments of other types are refused', ({ tokenizer }) => {
    const refused = (error: unknown): boolean => error instanceof DroverError && error.code === 'E_ARGUMENT'
    for (const text of [undefined, null, 5, {}, ['a']]) assert.throws(() => tokenizer.encode(text as never), refused)
    for (const tokens of [undefined, null, 5, 'abc', {}]) {
      assert.throws(() => tokenizer.decode(tokens as never), refused)
      assert.throws(() => tokenizer.decodeBytes(tokens as never), refused)
    }
  })
  test.run()
}

const scanners = suite('pieces')

/** The published patterns. `\s` and `(?i:` mean other things in JavaScript, so both are spelled out. */
const patterns: Record<string, [Scanner, RegExp]> = {
  'Llama 3': [
    llama3Scanner,
    /'(?:[sS\u017f]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\p{White_Space}\p{L}\p{N}]+[\r\n]*|\p{White_Space}*[\r\n]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu,
  ],
  'GPT-2': [
    gpt2Scanner,
    /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu,
  ],
}
for (const [name, [scanner, pattern]] of Object.entries(patterns)) {
  scanners(`of ${name} are those of its pattern`, () => {
    for (let round = 0; round < 20_000; round++) {
      const text = randomText()
      const pieces: string[] = []
      for (let at = 0; at < text.length; ) {
        const end = scanner(text, at)
        assert.ok(end > at, JSON.stringify(text))
        pieces.push(text.slice(at, end))
        at = end
      }
      assert.equal(pieces, text.match(pattern) ?? [], JSON.stringify(text))
    }
  })
}
scanners.run()
