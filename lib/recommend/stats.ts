/** What a recommender has done so far: counts, and histograms that take the same memory however long it runs. */

/** Counts of values by size; `bounds[i]` is the largest value that `counts[i]` counts, the last has no bound. */
export interface HistogramReport {
  readonly bounds: readonly number[]
  readonly counts: readonly number[]
  readonly count: number
  readonly mean: number
  readonly max: number
  /** Upper ends of the bins that hold the middle value and the 99th of 100; at most `max`. */
  readonly p50: number
  readonly p99: number
}

/** What a recommender has done since it was loaded. */
export interface RecommenderStats {
  /** Calls of `score` and `scoreSync` that were answered, and their rows. */
  readonly requests: number
  readonly rows: number
  /** Calls that were refused or failed, by error code. */
  readonly failed: Readonly<Record<string, number>>
  /** Calls that wait or run at this moment. */
  readonly inFlight: number
  /** Indices out of range, by what was done with them. */
  readonly skippedIndices: number
  readonly clampedIndices: number
  readonly swaps: number
  /** Rows of each step that ran: what merging made of the requests. */
  readonly batchSize: HistogramReport
  /** Milliseconds from the call to its answer. */
  readonly latencyMs: HistogramReport
}

class Histogram {
  readonly #bounds: readonly number[]
  readonly #counts: Float64Array
  #sum = 0
  #max = 0

  /** @param bounds ascending. */
  constructor(bounds: readonly number[]) {
    this.#bounds = bounds
    this.#counts = new Float64Array(bounds.length + 1)
  }

  add(value: number): void {
    let [low, high] = [0, this.#bounds.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (value <= (this.#bounds[middle] as number)) high = middle
      else low = middle + 1
    }
    this.#counts[low]! += 1
    this.#sum += value
    if (value > this.#max) this.#max = value
  }

  report(): HistogramReport {
    const count = this.#counts.reduce((sum, n) => sum + n, 0)
    const quantile = (share: number): number => {
      let left = share * count
      const bin = this.#counts.findIndex((n) => (left -= n) <= 0)
      return Math.min(this.#max, this.#bounds[bin] ?? this.#max)
    }
    return {
      bounds: this.#bounds,
      counts: [...this.#counts],
      count,
      mean: count === 0 ? 0 : this.#sum / count,
      max: this.#max,
      p50: quantile(0.5),
      p99: quantile(0.99),
    }
  }
}

/** Powers of two up to the largest step. */
const batchBounds = (maxBatch: number): number[] => {
  const bounds = [1]
  while ((bounds.at(-1) as number) * 2 < maxBatch) bounds.push((bounds.at(-1) as number) * 2)
  return maxBatch > 1 ? [...bounds, maxBatch] : bounds
}

/** From 1 µs to a minute, eight to an octave: within 9 % of the truth. */
const latencyBounds = Array.from({ length: 8 * 26 + 1 }, (_, i) => 0.001 * 2 ** (i / 8))

export class Stats {
  readonly #batchSize: Histogram
  readonly #latency = new Histogram(latencyBounds)
  readonly #failed = new Map<string, number>()
  #requests = 0
  #rows = 0
  #skipped = 0
  #clamped = 0
  #swaps = 0

  constructor(maxBatch: number) {
    this.#batchSize = new Histogram(batchBounds(maxBatch))
  }

  answered(rows: number, milliseconds: number): void {
    this.#requests++
    this.#rows += rows
    this.#latency.add(milliseconds)
  }

  failed(code: string): void {
    this.#failed.set(code, (this.#failed.get(code) ?? 0) + 1)
  }

  step(rows: number, { skipped, clamped }: { skipped: number; clamped: number }): void {
    this.#batchSize.add(rows)
    this.#skipped += skipped
    this.#clamped += clamped
  }

  swapped(): void {
    this.#swaps++
  }

  report(inFlight: number): RecommenderStats {
    return {
      requests: this.#requests,
      rows: this.#rows,
      failed: Object.fromEntries(this.#failed),
      inFlight,
      skippedIndices: this.#skipped,
      clampedIndices: this.#clamped,
      swaps: this.#swaps,
      batchSize: this.#batchSize.report(),
      latencyMs: this.#latency.report(),
    }
  }
}
