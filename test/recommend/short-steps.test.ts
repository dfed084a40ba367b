/** Short steps run where they are asked for: what is short is learnt, nobody is kept waiting, and a busy pool is left alone. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { cpuDevice } from '../../lib/device/cpu.js'
import type { Device } from '../../lib/device/device.js'
import { referenceDevice } from '../../lib/device/reference.js'
import { openRecommender, programOf } from '../../lib/model/open-recommender.js'
import { bagStep } from '../../lib/program/step.js'
import { loadRecommender } from '../../lib/recommend/recommender.js'
import { StepTime } from '../../lib/recommend/step-time.js'
import { randomSource } from '../support.js'
import { randomRequest, type TinyRecommender, withTiny } from './folders.js'

const tiny: TinyRecommender = { dense: 5, dim: 12, rows: [7, 100, 1000] }
const wide: TinyRecommender = { dense: 5, dim: 64, rows: [1000], bottom: [2048, 2048], top: [2048, 2048] }

const loadOn = async (device: Device, folder: string, maxRows: number) => {
  const opened = await openRecommender(folder)
  const program = programOf(device.layout, opened.config, opened, {
    maxRows,
    activations: 'auto',
    tables: 'mapped',
    keeps: 'scores',
  })
  return { loaded: await device.load(program, opened.regions), program }
}

test('time of steps: learnt from those that run, not from one that was disturbed, tried again in the end', () =>
  withTiny(tiny, async (folder) => {
    const { loaded, program } = await loadOn(cpuDevice, folder, 8)
    await loaded.close()
    const time = new StepTime(program)
    const first = time.predict(4, 20)
    assert.ok(first > 0)
    assert.ok(time.predict(8, 20) > first && time.predict(4, 40) > first)
    for (let i = 0; i < 100; i++) time.took(time.predict(4, 20), first / 4)
    assert.ok(Math.abs(time.predict(4, 20) / first - 0.25) < 0.01)
    const before = time.predict(4, 20)
    time.took(before, 1000 * first)
    assert.ok(time.predict(4, 20) < 1.2 * before)
    for (let i = 0; i < 200; i++) time.took(time.predict(4, 20), 50 * first)
    assert.ok(time.predict(4, 20) > 40 * first)
    for (let i = 0; i < 1000; i++) time.forget()
    assert.ok(time.predict(4, 20) < 1.1 * first)
  }))

test('tryRunSync runs a step, or leaves it alone while the device is busy', () =>
  withTiny(wide, (large) =>
    withTiny(tiny, async (small) => {
      for (const device of [cpuDevice, referenceDevice]) {
        const rows = device === cpuDevice ? 256 : 1
        const one = await loadOn(device, large, rows)
        const other = device === cpuDevice ? await loadOn(device, small, 4) : one
        const request = randomRequest(randomSource(1), tiny, 3)
        const step =
          other === one ? bagStep(1, randomRequest(randomSource(1), wide, 1).sparse) : bagStep(3, request.sparse)
        // The end of a load or a step is told a moment before the leader is free.
        const runsSoon = (): void => {
          const end = performance.now() + 1000
          while (!other.loaded.tryRunSync(step)) assert.ok(performance.now() < end, device.name)
        }
        runsSoon()
        const running = one.loaded.run(bagStep(rows, randomRequest(randomSource(2), wide, rows).sparse))
        assert.not.ok(other.loaded.tryRunSync(step), device.name)
        await running
        runsSoon()
        await one.loaded.close()
        await other.loaded.close()
      }
    }),
  ))

test('a step that is refused where it is asked for is refused as any other', () =>
  withTiny(tiny, async (folder) => {
    await using recommender = await loadRecommender(folder, { tables: 'prepared' })
    const request = randomRequest(randomSource(3), tiny, 1)
    const bad = {
      ...request,
      sparse: [{ indices: Int32Array.of(7), offsets: Int32Array.of(0, 1) }, ...request.sparse.slice(1)],
    }
    const [good, wrong] = await Promise.allSettled([recommender.score(request), recommender.score(bad)])
    assert.is(good?.status, 'fulfilled')
    assert.is((wrong as PromiseRejectedResult).reason.field, 'request.sparse[0].indices[0]')
  }))

test('callers that ask again at once do not keep timers waiting', () =>
  withTiny(tiny, async (folder) => {
    await using recommender = await loadRecommender(folder, { tables: 'prepared' })
    const request = randomRequest(randomSource(4), tiny, 1)
    let stop = false
    let calls = 0
    const callers = Array.from({ length: 8 }, async () => {
      while (!stop) {
        await recommender.score(request)
        calls++
      }
    })
    let turns = 0
    const began = performance.now()
    while (performance.now() - began < 200) {
      await new Promise((resolve) => setTimeout(resolve, 1))
      turns++
    }
    stop = true
    await Promise.all(callers)
    assert.ok(calls > 100, `${calls} calls`)
    assert.ok(turns > 4, `${turns} turns of timers in 200 ms`)
  }))

test.run()
