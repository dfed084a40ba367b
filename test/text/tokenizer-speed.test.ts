/** How long encoding takes: for ordinary text at least some MB/s, and for text made to be slow no more than its length. */
import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { loadTokenizer } from '../../lib/text/load.js'
import type { Tokenizer } from '../../lib/text/tokenizer.js'
import { fixture, randomSource } from '../support.js'

/** Processor time, all threads: other processes of the machine do not count. */
const processorSeconds = (body: () => void): number => {
  const before = process.cpuUsage()
  body()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1e6
}

const forms = {
  'Llama 3': 'tokenizer-llama3/tokenizer.model',
  RoBERTa: 'tokenizer-roberta-bpe/tokenizer.json',
  'Llama 2': 'tokenizer-llama2-spm/tokenizer.model',
  'Llama 2, tokenizer.json': 'tokenizer-llama2-spm/tokenizer.json',
}

/** Megabytes a second that every form must reach: a tenth of what an idle machine of 2026 does. */
const floor = 1.5

const random = randomSource(3)
const letters = (length: number): string =>
  String.fromCharCode(...Array.from({ length }, () => 97 + Math.floor(random() * 26)))
const noise = Array.from({ length: 64 }, () => letters(1 << 12)).join('')

const patterns: Record<string, string> = {
  'one letter': 'a',
  spaces: ' ',
  'line ends': '\n',
  'spaces and line ends': ' \n',
  'Chinese without spaces': '漢字仮名交文中国語',
  emoji: '🦙',
  digits: '1',
  marks: '!',
  apostrophes: "'",
  'a word over and over': 'abcdefghij',
  'noise without spaces': noise,
  'special tokens': '<|eot_id|></s><mask>',
  'spaces around special tokens': `${' '.repeat(500)}<mask>${' '.repeat(500)}</s>`,
  'what may start a special token': '<|eot_id|<mask</',
  'halves of pairs': '\ud83d',
}

for (const [name, path] of Object.entries(forms)) {
  const speed = suite<{ tokenizer: Tokenizer }>(name)
  speed.before(async (context) => {
    context.tokenizer = await loadTokenizer(fixture(path))
  })

  speed(`encodes ordinary text at ${floor} MB/s`, ({ tokenizer }) => {
    const text = readFileSync(fixture('tokenizer-llama3/LICENSE'), 'utf8').repeat(40)
    let best = 0
    for (let attempt = 0; attempt < 20 && best < floor; attempt++) {
      const seconds = processorSeconds(() => tokenizer.encode(text))
      best = Math.max(best, Buffer.byteLength(text) / 1e6 / seconds)
    }
    assert.ok(best >= floor, `${best.toFixed(2)} MB/s`)
  })

  // The two files of Llama 2 differ in how they look up a merge, not in how often.
  for (const [what, pattern] of Object.entries(name.endsWith('.json') ? {} : patterns)) {
    speed(`takes no more than its length for ${what}`, ({ tokenizer }) => {
      // A quarter of a million squared takes minutes already: what is quadratic fails before the megabyte.
      for (const size of [1 << 18, 1 << 20]) {
        const text = pattern.repeat(Math.ceil(size / pattern.length)).slice(0, size)
        const seconds = processorSeconds(() => tokenizer.encode(text, { parseSpecial: what.includes('special') }))
        assert.ok(seconds < 12, `${size} characters took ${seconds.toFixed(1)} s`)
      }
    })
  }
  speed.run()
}
