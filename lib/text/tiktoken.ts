/**
 * Llama 3's `tokenizer.model`: a line per token, its bytes in base64 and its rank. Behind the ranks follow 256 special
 * tokens, whose names Meta's code lists and the file does not (llama-models, models/llama3/tokenizer.py).
 */
import { DroverError } from '../errors.js'
import { rankMerges } from './bpe.js'
import { BpeTokenizer, tokensOf } from './bpe-tokenizer.js'
import { llama3Scanner } from './pretokenize.js'
import type { Tokenizer } from './tokenizer.js'
import { type AddedToken, AddedTokens } from './vocabulary.js'

const specialCount = 256
const named: readonly [number, string][] = [
  [0, '<|begin_of_text|>'],
  [1, '<|end_of_text|>'],
  [4, '<|finetune_right_pad_id|>'],
  [5, '<|step_id|>'],
  [6, '<|start_header_id|>'],
  [7, '<|end_header_id|>'],
  [8, '<|eom_id|>'],
  [9, '<|eot_id|>'],
  [10, '<|python_tag|>'],
  [11, '<|image|>'],
]

const specialTokens = (first: number, given: ReadonlyMap<number, string> | undefined): AddedToken[] => {
  if (given !== undefined) return [...given].map(([id, text]) => ({ id, text, special: true }))
  const names = new Map(named)
  let reserved = 0
  return Array.from({ length: specialCount }, (_, i) => ({
    id: first + i,
    text: names.get(i) ?? `<|reserved_special_token_${reserved++}|>`,
    special: true,
  }))
}

const mostRanks = 1 << 22

/**
 * Reads a rank file. `names` gives the special tokens where a tokenizer_config.json beside the file does (releases
 * number the reserved ones differently). Throws E_FORMAT with the line at fault.
 */
export const tiktokenTokenizer = (bytes: Uint8Array, file: string, names?: ReadonlyMap<number, string>): Tokenizer => {
  const refusal = (line: number, found: unknown, expected: string): DroverError =>
    new DroverError('E_FORMAT', 'a rank file has a bad line', { file, field: `line ${line + 1}`, found, expected })
  const tokens: string[] = []
  const ids = new Map<string, number>()
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    .toString('latin1')
    .split('\n')
    .forEach((text, line) => {
      if (text === '' || text === '\r') return
      const match = /^([A-Za-z0-9+/]+={0,2}) (\d{1,8})\r?$/.exec(text)
      if (match === null) throw refusal(line, text.slice(0, 80), 'base64 and a rank')
      const bytes = Buffer.from(match[1] as string, 'base64')
      if (bytes.toString('base64') !== match[1]) throw refusal(line, match[1], 'complete base64')
      const token = bytes.toString('latin1')
      const rank = Number(match[2])
      if (rank !== tokens.length || rank >= mostRanks) throw refusal(line, rank, `rank ${tokens.length}`)
      if (ids.has(token)) throw refusal(line, match[1], 'bytes that no other rank has')
      tokens.push(token)
      ids.set(token, rank)
    })
  for (let byte = 0; byte < 256; byte++) {
    if (!ids.has(String.fromCharCode(byte))) {
      throw new DroverError('E_FORMAT', 'a rank file lacks a byte', {
        file,
        field: `byte ${byte}`,
        found: `${tokens.length} ranks`,
        expected: 'a token for every byte',
      })
    }
  }
  for (const id of names?.keys() ?? []) {
    if (id < tokens.length || id >= tokens.length + mostRanks) {
      throw new DroverError('E_FORMAT', 'a special token has the number of a rank', {
        file,
        field: names?.get(id),
        found: id,
        expected: `${tokens.length} or more`,
      })
    }
  }
  // Special tokens follow the ranks at once: a gap is what a file leaves that lost its last lines.
  let first = Number.POSITIVE_INFINITY
  for (const id of names?.keys() ?? [tokens.length]) first = Math.min(first, id)
  if (first > tokens.length) {
    throw new DroverError('E_FORMAT', 'a rank file has too few lines', {
      file,
      field: `line ${tokens.length + 1}`,
      found: `${tokens.length} ranks`,
      expected: `${first}, as the first special token has that number`,
    })
  }
  const added = new AddedTokens(specialTokens(tokens.length, names))
  const special = (name: string): number[] => [added.special.get(name) ?? []].flat()
  return new BpeTokenizer({
    ...tokensOf(tokens),
    merges: rankMerges(tokens, ids),
    added,
    scanner: llama3Scanner,
    wholePieces: true,
    prefixSpace: false,
    bos: special('<|begin_of_text|>')[0],
    endTokens: ['<|end_of_text|>', '<|eom_id|>', '<|eot_id|>'].flatMap(special),
  })
}
