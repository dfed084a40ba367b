/** A loaded recommender: scores of requests, merged into steps; and the exchange of its tables while it works. */
import { checkString } from '../check.js'
import { DroverError } from '../errors.js'
import { Engine } from './engine.js'
import {
  checkedOptions,
  checkedScoreOptions,
  checkedSwapOptions,
  defaults,
  type RecommenderOptions,
  type ScoreOptions,
  type SwapOptions,
} from './options.js'
import { checkRequest, type ScoreRequest } from './request.js'
import { type RecommenderStats, Stats } from './stats.js'
import { loadVersion, type RecommenderInfo, type Version } from './version.js'

/** Loads a folder with config.json (architecture "dlrm", "dlrm_dcn" or "deepfm") and safetensors. */
export const loadRecommender = async (path: string, input?: RecommenderOptions): Promise<Recommender> => {
  checkString('path', path)
  const options = checkedOptions(input)
  return new Recommender(await loadVersion(path, options), options)
}

interface Active extends Version {
  readonly engine: Engine
}

const closedError = (): DroverError => new DroverError('E_CLOSED', 'the recommender has been closed')

/** Memory that a budget covers: mapped files are not ours. */
const counted = (usage: Record<string, number>): number =>
  Object.entries(usage).reduce((sum, [name, bytes]) => sum + (/mapped/i.test(name) ? 0 : bytes), 0)

/** A loaded recommender. Any number of calls may be in flight at once; `close()` ends them. */
export class Recommender implements AsyncDisposable {
  readonly #options: RecommenderOptions
  readonly #stats: Stats
  #current: Active
  /** Versions that still answer calls made before they were exchanged. */
  readonly #retiring = new Set<Active>()
  #swapping: { readonly stop: AbortController; readonly done: Promise<void> } | undefined
  #closing: Promise<void> | undefined

  /** @internal use {@link loadRecommender} */
  constructor(version: Version, options: RecommenderOptions) {
    this.#options = options
    this.#stats = new Stats(version.info.maxBatch)
    this.#current = this.#activate(version)
  }

  get info(): RecommenderInfo {
    this.#check()
    const { info, net } = this.#current
    return {
      ...info,
      // Asks the system for every page: only those who want to know pay for it.
      get residentBytes() {
        return net.residentBytes()
      },
    }
  }

  /**
   * A probability per row. The request is copied at the call. Rejects with E_ARGUMENT, E_SHAPE, E_RANGE (naming table, bag,
   * position in the bag and value), E_BUSY (too many wait), E_ABORTED, E_DEADLINE, E_MEMORY, E_CLOSED.
   */
  async score(request: ScoreRequest, options?: ScoreOptions): Promise<Float32Array> {
    const { engine, net } = this.#active()
    return this.#counting(() => {
      const checked = checkedScoreOptions(options)
      engine.admit(checked) // what is refused need not be copied
      return engine.score(checkRequest(request, net.shape, false), checked)
    })
  }

  /**
   * The same on the caller's thread, for requests shorter than a thread hop; waits for what the device's threads are doing.
   * Throws E_ARGUMENT, E_SHAPE, E_RANGE, E_MEMORY, E_CLOSED.
   */
  scoreSync(request: ScoreRequest): Float32Array {
    const { engine, net } = this.#active()
    return this.#counting(() => engine.scoreSync(checkRequest(request, net.shape, true)))
  }

  /**
   * Loads another folder beside this one and, when it is complete, sends all later calls to it; calls in flight are answered
   * by the old version, which is freed with the last of them. The budget covers both. The new version may have other
   * tables and features. Throws what loading throws, E_BUSY while another exchange goes on; the old version then stays.
   */
  async swap(path: string, input?: SwapOptions): Promise<void> {
    this.#check()
    checkString('path', path)
    const { signal, onProgress } = checkedSwapOptions(input)
    if (this.#swapping !== undefined) throw new DroverError('E_BUSY', 'another version is being loaded')
    const stop = new AbortController()
    const done = this.#exchange(path, {
      ...this.#options,
      onProgress,
      signal: signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]),
    }).finally(() => {
      this.#swapping = undefined
    })
    this.#swapping = { stop, done }
    return done
  }

  async #exchange(path: string, options: RecommenderOptions): Promise<void> {
    const { memoryBudget } = options
    try {
      const version = await loadVersion(path, {
        ...options,
        ...(memoryBudget === undefined ? {} : { memoryBudget: this.#left(memoryBudget) }),
      })
      if (this.#closing !== undefined) await version.net.close()
      this.#check()
      const old = this.#current
      this.#current = this.#activate(version)
      this.#stats.swapped()
      this.#retire(old)
    } catch (error) {
      this.#check()
      throw error
    }
  }

  /** Counts and histograms since loading, over all versions. */
  stats(): RecommenderStats {
    return this.#stats.report(this.#versions().reduce((sum, { engine }) => sum + engine.inFlight, 0))
  }

  /** Bytes by arena, of all versions that are in use; mapped files apart. */
  memoryUsage(): Record<string, number> {
    this.#check()
    const total: Record<string, number> = {}
    for (const { net, converted } of this.#versions()) {
      for (const [name, bytes] of Object.entries({ ...net.memoryUsage(), converted })) {
        total[name] = (total[name] ?? 0) + bytes
      }
    }
    return total
  }

  /** Ends what is in flight with E_CLOSED and frees everything. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    const swap = this.#swapping
    swap?.stop.abort()
    const error = new DroverError('E_CLOSED', 'the recommender was closed while this was running')
    await Promise.all(
      this.#versions().map(async ({ engine, net }) => {
        await engine.close(error)
        await net.close()
      }),
    )
    await swap?.done.catch(() => {}) // its caller hears of it
  }

  #activate(version: Version): Active {
    const { maxDelayMs = defaults.maxDelayMs, queueLimit = defaults.queueLimit } = this.#options
    const limits = { maxBatch: version.info.maxBatch, maxDelayMs, queueLimit }
    return { ...version, engine: new Engine(version.net, limits, this.#stats) }
  }

  #retire(old: Active): void {
    this.#retiring.add(old)
    void old.engine.drained().then(() => {
      this.#retiring.delete(old) // nobody asks a closed net
      return old.net.close()
    })
  }

  #versions(): Active[] {
    return [this.#current, ...this.#retiring]
  }

  /** What a budget leaves for another version. */
  #left(memoryBudget: number): number {
    const used = counted(this.memoryUsage())
    if (used < memoryBudget) return memoryBudget - used
    throw new DroverError('E_MEMORY', 'there is no memory for another version', {
      field: 'options.memoryBudget',
      found: `${used} bytes in use`,
      expected: `less than ${memoryBudget}`,
      hint: 'raise the budget, or load with tables: "mapped"',
    })
  }

  #check(): void {
    if (this.#closing !== undefined) throw closedError()
  }

  #active(): Active {
    this.#check()
    return this.#current
  }

  /** Counts a call that is refused before it waits; the engine counts the others. */
  #counting<T>(body: () => T): T {
    try {
      return body()
    } catch (error) {
      this.#stats.failed(error instanceof DroverError ? error.code : 'E_INTERNAL')
      throw error
    }
  }
}
