/** `drover quantize`: what it writes loads and writes stories, and it leaves nothing half done. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { fitting, formatOf, mixNames, mixOf } from '../../lib/convert/mixes.js'
import { readGguf } from '../../lib/format/gguf.js'
import { compareModels, type DroverError, loadLanguageModel, quantizeModel } from '../../lib/index.js'
import { importanceList } from '../format/imatrix-bytes.js'
import { withBytesModel } from '../generate/models.js'
import { fixture } from '../support.js'
import { drover, outputJson, refused, storiesPath, withFolder } from './run.js'

const story = fixture('stories260K/tinystories_first.txt')

interface Report {
  bytes: number
  sourceBytes: number
  bitsPerWeight: number
  formats: Record<string, number>
  notes: string[]
  comparison?: {
    tokens: number
    meanDivergence: number
    p99Divergence: number
    topAgreement: number
    perplexity: number
    sourcePerplexity: number
    perplexityRatio: number
  }
}

const formatsOf = async (path: string): Promise<Map<string, string>> =>
  new Map([...(await readGguf(path)).tensors.values()].map(({ name, dtype }) => [name, dtype]))

test('q8_0: smaller, nearly the same predictions, metadata and vectors kept', async () => {
  await withFolder(async (folder) => {
    const path = join(folder, 'q8.gguf')
    const report = await outputJson<Report>(['quantize', storiesPath, path, '--type', 'Q8_0', '--kld', story])
    assert.equal(readdirSync(folder), ['q8.gguf'])
    assert.ok(report.bytes < report.sourceBytes * 0.35, `${report.bytes} of ${report.sourceBytes}`)
    assert.ok(statSync(path).size >= report.bytes)
    const { comparison } = report
    assert.ok(comparison)
    assert.ok(comparison.meanDivergence > 0 && comparison.meanDivergence < 0.001, `${comparison.meanDivergence}`)
    assert.ok(comparison.p99Divergence >= comparison.meanDivergence && comparison.p99Divergence < 0.01)
    assert.ok(comparison.topAgreement > 0.97)
    assert.ok(Math.abs(comparison.perplexityRatio - 1) < 0.005)

    const [before, after] = [await readGguf(storiesPath), await readGguf(path)]
    for (const [key, value] of before.metadata) {
      if (key === 'general.file_type') continue
      const kept = after.metadata.get(key)
      if (typeof value !== 'object') assert.is(kept, value, key)
      else assert.equal([...(kept as typeof value).values], [...value.values], key)
    }
    assert.is(after.metadata.get('general.file_type'), 7)
    for (const { name, shape, dtype } of after.tensors.values()) {
      assert.equal(shape, before.tensors.get(name)?.shape)
      if (shape.length === 1) assert.is(dtype, 'f32', name)
    }

    const model = await loadLanguageModel(path)
    const source = await loadLanguageModel(storiesPath)
    const generation = { temperature: 0, maxTokens: 20 }
    const told = await model.generate('Once upon a time', generation).result()
    assert.is(told.text, (await source.generate('Once upon a time', generation).result()).text)
    const tokens = model.tokenizer.encode('Once upon a time there was a cat. The cat was big.', { bos: true })
    const same = await compareModels(source, source, tokens)
    assert.equal([same.meanDivergence, same.topAgreement, same.perplexityRatio], [0, 1, 1])
    const { perplexity } = await source.perplexity(tokens, { window: 8 })
    const windows = await compareModels(source, model, tokens, { window: 8 })
    assert.ok(Math.abs(windows.sourcePerplexity / perplexity - 1) < 1e-4, 'the same windows as perplexity has')
    await model.close()
    await source.close()
  })
})

test('every type: rows that its blocks do not fill fall back, and the model still tells stories', async () => {
  await withFolder(async (folder) => {
    const source = await loadLanguageModel(storiesPath)
    const tokens = source.tokenizer.encode('Once upon a time, there was a little girl named Lily. She loved to play.')
    const worst: Record<string, number> = { f32: 0, f16: 1e-4, bf16: 0.01, q8_0: 0.01 }
    for (const type of mixNames) {
      const path = join(folder, `${type}.gguf`)
      const { notes } = await quantizeModel(storiesPath, path, { type })
      // stories260K has rows of 64 and 172 elements.
      const formats = await formatsOf(path)
      const found = formats.get('blk.0.ffn_gate.weight')
      assert.is(found, fitting(mixOf(type).base, 64), type)
      if (found !== mixOf(type).base)
        assert.match(notes.join('\n'), /blk\.0\.ffn_gate\.weight: \w+ instead of \w+, whose/)
      assert.is(formats.get('blk.0.ffn_down.weight'), /^(f|bf)/.test(type) ? type : 'f16')
      const model = await loadLanguageModel(path)
      const { meanDivergence } = await compareModels(source, model, tokens)
      assert.ok(meanDivergence <= (worst[type] ?? 0.2), `${type}: ${meanDivergence}`)
      await model.close()
    }
    await source.close()
  })
})

test('Q4_K_M as llama.cpp mixes it', async () => {
  const path = fixture('llama-gguf-q4km/model.Q4_K_M.gguf')
  const gguf = await readGguf(path)
  const facts = { layers: 3, sharing: 4, hasImportance: false }
  for (const { name, dtype, shape } of gguf.tensors.values()) {
    if (shape.length < 2) continue
    const wanted = formatOf(mixOf('q4_k_m'), name, !gguf.tensors.has('output.weight'), facts)
    assert.is(fitting(wanted, shape.at(-1) as number), dtype, name)
  }
  await withFolder(async (folder) => {
    const again = join(folder, 'again.gguf')
    const { notes } = await quantizeModel(path, again, { type: 'q4_k' })
    assert.equal(notes, [], 'nothing changes its format')
    assert.equal([...(await formatsOf(again))], [...(await formatsOf(path))])
    const pure = join(folder, 'pure.gguf')
    const report = await quantizeModel(path, pure, { type: 'q3_k_s', output: 'q5_k', pure: true })
    assert.match(report.notes.join(), /the source is quantised itself \(.*q4_k/)
    assert.equal(Object.keys(report.formats).sort(), ['f32', 'q3_k', 'q5_k'])
  })
})

test('an importance matrix is used, and one of another model refused', async () => {
  await withFolder(async (folder) => {
    const path = join(folder, 'm.dat')
    const entries = (columns: number) =>
      Object.fromEntries(
        Array.from({ length: 5 }, (_, layer) => [
          `blk.${layer}.ffn_gate.weight`,
          { calls: 2, values: Array.from({ length: columns }, (_, i) => (i % 4 === 0 ? 100 : 1)) },
        ]),
      )
    const [plain, weighted] = [join(folder, 'plain.gguf'), join(folder, 'weighted.gguf')]
    writeFileSync(path, importanceList(entries(64)))
    await quantizeModel(storiesPath, plain, { type: 'q4_0' })
    const { notes } = await quantizeModel(storiesPath, weighted, { type: 'q4_0', importance: path })
    assert.match(notes.join('\n'), /^importance: for 5 of \d+ matrices$/m)
    writeFileSync(path, importanceList(entries(63)))
    const other = join(folder, 'other.gguf')
    await refused(
      ['quantize', storiesPath, other, '-t', 'q4_0', '--imatrix', path],
      /^drover: E_FORMAT: the importance matrix belongs to another model; field: blk\.0\.ffn_gate\.weight/,
    )
    writeFileSync(path, importanceList({ x: { calls: 1, values: [1] } }))
    await refused(['quantize', storiesPath, other, '-t', 'q4_0', '--imatrix', path], /belongs to another model/)
    writeFileSync(path, 'nonsense')
    await refused(['quantize', storiesPath, other, '-t', 'q4_0', '--imatrix', path], /^drover: E_FORMAT: /)
    assert.equal(readdirSync(folder).sort(), ['m.dat', 'plain.gguf', 'weighted.gguf'])
  })
})

test('a folder becomes a folder', async () => {
  await withFolder(async (folder) => {
    const source = fixture('llama31-rope8-like')
    const path = join(folder, 'int8')
    const { formats } = await outputJson<{ formats: Record<string, number> }>(['quantize', source, path, '-t', 'int8'])
    assert.ok((formats['int8'] ?? 0) > 0)
    assert.ok(readdirSync(path).includes('tokenizer.json'))
    await refused(['quantize', source, path, '-t', 'int8'], /^drover: E_ARGUMENT: the output exists/)
    await refused(
      ['quantize', source, `${path}-4`, '-t', 'q4_k'],
      /^drover: E_UNSUPPORTED: a folder is not .*options\.type/,
    )
    await refused(['quantize', source, `${path}-4`, '-t', 'int4', '--pure'], /options\.pure/)
    await refused(['quantize', source, join(folder, 'x.gguf'), '-t', 'int8'], /there is no such type/)
    assert.equal(readdirSync(folder), ['int8'])
  })
})

test('wrong arguments, and an interrupt that leaves nothing behind', async () => {
  await withFolder(async (folder) => {
    const path = join(folder, 'x.gguf')
    await refused(['quantize', storiesPath, path], /^drover: E_ARGUMENT: a type is needed/)
    await refused(['quantize', storiesPath, path, '-t', 'q9'], /^drover: E_ARGUMENT: there is no such type.*q4_k_m/)
    await refused(['quantize', storiesPath, path, '-t', 'q8_0', '--keep-output', 'q9'], /options\.output; found: q9/)
    await refused(['quantize', storiesPath, storiesPath, '-t', 'q8_0'], /would replace its own source/)
    await refused(
      ['quantize', storiesPath, join(folder, 'x.bin'), '-t', 'q8_0'],
      /^drover: E_UNSUPPORTED: a folder is not/,
    )
    await refused(['quantize', folder, path, '-t', 'q8_0'], /^drover: E_IO: .*config\.json/)
    await refused(['quantize', join(folder, 'none'), path, '-t', 'q8_0'], /^drover: E_IO: /)
    await refused(
      ['quantize', storiesPath, path, '-t', 'q8_0', '--kld', join(folder, 'none')],
      /^drover: E_IO: the text/,
    )
    const stop = new AbortController()
    const onProgress = (): void => stop.abort()
    const error = await quantizeModel(storiesPath, path, { type: 'q8_0', signal: stop.signal, onProgress }).then(
      () => undefined,
      (reason: { code: string }) => reason,
    )
    assert.is(error?.code, 'E_ABORTED')
    assert.equal(readdirSync(folder), [])
    const told = await drover(['quantize', storiesPath, path, '-t', 'f16', '--kld', story])
    assert.is(told.code, 0, told.err)
    assert.match(told.out, /^weights +292\.8 K, 16\.\d+ bits each$/m)
    assert.match(told.out, /^divergence +mean [\d.]+ nats over 373 tokens$/m)
    assert.match(told.out, /^perplexity +3\.72\d\d, source 3\.72\d\d$/m)
  })
})

test('an interrupt of the comparison leaves the output, which is complete', async () => {
  await withFolder(async (folder) => {
    const [path, text] = [join(folder, 'x.gguf'), join(folder, 'long.txt')]
    writeFileSync(text, readFileSync(story, 'utf8').repeat(1000))
    let sent = false
    const { code, out, err } = await drover(['quantize', storiesPath, path, '-t', 'q8_0', '--kld', text], {
      onOutput: (shown, kill) => {
        if (!sent && /^time /m.test(shown)) kill('SIGINT')
        sent ||= /^time /m.test(shown)
      },
    })
    assert.is(code, 130, err)
    assert.match(err, /^interrupted; .*x\.gguf is complete$/m)
    assert.not.match(out, /divergence/)
    assert.equal(readdirSync(folder).sort(), ['long.txt', 'x.gguf'])
    await (await loadLanguageModel(path)).close()
  })
})

test('comparisons: tokens are checked, and windows bounded by the memory of their logits', async () => {
  const refused = async (body: () => Promise<unknown>, code: string, field: string): Promise<void> => {
    const error = await body().then(
      () => undefined,
      (reason: unknown) => reason as DroverError,
    )
    assert.equal([error?.code, error?.field], [code, field])
  }
  const shape = { vocabulary: 70_000, tied: true }
  const metadata = { 'llama.context_length': { type: 'u32', value: 16_384 } } as const
  await withBytesModel({ shape, metadata }, { maxSequences: 1 }, async (model) => {
    const compare = (tokens: unknown, window?: number) => () =>
      compareModels(model, model, tokens as number[], window === undefined ? {} : { window })
    await refused(compare([1, 2, 3], 959), 'E_ARGUMENT', 'options.window') // 2^28 bytes hold 958 rows
    assert.is((await compare([1, 2, 3], 958)()).tokens, 2)
    await refused(compare([1, 70_000]), 'E_ARGUMENT', 'tokens[1]')
    await refused(compare([1, 2.5]), 'E_ARGUMENT', 'tokens[1]')
    await refused(compare(['1', 2]), 'E_ARGUMENT', 'tokens[0]')
    await refused(compare('12'), 'E_ARGUMENT', 'tokens')
    await refused(compare([1]), 'E_RANGE', 'tokens')
  })
})

test.run()
