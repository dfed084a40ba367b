/** What {@link loadRecommender} and its recommender can be asked for, checked. */
import { checkFunction, checkInteger, checkNumber, checkOneOf, checkOptions, checkSignal } from '../check.js'
import { type IndexPolicy, indexPolicies } from '../program/bags.js'

/** Options of loadRecommender. Unknown ones are refused. */
export interface RecommenderOptions {
  /** Caps the workers of this model's steps. */
  threads?: number
  /** Bytes; E_MEMORY before more would be allocated. Mapped files do not count. */
  memoryBudget?: number
  /**
   * 'prepared': tables are copied into huge pages; 'mapped': rows are read where they are in the file, which may exceed
   * memory. Default: prepared while the budget, or half of the memory that is available, holds them.
   */
  tables?: 'prepared' | 'mapped'
  /** What becomes of an index that its table does not have; default 'error'. */
  indices?: IndexPolicy
  /** Rows of a step; longer requests are cut. Default 512. */
  maxBatch?: number
  /**
   * How long calls that come while a step runs may be held for others to join them; default 0. One that finds the
   * recommender idle is never held.
   */
  maxDelayMs?: number
  /** Calls that may wait; one more is refused with E_BUSY. Default 1024. */
  queueLimit?: number
  onProgress?: (fraction: number, what: string) => void
  signal?: AbortSignal
}

/** Options of one call of `score`. */
export interface ScoreOptions {
  /** Rejects with E_ABORTED when it fires. */
  signal?: AbortSignal
  /** Rejects with E_DEADLINE when the answer is not there after so many milliseconds; rows that wait are then not computed. */
  deadlineMs?: number
}

/** Options of `swap`. */
export interface SwapOptions {
  onProgress?: (fraction: number, what: string) => void
  signal?: AbortSignal
}

export const defaults = { indices: 'error', maxBatch: 512, maxDelayMs: 0, queueLimit: 1024 } as const

const longestDelay = 60_000
/** What timers can hold. */
const longestDeadline = 2 ** 31 - 1

/** What the caller's object says now: what is checked is what is used, also by a later swap. */
export const ownOptions = <O extends object>(input: unknown, names: readonly string[]): O => {
  const given = checkOptions('options', input, names)
  return Object.fromEntries(names.map((name) => [name, given[name]])) as O
}

export const checkedOptions = (input: unknown): RecommenderOptions => {
  const names = ['threads', 'memoryBudget', 'tables', 'indices', 'maxBatch', 'maxDelayMs', 'queueLimit']
  const options = ownOptions<RecommenderOptions>(input, [...names, 'onProgress', 'signal'])
  const positive = (name: 'threads' | 'memoryBudget' | 'maxBatch' | 'queueLimit', most: number): void => {
    if (options[name] !== undefined) checkInteger(`options.${name}`, options[name], 1, most)
  }
  positive('threads', 1024)
  positive('memoryBudget', Number.MAX_SAFE_INTEGER)
  positive('maxBatch', 2 ** 16)
  positive('queueLimit', 2 ** 24)
  if (options.maxDelayMs !== undefined) checkNumber('options.maxDelayMs', options.maxDelayMs, 0, longestDelay)
  if (options.tables !== undefined) checkOneOf('options.tables', options.tables, ['prepared', 'mapped'])
  if (options.indices !== undefined) checkOneOf('options.indices', options.indices, indexPolicies)
  checkCallbacks(options)
  return options
}

const checkCallbacks = ({ onProgress, signal }: SwapOptions): void => {
  if (signal !== undefined) checkSignal('options.signal', signal)
  if (onProgress !== undefined) checkFunction('options.onProgress', onProgress)
}

export const checkedSwapOptions = (input: unknown): SwapOptions => {
  const options = ownOptions<SwapOptions>(input, ['onProgress', 'signal'])
  checkCallbacks(options)
  return options
}

export const checkedScoreOptions = (input: unknown): ScoreOptions => {
  if (input === undefined) return {}
  const { signal, deadlineMs } = checkOptions('options', input, ['signal', 'deadlineMs'])
  return {
    ...(signal === undefined ? {} : { signal: checkSignal('options.signal', signal) }),
    ...(deadlineMs === undefined
      ? {}
      : { deadlineMs: checkNumber('options.deadlineMs', deadlineMs, 0, longestDeadline) }),
  }
}
