/** Measured choices: none changes a bit; the file that keeps them is made once, used, and made again where it is no good. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { cpuDevice, guarded } from '../../lib/device/cpu.js'
import { nativeAddon, type Tuning } from '../../lib/device/native.js'
import { quantize } from '../../lib/kernels.js'
import { ProgramBuilder } from '../../lib/program/builder.js'
import { randomSource, root, thrownBy } from '../support.js'

const set = ({ requests, floatRows, floatPanels, byteRows }: Tuning): void =>
  nativeAddon().setTuning(requests, floatRows, floatPanels, byteRows)

const choices: readonly Tuning[] = [
  { requests: 1, floatRows: 256, floatPanels: 32, byteRows: 2 ** 20 },
  { requests: 2, floatRows: 16, floatPanels: 4, byteRows: 0 },
  { requests: 1, floatRows: 50, floatPanels: 7, byteRows: 5000 },
]

test('no choice changes a bit', () => {
  const random = randomSource(4)
  const suggested = nativeAddon().tuning()
  try {
    for (const dtype of ['f32', 'f16', 'bf16', 'q8_0', 'q4_k', 'q6_k'] as const) {
      const [cols, depth] = [301, 512]
      const values = Float32Array.from({ length: cols * depth }, () => random() - 0.5)
      const data = quantize(dtype, values, [cols, depth])
      for (const rows of [1, 3, 70, 300]) {
        const x = Float32Array.from({ length: rows * depth }, () => random() - 0.5)
        const results = choices.map((choice) => {
          const limits = { maxRows: rows, maxOutputs: 0, maxSequences: 0, maxPages: 0, vocabulary: 0 }
          const b = new ProgramBuilder(cpuDevice.layout, { ...limits, activations: 'auto' })
          const input = b.input('x', 'rows', depth)
          const out = b.linear('y', input, { name: 'w', dtype, rows: cols, cols: depth, region: 0, offset: 0 })
          b.output('y', out)
          const loaded = cpuDevice.loadSync(b.finish(), [{ data }])
          set(choice)
          loaded.write(input.index, 0, x)
          const none = new Uint32Array(rows)
          loaded.runSync({ tokens: none, positions: none, sequences: [], outputRows: [] })
          const result = loaded.read(out.index, 0, rows)
          void loaded.close()
          return result
        })
        for (const result of results) assert.equal(result, results[0], `${dtype}, ${rows} rows`)
      }
    }
  } finally {
    set(suggested)
  }
})

test('what no kernel does is refused, and nothing is set', () => {
  const before = nativeAddon().tuning()
  for (const wrong of [
    { requests: 0 },
    { requests: 3 },
    { floatRows: 257 },
    { floatRows: 15 },
    { floatPanels: 33 },
    { byteRows: 2 ** 41 },
  ]) {
    const changed = { ...before, requests: 3 - before.requests, ...wrong }
    assert.is(thrownBy(() => guarded(undefined, () => set(changed))).code, 'E_RANGE', JSON.stringify(wrong))
    assert.equal(nativeAddon().tuning(), before)
  }
})

const choose = (variables: Record<string, string>): { choices: Tuning; file?: string } => {
  const { DROVER_TUNING: _, ...env } = process.env
  const child = spawnSync(process.execPath, ['--import', 'tsx', join(root, 'test', 'runtime', 'tuning.ts')], {
    cwd: root,
    encoding: 'utf8',
    env: { ...env, ...variables },
  })
  assert.is(child.status, 0, child.stderr)
  return JSON.parse(child.stdout) as { choices: Tuning; file?: string }
}

test('the file is made once, used by those who come later, and made again where it is of no use', () => {
  const folder = mkdtempSync(join(tmpdir(), 'drover-tuning-'))
  try {
    const path = join(folder, 'deep', 'tuning.json')
    const env = { DROVER_TUNING: path }
    const first = choose(env)
    assert.is(first.file, path)
    const content = JSON.parse(readFileSync(path, 'utf8')) as { machine: string; tuning: Tuning; seconds: object[] }
    assert.equal(content.tuning, first.choices)
    assert.is(content.seconds.length, 3)
    assert.equal(readdirSync(join(folder, 'deep')), ['tuning.json'])

    const other: Tuning = { ...first.choices, requests: 3 - first.choices.requests, floatRows: 100 }
    writeFileSync(path, JSON.stringify({ ...content, tuning: other }))
    const written = statSync(path).mtimeMs
    assert.equal(choose(env).choices, other, 'taken from the file')
    assert.is(statSync(path).mtimeMs, written)

    for (const useless of [
      'no JSON',
      JSON.stringify({ ...content, machine: 'another' }),
      JSON.stringify({ ...content, tuning: { ...other, floatRows: 1e6 } }),
    ]) {
      writeFileSync(path, useless)
      const { choices } = choose(env)
      assert.equal(JSON.parse(readFileSync(path, 'utf8')).tuning, choices, useless)
      assert.ok(choices.floatRows <= 256)
    }

    assert.is(choose({ DROVER_TUNING: 'off' }).file, undefined)
    // A folder cannot be written as a file: the choices hold for the process alone.
    assert.ok(choose({ DROVER_TUNING: folder }).choices.floatRows >= 16)
    if (process.platform === 'linux') {
      const home = choose({ XDG_CACHE_HOME: folder }).file
      assert.match(home ?? '', new RegExp(`^${folder}/drover/tuning-[0-9a-f]{16}[.]json$`))
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test.run()
