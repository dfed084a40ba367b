/** Llama 3's vocabulary in two forms that its publishers give elsewhere, made from the rank file alone. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type GgufEntry, writeGguf } from '../../lib/format/gguf-writer.js'
import { alphabetCharacter } from '../../lib/text/byte-alphabet.js'
import { loadTokenizer } from '../../lib/text/load.js'
import { fixture } from '../support.js'

const written = (binary: string): string => Array.from(binary, (c) => alphabetCharacter(c.charCodeAt(0))).join('')

/** All pairs of tokens that make this one, in the order in which converters list them. */
const splitsOf = (ranks: ReadonlyMap<string, number>, token: string): [string, string][] => {
  const pairs: { pair: [string, string]; left: number; right: number }[] = []
  for (let cut = 1; cut < token.length; cut++) {
    const pair: [string, string] = [token.slice(0, cut), token.slice(cut)]
    const [left, right] = [ranks.get(pair[0]), ranks.get(pair[1])]
    if (left !== undefined && right !== undefined) pairs.push({ pair, left, right })
  }
  return pairs.sort((a, b) => a.left - b.left || a.right - b.right).map(({ pair }) => pair)
}

/** Writes tokenizer.json and vocabulary.gguf into `folder`; returns their paths. */
export const writeTokenizers = async (rankFile: string, folder: string): Promise<string[]> => {
  const tokens = readFileSync(rankFile, 'latin1')
    .trim()
    .split('\n')
    .map((line) => Buffer.from(line.split(' ')[0] as string, 'base64').toString('latin1'))
  const ranks = new Map(tokens.map((token, rank) => [token, rank]))
  const merges = tokens.flatMap((token) =>
    splitsOf(ranks, token).map(([left, right]) => [written(left), written(right)] as const),
  )
  const special = [...(await loadTokenizer(rankFile)).specialTokens].sort((a, b) => a[1] - b[1])
  const vocabulary = tokens.map(written)

  // The small tokenizer.json has the form of Llama 3's: only vocabulary, merges and added tokens differ.
  const json = JSON.parse(readFileSync(fixture('tokenizer-bpe-small/tokenizer.json'), 'utf8')) as {
    model: { vocab: Record<string, number>; merges: unknown }
    added_tokens: unknown
    post_processor: unknown
  }
  json.model.vocab = Object.fromEntries(vocabulary.map((text, id) => [text, id]))
  json.model.merges = merges
  json.post_processor = null
  json.added_tokens = special.map(([content, id]) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }))
  const jsonPath = join(folder, 'tokenizer.json')
  writeFileSync(jsonPath, JSON.stringify(json))

  const all = [...vocabulary, ...special.map(([text]) => text)]
  const id = (name: string): GgufEntry => ({ type: 'u32', value: new Map(special).get(name) as number })
  const ggufPath = join(folder, 'vocabulary.gguf')
  const metadata: [string, GgufEntry][] = [
    ['general.architecture', { type: 'string', value: 'llama' }],
    ['tokenizer.ggml.model', { type: 'string', value: 'gpt2' }],
    ['tokenizer.ggml.pre', { type: 'string', value: 'llama-bpe' }],
    ['tokenizer.ggml.tokens', { type: 'string[]', value: all }],
    ['tokenizer.ggml.token_type', { type: 'i32[]', value: all.map((_, i) => (i < vocabulary.length ? 1 : 3)) }],
    ['tokenizer.ggml.merges', { type: 'string[]', value: merges.map((pair) => pair.join(' ')) }],
    ['tokenizer.ggml.bos_token_id', id('<|begin_of_text|>')],
    ['tokenizer.ggml.eos_token_id', id('<|end_of_text|>')],
  ]
  await writeGguf(ggufPath, new Map(metadata), [])
  return [jsonPath, ggufPath]
}
