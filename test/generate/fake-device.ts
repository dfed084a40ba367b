/**
 * A device whose model is a sum over the tokens that a sequence's pages hold: a page that is shared wrongly, written
 * twice or not at all changes what is drawn. No weights, no arithmetic that could hide a mistake of the scheduler.
 */
import type { DeviceProgram } from '../../lib/device/device.js'
import { aborted, DroverError } from '../../lib/errors.js'
import { pagePositions } from '../../lib/program/program.js'
import type { Step } from '../../lib/program/step.js'

export const vocabulary = 251
export const sampleCols = 4

/** What the model draws behind these tokens. */
export const nextToken = (tokens: readonly number[], seed: bigint, counter: number): number => {
  let hash = (Number(seed % 65521n) * 31 + counter) >>> 0
  for (const [position, token] of tokens.entries()) hash = (Math.imul(hash ^ token, 0x01000193) + position) >>> 0
  return hash % vocabulary
}

export const continuation = (prompt: readonly number[], count: number, seed: bigint): number[] => {
  const tokens = [...prompt]
  for (let i = 0; i < count; i++) tokens.push(nextToken(tokens, seed, i))
  return tokens.slice(prompt.length)
}

export class FakeProgram implements Pick<DeviceProgram, 'run' | 'abort' | 'readWords'> {
  readonly steps: Step[] = []
  /** Called while a step runs; what it throws is how the step ends. */
  duringStep: (step: Step) => Promise<void> | void = () => {}
  readonly #cache: Int32Array
  #cancelled = false
  #busy = false
  #words = new Uint32Array(0)
  aborts = 0

  constructor(pages: number) {
    this.#cache = new Int32Array(pages * pagePositions).fill(-1)
  }

  async run(step: Step): Promise<void> {
    if (this.#busy) throw new DroverError('E_BUSY', 'a step is running')
    this.#busy = true
    this.#cancelled = false
    this.steps.push(step)
    try {
      await new Promise<void>((resolve) => setImmediate(resolve))
      const writers = new Set<number>()
      let row = 0
      const ends: number[][] = []
      for (const { rows, cacheStart, pages } of step.sequences) {
        for (let i = 0; i < rows; i++, row++) {
          const position = cacheStart + i
          const page = pages[Math.floor(position / pagePositions)]
          if (page === undefined) throw new DroverError('E_RANGE', 'no page for a position', { found: position })
          if (step.positions[row] !== position) throw new DroverError('E_RANGE', 'a position is wrong')
          const slot = page * pagePositions + (position % pagePositions)
          if (writers.has(slot)) throw new DroverError('E_RANGE', 'two rows write one position')
          writers.add(slot)
          this.#cache[slot] = step.tokens[row] as number
          ends[row] = Array.from({ length: position + 1 }, (_, p) => {
            return this.#cache[(pages[Math.floor(p / pagePositions)] as number) * pagePositions + (p % pagePositions)]!
          })
        }
      }
      await this.duringStep(step)
      if (this.#cancelled) throw aborted('the step')
      this.#words = new Uint32Array(step.outputRows.length * sampleCols)
      Array.from(step.outputRows).forEach((output, i) => {
        const { seed, counter } = step.sampling![i]!
        this.#words[i * sampleCols] = nextToken(ends[output]!, seed, counter)
      })
    } finally {
      this.#busy = false
    }
  }

  abort(): void {
    this.aborts++
    this.#cancelled = true
  }

  readWords(_tensor: number, row: number, rows: number): Uint32Array {
    return this.#words.slice(row * sampleCols, (row + rows) * sampleCols)
  }
}
