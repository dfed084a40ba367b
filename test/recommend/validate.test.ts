/** A recommender in two precisions over labelled requests: figures that can be computed otherwise, choices that hold. */
import { execFileSync } from 'node:child_process'
import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { DroverError, type ErrorCode } from '../../lib/errors.js'
import { readTensor } from '../../lib/format/file.js'
import { readSafetensors } from '../../lib/format/safetensors.js'
import { quantizeModel, type ValidateOptions, type ValidationReport, validateRecommender } from '../../lib/index.js'
import { parseRequestLine } from '../../lib/recommend/jsonl.js'
import { loadRecommender } from '../../lib/recommend/recommender.js'
import { reportHtml } from '../../lib/recommend/report-html.js'
import { fixture, randomSource, root, shared } from '../support.js'
import {
  floatTensor,
  randomRequest,
  readConfig,
  type Tensor,
  tinyRecommender,
  withFolder,
  writeRecommender,
} from './folders.js'

const dishes = join(root, 'assets', 'dishes')
const data = join(dishes, 'requests.jsonl')

const refused = async (code: ErrorCode, path: string, options: ValidateOptions, pattern = /./): Promise<void> => {
  const error = await validateRecommender(path, options).then(
    () => undefined,
    (reason: unknown) => reason,
  )
  assert.instance(error, DroverError, 'a refusal was expected')
  assert.is((error as DroverError).code, code, String(error))
  assert.match((error as DroverError).message, pattern)
}

const tensorsOf = async (folder: string): Promise<Map<string, Tensor>> => {
  const source = await readSafetensors(folder)
  const tensors = new Map<string, Tensor>()
  for (const info of source.tensors.values())
    tensors.set(info.name, { dtype: info.dtype, shape: info.shape, bytes: await readTensor(source, info) })
  return tensors
}

const floatsOf = (tensors: ReadonlyMap<string, Tensor>, name: string): Float32Array =>
  new Float32Array(Uint8Array.from((tensors.get(name) as Tensor).bytes).buffer)

/** AUC and log loss of the public answers, by looking at every pair. */
const qualityOf = async (folder: string, file = data): Promise<{ auc: number; logLoss: number; ne: number }> => {
  await using recommender = await loadRecommender(folder)
  const scored: [number, number][] = []
  for (const [i, text] of readFileSync(file, 'utf8').trim().split('\n').entries()) {
    const { request, labels } = parseRequestLine(text, recommender.info, { file, line: i + 1 })
    const scores = await recommender.score(request)
    scores.forEach((score, row) => {
      scored.push([score, labels?.[row] as number])
    })
  }
  const positives = scored.filter(([, label]) => label === 1)
  const negatives = scored.filter(([, label]) => label === 0)
  let wins = 0
  for (const [a] of positives) for (const [b] of negatives) wins += a > b ? 1 : a === b ? 0.5 : 0
  const loss = scored.reduce((sum, [p, label]) => sum - Math.log(label === 1 ? p : 1 - p), 0) / scored.length
  const rate = positives.length / scored.length
  const entropy = -(rate * Math.log(rate) + (1 - rate) * Math.log(1 - rate))
  return { auc: wins / (positives.length * negatives.length), logLoss: loss, ne: loss / entropy }
}

const near = (found: number, expected: number, within: number, what: string): void =>
  assert.ok(Math.abs(found - expected) <= within, `${what}: ${found}, expected ${expected} within ${within}`)

const sqnrOf = ({ layers }: Pick<ValidationReport, 'layers'>, name: string): number =>
  layers.find((layer) => layer.name === name)?.sqnr ?? Number.NaN

test('dishes: the figures are those of the public answers, in f32, int8 and int4', () =>
  withFolder(async (folder) => {
    const int8 = await validateRecommender(dishes, { data })
    const int4 = await validateRecommender(dishes, { data, type: 'int4' })
    const plain = await qualityOf(dishes)
    assert.is(int8.rows, 1600)
    assert.is(int8.reference.auc, plain.auc)
    near(int8.reference.logLoss, plain.logLoss, 1e-6, 'log loss')
    near(int8.reference.normalizedEntropy, plain.ne, 1e-6, 'normalised entropy')
    near(int8.change.relativeNormalizedEntropy, 0.0017, 5e-5, 'as the README says')
    assert.equal(int8.reference, int4.reference, 'the same reference')
    assert.equal(int8.result.quantization, { tables: { default: 'int8' }, layers: { default: 'int8' } })
    for (const [type, report] of [
      ['int8', int8],
      ['int4', int4],
    ] as const) {
      const out = join(folder, type)
      await quantizeModel(dishes, out, { type })
      const stored = await qualityOf(out)
      assert.is(report.result.auc, stored.auc, type)
      near(report.result.normalizedEntropy, stored.ne, 1e-6, type)
      assert.is(report.change.auc, report.result.auc - report.reference.auc)
      assert.is(
        report.change.relativeNormalizedEntropy,
        (report.result.normalizedEntropy - report.reference.normalizedEntropy) / report.reference.normalizedEntropy,
      )
      const against = await validateRecommender(out, { data, against: dishes })
      assert.equal({ ...against.result, path: '' }, { ...report.result, path: '' }, 'stored and converted alike')
      assert.equal(against.layers, report.layers)
    }
    assert.equal(
      int8.layers.map(({ name }) => name),
      ['bottom.0', 'bottom.1', 'pooled', 'interaction', 'top.0', 'top.1', 'top.2', 'prob'],
    )
    assert.equal(int8.layers.at(-2)?.role, 'logit')
    assert.is(int8.layers[0]?.module, 'bot_l.0')
    assert.ok(sqnrOf(int8, 'pooled') > 45 && sqnrOf(int4, 'pooled') > 20, 'six dB to a bit')
    assert.ok(sqnrOf(int8, 'pooled') - sqnrOf(int4, 'pooled') > 18)
    assert.is(int8.tables.length, 6)
    for (const { sqnr } of int4.tables) assert.ok(sqnr > 20 && sqnr < 30)
  }))

test('what is not quantised is equal', async () => {
  const report = await validateRecommender(dishes, { data, type: 'f32', layers: 'int8' })
  assert.is(sqnrOf(report, 'pooled'), Number.POSITIVE_INFINITY)
  assert.is(sqnrOf(report, 'interaction') < 60, true)
  for (const { sqnr, maxError } of report.tables) assert.equal([sqnr, maxError], [Number.POSITIVE_INFINITY, 0])
  const halves = await validateRecommender(dishes, { data, type: 'f16' })
  assert.ok(
    halves.layers.every(({ sqnr }) => sqnr > 60 && sqnr < 90),
    'ten bits',
  )
})

/** Dishes whose layer top_l.2 has one huge column that multiplies nothing but zeros: int8 loses all others. */
const writeSabotaged = async (folder: string): Promise<void> => {
  const tensors = await tensorsOf(dishes)
  const bias = floatsOf(tensors, 'top_l.0.bias')
  bias[0] = -1e9 // ReLU makes a zero of it
  const weight = floatsOf(tensors, 'top_l.2.weight')
  const [rows, cols] = (tensors.get('top_l.2.weight') as Tensor).shape as [number, number]
  for (let row = 0; row < rows; row++) weight[row * cols] = 1000
  tensors.set('top_l.0.bias', floatTensor([bias.length], bias))
  tensors.set('top_l.2.weight', floatTensor([rows, cols], weight))
  await writeRecommender(folder, readConfig(dishes), tensors)
}

test('a layer that int8 ruins is found and keeps its precision; the written config gives what was foretold', () =>
  withFolder(async (folder) => {
    await writeSabotaged(folder)
    const output = join(folder, 'chosen.json')
    const report = await validateRecommender(folder, { data, choose: true, output })
    const { choice } = report
    assert.ok(choice)
    assert.ok(report.change.relativeNormalizedEntropy > 0.01, 'int8 ruins it')
    const costs = [...choice.parts].sort((a, b) => b.change - a.change)
    assert.is(costs[0]?.name, 'top_l.2', 'the costliest part')
    assert.ok(choice.kept.includes('top_l.2'))
    assert.ok(choice.kept.length < choice.parts.length / 2)
    assert.ok(choice.change.relativeNormalizedEntropy <= choice.budget)
    assert.ok(sqnrOf(choice, 'top.1') > sqnrOf(report, 'top.1') + 20)
    for (const { change, kept } of choice.parts) if (change > choice.budget) assert.ok(kept)
    assert.is(choice.result.quantization.layers['top_l.2'], 'f32')
    assert.is(choice.result.quantization.layers['default'], 'int8')

    const original = await qualityOf(folder)
    const again = await validateRecommender(folder, { data, choose: true })
    assert.equal({ ...again.choice, output }, choice, 'the same every time')

    const config = JSON.parse(readFileSync(output, 'utf8'))
    assert.equal(config.quantization, choice.result.quantization)
    assert.equal({ ...config, quantization: 0 }, { ...readConfig(folder), quantization: 0 })
    cpSync(output, join(folder, 'config.json'))
    const chosen = await qualityOf(folder)
    near(chosen.ne, choice.result.normalizedEntropy, 1e-6, 'as foretold')
    assert.is(chosen.auc, choice.result.auc)
    near(original.ne, report.reference.normalizedEntropy, 1e-6, 'the reference')
    const judged = await validateRecommender(folder, { data })
    assert.equal(
      { ...judged.result, path: '' },
      { ...choice.result, path: '' },
      'a config with formats is judged as it is',
    )
  }))

test('tables are chosen too, and a folder is written with the weights', () =>
  withFolder(async (folder) => {
    const output = join(folder, 'chosen')
    const { choice, ...report } = await validateRecommender(dishes, { data, type: 'int4', choose: true, output })
    assert.ok(choice)
    assert.ok(report.change.relativeNormalizedEntropy > choice.budget)
    assert.ok(choice.change.relativeNormalizedEntropy <= choice.budget)
    assert.ok(choice.parts.some(({ kind, kept }) => kind === 'table' && kept))
    assert.ok(choice.parts.some(({ kind, kept }) => kind === 'table' && !kept))
    const found = await qualityOf(output)
    assert.is(found.auc, choice.result.auc)
    near(found.ne, choice.result.normalizedEntropy, 1e-6, 'as foretold')
    const against = await validateRecommender(output, { data, against: dishes })
    assert.equal(against.layers, choice.layers)
    assert.equal(against.result.quantization, choice.result.quantization)

    const int4 = join(folder, 'int4')
    await quantizeModel(dishes, int4, { type: 'int4' })
    const other = await validateRecommender(int4, { data, against: dishes, choose: true })
    assert.equal(other.choice?.kept, choice.kept, 'from a quantised model against its source')
    const tight = await validateRecommender(dishes, { data, type: 'int4', choose: true, budget: 0 })
    assert.ok((tight.choice?.change.relativeNormalizedEntropy ?? 1) <= 0)
    const loose = await validateRecommender(dishes, { data, type: 'int4', choose: true, budget: 1 })
    assert.equal(loose.choice?.kept, [])
    assert.equal(loose.choice?.layers, loose.layers)
    await refused('E_ARGUMENT', dishes, { data, choose: true, output }, /the output exists/)
    await refused('E_ARGUMENT', int4, { data, choose: true }, /nothing to choose/)
    await refused('E_ARGUMENT', dishes, { data, against: int4, choose: true }, /no higher precision/)
  }))

test('a part that costs more than the budget is kept even where others make up for it', async () => {
  const options = { data, type: 'f16', layers: 'bf16', choose: true, budget: 2.5e-5 } as const
  const { change, choice } = await validateRecommender(dishes, options)
  assert.ok(change.relativeNormalizedEntropy < options.budget, 'the whole stays within it')
  const costly = choice?.parts.filter((part) => part.change > options.budget).map(({ name }) => name)
  assert.ok((costly?.length ?? 0) > 0)
  assert.equal(choice?.kept, costly)
})

test('only the table that differs is unequal; a reference may convert itself', () =>
  withFolder(async (folder) => {
    const config = (quantization: unknown): void =>
      writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...readConfig(dishes), quantization }))
    cpSync(dishes, folder, { recursive: true })
    config({ tables: { default: 'f32', tags: 'int4' } })
    const { tables } = await validateRecommender(folder, { data })
    for (const { name, sqnr } of tables) assert.is(Number.isFinite(sqnr), name === 'tags', name)

    config({ tables: { default: 'f16', person: 'bf16' }, layers: 'f16' })
    const int4 = join(folder, 'int4')
    await quantizeModel(dishes, int4, { type: 'int4' })
    const { choice, ...report } = await validateRecommender(int4, { data, against: folder, choose: true })
    const formats = choice?.result.quantization
    const own = await qualityOf(folder)
    near(report.reference.normalizedEntropy, own.ne, 1e-6, 'the reference, converted')
    assert.ok(
      Object.values(formats?.tables ?? {}).includes('f16') && Object.values(formats?.tables ?? {}).includes('int4'),
    )
    config(formats)
    const chosen = await qualityOf(folder)
    assert.is(chosen.auc, choice?.result.auc)
    near(chosen.ne, choice?.result.normalizedEntropy ?? 0, 1e-6, 'as foretold')
  }))

test('integers of the files without their source: only what their activations lose', () =>
  withFolder(async (folder) => {
    const int8 = join(folder, 'int8')
    await quantizeModel(dishes, int8, { type: 'int8' })
    const report = await validateRecommender(int8, { data })
    assert.is(report.reference.activations, 'f32')
    assert.is(sqnrOf(report, 'pooled'), Number.POSITIVE_INFINITY)
    assert.ok(sqnrOf(report, 'top.2') > 20 && sqnrOf(report, 'top.2') < 80)
    const tables = join(folder, 'tables')
    await quantizeModel(dishes, tables, { type: 'int8', layers: 'f32' })
    await refused('E_ARGUMENT', tables, { data }, /the model that this one was made from/)
  }))

test('tables of floats beside layers of integers: a choice rounds activations on both sides', () =>
  withFolder(async (folder) => {
    const model = join(folder, 'model')
    await quantizeModel(dishes, model, { type: 'f32', layers: 'int8' })
    const plain = await validateRecommender(model, { data, type: 'int4' })
    assert.is(plain.reference.activations, 'f32')
    const { reference, layers, choice } = await validateRecommender(model, {
      data,
      type: 'int4',
      choose: true,
      budget: 0,
    })
    assert.is(reference.activations, 'auto')
    assert.is(layers[0]?.sqnr, Number.POSITIVE_INFINITY, 'what has no table before it is equal')
    assert.equal([...new Set(choice?.parts.map(({ kind }) => kind))], ['table'])
    assert.ok((choice?.change.relativeNormalizedEntropy ?? 1) <= 0)
  }))

test('layers alone leave tables as they are', () =>
  withFolder(async (folder) => {
    const model = join(folder, 'model')
    cpSync(dishes, model, { recursive: true })
    const tables = { default: 'f32', tags: 'int4' }
    writeFileSync(join(model, 'config.json'), JSON.stringify({ ...readConfig(dishes), quantization: { tables } }))
    const told = await validateRecommender(model, { data, layers: 'f16' })
    assert.equal(told.result.quantization, { tables, layers: { default: 'f16' } })
    const against = await validateRecommender(dishes, { data, against: model, layers: 'f16' })
    assert.equal(against.result.quantization, { tables: { default: 'f32' }, layers: { default: 'f16' } })
    const silent = await validateRecommender(dishes, { data, layers: 'f16' })
    assert.equal(silent.result.quantization, { tables: { default: 'int8' }, layers: { default: 'f16' } })
  }))

test('DCNv2: cross layers by name', () =>
  withFolder(async (folder) => {
    const model = fixture('dlrm-dcnv2')
    const { num_embeddings_per_feature: rows } = readConfig(model) as { num_embeddings_per_feature: number[] }
    const random = randomSource(3)
    const file = join(folder, 'requests.jsonl')
    writeFileSync(file, requestLines(random, { dense: 13, rows }, 40, 7))
    const { layers, choice } = await validateRecommender(model, { data: file, choose: true })
    const named = new Map(layers.map(({ name, module, sqnr }) => [name, { module, sqnr }]))
    assert.is(named.get('cross.1.v')?.module, 'inter_arch.crossnet.V_kernels.1')
    for (const name of ['x0', 'cross.0', 'cross.2.w', 'top.2', 'prob'])
      assert.ok((named.get(name)?.sqnr ?? 0) > 15, name)
    assert.is(choice?.parts.length, rows.length + 2 + 6 + 3)
  }))

test('DeepFM: its layers and its factorization machine by name', () =>
  withFolder(async (folder) => {
    const model = fixture('deepfm-torchrec')
    const { num_embeddings_per_feature: rows } = readConfig(model) as { num_embeddings_per_feature: number[] }
    const file = join(folder, 'requests.jsonl')
    writeFileSync(file, requestLines(randomSource(4), { dense: 7, rows }, 40, 7))
    const { layers, choice } = await validateRecommender(model, { data: file, choose: true })
    const named = new Map(layers.map(({ name, module, sqnr }) => [name, { module, sqnr }]))
    assert.is(named.get('deep')?.module, 'inter_arch.deep_fm.dense_module.0')
    for (const name of ['x0', 'deep', 'factors', 'interaction', 'top.0', 'prob'])
      assert.ok((named.get(name)?.sqnr ?? 0) > 15, name)
    assert.is(choice?.parts.length, rows.length + 2 + 1 + 1)
  }))

/** Labelled lines of random requests. */
const requestLines = (
  random: () => number,
  shape: { dense: number; rows: readonly number[] },
  count: number,
  batch: number,
): string => {
  const lines = Array.from({ length: count }, (_, id) => {
    const { dense, sparse } = randomRequest(random, shape, batch)
    return JSON.stringify({
      id,
      dense: Array.from({ length: batch }, (_, i) => [...dense.subarray(i * shape.dense, (i + 1) * shape.dense)]),
      sparse: sparse.map(({ indices, offsets }) => ({
        indices: [...indices].map(Number),
        offsets: [...offsets].map(Number),
      })),
      label: Array.from({ length: batch }, () => (random() < 0.4 ? 1 : 0)),
    })
  })
  return `${lines.join('\n')}\n`
}

test('however lines are cut into steps, the figures are the same', () =>
  withFolder(async (folder) => {
    const tiny = { dense: 3, dim: 5, rows: [11, 40], seed: 5 }
    const { config, tensors } = tinyRecommender(tiny)
    await writeRecommender(folder, config, tensors)
    const text = requestLines(randomSource(11), tiny, 3, 700)
    const long = join(folder, 'long.jsonl')
    writeFileSync(long, `\r\n${text.trimEnd().replaceAll('\n', '\r\n\r\n')}`)
    const short = join(folder, 'short.jsonl')
    const rows = text
      .trim()
      .split('\n')
      .flatMap((line) => {
        const { dense, sparse, label } = JSON.parse(line) as {
          dense: number[][]
          sparse: { indices: number[]; offsets: number[] }[]
          label: number[]
        }
        return dense.map((features, row) =>
          JSON.stringify({
            dense: [features],
            sparse: sparse.map(({ indices, offsets }) => [indices.slice(offsets[row], offsets[row + 1])]),
            label: [label[row]],
          }),
        )
      })
    writeFileSync(short, rows.join('\n'))
    const one = await validateRecommender(folder, { data: long })
    const other = await validateRecommender(folder, { data: short })
    assert.is(one.rows, 2100)
    assert.equal({ ...other, data: long }, one)
    assert.equal(await validateRecommender(folder, { data: long, threads: 1 }), one)
  }))

test('probabilities that the config clamps are judged as they are answered', () =>
  withFolder(async (folder) => {
    cpSync(dishes, folder, { recursive: true })
    writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...readConfig(dishes), loss_threshold: 0.3 }))
    const { reference } = await validateRecommender(folder, { data })
    const expected = await qualityOf(folder)
    assert.is(reference.auc, expected.auc, 'with the ties that clamping makes')
    near(reference.logLoss, expected.logLoss, 1e-6, 'log loss')
    assert.not.equal(reference.auc, (await qualityOf(dishes)).auc)
  }))

test('temporary files are gone, however it ends', () =>
  withFolder(async (folder) => {
    const left = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('drover-validate-'))
    const old = process.env['TMPDIR']
    process.env['TMPDIR'] = folder
    try {
      const seen: number[] = []
      const onProgress = (): void => {
        const [own = ''] = left()
        seen.push(readdirSync(join(folder, own)).length)
      }
      await validateRecommender(dishes, { data, choose: true, onProgress })
      // A file for each table, and two for each layer: candidates share them.
      assert.ok(seen.length > 0 && seen.every((count) => count === 6 + 2 * 5))
      assert.equal(left(), [])
      await refused('E_IO', dishes, { data: join(folder, 'nowhere') })
      assert.equal(left(), [])
      process.env['TMPDIR'] = join(folder, 'nowhere')
      await refused('E_IO', dishes, { data }, /TMPDIR/)
    } finally {
      if (old === undefined) delete process.env['TMPDIR']
      else process.env['TMPDIR'] = old
    }
  }))

test('what cannot be judged is refused, with the line', () =>
  withFolder(async (folder) => {
    const [first = '', second = ''] = readFileSync(data, 'utf8').split('\n')
    const file = join(folder, 'requests.jsonl')
    const changed = (change: (request: Record<string, unknown[]>) => void): void => {
      const request = JSON.parse(second)
      change(request)
      writeFileSync(file, `${first}\n${JSON.stringify(request).replaceAll('"inf"', '1e999')}\n`)
    }
    const options = { data: file }
    changed((request) => delete request['label'])
    await refused('E_FORMAT', dishes, options, /line 2 has no labels/)
    changed(({ label }) => label?.pop())
    await refused('E_FORMAT', dishes, options, /line 2: label/)
    changed(({ dense }) => {
      ;(dense as number[][])[1]![2] = 'inf' as unknown as number
    })
    await refused('E_FORMAT', dishes, options, /line 2: dense\[1\]\[2\]/)
    changed(({ dense }) => {
      ;(dense as number[][])[1]!.fill(3e38)
    })
    await refused('E_RANGE', dishes, options, /not finite.*line 2: /)
    await refused('E_RANGE', dishes, { ...options, choose: true }, /not finite/)
    changed(({ sparse }) => {
      ;(sparse as unknown[])[0] = 240
    })
    await refused('E_RANGE', dishes, options, /line 2 is refused.*sparse\[0\]\.indices\[0\]; found: 240/)
    const skipping = await validateRecommender(dishes, { ...options, indices: 'skip' })
    assert.equal([skipping.rows, skipping.skippedIndices, skipping.clampedIndices], [80, 40, 0])
    const clamping = await validateRecommender(dishes, { ...options, indices: 'clamp' })
    assert.equal([clamping.skippedIndices, clamping.clampedIndices], [0, 40])
    for (const label of [0, 1]) {
      const request = JSON.parse(first)
      writeFileSync(file, JSON.stringify({ ...request, label: request.label.map(() => label) }))
      await refused('E_RANGE', dishes, options, new RegExp(`all labels are alike.*label ${label}`))
    }
    writeFileSync(file, '\n\n')
    await refused('E_RANGE', dishes, options, /no labelled rows/)
    writeFileSync(file, `{"dense": [${'0,'.repeat(2 ** 23)}0]}`)
    await refused('E_FORMAT', dishes, options, /line 1 is too long/)
    await refused('E_IO', dishes, { data: join(folder, 'nowhere') }, /nowhere/)
    await refused('E_IO', dishes, { data: folder }, /labelled requests cannot be read.*a folder/)
    const pipe = join(folder, 'pipe')
    execFileSync('mkfifo', [pipe])
    await refused('E_IO', dishes, { data: pipe }, /labelled requests cannot be read.*a regular file/)
    await refused('E_IO', join(folder, 'nowhere'), { data })
    await refused('E_UNSUPPORTED', fixture('llama3-8b-like'), { data })
    await refused('E_SHAPE', dishes, { data, against: fixture('dlrm-dot') }, /not of one shape/)
    await refused('E_ARGUMENT', dishes, { data, type: 'q4_k' as 'int4' }, /options\.type/)
    await refused('E_ARGUMENT', dishes, { data, output: 'x' }, /nothing to write/)
    await refused('E_ARGUMENT', dishes, { data, budget: Number.NaN, choose: true }, /options\.budget/)
    await refused('E_ARGUMENT', dishes, { data, bugdet: 1 } as ValidateOptions, /bugdet/)
    await refused('E_ARGUMENT', dishes, {} as ValidateOptions, /options\.data/)
    await refused('E_ARGUMENT', dishes, { data, type: 'f32' }, /both precisions are the same/)
  }))

test('it can be aborted, before and in the middle, and says how far it is', () =>
  withFolder(async (folder) => {
    await refused('E_ABORTED', dishes, { data, signal: AbortSignal.abort() })
    const file = join(folder, 'requests.jsonl')
    writeFileSync(file, readFileSync(data, 'utf8').repeat(10))
    const stop = new AbortController()
    const output = join(folder, 'chosen.json')
    const fractions: number[] = []
    await refused('E_ABORTED', dishes, {
      data: file,
      choose: true,
      output,
      signal: stop.signal,
      onProgress: (fraction) => {
        fractions.push(fraction)
        if (fraction > 0.3) stop.abort()
      },
    })
    assert.ok(fractions.length > 1 && fractions.every((fraction, i) => i === 0 || fraction >= fractions[i - 1]!))
    assert.throws(() => readFileSync(output))
  }))

test('the page holds the figures, escapes names and loads nothing', async () => {
  const report = await validateRecommender(dishes, { data, type: 'int4', choose: true })
  const [first, ...others] = report.tables
  const hostile = '<script>alert("1")</script>'
  const html = reportHtml({
    ...report,
    data: `${hostile}.jsonl`,
    tables: [{ ...first, name: hostile } as (typeof report.tables)[number], ...others],
  })
  assert.not.match(html, /<script|src=|href=|@import|url\(/i)
  assert.match(html, /&lt;script&gt;alert\(&quot;1&quot;\)&lt;\/script&gt;/)
  assert.match(html, /default-src 'none'/)
  assert.is(html.match(/<svg /g)?.length, 5)
  for (const text of ['top.2 (logit)', 'tags of liked dishes', report.reference.auc.toFixed(6), 'budget'])
    assert.ok(html.includes(text), text)
  assert.not.match(html, /NaN|undefined|Infinity/)
  const { choice, ...plain } = await validateRecommender(dishes, { data, type: 'f32', layers: 'int8' })
  const page = reportHtml(plain)
  assert.is(choice, undefined)
  assert.match(page, />equal</)
  assert.not.match(page, /NaN|undefined|Infinity|chosen/)
})

const model = shared('fixtures/dlrm-movielens')
if (model !== undefined) {
  test('MovieLens, where it lies beside the repository: the published AUC', async () => {
    await withFolder(async (folder) => {
      const tensors = await tensorsOf(join(model, 'expected.safetensors'))
      const integersOf = (name: string) => new Int32Array(Uint8Array.from((tensors.get(name) as Tensor).bytes).buffer)
      const dense = floatsOf(tensors, 'dense')
      const labels = (tensors.get('label') as Tensor).bytes
      const bags = Array.from({ length: 6 }, (_, t) => ({
        indices: integersOf(`t${t}.indices`),
        offsets: integersOf(`t${t}.offsets`),
      }))
      const lines = Array.from(labels, (label, row) =>
        JSON.stringify({
          dense: [...dense.subarray(row * 4, row * 4 + 4)],
          sparse: bags.map(({ indices, offsets }) => [...indices.subarray(offsets[row], offsets[row + 1])]),
          label: [label],
        }),
      )
      const file = join(folder, 'requests.jsonl')
      writeFileSync(file, lines.join('\n'))
      const int8 = await validateRecommender(model, { data: file, layers: 'f32' })
      near(int8.reference.auc, 0.7391, 1e-4, 'AUC in f32')
      near(int8.result.auc, 0.7391, 1e-3, 'AUC with int8 tables')
      const int4 = await validateRecommender(model, { data: file, type: 'int4', layers: 'f32' })
      near(int4.result.auc, 0.739, 5e-3, 'AUC with int4 tables')
    })
  })
}

test.run()
