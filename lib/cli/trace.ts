/**
 * Measured steps as a trace in Chrome's format, which Perfetto opens: one line for steps, one for their ops, one per
 * worker. And a summary by kind of op.
 */
import { type Limits, leastTime } from '../device/limits.js'
import type { ProfiledStep } from '../generate/model.js'
import { opCost } from '../program/cost.js'
import type { DeviceLayout, Program } from '../program/program.js'

/** Times are in microseconds since the first step. */
export interface TraceEvent {
  name: string
  cat?: string
  /** X: from ts for dur; M: names a line. */
  ph: 'X' | 'M'
  ts: number
  dur?: number
  pid: number
  tid: number
  args: Record<string, unknown>
}

export interface Trace {
  displayTimeUnit: 'ms'
  otherData: Record<string, unknown>
  traceEvents: TraceEvent[]
}

/** All ops of one kind in all steps. */
export interface KindSummary {
  op: string
  calls: number
  ms: number
  /** Of the time of all ops. */
  shareOfTime: number
  /** The least time that the machine's limits allow, by the time taken. */
  shareOfLimit: number
  /** Workers' time without work while others had some, of all workers' time. */
  lostInBarriers: number
}

export interface Summary {
  /** From the first op of each step to its last. */
  stepsMs: number
  /** False: all that a step reads fits the last cache, and the speed of memory is no limit. */
  readsMemory: boolean
  ops: KindSummary[]
}

const pid = 1
const lines = { steps: 0, ops: 1, firstWorker: 2 }
/** Three decimals of a microsecond are the clock's nanoseconds. */
const micro = (ns: number): number => Math.round(ns) / 1000
const percent = (value: number): number => Math.round(value * 1000) / 10

const nameLine = (tid: number, name: string): TraceEvent[] => [
  { name: 'thread_name', ph: 'M', ts: 0, pid, tid, args: { name } },
  { name: 'thread_sort_index', ph: 'M', ts: 0, pid, tid, args: { sort_index: tid } },
]

export const traceOf = (
  steps: readonly ProfiledStep[],
  program: Program,
  layout: DeviceLayout,
  { limits, lastCacheBytes }: { limits: Limits; lastCacheBytes: number },
  facts: Record<string, unknown>,
): Summary & { trace: Trace } => {
  const workers = steps[0]?.times[0]?.busy.length ?? 0
  const events: TraceEvent[] = [
    { name: 'process_name', ph: 'M', ts: 0, pid, tid: 0, args: { name: 'drover' } },
    ...nameLine(lines.steps, 'steps'),
    ...nameLine(lines.ops, 'ops'),
    ...Array.from({ length: workers }, (_, i) => nameLine(lines.firstWorker + i, `worker ${i}, busy`)).flat(),
  ]
  const kinds = new Map<string, { calls: number; ns: number; least: number; lost: number }>()
  const ran = ({ times }: ProfiledStep) => times.filter(({ end }) => end > 0n)
  const origin = steps[0] === undefined ? 0n : (ran(steps[0])[0]?.start ?? 0n)
  const bytesOf = ({ step, times }: ProfiledStep): number =>
    program.ops.reduce((sum, op, i) => sum + (times[i]?.end ? opCost(program, layout, step, op).bytes : 0), 0)
  const readsMemory = steps.some((profiled) => bytesOf(profiled) > lastCacheBytes)
  let stepsNs = 0
  for (const profiled of steps) {
    const { step, times } = profiled
    const own = ran(profiled)
    const first = own[0]?.start ?? origin
    const duration = Number((own[own.length - 1]?.end ?? first) - first)
    stepsNs += duration
    events.push({
      name: `${step.tokens.length} ${step.tokens.length === 1 ? 'row' : 'rows'}`,
      cat: 'step',
      ph: 'X',
      ts: micro(Number(first - origin)),
      dur: micro(duration),
      pid,
      tid: lines.steps,
      args: {
        rows: step.tokens.length,
        outputs: step.outputRows.length,
        sequences: step.sequences.map(({ rows, cacheStart }) => `${rows} rows behind ${cacheStart}`),
      },
    })
    times.forEach(({ start, end, busy }, i) => {
      const op = program.ops[i]
      if (end === 0n || op === undefined) return
      const ns = Number(end - start)
      const ts = micro(Number(start - origin))
      const cost = opCost(program, layout, step, op)
      const least = leastTime(readsMemory ? cost : { ...cost, bytes: 0 }, limits)
      const lost = busy.reduce((sum, time) => sum + ns - Number(time), 0)
      const args = {
        op: op.op,
        bytes: cost.bytes,
        activationBytes: cost.activationBytes,
        flops: cost.flops,
        'GB/s': ns === 0 ? 0 : Number((cost.bytes / ns).toPrecision(4)),
        'Gop/s': ns === 0 ? 0 : Number((cost.flops / ns).toPrecision(4)),
        limit: least.bound,
        '% of limit': ns === 0 ? 0 : percent((least.seconds * 1e9) / ns),
        'lost in barriers, µs of all workers': micro(lost),
      }
      events.push({ name: op.name, cat: op.op, ph: 'X', ts, dur: micro(ns), pid, tid: lines.ops, args })
      // The clock tells how long a worker was busy, not when: its bar begins with the op.
      busy.forEach((time, worker) => {
        const dur = micro(Number(time))
        if (time > 0n)
          events.push({
            name: op.name,
            cat: 'worker',
            ph: 'X',
            ts,
            dur,
            pid,
            tid: lines.firstWorker + worker,
            args: {},
          })
      })
      const kind = kinds.get(op.op) ?? { calls: 0, ns: 0, least: 0, lost: 0 }
      kinds.set(op.op, {
        calls: kind.calls + 1,
        ns: kind.ns + ns,
        least: kind.least + least.seconds * 1e9,
        lost: kind.lost + lost,
      })
    })
  }
  const total = [...kinds.values()].reduce((sum, { ns }) => sum + ns, 0)
  const summaries = [...kinds].map(([op, { calls, ns, least, lost }]) => ({
    op,
    calls,
    ms: ns / 1e6,
    shareOfTime: ns / total,
    shareOfLimit: ns === 0 ? 0 : least / ns,
    lostInBarriers: ns === 0 ? 0 : lost / (ns * workers),
  }))
  return {
    trace: { displayTimeUnit: 'ms', otherData: { ...facts, limits, readsMemory }, traceEvents: events },
    stepsMs: stepsNs / 1e6,
    readsMemory,
    ops: summaries.sort((a, b) => b.ms - a.ms),
  }
}
