/** The native verifier: whatever the words of a program or a step say, they are refused or they run. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { cpuDevice } from '../../lib/device/cpu.js'
import { type NativeProgram, type NativeRegion, nativeAddon } from '../../lib/device/native.js'
import { encodeProgram } from '../../lib/program/encode.js'
import { planProgram } from '../../lib/program/plan.js'
import { encodeStep } from '../../lib/program/step.js'
import { randomSource } from '../support.js'
import { between, pick, type Random, type RandomProgram, randomProgram } from './random-programs.js'

const settings = { threads: 2, memoryBudget: 64 * 2 ** 20, verifyWeights: 0 }
const headerWords = 24
const codes = ['E_PROGRAM', 'E_RANGE', 'E_MEMORY']

const wordsOf = ({ program }: RandomProgram): Uint32Array =>
  encodeProgram(program, planProgram(program, cpuDevice.layout), cpuDevice.layout)

const openRegions = ({ regions }: RandomProgram): NativeRegion[] => {
  const { Region } = nativeAddon()
  return regions.map(({ data }) => new Region(data))
}

const interesting = [0, 1, 2, 3, 31, 32, 33, 63, 64, 65, 255, 256, 2 ** 16, 2 ** 24, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1]

/** Changes one to four words; sometimes also the length, with or without its word in the header. */
const mutate = (random: Random, words: Uint32Array, lengthAt: number): Uint32Array => {
  let out = words.slice()
  for (let n = between(random, 1, 4); n > 0; n--) {
    const at =
      random() < 0.3 ? between(random, 0, Math.min(headerWords, out.length) - 1) : between(random, 0, out.length - 1)
    const old = out[at]!
    const change = between(random, 0, 5)
    if (change === 0) out[at] = pick(random, interesting)
    else if (change === 1) out[at] = old + pick(random, [-1, 1, 2, -2, 64])
    else if (change === 2) out[at] = old ^ (1 << between(random, 0, 31))
    else if (change === 3) out[at] = pick(random, [...out])
    else if (change === 4) out[at] = between(random, 0, 20)
    else out[at] = Math.floor(random() * 2 ** 32)
  }
  if (random() < 0.05) {
    const length = between(random, 1, out.length + 3)
    const resized = new Uint32Array(length)
    resized.set(out.subarray(0, length))
    if (random() < 0.5 && length > lengthAt) resized[lengthAt] = length
    out = resized
  }
  return out
}

/** The error's code, or undefined when the body went through; anything but a refusal fails. */
const refusal = (body: () => void): string | undefined => {
  try {
    body()
    return undefined
  } catch (error) {
    const { code } = error as { code?: string }
    assert.ok(code !== undefined && codes.includes(code), String(error))
    return code
  }
}

test('40,000 mutated programs are refused, or run every step or refuse it', () => {
  const { loadProgramSync } = nativeAddon()
  const counts = { refused: 0, loaded: 0, steps: 0 }
  for (let seed = 1; seed <= 20; seed++) {
    const random = randomSource(seed)
    const source = randomProgram(random)
    const words = wordsOf(source)
    const steps = source.steps.map((step) => encodeStep(step, source.program.ops.length))
    const regions = openRegions(source)
    for (let n = 0; n < 2000; n++) {
      const mutant = mutate(random, words, 2)
      let program: NativeProgram | undefined
      const code = refusal(() => {
        program = loadProgramSync(mutant, regions, settings)
      })
      if (code !== undefined || program === undefined) {
        counts.refused++
        continue
      }
      counts.loaded++
      for (const step of steps) {
        if (refusal(() => program?.runSync(step)) === undefined) counts.steps++
      }
      program.release()
    }
    for (const region of regions) region.release()
  }
  // Both ways are taken often: most words matter, and some mutations change nothing that matters.
  assert.ok(counts.refused > 20000, JSON.stringify(counts))
  assert.ok(counts.loaded > 1000 && counts.steps > 1000, JSON.stringify(counts))
})

test('20,000 mutated steps are refused or run', () => {
  const { loadProgramSync } = nativeAddon()
  const counts = { refused: 0, ran: 0 }
  for (let seed = 51; seed <= 60; seed++) {
    const random = randomSource(seed)
    const source = randomProgram(random)
    const regions = openRegions(source)
    const program = loadProgramSync(wordsOf(source), regions, settings)
    const steps = source.steps.map((step) => encodeStep(step, source.program.ops.length))
    for (let n = 0; n < 2000; n++) {
      const mutant = mutate(random, pick(random, steps), 1)
      if (refusal(() => program.runSync(mutant)) === undefined) counts.ran++
      else counts.refused++
    }
    // Refusals leave the program as it was.
    for (const step of steps) program.runSync(step)
    program.release()
    for (const region of regions) region.release()
  }
  assert.ok(counts.refused > 5000 && counts.ran > 2000, JSON.stringify(counts))
})

test('every shortened program and step is refused', () => {
  const { loadProgramSync } = nativeAddon()
  const source = randomProgram(randomSource(3))
  const regions = openRegions(source)
  const words = wordsOf(source)
  for (let length = 1; length < words.length; length++) {
    const short = words.slice(0, length)
    if (length > 2) short[2] = length
    assert.is(
      refusal(() => loadProgramSync(short, regions, settings)),
      'E_PROGRAM',
      `${length} words`,
    )
  }
  const program = loadProgramSync(words, regions, settings)
  const step = encodeStep(source.steps[0]!, source.program.ops.length)
  for (let length = 1; length < step.length; length++) {
    const short = step.slice(0, length)
    if (length > 1) short[1] = length
    assert.is(
      refusal(() => program.runSync(short)),
      'E_RANGE',
      `${length} words`,
    )
  }
  program.release()
  for (const region of regions) region.release()
})

test.run()
