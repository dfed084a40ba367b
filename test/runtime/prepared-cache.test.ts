/** Prepared weights in files: the same bits, one copy for many processes, nothing broken by a process that is killed. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { writeModel } from '../../bench/peers/model.mjs'
import { cpu } from '../../lib/device/cpu.js'
import { DroverError } from '../../lib/errors.js'
import { loadLanguageModel } from '../../lib/generate/model.js'
import { storiesPath, withModel, withStories } from '../generate/models.js'
import { isaNames } from '../isa.js'
import { randomSource } from '../support.js'

const made = mkdtempSync(join(tmpdir(), 'drover-prepared-'))
process.on('exit', () => rmSync(made, { recursive: true }))
const emptyFolder = (): string => mkdtempSync(join(made, 'cache-'))
const linux = process.platform === 'linux'

const tokens = Array.from({ length: 40 }, (_, i) => 3 + ((i * 37) % 500))
const logitsWith = (options: { preparedCache?: string; verify?: 'full' }): Promise<Float32Array> =>
  withStories(async (model) => (await model.logits(tokens, { rows: 'all' })).data, options)
const onlyFile = (folder: string): string => {
  const names = readdirSync(folder)
  assert.is(names.length, 1, names.join(' '))
  assert.match(names[0]!, /^drover-[0-9a-f]{32}\.weights$/)
  return join(folder, names[0]!)
}

test('the same bits from memory, from a file that is written and from one that is mapped', async () => {
  const preparedCache = join(emptyFolder(), 'made', 'as needed')
  const right = await logitsWith({})
  assert.equal(await logitsWith({ preparedCache }), right, 'written')
  const { ino, mtimeMs } = statSync(onlyFile(preparedCache))
  assert.equal(await logitsWith({ preparedCache }), right, 'mapped')
  assert.equal(await logitsWith({ preparedCache, verify: 'full' }), right, 'compared')
  const again = statSync(onlyFile(preparedCache))
  assert.equal([again.ino, again.mtimeMs], [ino, mtimeMs])
  if (process.platform !== 'win32') assert.is(again.mode & 0o777, 0o600)
})

test('activations that need weights in another form have a file of their own', async () => {
  const preparedCache = emptyFolder()
  const options = { contextLength: 64, activations: 'f32' } as const
  const exact = await withModel(storiesPath, options, (model) => model.logits(tokens))
  await logitsWith({ preparedCache })
  assert.equal(await withModel(storiesPath, { ...options, preparedCache }, (model) => model.logits(tokens)), exact)
})

test('memory: the file is reported apart and is outside of the budget', async () => {
  const preparedCache = emptyFolder()
  const plain = await withStories(async (model) => model.memoryUsage())
  const cached = await withStories(async (model) => model.memoryUsage(), { preparedCache })
  assert.is(plain['preparedMapped'], 0)
  assert.is(cached['prepared'], 0)
  assert.is(cached['preparedMapped'], statSync(onlyFile(preparedCache)).size)
  assert.ok(cached['preparedMapped']! >= plain['prepared']!)
  // The smallest budgets, to a KiB: weights in a file need none.
  const smallest = async (more: { preparedCache?: string }): Promise<number> => {
    let [low, high] = [0, 2 ** 16]
    while (high - low > 1) {
      const middle = (low + high) >> 1
      const fits = await withStories(async () => true, { ...more, memoryBudget: middle * 1024 }).catch((error) => {
        assert.is((error as DroverError).code, 'E_MEMORY', String(error))
        return false
      })
      if (fits) high = middle
      else low = middle
    }
    return high * 1024
  }
  const saved = (await smallest({})) - (await smallest({ preparedCache }))
  assert.ok(Math.abs(saved - plain['prepared']!) <= 2048, `saves ${saved} of ${plain['prepared']} bytes`)
})

test('damaged files are written again', async () => {
  const preparedCache = emptyFolder()
  const right = await logitsWith({ preparedCache })
  const file = onlyFile(preparedCache)
  const content = readFileSync(file)
  const random = randomSource(3)
  for (let turn = 0; turn < 60; turn++) {
    const length = turn % 3 === 0 ? Math.floor(random() * content.length) : content.length
    const bytes = Buffer.from(content.subarray(0, length))
    // The header's own bytes; whatever stands in them, no load may follow it.
    for (let i = 0; i < 8; i++) bytes[Math.floor(random() * 400)] = Math.floor(random() * 256)
    writeFileSync(file, bytes)
    assert.equal(await logitsWith({ preparedCache }), right, `turn ${turn}`)
    assert.ok(content.equals(readFileSync(onlyFile(preparedCache))), `turn ${turn}: restored`)
  }
})

test('content is believed, unless verify asks for more', async () => {
  const preparedCache = emptyFolder()
  const right = await logitsWith({ preparedCache })
  const file = onlyFile(preparedCache)
  const content = readFileSync(file)
  const bytes = Buffer.from(content)
  bytes.fill(0, content.length >> 1)
  writeFileSync(file, bytes)
  assert.not.equal(await logitsWith({ preparedCache }), right)
  assert.equal(await logitsWith({ preparedCache, verify: 'full' }), right)
  assert.ok(content.equals(readFileSync(file)))
})

test('folders that cannot be used are refused', async () => {
  const refused = async (preparedCache: unknown, code: string, what: RegExp): Promise<void> => {
    const error = await loadLanguageModel(storiesPath, { preparedCache: preparedCache as string }).then(
      () => undefined,
      (thrown: unknown) => thrown,
    )
    assert.instance(error, DroverError, String(preparedCache))
    assert.is((error as DroverError).code, code, String(preparedCache))
    assert.match((error as DroverError).message, what)
  }
  await refused('', 'E_ARGUMENT', /options\.preparedCache/)
  await refused('a\0b', 'E_ARGUMENT', /options\.preparedCache/)
  await refused(7, 'E_ARGUMENT', /options\.preparedCache/)
  await refused(storiesPath, 'E_IO', /options\.preparedCache/)
  if (process.platform === 'win32') return
  const open = emptyFolder()
  chmodSync(open, 0o777)
  await refused(open, 'E_IO', /everybody/)
})

const script = join(__dirname, 'prepared-load.mjs')

interface Report {
  isa: string
  tokens: number[]
  memory: Record<string, number>
  /** Bytes that were resident at most while the model was loaded, beyond those before. */
  peak: number
}

const start = (args: string[], isa?: string): ChildProcess =>
  spawn(process.execPath, [script, ...args], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, DROVER_THREADS: '2', ...(isa === undefined ? {} : { DROVER_ISA: isa }) },
  })

/** What a process prints once it has loaded its model; undefined when its CPU has no such instructions. */
const reportOf = async (child: ChildProcess): Promise<Report | undefined> => {
  let errors = ''
  child.stderr!.on('data', (chunk: Buffer) => {
    errors += chunk
  })
  for await (const line of createInterface({ input: child.stdout! })) return JSON.parse(line) as Report
  if (/E_ISA/.test(errors)) return undefined
  throw new Error(errors)
}

const end = async (child: ChildProcess): Promise<void> => {
  child.stdin!.end()
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
}

/** Bytes of a process, each page by the share of those that map it: [all, of the file]. */
const sharesOf = (pid: number, file: string): [number, number] => {
  const all = /^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))
  let ofFile = 0
  for (const part of readFileSync(`/proc/${pid}/smaps`, 'utf8').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    if (part.includes(file)) ofFile += Number(/^Pss:\s+(\d+) kB/m.exec(part)?.[1])
  }
  return [Number(all?.[1]) * 1024, ofFile * 1024]
}

// What a process says of its memory, and what it has written so far, is read in Linux's way.
if (linux) {
  test('each instruction set has a file of its own', async () => {
    const folder = emptyFolder()
    const found: string[] = []
    for (const isa of isaNames) {
      const child = start([storiesPath, folder], isa)
      const report = await reportOf(child)
      await end(child)
      if (report === undefined) continue
      assert.is(report.isa, isa)
      found.push(isa)
      assert.is(readdirSync(folder).length, found.length, `${isa} among ${found}`)
    }
    assert.ok(found.includes('scalar') && found.includes(cpu().isaBest))
  })

  // A model of the shape and size of Llama 3.2 1B: what is shared must outweigh what each process has of its own.
  const large = join(made, '1b.gguf')

  test('a process that is killed while it writes leaves nothing that matters', async () => {
    await writeModel(large, '1b', 'Q4_0')
    const folder = emptyFolder()
    let halfway = 0
    for (let turn = 0; turn < 4; turn++) {
      const child = start([large, folder])
      const written = (): boolean =>
        readdirSync(folder).some((name) => name.endsWith('.draft') && statSync(join(folder, name)).blocks > turn * 1e5)
      while (!written() && child.exitCode === null) await sleep(2)
      assert.is(child.exitCode, null, 'it ended by itself')
      child.kill('SIGKILL')
      await once(child, 'exit')
      if (!readdirSync(folder).some((name) => name.endsWith('.weights'))) halfway++
      for (const name of readdirSync(folder)) if (name.endsWith('.weights')) rmSync(join(folder, name))
    }
    assert.ok(halfway >= 2, `${halfway} of 4 were killed before the end`)
    const child = start([large, folder])
    const report = await reportOf(child)
    await end(child)
    onlyFile(folder)
    const plain = start([large])
    assert.equal((await reportOf(plain))?.tokens, report?.tokens)
    await end(plain)
  })

  test('four processes hold one copy, and preparing never takes two', async () => {
    await writeModel(large, '1b', 'Q4_0')
    const folder = emptyFolder()
    // All at the same time: one writes, three wait for it.
    const children = [0, 1, 2, 3].map(() => start([large, folder]))
    try {
      const reports = await Promise.all(children.map(reportOf))
      const file = onlyFile(folder)
      const { size } = statSync(file)
      for (const report of reports) {
        assert.equal(report?.tokens, reports[0]?.tokens)
        assert.is(report?.memory['preparedMapped'], size)
        assert.ok(report!.peak < size + (200 << 20), `${report!.peak >> 20} MB at most for ${size >> 20} MB`)
      }
      const together = children.map((child) => sharesOf(child.pid!, file))
      const ofFile = together.reduce((sum, [, part]) => sum + part, 0)
      assert.ok(ofFile > 0.9 * size && ofFile < 1.05 * size, `${ofFile >> 20} MB of ${size >> 20} MB`)
      const four = together.reduce((sum, [all]) => sum + all, 0)
      for (const child of children.slice(1)) await end(child)
      const [one] = sharesOf(children[0]!.pid!, file)
      console.log(`    four processes ${four >> 20} MB, one ${one >> 20} MB: ${(four / one).toFixed(2)}`)
      assert.ok(four < 1.3 * one, `four processes hold ${four >> 20} MB, one ${one >> 20} MB`)
    } finally {
      for (const child of children) await end(child)
    }
  })
}

test.run()
