/** A recommender in one form, run as a whole or layer by layer, with every layer's numbers to be read. */
import { cpuDevice } from '../device/cpu.js'
import type { BagCounts, DeviceProgram } from '../device/device.js'
import { DroverError } from '../errors.js'
import { layerNames } from '../model/dlrm.js'
import type { RecommenderConfig } from '../model/dlrm-config.js'
import { programOf, type RecommenderParts } from '../model/open-recommender.js'
import type { IndexPolicy } from '../program/bags.js'
import type { ActivationMode, Program } from '../program/program.js'
import { bagStep, type Step } from '../program/step.js'
import type { LabelledBatch } from './labelled.js'
import type { RequestShape } from './request.js'

/** An op whose outputs are looked at. */
export interface NetLayer {
  /** As the program names it. */
  readonly name: string
  /** What its outputs are of the whole: bottom, pooled, interaction, logit, prob. */
  readonly role: string | undefined
  /** The module of its matrix, as `quantization.layers` names it. */
  readonly module: string | undefined
  readonly tensor: number
  /** Ops [first, end) compute it from the layers before. */
  readonly first: number
  readonly end: number
}

export interface NetOptions {
  readonly maxRows: number
  readonly indices: IndexPolicy
  readonly threads: number | undefined
  readonly signal: AbortSignal | undefined
}

/** Elements of the widest activations of a step: two nets' are compared in JavaScript. */
const mostElements = 2 ** 21
const manyRows = 512

/** Rows of a step whose activations are looked at. */
export const rowsOfStep = ({ bottom, top, topInputs, denseFeatures, tables }: RecommenderConfig): number => {
  const pooled = tables.reduce((sum, { dim }) => sum + dim, 0)
  const widest = Math.max(denseFeatures, topInputs, pooled, ...bottom, ...top)
  return Math.max(1, Math.min(manyRows, Math.floor(mostElements / widest)))
}

/** What requests to a model must be like. */
export const requestShape = (
  { denseFeatures, tables, pooling }: RecommenderConfig,
  policy: IndexPolicy,
): RequestShape => ({
  denseFeatures,
  tables: tables.map(({ name, rows }) => ({ name, rows })),
  policy,
  weighted: pooling !== 'max',
})

const layersOf = (program: Program, config: RecommenderConfig): NetLayer[] => {
  const roles = new Map([...program.outputs].map(([role, tensor]) => [tensor, role]))
  const modules = layerNames(config)
  const layers: NetLayer[] = []
  let first = 0
  let gemms = 0
  for (const [i, { name, op, args }] of program.ops.entries()) {
    const tensor = args[0] as number
    // Rounding for a layer of integers is a part of that layer.
    if (program.tensors[tensor]?.dtype !== 'f32') continue
    const role = roles.get(tensor)
    const module = op === 'gemm' ? modules[gemms++] : undefined
    layers.push({ name, role, module, tensor, first, end: i + 1 })
    first = i + 1
  }
  return layers
}

export class LayeredNet {
  readonly config: RecommenderConfig
  /** How errors call it. */
  readonly title: string
  readonly layers: readonly NetLayer[]
  readonly #loaded: DeviceProgram
  readonly #dense: number
  readonly #logit: number
  readonly #policy: IndexPolicy

  private constructor(
    title: string,
    config: RecommenderConfig,
    program: Program,
    loaded: DeviceProgram,
    policy: IndexPolicy,
  ) {
    this.title = title
    this.config = config
    this.layers = layersOf(program, config)
    this.#loaded = loaded
    this.#dense = program.outputs.get('dense') as number
    this.#logit = program.outputs.get('logit') as number
    this.#policy = policy
  }

  /**
   * Loads weights; tables stay mapped. `activations`: 'f32' does not round what int8 layers multiply. Throws E_FORMAT,
   * E_UNSUPPORTED, E_MEMORY, E_IO, E_ABORTED.
   */
  static async load(
    title: string,
    config: RecommenderConfig,
    parts: RecommenderParts,
    activations: ActivationMode,
    { maxRows, indices, threads, signal }: NetOptions,
  ): Promise<LayeredNet> {
    const program = programOf(cpuDevice.layout, config, parts, {
      maxRows,
      activations,
      tables: 'mapped',
      keeps: 'layers',
    })
    const loaded = await cpuDevice.load(program, parts.regions, {
      ...(threads === undefined ? {} : { threads }),
      ...(signal === undefined ? {} : { signal }),
    })
    return new LayeredNet(title, config, program, loaded, indices)
  }

  /** One logit per row. Throws E_RANGE for an index out of range, with its line. */
  async logits(batch: LabelledBatch): Promise<Float32Array> {
    await this.#run(this.#prepare(batch), batch)
    return this.#loaded.read(this.#logit, 0, batch.merged.rows)
  }

  /** Takes the inputs of a batch; {@link layer} then computes layer by layer, in order. */
  begin(batch: LabelledBatch): (layer: NetLayer) => Promise<Float32Array> {
    const step = this.#prepare(batch)
    return async ({ first: firstOp, end: endOp, tensor }) => {
      await this.#run({ ...step, firstOp, endOp }, batch)
      return this.#loaded.read(tensor, 0, batch.merged.rows)
    }
  }

  /** Indices out of range in the batch that was begun last, once a layer has run. */
  bagCounts(): BagCounts {
    return this.#loaded.bagCounts()
  }

  #prepare({ merged: { rows, dense, bags } }: LabelledBatch): Step {
    this.#loaded.write(this.#dense, 0, dense)
    return bagStep(rows, bags, this.#policy)
  }

  async #run(step: Step, batch: LabelledBatch): Promise<void> {
    try {
      await this.#loaded.run(step)
    } catch (error) {
      const found = error instanceof DroverError && error.code === 'E_RANGE' ? batch.indexError() : undefined
      throw found ?? error
    }
  }

  close(): Promise<void> {
    return this.#loaded.close()
  }
}
