/** Bags of a step for the reference device: the checks and policies of native/core/bags.cc, and the op that reads them. */

import { DroverError } from '../errors.js'
import { floatToBfloat, floatToHalf } from '../format/decode/scalar.js'
import type { Bags } from '../program/bags.js'
import type { Program } from '../program/program.js'
import type { Step } from '../program/step.js'
import { bagArguments, tableOfBags } from '../program/tables.js'
import type { BagCounts } from './device.js'

/** The lookups of one bag: row and weight of each. */
type Lookups = readonly (readonly [row: number, weight: number])[]

/** By bag input, by bag. */
export interface CheckedBags {
  readonly inputs: readonly (readonly Lookups[])[]
  readonly counts: BagCounts
}

const inputRows = (program: Program, input: number): number => {
  let rows = Number.POSITIVE_INFINITY
  for (const { op, args } of program.ops) {
    const { firstTable, count, firstBag } = bagArguments(args)
    if (op !== 'embedding_bag' || input < firstBag || input >= firstBag + count) continue
    rows = Math.min(rows, program.weights[firstTable + input - firstBag]!.rows)
  }
  return rows
}

const hasMax = (program: Program, input: number): boolean =>
  program.ops.some(({ op, args }) => {
    const { count, firstBag, pooling } = bagArguments(args)
    return op === 'embedding_bag' && pooling === 'max' && input >= firstBag && input < firstBag + count
  })

const checkInput = (program: Program, step: Step, input: number, bags: Bags, counts: BagCounts): Lookups[] => {
  const field = tableOfBags(program, input)?.name
  const refuse = (what: string, found: unknown, expected: unknown): DroverError =>
    new DroverError('E_RANGE', `bag input ${input}: ${what}`, { field, found, expected })
  const offsets = Array.from(bags.offsets, Number)
  const indices = Array.from(bags.indices, Number)
  if (bags.weights !== undefined && hasMax(program, input)) throw refuse('a maximum takes no weights', 1, 0)
  offsets.forEach((offset, i) => {
    const before = i === 0 ? 0 : offsets[i - 1]!
    if (i === 0 && offset !== 0) throw refuse(`offset 0 is ${offset}, not 0`, offset, 0)
    if (offset < before) throw refuse(`offset ${i} is ${offset}, below the one before it, ${before}`, offset, before)
    if (offset > indices.length)
      throw refuse(`offset ${i} is ${offset}, but there are ${indices.length} indices`, offset, indices.length)
  })
  const last = offsets.at(-1)!
  if (last !== indices.length)
    throw refuse(`the last offset is ${last}, but there are ${indices.length} indices`, last, indices.length)
  const rows = inputRows(program, input)
  return offsets.slice(1).map((end, bag) => {
    const start = offsets[bag]!
    const lookups: [number, number][] = []
    for (let i = start; i < end; i++) {
      let index = indices[i]!
      if (index < 0 || index >= rows) {
        const where = `bag ${bag}, position ${i - start}`
        const what = `${where}: index ${index} is out of range, the table has ${rows} rows`
        if ((step.indices ?? 'error') === 'error') throw refuse(what, index, rows)
        if (step.indices === 'skip') {
          counts.skipped++
          continue
        }
        counts.clamped++
        index = index < 0 ? 0 : rows - 1
      }
      lookups.push([index, bags.weights?.[i] ?? 1])
    }
    return lookups
  })
}

/** Throws E_RANGE where the step's bags do not fit the program. */
export const checkBags = (program: Program, step: Step): CheckedBags => {
  const { bags, firstOp = 0, endOp = program.ops.length } = step
  const wanted = program.bagInputs ?? 0
  const counts = { skipped: 0, clamped: 0 }
  if (bags === undefined) {
    const reads = program.ops.slice(firstOp, endOp).find(({ op }) => op === 'embedding_bag')
    if (reads === undefined) return { inputs: [], counts }
    throw new DroverError('E_RANGE', 'step: this op reads bags, and the step has none', { field: reads.name })
  }
  if (bags.length !== wanted) {
    throw new DroverError('E_RANGE', "step: another number of bag inputs than the program's", {
      found: bags.length,
      expected: wanted,
    })
  }
  return { inputs: bags.map((input, i) => checkInput(program, step, i, input, counts)), counts }
}

interface Memory {
  readonly program: Program
  readonly tensors: readonly {
    readonly floats: Float32Array
    readonly words: Uint32Array
    readonly spec: { cols: number }
  }[]
  readonly weights: readonly Float32Array[]
  readonly bags: CheckedBags
}

/** Sums in float64, each element rounded to f32 once, and from there to 16 bits. */
export const embeddingBag = ({ program, tensors, weights, bags }: Memory, args: readonly number[]): void => {
  const { out, firstTable, count, firstBag, pooling, output } = bagArguments(args)
  const { floats, words, spec } = tensors[out]!
  const codes = new Uint16Array(words.buffer, words.byteOffset, words.length * 2)
  const round = output === 'f16' ? floatToHalf : floatToBfloat
  let column = 0
  for (let t = 0; t < count; t++) {
    const { cols } = program.weights[firstTable + t]!
    const table = weights[firstTable + t]!
    bags.inputs[firstBag + t]!.forEach((lookups, row) => {
      for (let d = 0; d < cols; d++) {
        const terms = lookups.map(([index, weight]) => weight * table[index * cols + d]!)
        const sum = terms.reduce((total, term) => total + term, 0)
        const value =
          lookups.length === 0
            ? 0
            : pooling === 'max'
              ? Math.max(...terms)
              : pooling === 'mean'
                ? sum / lookups.length
                : sum
        if (output === 'f32') floats[row * spec.cols + column + d] = value
        else codes[row * spec.cols * 2 + column + d] = round(Math.fround(value))
      }
    })
    column += cols
  }
}
