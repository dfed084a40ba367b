// How the Node engines of recommend.mjs time their calls and read their requests, as recommend_peers.py does.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

const now = () => process.hrtime.bigint()

const summaryOf = (times) => {
  const sorted = Float64Array.from(times).sort()
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] / 1e9
  return { seconds: at(0.5), p99: at(0.99), calls: sorted.length }
}

/** How long to measure, the first fifth as long again to warm up: at least 5 calls, at most 200,000. */
const phases = (milliseconds) => [milliseconds / 5, milliseconds]
const goesOn = (times, end) => times.length < 5 || (times.length < 200_000 && now() < end)

/** Times single calls; making a request does not count. */
export const measureSync = (milliseconds, nextRequest, call) => {
  let times = []
  for (const phase of phases(milliseconds)) {
    times = []
    for (const end = now() + BigInt(Math.round(phase * 1e6)); goesOn(times, end); ) {
      const request = nextRequest()
      const start = now()
      call(request)
      times.push(Number(now() - start))
    }
  }
  return summaryOf(times)
}

/** The same of calls that return promises, one after the other: the way over the event loop counts. */
export const measureAsync = async (milliseconds, nextRequest, call) => {
  let times = []
  for (const phase of phases(milliseconds)) {
    times = []
    for (const end = now() + BigInt(Math.round(phase * 1e6)); goesOn(times, end); ) {
      const request = nextRequest()
      const start = now()
      await call(request)
      times.push(Number(now() - start))
    }
  }
  return summaryOf(times)
}

/** Mean of absolute values, by which the outputs of engines are compared. */
export const checkOf = (values) => values.reduce((sum, value) => sum + Math.abs(value), 0) / values.length

export const readInt32 = (path) => {
  const bytes = readFileSync(path)
  return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
}

/** Requests of a model: `next(batch)` is a function that gives one batch after the other, from the first on. */
export const requestsOf = ({ requests, samples }, lookups) => {
  const bytes = readFileSync(join(requests, 'dense.f32'))
  const dense = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
  const features = dense.length / samples
  const tables = lookups.map((_, i) => readInt32(join(requests, `t${i}.i32`)))
  return (batch) => {
    const offsets = lookups.map((count) => Int32Array.from({ length: batch + 1 }, (_, i) => i * count))
    let at = 0
    return () => {
      const start = at + batch <= samples ? at : 0
      at = start + batch
      return {
        dense: dense.subarray(start * features, at * features),
        sparse: tables.map((indices, i) => ({
          indices: indices.subarray(start * lookups[i], at * lookups[i]),
          offsets: offsets[i],
        })),
      }
    }
  }
}
