/** Runs a model step by step for the tests: one program, page tables of its own, no scheduler. */
import { cpuDevice } from '../../lib/device/cpu.js'
import type { Device, DeviceProgram } from '../../lib/device/device.js'
import { type OpenedModel, openModel } from '../../lib/model/open.js'
import { type ActivationMode, type KvSpec, type Program, pagePositions } from '../../lib/program/program.js'
import type { Step, StepSequence } from '../../lib/program/step.js'

export interface RunnerOptions {
  device?: Device
  threads?: number
  kvType?: KvSpec['dtype']
  activations?: ActivationMode
  maxRows?: number
  pages?: number
  maxSequences?: number
}

export interface ForwardOptions {
  /** Cache position of the first token; default 0. */
  start?: number
  positions?: ArrayLike<number>
  /** Default: every row. */
  outputRows?: ArrayLike<number>
  targets?: ArrayLike<number>
  pages?: ArrayLike<number>
}

export const range = (count: number, from = 0): number[] => Array.from({ length: count }, (_, i) => from + i)

export const greedyOf = (logits: Float32Array): number => {
  let best = 0
  for (let i = 1; i < logits.length; i++) if ((logits[i] as number) > (logits[best] as number)) best = i
  return best
}

export class ModelRunner {
  readonly model: OpenedModel
  readonly program: Program
  readonly loaded: DeviceProgram
  /** The page table that calls use unless they name another: pages of the program in order. */
  readonly pages: number[]

  private constructor(model: OpenedModel, program: Program, loaded: DeviceProgram) {
    this.model = model
    this.program = program
    this.loaded = loaded
    this.pages = range(program.kv?.pages ?? 0)
  }

  static async open(path: string, options: RunnerOptions = {}): Promise<ModelRunner> {
    const {
      device = cpuDevice,
      kvType = 'f32',
      activations = 'f32',
      maxRows = 320,
      pages = 8,
      maxSequences = 4,
    } = options
    const model = await openModel(path)
    const program = model.build(device.layout, {
      maxRows,
      maxOutputs: maxRows,
      maxSequences,
      maxPages: pages * maxSequences,
      kvType,
      kvPages: pages,
      activations,
      candidates: 4,
    })
    const { threads } = options
    const loaded = await device.load(program, model.regions, threads === undefined ? {} : { threads })
    return new ModelRunner(model, program, loaded)
  }

  get vocabulary(): number {
    return this.model.config.vocabulary
  }

  /** The step of one sequence. */
  step(tokens: ArrayLike<number>, options: ForwardOptions = {}): Step {
    const { start = 0, targets } = options
    const rows = tokens.length
    const sequences: StepSequence[] = [{ rows, cacheStart: start, pages: options.pages ?? this.pages }]
    return {
      tokens,
      positions: options.positions ?? range(rows, start),
      sequences,
      outputRows: options.outputRows ?? range(rows),
      ...(targets === undefined ? {} : { targets }),
    }
  }

  /** Logits [outputs, vocabulary]. */
  async forward(tokens: ArrayLike<number>, options: ForwardOptions = {}): Promise<Float32Array> {
    const step = this.step(tokens, options)
    await this.loaded.run({ ...step, endOp: this.after('logits') })
    return this.loaded.read(this.role('logits'), 0, step.outputRows.length)
  }

  /** Runs up to the op of this name and reads what it wrote, [rows, cols]; the tensor may be overwritten later. */
  async trace(name: string, step: Step): Promise<Float32Array> {
    await this.loaded.run({ ...step, endOp: this.after(name) })
    const index = this.program.tensors.findIndex((tensor) => tensor.name === name)
    const rows = this.program.tensors[index]?.dimension === 'outputs' ? step.outputRows.length : step.tokens.length
    return this.loaded.read(index, 0, rows)
  }

  /** End of the op range that stops behind the op of this name. */
  after(name: string): number {
    const op = this.program.ops.findIndex((other) => other.name === name)
    if (op === -1) throw new Error(`the program has no op ${name}`)
    return op + 1
  }

  role(role: string): number {
    const index = this.program.outputs.get(role)
    if (index === undefined) throw new Error(`the program has no output ${role}`)
    return index
  }

  /** Cache of all heads after the steps so far, [kv heads, positions, head_dim]. */
  kv(layer: number, what: 'keys' | 'values', positions: number, pages: ArrayLike<number> = this.pages): Float32Array {
    const { kvHeads, headDim } = this.model.config
    const out = new Float32Array(kvHeads * positions * headDim)
    for (const head of range(kvHeads)) {
      out.set(this.loaded.readKv(layer, head, what, pages, positions), head * positions * headDim)
    }
    return out
  }

  close(): Promise<void> {
    return this.loaded.close()
  }
}

/** Pages that a sequence of this many positions needs. */
export const pagesFor = (positions: number): number => Math.ceil(positions / pagePositions)
