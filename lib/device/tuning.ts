/**
 * Which of several ways to compute the same bits is fastest here: measured once per machine, for about a third of a
 * second, before the first large model is loaded; kept in a file that may be deleted.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { cpus, homedir } from 'node:os'
import { dirname, isAbsolute, join } from 'node:path'
import { ProgramBuilder } from '../program/builder.js'
import { version } from '../version.js'
import type { Device } from './device.js'
import { type CpuInfo, nativeAddon, type Tuning } from './native.js'

export type { Tuning }

/** Bytes of prepared weights from which on a load takes longer than the search. */
const largeBytes = 2 ** 28
/** Below this share of the suggested way's time another one is taken: less may be noise. */
const clearlyFaster = 0.95
const rounds = 5

/** Where caches belong on this system; undefined where there is no home. */
const cacheHome = (): string | undefined => {
  const { XDG_CACHE_HOME: xdg, LOCALAPPDATA: local } = process.env
  if (process.platform === 'win32') return local
  if (xdg !== undefined && isAbsolute(xdg)) return xdg
  const home = homedir()
  if (home === '') return undefined
  return process.platform === 'darwin' ? join(home, 'Library', 'Caches') : join(home, '.cache')
}

/** What the choices hold for: another CPU, kernel set or version of drover looks for its own. */
const machineOf = ({ isa, l1dBytes, l2Bytes, l3Bytes }: CpuInfo): string =>
  JSON.stringify([version, cpus()[0]?.model ?? '', isa, l1dBytes, l2Bytes, l3Bytes])

/** The file of this machine's choices: DROVER_TUNING, or one among the user's caches. undefined: none is kept. */
export const tuningFile = (): string | undefined => {
  const { DROVER_TUNING: given } = process.env
  if (given !== undefined && given !== '') return given === 'off' ? undefined : given
  const home = cacheHome()
  const name = createHash('sha256').update(machineOf(nativeAddon().cpu())).digest('hex').slice(0, 16)
  return home === undefined ? undefined : join(home, 'drover', `tuning-${name}.json`)
}

const setTuning = ({ requests, floatRows, floatPanels, byteRows }: Tuning): void =>
  nativeAddon().setTuning(requests, floatRows, floatPanels, byteRows)

/** Sets what the file holds; false where it is missing, of another machine, or nothing that could be set. */
const useFile = (path: string): boolean => {
  try {
    const { machine, tuning } = JSON.parse(readFileSync(path, 'utf8')) as { machine: string; tuning: Tuning }
    if (machine !== machineOf(nativeAddon().cpu())) return false
    setTuning(tuning)
    return true
  } catch {
    return false
  }
}

/** Other processes see the whole file or none. One that cannot be written is made again by the next process. */
const writeTuning = async (path: string, content: object): Promise<void> => {
  const draft = `${path}.${process.pid}.tmp`
  try {
    await mkdir(dirname(path), { recursive: true })
    await writeFile(draft, `${JSON.stringify(content, undefined, 1)}\n`)
    await rename(draft, path)
  } catch {
    await rm(draft, { force: true }).catch(() => {})
  }
}

interface Work {
  rows: number
  cols: number
  depth: number
  dtype: 'f32' | 'q8_0'
}
const elementBytes = { f32: 4, q8_0: 34 / 32 }

/** Median seconds of `work` on one thread for each choice, turn by turn. */
const measure = async (device: Device, { rows, cols, depth, dtype }: Work, choices: Tuning[]): Promise<number[]> => {
  const builder = new ProgramBuilder(device.layout, {
    ...{ maxRows: rows, maxOutputs: 0, maxSequences: 0, maxPages: 0, vocabulary: 0 },
    activations: 'auto',
  })
  const weight = { name: 'weight', dtype, rows: cols, cols: depth, region: 0, offset: 0 }
  builder.output('y', builder.linear('y', builder.input('x', 'rows', depth), weight))
  // Zeros: every format has them, and they take as long as other numbers.
  const data = new Uint8Array(cols * depth * elementBytes[dtype])
  const loaded = await device.load(builder.finish(), [{ data }], { threads: 1 })
  const none = new Uint32Array(rows)
  const step = { tokens: none, positions: none, sequences: [], outputRows: [] }
  try {
    const times = choices.map((): number[] => [])
    for (let round = -1; round < rounds; round++) {
      for (const [i, choice] of choices.entries()) {
        setTuning(choice)
        const start = performance.now()
        await loaded.run(step)
        if (round >= 0) times[i]!.push((performance.now() - start) / 1000)
      }
    }
    return times.map((list) => list.sort((a, b) => a - b)[list.length >> 1]!)
  } finally {
    await loaded.close()
  }
}

/** The suggested choice, or the fastest of the others where that is clearly faster. */
const pick = async (
  device: Device,
  work: Work,
  suggested: Tuning,
  others: readonly Partial<Tuning>[],
): Promise<{ choice: Tuning; times: Record<string, number> }> => {
  const choices = [suggested, ...others.map((other) => ({ ...suggested, ...other }))]
  const seconds = await measure(device, work, choices)
  const best = seconds.indexOf(Math.min(...seconds))
  const isBetter = seconds[best]! < seconds[0]! * clearlyFaster
  const names = ['suggested', ...others.map((other) => JSON.stringify(other))]
  return {
    choice: choices[isBetter ? best : 0]!,
    times: Object.fromEntries(names.map((name, i) => [name, seconds[i]!])),
  }
}

const search = async (
  device: Device,
  info: CpuInfo,
): Promise<{ tuning: Tuning; seconds: Record<string, number>[] }> => {
  let tuning = nativeAddon().tuning()
  const seconds: Record<string, number>[] = []
  const dimension = async (work: Work, others: readonly Partial<Tuning>[]): Promise<void> => {
    const different = others.filter((other) =>
      Object.entries(other).some(([name, value]) => tuning[name as keyof Tuning] !== value),
    )
    const { choice, times } = await pick(device, work, tuning, different)
    tuning = choice
    seconds.push(times)
  }
  // From memory: twice what the last cache holds, within reason.
  const weights = Math.min(Math.max(2 * info.l3Bytes, 2 ** 26), 2 ** 27)
  await dimension({ rows: 1, cols: Math.ceil(weights / 4096), depth: 4096, dtype: 'q8_0' }, [
    { requests: 1 },
    { requests: 2 },
  ])
  await dimension({ rows: 256, cols: 1024, depth: 1024, dtype: 'f32' }, [
    { floatRows: 256, floatPanels: 32 },
    { floatRows: 128, floatPanels: 32 },
    { floatRows: 128, floatPanels: 16 },
    { floatRows: 64, floatPanels: 32 },
  ])
  const l2 = info.l2Bytes === 0 ? 2 ** 20 : info.l2Bytes
  await dimension({ rows: 192, cols: 1024, depth: 4096, dtype: 'q8_0' }, [
    { byteRows: l2 / 8 },
    { byteRows: l2 / 4 },
    { byteRows: l2 },
  ])
  return { tuning, seconds }
}

const tune = async (device: Device, path: string): Promise<void> => {
  const suggested = nativeAddon().tuning()
  const info = nativeAddon().cpu()
  try {
    const { tuning, seconds } = await search(device, info)
    setTuning(tuning)
    await writeTuning(path, { machine: machineOf(info), tuning, suggested, seconds })
  } catch {
    // Without the memory to measure in, what is suggested stays.
    setTuning(suggested)
  }
}

/** Looked at once per process: where no file has this machine's choices, the path of the one to be made. */
let missing: string | undefined
let isRead = false
let searching: Promise<void> | undefined

/** Uses the choices of this machine's file, if there is one. */
export const useTuning = (): void => {
  if (isRead) return
  isRead = true
  const path = tuningFile()
  if (path !== undefined && !useFile(path)) missing = path
}

/** Before so many bytes of weights are prepared: searches, where that has not been done. undefined: nothing to wait for. */
export const tuneFor = (device: Device, preparedBytes: number): Promise<void> | undefined => {
  useTuning()
  if (missing === undefined || preparedBytes < largeBytes) return undefined
  searching ??= tune(device, missing).finally(() => {
    missing = undefined
  })
  return searching
}

/** The choices in use, searched for now where no file has them. */
export const tuning = async (device: Device): Promise<Tuning> => {
  await tuneFor(device, largeBytes)
  return nativeAddon().tuning()
}
