/** Byte-pair encoding over the bytes of one piece. Tokens are written as binary strings, one char code per byte. */
import { PairCache, PairTable } from './pairs.js'

/** Which pairs merge, in which order. */
export interface MergeTable {
  /** Token of a whole binary string, or undefined. */
  token(binary: string): number | undefined
  /** Order of the merge of two tokens (lower first), or -1 when they do not merge. */
  rank(left: number, right: number): number
  /** The token that a merging pair becomes. */
  merged(left: number, right: number): number
}

/** Merges as tiktoken defines them: two tokens merge when their bytes together are a token; its rank is the order. */
export const rankMerges = (tokens: readonly string[], ids: ReadonlyMap<string, number>): MergeTable => {
  const known = new PairCache()
  const find = (left: number, right: number): number =>
    ids.get((tokens[left] as string) + (tokens[right] as string)) ?? -1
  const merged = (left: number, right: number): number => known.get(left, right, find)
  return { token: (binary) => ids.get(binary), rank: merged, merged }
}

/** Merges as an ordered list of [left, right, merged] tokens, one triple after the other. */
export const listMerges = (token: MergeTable['token'], triples: Int32Array): MergeTable => {
  const ranks = new PairTable(triples.length / 3)
  for (let i = 0; i < triples.length; i += 3) ranks.add(triples[i]!, triples[i + 1]!, i / 3)
  const rank = (left: number, right: number): number => ranks.get(left, right)
  return { token, rank, merged: (left, right) => triples[3 * rank(left, right) + 2]! }
}

/** Beyond this a heap beats scanning all pairs for each merge. */
const longPiece = 48

/** Merges `tokens` (one per byte) in place of the lowest rank, leftmost first, until nothing merges. */
export const mergeTokens = (tokens: number[], table: MergeTable): number[] =>
  tokens.length > longPiece ? mergeLong(tokens, table) : mergeShort(tokens, table)

const mergeShort = (tokens: number[], table: MergeTable): number[] => {
  let count = tokens.length
  const ranks: number[] = []
  for (let i = 0; i + 1 < count; i++) ranks.push(table.rank(tokens[i] as number, tokens[i + 1] as number))
  for (;;) {
    let best = -1
    let lowest = -1
    for (let i = 0; i + 1 < count; i++) {
      const rank = ranks[i] as number
      if (rank >= 0 && (best === -1 || rank < lowest)) {
        lowest = rank
        best = i
      }
    }
    if (best === -1) break
    tokens[best] = table.merged(tokens[best] as number, tokens[best + 1] as number)
    count--
    for (let i = best + 1; i < count; i++) {
      tokens[i] = tokens[i + 1] as number
      ranks[i - 1] = ranks[i] as number
    }
    if (best > 0) ranks[best - 1] = table.rank(tokens[best - 1] as number, tokens[best] as number)
    if (best + 1 < count) ranks[best] = table.rank(tokens[best] as number, tokens[best + 1] as number)
  }
  tokens.length = count
  return tokens
}

const mergeLong = (tokens: number[], table: MergeTable): number[] => {
  const { length } = tokens
  const next = Int32Array.from({ length }, (_, i) => i + 1)
  const previous = Int32Array.from({ length }, (_, i) => i - 1)
  const current = Int32Array.from(tokens)
  const heap = new MergeHeap()
  const offer = (left: number): void => {
    const right = next[left] as number
    if (right >= length) return
    const rank = table.rank(current[left] as number, current[right] as number)
    if (rank >= 0) heap.push(rank, left, current[left] as number, current[right] as number)
  }
  for (let i = 0; i + 1 < length; i++) offer(i)
  for (let top = heap.pop(); top !== undefined; top = heap.pop()) {
    const { at, left, right } = top
    const second = next[at] as number
    // Stale when either side has merged since (a merged-away side is marked -1).
    if (second >= length || current[at] !== left || current[second] !== right) continue
    current[at] = table.merged(left, right)
    current[second] = -1
    const after = next[second] as number
    next[at] = after
    if (after < length) previous[after] = at
    const before = previous[at] as number
    if (before >= 0) offer(before)
    offer(at)
  }
  const result: number[] = []
  for (let i = 0; i < length; i = next[i] as number) result.push(current[i] as number)
  return result
}

/** Binary heap of possible merges by (rank, position). */
export class MergeHeap {
  readonly #items: { rank: number; at: number; left: number; right: number }[] = []

  push(rank: number, at: number, left: number, right: number): void {
    const items = this.#items
    const item = { rank, at, left, right }
    let i = items.length
    items.push(item)
    while (i > 0) {
      const parent = (i - 1) >> 1
      const other = items[parent]!
      if (other.rank < rank || (other.rank === rank && other.at < at)) break
      items[i] = other
      i = parent
    }
    items[i] = item
  }

  pop(): { at: number; left: number; right: number } | undefined {
    const items = this.#items
    const top = items[0]
    const last = items.pop()
    if (top === undefined || last === undefined || items.length === 0) return top
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= items.length) break
      const right = items[child + 1]
      const left = items[child]!
      if (right !== undefined && (right.rank < left.rank || (right.rank === left.rank && right.at < left.at))) child++
      const lower = items[child]!
      if (last.rank < lower.rank || (last.rank === lower.rank && last.at < lower.at)) break
      items[i] = lower
      i = child
    }
    items[i] = last
    return top
  }
}
