/** What a step must be for a program: the checks of native/core/step.cc, for the reference device. */
import { DroverError } from '../errors.js'
import { type Program, pagePositions } from '../program/program.js'
import type { Step } from '../program/step.js'

const refuse = (field: string, found: unknown, expected: unknown): never => {
  throw new DroverError('E_RANGE', `step: ${field} out of range`, { field, found, expected })
}

const checkSequences = ({ kv }: Program, { sequences, tokens }: Step): void => {
  const pageCount = kv?.pages ?? 0
  const writers = new Set<number>()
  let rows = 0
  for (const sequence of sequences) {
    const end = sequence.cacheStart + sequence.rows
    if (sequence.rows < 1) refuse('rows of a sequence', sequence.rows, 'at least one')
    if (end > sequence.pages.length * pagePositions) refuse('positions', end, sequence.pages.length * pagePositions)
    for (let i = 0; i < sequence.pages.length; i++) {
      const page = sequence.pages[i] as number
      if (page < 0 || page >= pageCount) refuse('page', page, pageCount)
      if (i < Math.floor(sequence.cacheStart / pagePositions)) continue
      if (writers.has(page)) refuse('page', page, 'written by one sequence')
      writers.add(page)
    }
    rows += sequence.rows
  }
  if (rows !== tokens.length) refuse('rows of the sequences', rows, tokens.length)
}

/** Throws E_RANGE where the step does not fit the program. */
export const checkStep = (program: Program, step: Step): void => {
  const { tokens, positions, outputRows, targets, sequences, firstOp = 0, endOp = program.ops.length } = step
  const rows = tokens.length
  if (rows > program.maxRows) refuse('rows', rows, program.maxRows)
  if (outputRows.length > program.maxOutputs) refuse('outputs', outputRows.length, program.maxOutputs)
  if (sequences.length > program.maxSequences) refuse('sequences', sequences.length, program.maxSequences)
  if (firstOp > endOp || endOp > program.ops.length) refuse('op range', endOp, program.ops.length)
  const below = (field: string, values: ArrayLike<number>, limit: number): void => {
    for (let i = 0; i < values.length; i++) {
      const value = values[i] as number
      if (!Number.isInteger(value) || value < 0 || value >= limit) refuse(`${field}[${i}]`, value, limit)
    }
  }
  const lengths: [string, number, number][] = [
    ['positions', positions.length, rows],
    ['targets', targets?.length ?? outputRows.length, outputRows.length],
  ]
  for (const [field, found, expected] of lengths) {
    if (found !== expected) throw new DroverError('E_SHAPE', 'a step has one entry per row', { field, found, expected })
  }
  below('tokens', tokens, program.vocabulary === 0 ? 2 ** 31 : program.vocabulary)
  below('positions', positions, 2 ** 31)
  below('outputRows', outputRows, rows)
  below('targets', targets ?? [], program.vocabulary)
  if (program.kv !== undefined || sequences.length > 0) checkSequences(program, step)
}
