/**
 * Runs kernels outside a model: each call is a small program on the CPU device. Programs that hold no weights are kept
 * and used again by calls of the same shape, so that a repeated call costs a copy in, a step and a copy out.
 */
import { checkSignal } from '../check.js'
import { cpuDevice } from '../device/cpu.js'
import type { DeviceProgram } from '../device/device.js'
import { aborted, DroverError, throwIfAborted } from '../errors.js'
import { ProgramBuilder } from '../program/builder.js'
import type { ActivationMode, DeviceLayout, KvSpec, Program, RegionSource } from '../program/program.js'
import type { Step } from '../program/step.js'

/** Most rows and columns that a program's tensors can have. */
export const mostRows = 2 ** 20
export const mostCols = 2 ** 24

/** A loaded program, its tensors by role. */
export class Operands {
  readonly program: Program
  readonly loaded: DeviceProgram
  /** Of arenas and prepared weights. */
  readonly bytes: number
  #busy = false

  constructor(program: Program, loaded: DeviceProgram) {
    this.program = program
    this.loaded = loaded
    const { activations = 0, kv = 0, prepared = 0, scratch = 0 } = loaded.memoryUsage()
    this.bytes = activations + kv + prepared + scratch
  }

  /** Operands serve one call at a time: its steps may have gaps in which another could write. */
  claim(): void {
    if (this.#busy) throw new DroverError('E_BUSY', 'a call on this layer is in flight')
    this.#busy = true
  }

  unclaim(): void {
    this.#busy = false
  }

  /** Writes f32 rows from the first row on. */
  write(role: string, data: Float32Array): void {
    this.loaded.write(this.#tensor(role), 0, data)
  }

  read(role: string, rows: number): Float32Array {
    return this.loaded.read(this.#tensor(role), 0, rows)
  }

  readWords(role: string, rows: number): Uint32Array {
    return this.loaded.readWords(this.#tensor(role), 0, rows)
  }

  #tensor(role: string): number {
    const index = this.program.outputs.get(role)
    if (index === undefined) throw new DroverError('E_INTERNAL', 'the program has no such operand', { field: role })
    return index
  }
}

/** A program as a call wants it, for up to `rows` rows. */
export interface Recipe {
  /** Names all that the program depends on but its rows; undefined: it belongs to one call and is not kept. */
  readonly key: string | undefined
  readonly rows: number
  readonly vocabulary?: number
  /** Default 'auto'. */
  readonly activations?: ActivationMode
  readonly kv?: KvSpec
  readonly regions?: readonly RegionSource[]
  build(builder: ProgramBuilder, layout: DeviceLayout): void
}

/** A checked call: its arrays are copies. `work` writes operands, yields the steps to run, and reads the result. */
export interface Call<T> {
  readonly recipe: Recipe
  work(operands: Operands): Generator<Step, T>
}

/** What every `…Async` function takes beside the options of its synchronous twin. */
export interface AsyncOptions {
  /** Rejects with E_ABORTED within a few milliseconds of its firing. */
  signal?: AbortSignal
}

/** Parts the signal from the options that a call shares with its synchronous twin. */
export const takeSignal = <T extends object>(
  options: (T & AsyncOptions) | undefined,
): [AbortSignal | undefined, T?] => {
  // What is no object is refused where options are checked.
  if (typeof options !== 'object' || options === null) return [undefined, options]
  const { signal, ...rest } = options
  return [signal === undefined ? undefined : checkSignal('options.signal', signal), rest as unknown as T]
}

/** A step of `rows` rows without tokens, all of them output rows. */
export const plainStep = (rows: number): Step => ({
  tokens: new Uint32Array(rows),
  positions: new Uint32Array(rows),
  sequences: [],
  outputRows: Uint32Array.from({ length: rows }, (_, row) => row),
})

/** Rows that programs are built for: calls with fewer rows share one. */
const roomFor = (rows: number): number => Math.min(mostRows, Math.max(16, 2 ** Math.ceil(Math.log2(rows))))

const compile = (recipe: Recipe, layout: DeviceLayout): Program => {
  const { kv, vocabulary = 0, activations = 'auto' } = recipe
  const rows = roomFor(recipe.rows)
  const builder = new ProgramBuilder(layout, {
    maxRows: rows,
    maxOutputs: rows,
    maxSequences: 1,
    maxPages: kv?.pages ?? 0,
    vocabulary,
    activations,
    ...(kv === undefined ? {} : { kv }),
  })
  recipe.build(builder, layout)
  return builder.finish()
}

export const load = async (recipe: Recipe, signal?: AbortSignal): Promise<Operands> => {
  const program = compile(recipe, cpuDevice.layout)
  const options = signal === undefined ? {} : { signal }
  return new Operands(program, await cpuDevice.load(program, recipe.regions ?? [], options))
}

export const loadSync = (recipe: Recipe): Operands => {
  const program = compile(recipe, cpuDevice.layout)
  return new Operands(program, cpuDevice.loadSync(program, recipe.regions ?? []))
}

/** Programs between calls, the one unused for longest first. */
class Shelf {
  static readonly #mostPrograms = 32
  static readonly #mostBytes = 64 * 2 ** 20
  readonly #kept: { key: string; operands: Operands }[] = []
  #bytes = 0

  take(key: string): Operands | undefined {
    const at = this.#kept.findLastIndex((entry) => entry.key === key)
    if (at === -1) return undefined
    const [entry] = this.#kept.splice(at, 1)
    this.#bytes -= entry?.operands.bytes ?? 0
    return entry?.operands
  }

  put(key: string, operands: Operands): void {
    this.#kept.push({ key, operands })
    this.#bytes += operands.bytes
    while (this.#kept.length > Shelf.#mostPrograms || this.#bytes > Shelf.#mostBytes) {
      const oldest = this.#kept.shift()
      if (oldest === undefined) return
      this.#bytes -= oldest.operands.bytes
      void oldest.operands.loaded.close()
    }
  }
}

const shelf = new Shelf()

const keyOf = ({ key, rows }: Recipe): string | undefined => (key === undefined ? undefined : `${key} ${roomFor(rows)}`)

/** Programs that a call failed or was aborted in go; others are kept for the next call. */
const putBack = (key: string | undefined, operands: Operands, sound: boolean): void => {
  if (key !== undefined && sound) shelf.put(key, operands)
  else void operands.loaded.close()
}

/** Runs a call on operands that the caller keeps. */
export const runOn = <T>(operands: Operands, call: Pick<Call<T>, 'work'>): T => {
  operands.claim()
  try {
    const work = call.work(operands)
    for (let next = work.next(); ; next = work.next()) {
      if (next.done) return next.value
      operands.loaded.runSync(next.value)
    }
  } finally {
    operands.unclaim()
  }
}

/** The same off the event loop. */
export const runOnAsync = async <T>(
  operands: Operands,
  call: Pick<Call<T>, 'work'>,
  signal?: AbortSignal,
): Promise<T> => {
  operands.claim()
  const abort = (): void => operands.loaded.abort()
  signal?.addEventListener('abort', abort)
  try {
    const work = call.work(operands)
    for (let next = work.next(); ; next = work.next()) {
      if (signal?.aborted) throw aborted('the kernel')
      if (next.done) return next.value
      await operands.loaded.run(next.value)
    }
  } finally {
    signal?.removeEventListener('abort', abort)
    operands.unclaim()
  }
}

/** Runs a call and blocks the thread. */
export const run = <T>(call: Call<T>): T => {
  const key = keyOf(call.recipe)
  const operands = (key === undefined ? undefined : shelf.take(key)) ?? loadSync(call.recipe)
  let sound = false
  try {
    const result = runOn(operands, call)
    sound = true
    return result
  } finally {
    putBack(key, operands, sound)
  }
}

/** Runs a call on the pool's threads. Calls at the same time have programs of their own. */
export const runAsync = async <T>(call: Call<T>, signal?: AbortSignal): Promise<T> => {
  throwIfAborted(signal, 'the kernel')
  const key = keyOf(call.recipe)
  const operands = (key === undefined ? undefined : shelf.take(key)) ?? (await load(call.recipe, signal))
  let sound = false
  try {
    const result = await runOnAsync(operands, call, signal)
    sound = true
    return result
  } finally {
    putBack(key, operands, sound)
  }
}
