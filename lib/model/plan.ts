/** What a model of some configuration takes in memory, without its weights at hand. */
import { planProgram } from '../program/plan.js'
import { type DeviceLayout, type KvType, kvTypes, type Program, pagePositions } from '../program/program.js'
import type { DTypeName } from '../tensor.js'
import { buildLlama, huggingFaceNames, type LlamaConfig } from './llama.js'
import { imaginaryWeights } from './weights.js'

export interface MemoryPlan {
  contextLength: number
  sequences: number
  kvType: KvType
  weightType: DTypeName
  /** Of the weights as they are computed with (panels and f32 vectors). */
  preparedBytes: number
  kvBytesPerPosition: number
  kvBytes: number
  /** Activations, planned by liveness; and what they would take if none shared memory. */
  arenaBytes: number
  unsharedBytes: number
  totalBytes: number
  parameters: number
  ops: number
}

export interface PlanOptions {
  contextLength: number
  sequences: number
  kvType: KvType
  weightType: DTypeName
  maxRows: number
}

/** Plans a program from the config alone. */
export const describePlan = (
  layout: DeviceLayout,
  config: LlamaConfig,
  options: PlanOptions,
): { plan: MemoryPlan; program: Program } => {
  const { contextLength, sequences, kvType, weightType, maxRows } = options
  const pages = Math.ceil(contextLength / pagePositions) * sequences
  const program = buildLlama(layout, config, huggingFaceNames, imaginaryWeights(weightType), {
    maxRows,
    maxOutputs: Math.max(64, sequences),
    maxSequences: sequences,
    maxPages: pages,
    kvType: kvTypes[kvType],
    kvPages: pages,
    activations: 'auto',
    candidates: 20,
    ropeRegion: 0,
  })
  const planned = planProgram(program, layout)
  return {
    program,
    plan: {
      contextLength,
      sequences,
      kvType,
      weightType,
      preparedBytes: planned.preparedBytes,
      kvBytesPerPosition: planned.kvBytes / (pages * pagePositions),
      kvBytes: planned.kvBytes,
      arenaBytes: planned.arenaBytes,
      unsharedBytes: planned.unsharedBytes,
      totalBytes: planned.preparedBytes + planned.kvBytes + planned.arenaBytes,
      parameters: program.weights.reduce(
        (sum, { rows, cols, name }) => sum + (name === 'rope_frequencies' ? 0 : rows * cols),
        0,
      ),
      ops: program.ops.length,
    },
  }
}
