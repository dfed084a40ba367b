/** The scheduler on a device that notices every mistake: batches, pages, cancelling, jobs, failing, closing. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { DeviceProgram } from '../../lib/device/device.js'
import { DroverError } from '../../lib/errors.js'
import { Scheduler, type Sequence } from '../../lib/generate/scheduler.js'
import { PagePool } from '../../lib/memory/pages.js'
import { pagePositions } from '../../lib/program/program.js'
import { plainSampling, type Step } from '../../lib/program/step.js'
import { between, pick } from '../program/random-programs.js'
import { randomSource } from '../support.js'
import { continuation, FakeProgram, sampleCols } from './fake-device.js'

interface Setup {
  pages: number
  maxSequences: number
  maxRows?: number
}

const setUp = ({ pages, maxSequences, maxRows = 100 }: Setup) => {
  const program = new FakeProgram(pages)
  const pool = new PagePool(pages)
  const points = { sample: 0, endOp: 1, sampleCols }
  const scheduler = new Scheduler(program as unknown as DeviceProgram, pool, { maxRows, maxSequences }, points)
  return { program, pool, scheduler }
}

type End = { tokens: number[]; reason: 'length' | 'cancelled' } | { error: unknown }

class Run implements Sequence {
  readonly tokens: number[]
  cached = 0
  readonly pages: number[] = []
  readonly prompt: readonly number[]
  readonly seed: bigint
  readonly count: number
  readonly starts: number[] = []
  readonly end: Promise<End>
  #resolve!: (end: End) => void
  onToken: (run: Run) => void = () => {}
  ended = false

  constructor(prompt: readonly number[], count: number, seed = 1n) {
    this.prompt = prompt
    this.tokens = [...prompt]
    this.count = count
    this.seed = seed
    this.end = new Promise((resolve) => {
      this.#resolve = resolve
    })
  }

  get written(): number[] {
    return this.tokens.slice(this.prompt.length)
  }

  get expected(): number[] {
    return continuation(this.prompt, this.count, this.seed)
  }

  sampling() {
    return { ...plainSampling, seed: this.seed, counter: this.written.length }
  }

  started(cachedTokens: number): void {
    this.starts.push(cachedTokens)
  }

  drawn(): boolean {
    assert.not(this.ended, 'a token for one that has ended')
    this.onToken(this)
    if (this.ended) return true
    if (this.written.length < this.count) return false
    this.#finish({ tokens: this.written, reason: 'length' })
    return true
  }

  failed(error: unknown): void {
    this.#finish({ error })
  }

  cancel(scheduler: Scheduler): void {
    if (this.ended) return
    this.#finish({ tokens: this.written, reason: 'cancelled' })
    scheduler.cancel(this)
  }

  #finish(end: End): void {
    this.ended = true
    this.#resolve(end)
  }
}

const prompts = (seed: number, length: number): number[] => {
  const random = randomSource(seed)
  return Array.from({ length }, () => between(random, 0, 250))
}

const assertWhole = async (runs: readonly Run[]): Promise<void> => {
  for (const [i, run] of runs.entries()) {
    assert.equal(await run.end, { tokens: run.expected, reason: 'length' }, `sequence ${i}`)
  }
}

const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5))
const codeOf = (end: End): string => ('error' in end ? (end.error as DroverError).code : `no error: ${end.reason}`)

test('more sequences than fit at once take turns, each with its own result', async () => {
  const { program, pool, scheduler } = setUp({ pages: 40, maxSequences: 3 })
  const runs = Array.from({ length: 11 }, (_, i) => new Run(prompts(i, 5 + 7 * i), 10 + i, BigInt(i)))
  for (const run of runs) scheduler.add(run)
  await assertWhole(runs)
  assert.is(Math.max(...program.steps.map(({ sequences }) => sequences.length)), 3)
  assert.is(pool.available, 40)
  assert.ok(program.steps.some(({ tokens, sequences }) => tokens.length > sequences.length && sequences.length > 1))
})

test('those that write come before prompts, and long prompts are cut', async () => {
  const { program, scheduler } = setUp({ pages: 20, maxSequences: 4, maxRows: 30 })
  const writer = new Run(prompts(1, 3), 30)
  const reader = new Run(prompts(2, 200), 2)
  writer.onToken = ({ written }) => {
    if (written.length === 3) scheduler.add(reader)
  }
  scheduler.add(writer)
  await assertWhole([writer, reader])
  const both = program.steps.filter(({ sequences }) => sequences.length === 2)
  assert.ok(both.length >= 200 / 30 - 1)
  for (const { sequences, tokens } of both) {
    assert.is(sequences[0]!.rows, 1, 'the writer is in every step')
    assert.ok(tokens.length <= 30)
  }
})

test('calls of one turn share their first step', async () => {
  const { program, scheduler } = setUp({ pages: 20, maxSequences: 4 })
  const runs = [1, 2, 3].map((i) => new Run(prompts(i, 4), 1))
  for (const run of runs) scheduler.add(run)
  await assertWhole(runs)
  assert.is(program.steps.length, 1)
})

test('when pages run out the youngest gives way and starts over; all get what they get alone', async () => {
  const { pool, scheduler } = setUp({ pages: 6, maxSequences: 4 })
  const runs = Array.from({ length: 4 }, (_, i) => new Run(prompts(i, 20), 4 * pagePositions - 25, BigInt(i)))
  const order: number[] = []
  runs.forEach((run, i) => {
    void run.end.then(() => order.push(i))
    scheduler.add(run)
  })
  await assertWhole(runs)
  assert.is(pool.available, 6)
  assert.is(runs[0]!.starts.length, 1, 'the oldest never gives way')
  assert.ok(runs[3]!.starts.length > 1, 'the youngest does')
  assert.is(order[0], 0)
})

test('a prompt whose start is known is not computed again', async () => {
  const { program, scheduler } = setUp({ pages: 20, maxSequences: 2 })
  const prompt = prompts(5, 3 * pagePositions + 10)
  const first = new Run(prompt, 70)
  scheduler.add(first)
  await first.end
  const before = program.steps.length
  const second = new Run(prompt, 70)
  // What the first has written is known too; a prompt of whole pages computes its last one.
  const third = new Run([...prompt, ...first.written].slice(0, 4 * pagePositions), 3)
  scheduler.add(second)
  scheduler.add(third)
  await assertWhole([first, second, third])
  assert.equal(second.starts, [3 * pagePositions])
  assert.equal(third.starts, [3 * pagePositions])
  assert.is(program.steps[before]!.tokens.length, 10 + pagePositions)
})

test('cancelling one leaves the others as they are', async () => {
  for (const when of [1, 2, 7]) {
    const { pool, scheduler } = setUp({ pages: 40, maxSequences: 4 })
    const runs = [1, 2, 3, 4, 5].map((i) => new Run(prompts(i, 50), 20, BigInt(i)))
    for (const run of runs) scheduler.add(run)
    const [one, waiting] = [runs[1]!, runs[4]!]
    one.onToken = () => {
      if (one.written.length === when) queueMicrotask(() => one.cancel(scheduler))
    }
    waiting.cancel(scheduler)
    await assertWhole(runs.filter((run) => run !== one && run !== waiting))
    assert.equal(await one.end, { tokens: one.expected.slice(0, when), reason: 'cancelled' })
    assert.equal(await waiting.end, { tokens: [], reason: 'cancelled' })
    assert.is(pool.available, 40)
  }
})

test('a step ends early when most of it is for nobody, and its repetition does not', async () => {
  const { program, pool, scheduler } = setUp({ pages: 40, maxSequences: 8, maxRows: 1000 })
  const writer = new Run(prompts(1, 4), 12)
  scheduler.add(writer)
  await writer.end
  const again = new Run(prompts(2, 4), 6)
  const long = [3, 4, 5].map((i) => new Run(prompts(i, 150), 5))
  for (const run of [again, ...long]) scheduler.add(run)
  let steps = 0
  program.duringStep = () => {
    // Every step loses one more of the long ones.
    long[steps++]?.cancel(scheduler)
    if (steps === 1) long[1]!.cancel(scheduler)
  }
  await assertWhole([again])
  // 300 of 454 rows were lost in the first step; in its repetition nothing is.
  assert.is(program.aborts, 1)
  program.duringStep = () => only.cancel(scheduler)
  const only = new Run(prompts(6, 10), 5)
  scheduler.add(only)
  await only.end
  await settled()
  assert.is(program.aborts, 2, 'a step for nobody ends')
  assert.is(pool.available, 40)
})

test('who cancels all the time does not keep others waiting', async () => {
  const { program, scheduler } = setUp({ pages: 40, maxSequences: 8, maxRows: 1000 })
  const patient = new Run(prompts(1, 4), 10)
  scheduler.add(patient)
  let guest: Run | undefined
  program.duringStep = () => {
    guest?.cancel(scheduler)
    guest = new Run(prompts(program.steps.length, 100), 5)
    scheduler.add(guest)
    if (program.steps.length > 100) throw new Error('no progress')
  }
  await assertWhole([patient])
  assert.ok(program.steps.length < 40)
  program.duringStep = () => {}
  guest?.cancel(scheduler)
})

test('a step that fails fails its sequences, not those that wait', async () => {
  const { program, pool, scheduler } = setUp({ pages: 40, maxSequences: 2 })
  const runs = [1, 2, 3].map((i) => new Run(prompts(i, 5), 5))
  for (const run of runs) scheduler.add(run)
  const failure = new DroverError('E_INTERNAL', 'on purpose')
  program.duringStep = () => {
    if (program.steps.length !== 3) return
    runs[1]!.cancel(scheduler)
    throw failure
  }
  assert.equal(await runs[0]!.end, { error: failure })
  assert.is(((await runs[1]!.end) as { reason: string }).reason, 'cancelled')
  await assertWhole([runs[2]!])
  assert.is(pool.available, 40)
})

test('one that cannot take its token fails alone', async () => {
  const { pool, scheduler } = setUp({ pages: 10, maxSequences: 3 })
  const runs = [1, 2, 3].map((i) => new Run(prompts(i, 5), 8))
  for (const run of runs) scheduler.add(run)
  const failure = new Error('on purpose')
  runs[1]!.onToken = ({ written }) => {
    if (written.length === 3) throw failure
  }
  assert.equal(await runs[1]!.end, { error: failure })
  await assertWhole([runs[0]!, runs[2]!])
  assert.is(pool.available, 10)
})

/** A job of some steps on pages of its own, which it fills and reads. */
const job = (scheduler: Scheduler, length: number, options: { signal?: AbortSignal; steps?: number } = {}) => {
  const tokens = prompts(length, length)
  return scheduler.exclusive(async ({ pages, run }) => {
    const table = pages(length)
    const size = Math.ceil(length / (options.steps ?? 1))
    for (let from = 0; from < length; from += size) {
      const part = tokens.slice(from, from + size)
      const positions = part.map((_, i) => from + i)
      const step: Step = {
        tokens: part,
        positions,
        sequences: [{ rows: part.length, cacheStart: from, pages: table }],
        outputRows: [part.length - 1],
        sampling: [plainSampling],
      }
      await run(step)
    }
    return length
  }, options.signal)
}

test('jobs have the program alone, and take turns with steps', async () => {
  const { program, pool, scheduler } = setUp({ pages: 12, maxSequences: 4 })
  const runs = [1, 2].map((i) => new Run(prompts(i, 5), 30))
  for (const run of runs) scheduler.add(run)
  const results = await Promise.all([50, 60, 70, 80].map((length) => job(scheduler, length, { steps: 3 })))
  assert.equal(results, [50, 60, 70, 80])
  const kinds = program.steps.map(({ sampling }) => (sampling?.[0] === plainSampling ? 'j' : 's')).join('')
  assert.match(kinds, /^(s?jjjs){4}/)
  await assertWhole(runs)
  assert.is(pool.available, 12)
})

test('a job gets its pages from the youngest', async () => {
  const { pool, scheduler } = setUp({ pages: 4, maxSequences: 4 })
  const runs = [1, 2, 3].map((i) => new Run(prompts(i, 40), 40))
  const youngestWrites = new Promise<void>((resolve) => {
    runs[2]!.onToken = () => resolve()
  })
  for (const run of runs) scheduler.add(run)
  // Not for some time: a run that is past its first page could not be spared.
  await youngestWrites
  assert.is(await job(scheduler, 3 * pagePositions), 3 * pagePositions)
  await assertWhole(runs)
  assert.is(runs[0]!.starts.length, 1)
  assert.ok(runs[2]!.starts.length >= 2, 'it gave its pages away')
  assert.is(pool.available, 4)
  try {
    await job(scheduler, 5 * pagePositions)
    assert.unreachable('it does not fit')
  } catch (error) {
    assert.is((error as DroverError).code, 'E_RANGE')
  }
  assert.is(pool.available, 4)
})

test('a job is aborted while it waits, between its steps, and within one', async () => {
  const { program, pool, scheduler } = setUp({ pages: 8, maxSequences: 4 })
  const abortedJob = async (stop: (controller: AbortController) => void): Promise<void> => {
    const controller = new AbortController()
    const pending = job(scheduler, 100, { signal: controller.signal, steps: 4 })
    stop(controller)
    try {
      await pending
      assert.unreachable('it went on')
    } catch (error) {
      assert.is((error as DroverError).code, 'E_ABORTED', String(error))
    }
  }
  await abortedJob((controller) => controller.abort())
  assert.is(program.steps.length, 0, 'while it waits')
  for (const at of [1, 3]) {
    const from = program.steps.length
    await abortedJob((controller) => {
      program.duringStep = () => {
        if (program.steps.length - from === at) controller.abort()
      }
    })
    assert.is(program.steps.length - from, at)
  }
  program.duringStep = () => {}
  const signal = AbortSignal.abort()
  await job(scheduler, 10, { signal }).then(
    () => assert.unreachable(),
    (error) => assert.is(error.code, 'E_ABORTED'),
  )
  assert.is(pool.available, 8)
  assert.is(await job(scheduler, 10), 10, 'the next one runs')
})

test('closing ends what runs, what waits, and jobs, all with the same error', async () => {
  for (const inStep of [false, true]) {
    const { program, pool, scheduler } = setUp({ pages: 8, maxSequences: 2 })
    const runs = [1, 2, 3, 4].map((i) => new Run(prompts(i, 30), 200))
    const error = new DroverError('E_CLOSED', 'closed')
    for (const run of runs) scheduler.add(run)
    const jobs = [20, 30].map((length) => job(scheduler, length, { steps: 5 }).catch((caught: unknown) => caught))
    if (inStep) {
      await new Promise<void>((resolve) => {
        program.duringStep = () => {
          if (program.steps.length === 3) resolve()
        }
      })
    }
    await scheduler.close(error)
    for (const run of runs) assert.is(codeOf(await run.end), 'E_CLOSED')
    assert.equal(await Promise.all(jobs), [error, error])
    const { length } = program.steps
    assert.throws(() => scheduler.add(runs[0]!), /E_CLOSED/)
    assert.throws(() => scheduler.exclusive(async () => {}), /E_CLOSED/)
    await scheduler.close(error)
    await settled()
    assert.is(program.steps.length, length, 'nothing runs any more')
    assert.is(pool.available, 8)
  }
})

test('random traffic: every result is its own, every page comes back', async () => {
  for (let seed = 1; seed <= 25; seed++) {
    const random = randomSource(seed)
    const pages = between(random, 4, 14)
    const { program, pool, scheduler } = setUp({
      pages,
      maxSequences: between(random, 1, 6),
      maxRows: pick(random, [6, 50, 300]),
    })
    const starts = [1, 2, 3].map((i) => prompts(i, 2 * pagePositions))
    const runs: Run[] = []
    const jobs: Promise<unknown>[] = []
    const arrive = (): void => {
      const prompt = [...pick(random, starts).slice(0, between(random, 1, 128)), ...prompts(runs.length, 5)]
      const room = 4 * pagePositions - prompt.length
      const run = new Run(prompt, between(random, 1, Math.min(90, room)), BigInt(runs.length))
      const stopAt = random() < 0.3 ? between(random, 1, run.count) : 0
      run.onToken = ({ written }) => {
        if (written.length !== stopAt) return
        if (random() < 0.5) queueMicrotask(() => run.cancel(scheduler))
        else setImmediate(() => run.cancel(scheduler))
      }
      runs.push(run)
      scheduler.add(run)
      if (random() < 0.1) setImmediate(() => run.cancel(scheduler))
    }
    let failing = 0
    program.duringStep = () => {
      if (runs.length < 40 && random() < 0.2) arrive()
      if (random() < 0.02 && jobs.length < 6) {
        const pending = job(scheduler, between(random, 1, pages * pagePositions), { steps: between(random, 1, 5) })
        pending.catch(() => {}) // looked at in the end
        jobs.push(pending)
      }
      if (random() < 0.003) {
        failing++
        throw new DroverError('E_NATIVE', 'a step fails by chance')
      }
    }
    for (let i = 0; i < 6; i++) arrive()
    for (let i = 0; i < runs.length; i++) {
      const run = runs[i]!
      const end = await run.end
      if ('error' in end) {
        assert.is(codeOf(end), 'E_NATIVE', `seed ${seed}`)
        assert.ok(failing > 0)
      } else if (end.reason === 'length') assert.equal(end.tokens, run.expected, `seed ${seed}, sequence ${i}`)
      else assert.equal(end.tokens, run.expected.slice(0, end.tokens.length), `seed ${seed}, sequence ${i}`)
    }
    for (const outcome of await Promise.allSettled(jobs)) {
      if (outcome.status === 'rejected') assert.is(outcome.reason.code, 'E_NATIVE')
    }
    await settled()
    assert.is(pool.available, pages, `seed ${seed}`)
    await scheduler.close(new DroverError('E_CLOSED', 'closed'))
  }
})

test.run()
