/** Encodes a planned program into words (native/core/program.h): the only writer of that format. */
import { DroverError } from '../errors.js'
import { arenaUnit, type Plan } from './plan.js'
import type { DeviceLayout, Program, WeightSpec } from './program.js'

const magic = 0x50565244
const version = 1
const headerWords = 24
const tensorWords = 8
const weightWords = 8
const opWords = 4
const dimensions = { rows: 0, outputs: 1, fixed: 2 }
const forms = { stored: 0, prepared: 1, decoded: 2, mapped: 4, copied: 4 + 8 }
const parametersFirst = 16

const flagsOf = ({ form, parameters }: WeightSpec): number =>
  forms[form] + (parameters === 'first' ? parametersFirst : 0)

/** Word 7: bytes between the rows of a table, or 1 + the weight that holds the scales of another. */
const lastWord = ({ stride, scales }: WeightSpec): number => stride ?? (scales === undefined ? 0 : scales + 1)

export const encodeProgram = (program: Program, plan: Plan, layout: DeviceLayout): Uint32Array => {
  const { tensors, weights, ops, kv } = program
  const opcodes = new Map(layout.ops.map(({ name }, index) => [name, index]))
  const argumentWords = ops.reduce((sum, { args }) => sum + args.length, 0)
  const total =
    headerWords + tensors.length * tensorWords + weights.length * weightWords + ops.length * opWords + argumentWords
  const arenaUnits = plan.arenaBytes / arenaUnit
  if (arenaUnits >= 2 ** 32) {
    throw new DroverError('E_MEMORY', 'the activation arena is larger than a program can address', {
      found: plan.arenaBytes,
      expected: `less than ${2 ** 32 * arenaUnit} bytes`,
      hint: 'ask for fewer rows per step or a shorter context',
    })
  }
  const words = new Uint32Array(total)
  let at = 0
  const put = (...values: number[]): void => {
    words.set(values, at)
    at += values.length
  }
  put(magic, version, total, program.maxRows, program.maxOutputs, program.maxSequences, program.maxPages)
  put(tensors.length, weights.length, ops.length, argumentWords, arenaUnits)
  if (kv === undefined) put(0, 0, 0, 0, 0)
  else put(kv.layers, kv.heads, kv.headDim, layout.dtypeId(kv.dtype), kv.pages)
  put(program.vocabulary, program.bagInputs ?? 0, program.blockRows ?? 0, plan.keptBytes / arenaUnit, 0, 0, 0)
  tensors.forEach((tensor, i) => {
    const planned = plan.tensors[i]!
    put(layout.dtypeId(tensor.dtype), tensor.cols, planned.rowBytes / arenaUnit, dimensions[tensor.dimension])
    put(tensor.fixedRows, planned.offset / arenaUnit, 0, 0)
  })
  for (const weight of weights) {
    put(weight.region, layout.dtypeId(weight.dtype), weight.offset % 2 ** 32, Math.floor(weight.offset / 2 ** 32))
    put(weight.rows, weight.cols, flagsOf(weight), lastWord(weight))
  }
  let argument = 0
  for (const { op, args, name } of ops) {
    const opcode = opcodes.get(op)
    if (opcode === undefined)
      throw new DroverError('E_UNSUPPORTED', 'the device has no such op', { field: name, found: op })
    put(opcode, argument, args.length, 0)
    argument += args.length
  }
  for (const { args } of ops) put(...args)
  return words
}
