/** `drover perplexity`, `bench`, `doctor` and `demo`. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { loadLanguageModel } from '../../lib/index.js'
import { cpu } from '../../lib/kernels.js'
import { fixture, root } from '../support.js'
import { drover, jsonLines, output, outputJson, refused, storiesPath, withFolder } from './run.js'

const story = fixture('stories260K/tinystories_first.txt')

interface Loss {
  perplexity: number
  meanLoss: number
  tokens: number
}

test('perplexity of stories260K on a story of TinyStories', async () => {
  const { perplexity, meanLoss, tokens } = await outputJson<Loss>(['perplexity', storiesPath, '--file', story])
  assert.ok(Math.abs(meanLoss - 1.316) < 0.0005, `${meanLoss} nats per token`)
  assert.ok(Math.abs(Math.log(perplexity) - meanLoss) < 1e-9)
  assert.is(tokens, 373) // every token of the text, the first behind BOS
  const plain = await drover(['perplexity', storiesPath, '-f', story])
  assert.match(plain.out, /^1\.316\d nats per token, perplexity 3\.72\d\d, 373 tokens\n$/)
  assert.match(plain.err, /^loading 25 %$/m)
  const windows = await outputJson<Loss>(['perplexity', storiesPath, '-f', story, '--window', '64', '--stride', '32'])
  assert.is(windows.tokens, 373)
  assert.ok(windows.meanLoss > meanLoss && windows.meanLoss < meanLoss + 0.3, 'less context, a higher loss')
  await withFolder(async (folder) => {
    const empty = join(folder, 'empty.txt')
    writeFileSync(empty, '')
    await refused(['perplexity', storiesPath, '-f', empty], /^drover: E_RANGE: perplexity needs at least two tokens/)
  })
})

interface Bench {
  model: string
  isa: string
  threads: number
  promptTokens: number
  generatedTokens: number
  loadMs: number
  promptPerSecond: number
  generationPerSecond: number
  firstTokenMs: number
}

test('bench measures a model, by default that of the demo', async () => {
  const short = ['--prompt', '100', '--generate', '8', '--rounds', '2']
  const report = await outputJson<Bench>(['bench', storiesPath, ...short, '--threads', '1'])
  assert.is(report.promptTokens, 100)
  assert.is(report.generatedTokens, 8)
  assert.is(report.threads, 1)
  assert.is(report.isa, cpu().isa)
  for (const value of [report.loadMs, report.promptPerSecond, report.generationPerSecond, report.firstTokenMs])
    assert.ok(value > 0 && Number.isFinite(value))
  // The prompt's speed and the time to the first token are two views of one thing.
  const promptMs = (100 / report.promptPerSecond) * 1000
  assert.ok(report.firstTokenMs > promptMs * 0.4, `${report.firstTokenMs} ms, prompt ${promptMs} ms`)
  const text = await output(['bench', ...short])
  assert.match(text, /^prompt +[\d.]+ tokens\/s \(100 tokens\)$/m)
  assert.match(text, /^generation +[\d.]+ tokens\/s \(8 tokens\)$/m)
  assert.match(text, /^first token +[\d.]+ ms$/m)
  await refused(['bench', storiesPath, '--prompt', '4000'], /--prompt is not a whole number from 1 to/)
})

interface Trace {
  traceEvents: {
    name: string
    cat?: string
    ph: string
    ts: number
    dur: number
    pid: number
    tid: number
    args: Record<string, unknown>
  }[]
}

interface Profile {
  file: string
  steps: number
  stepsMs: number
  readsMemory: boolean
  ops: { op: string; calls: number; ms: number; shareOfTime: number; shareOfLimit: number; lostInBarriers: number }[]
}

test('bench --profile writes a trace of every op', () =>
  withFolder(async (folder) => {
    const file = join(folder, 'trace.json')
    const args = ['bench', storiesPath, '--prompt', '100', '--generate', '8', '--rounds', '1', '--profile', file]
    const { profile } = await outputJson<Bench & { profile: Profile }>(args)
    assert.is(profile.file, file)
    assert.is(profile.steps, 8, 'the prompt, whose step writes the first token, and seven more')
    const { traceEvents } = JSON.parse(readFileSync(file, 'utf8')) as Trace
    for (const { name, ph, ts, dur, pid, tid } of traceEvents) {
      assert.ok(name.length > 0 && Number.isInteger(pid) && Number.isInteger(tid) && ts >= 0, name)
      assert.ok(ph === 'M' || (ph === 'X' && dur >= 0), `${name}: ${ph}`)
    }
    const named = traceEvents.filter(({ name, ph }) => ph === 'M' && name === 'thread_name')
    assert.equal(
      named.slice(0, 2).map(({ args }) => args['name']),
      ['steps', 'ops'],
    )
    const steps = traceEvents.filter(({ cat }) => cat === 'step')
    assert.equal(
      steps.map(({ args }) => args['rows']),
      [100, 1, 1, 1, 1, 1, 1, 1],
    )
    const ops = traceEvents.filter(({ tid, ph }) => tid === 1 && ph === 'X')
    for (const step of steps) {
      const own = ops.filter(({ ts, dur }) => ts >= step.ts - 0.001 && ts + dur <= step.ts + step.dur + 0.002)
      assert.ok(own.length > 30, `${own.length} ops`)
      const sum = own.reduce((total, { dur }) => total + dur, 0)
      // Between ops lies a look at the clock or two.
      assert.ok(sum <= step.dur + 0.01 && sum > step.dur * 0.8, `ops take ${sum} µs of ${step.dur}`)
    }
    assert.is(
      ops.length,
      profile.ops.reduce((total, { calls }) => total + calls, 0),
    )
    const gemm = ops.find(({ name }) => name === 'layers.0.mlp.down')
    assert.ok(gemm, ops.map(({ name }) => name).join(' '))
    // stories260K: 64 wide, 172 in between.
    assert.is(gemm.args['flops'], 2 * 100 * 64 * 172)
    for (const key of ['bytes', 'activationBytes', '% of limit', 'lost in barriers, µs of all workers'])
      assert.ok(Number(gemm.args[key]) >= 0, key)
    const shares = profile.ops.reduce((total, { shareOfTime }) => total + shareOfTime, 0)
    assert.ok(Math.abs(shares - 1) < 1e-9)
    for (const { op, shareOfLimit, lostInBarriers } of profile.ops)
      assert.ok(shareOfLimit >= 0 && shareOfLimit <= 1 && lostInBarriers >= 0 && lostInBarriers < 1, op)
    assert.is(profile.readsMemory, false, 'stories260K fits any cache')
    const text = await output(args)
    assert.match(text, /^8 steps, [\d.]+ ms in ops; trace for Perfetto: .*trace\.json$/m)
    assert.match(text, /^gemm +\d+ +[\d.]+ +[\d.]+ % +[\d.]+ % +[\d.]+ %$/m)
    const nowhere = join(folder, 'none', 'trace.json')
    await refused(['bench', storiesPath, '--profile', nowhere], /^drover: E_IO: the trace cannot be written/)
  }))

interface Doctor {
  drover: string
  node: string
  limits: Record<
    'bufferBytes' | 'wantedBufferBytes' | 'readBytesPerSecond' | 'f32PerSecond' | 'int8PerSecond' | 'bf16PerSecond',
    number
  >
  kernels: { weights: string; activations: string; kernel: string; path: string }[]
  cpu: { isa: string; isaBest: string; threads: number; threadsReason: string; features: string }
  memory: { total: number; available: number }
  hugePages: string
  problems: string[]
}

test('doctor tells what was chosen and why, and fails when something is wrong', async () => {
  const env = { DROVER_ISA: cpu().isaBest }
  const well = await drover(['doctor', '--json'], { env })
  const report = JSON.parse(well.out) as Doctor
  assert.is(well.code === 0, report.problems.length === 0)
  assert.is(report.cpu.isa, cpu().isaBest)
  assert.ok(report.cpu.threads >= 1 && report.cpu.threadsReason.length > 0)
  assert.ok(report.memory.available > 0 && report.memory.available <= report.memory.total)
  const text = (await drover(['doctor'], { env })).out
  assert.ok(text.includes(`${report.cpu.threads}: ${report.cpu.threadsReason}`), text)
  assert.match(text, new RegExp(`^instruction set +${report.cpu.isa}$`, 'm'))

  const { limits, kernels } = report
  assert.ok(limits.bufferBytes > 0 && limits.wantedBufferBytes >= 2 ** 29)
  for (const rate of [limits.readBytesPerSecond, limits.f32PerSecond, limits.int8PerSecond])
    assert.ok(rate > 1e8 && Number.isFinite(rate), `${rate}`)
  assert.ok(limits.int8PerSecond > limits.f32PerSecond, 'bytes are multiplied faster than floats')
  assert.match(text, /^reads memory at +[\d.]+ GB\/s \(over [\d.]+ [GM]iB/m)
  const kernelOf = (weights: string) => kernels.find((kernel) => kernel.weights === weights)
  assert.is(kernelOf('q4_k')?.activations, 'a8_256')
  assert.is(kernelOf('q8_0')?.activations, 'a8_32')
  assert.is(kernelOf('f16')?.activations, 'f32')
  assert.match(kernelOf('q8_k')?.kernel ?? '', /decoded/)
  for (const weights of ['iq1_m', 'iq2_xxs', 'iq3_s', 'tq1_0'])
    assert.is(kernelOf(weights)?.activations, 'a8_32', weights)
  assert.is(kernelOf('u32'), undefined)
  for (const { weights, path } of kernels) assert.ok(path.length > 0, weights)
  assert.match(text, /^ {2}(\w+ )*q4_k q5_k q6_k$/m)

  const slow = await drover(['doctor'], { env: { DROVER_ISA: 'scalar' } })
  assert.is(slow.code, 1)
  assert.match(slow.out, /^problem: only the scalar kernels run here/m)
  assert.match(slow.err, /^drover: E_UNSUPPORTED: \d problems? found\n$/)
  await refused(['doctor'], /^drover: E_ISA: /, { env: { DROVER_ISA: 'sse9' } })
  const [error] = jsonLines((await drover(['doctor', '--json'], { env: { DROVER_ISA: 'sse9' } })).err)
  assert.is((error as { error: { code: string } }).error.code, 'E_ISA')
})

interface Demo {
  prompt: string
  text: string
  isa: string
  threads: number
  threadsReason: string
  promptPerSecond: number
  generationPerSecond: number
  firstTokenMs: number
}

test('demo writes a story, with speeds and what was chosen for this machine', async () => {
  const report = await outputJson<Demo>(['demo', '-t', '0', '-n', '60'])
  const model = await loadLanguageModel(storiesPath)
  const expected = await model.generate('Once upon a time', { temperature: 0, maxTokens: 60 }).result()
  const { isa, threads, threadsReason } = model.info
  await model.close()
  assert.is(report.text, expected.text)
  assert.equal([report.isa, report.threads, report.threadsReason], [isa, threads, threadsReason])
  for (const value of [report.promptPerSecond, report.generationPerSecond, report.firstTokenMs])
    assert.ok(value > 0 && Number.isFinite(value))
  const text = await output(['demo'])
  assert.match(text, /^Once upon a time/)
  assert.match(text, /^prompt +\d+ tokens\/s \(5 tokens\)$/m)
  assert.match(text, /^generation +\d+ tokens\/s \(\d+ tokens\)$/m)
  assert.match(text, /^first token +after [\d.]+ ms$/m)
  assert.match(text, new RegExp(`^instruction set +${isa}$`, 'm'))
  assert.ok(text.includes(`${threads}: ${threadsReason}`))
  assert.match(await output(['demo', '-n', '1', '-p', 'A cat']), /^A cat.*^generation +- tokens\/s \(1 tokens\)$/ms)
})

interface Ranked {
  ranking: {
    person: string
    dishes: { item: string; score: number; preference: number }[]
    firstFive: { model: number; best: number; all: number }
    pairsInOrder: number
  }
}

test('demo ranks dishes by their scores, most of them as the true preference does', async () => {
  const { ranking } = await outputJson<Ranked>(['demo', '-n', '1'])
  const { dishes, firstFive, pairsInOrder } = ranking
  assert.is(dishes.length, 40)
  for (let i = 1; i < dishes.length; i++) assert.ok(dishes[i - 1]!.score >= dishes[i]!.score)
  assert.ok(firstFive.model > 0.75 && firstFive.model <= firstFive.best && firstFive.all < 0.5)
  assert.ok(pairsInOrder > 0.8)
  const rank = join(root, 'assets', 'dishes')
  const lines = jsonLines(await output(['rank', rank, '--requests', join(rank, 'requests.jsonl'), '--top', '3']))
  const { id, top } = lines[0] as { id: string; top: { item: string }[] }
  const items = dishes.slice(0, 3).map(({ item }) => item)
  assert.equal([id, top.map(({ item }) => item)], [ranking.person, items])
  const text = await output(['demo', '-n', '1', '--person', 'iori'])
  assert.match(text, /^Iori likes /m)
  assert.match(text, /^1\. +[a-z ]+ +\d+ % +\d+ %$/m)
  await refused(['demo', '--person', 'Zorri'], /nobody is called Zorri.*did you mean Iori\?/s)
})

test.run()
