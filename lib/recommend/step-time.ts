/** How long a step will take: a guess from the size of the layers, corrected by how long steps have taken. */
import type { Program } from '../program/program.js'

/**
 * Milliseconds of a multiply-add of floats and of bytes in a step's first row, which waits for the weights; what each
 * further row takes of that; and of a lookup. Rather too long.
 */
const floatMs = 1e-7
const byteMs = 3e-8
const furtherRow = 0.3
const lookupMs = 1e-5

/** How much of the difference between guess and truth is learnt from one step. */
const learning = 0.1

export class StepTime {
  readonly #rowMs: number
  #scale = 1

  constructor({ ops, weights }: Program) {
    const layers = ops.flatMap(({ op, args }) => (op === 'gemm' ? [weights[args[2] as number]] : []))
    this.#rowMs = layers.reduce((sum, layer) => {
      if (layer === undefined) return sum
      return sum + layer.rows * layer.cols * (layer.dtype === 'i8' ? byteMs : floatMs)
    }, 0)
  }

  predict(rows: number, lookups: number): number {
    return this.#scale * ((1 + furtherRow * (rows - 1)) * this.#rowMs + lookups * lookupMs)
  }

  /** A step that was predicted to take `predicted` took `ms`; one that was disturbed counts little. */
  took(predicted: number, ms: number): void {
    const scale = this.#scale * Math.min(2, ms / predicted)
    this.#scale += learning * (scale - this.#scale)
  }

  /** No step was short enough to be measured: what made them slow may be over. */
  forget(): void {
    if (this.#scale > 1) this.#scale *= 1 - learning / 10
  }
}
