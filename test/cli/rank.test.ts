/** `drover rank` and `drover inspect` of a recommender. */
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { quantizeModel } from '../../lib/index.js'
import { parseRequestLine } from '../../lib/recommend/jsonl.js'
import { loadRecommender } from '../../lib/recommend/recommender.js'
import { fixture, root } from '../support.js'
import { drover, jsonLines, output, outputJson, refused, withFolder } from './run.js'

const dcn = fixture('dlrm-dcnv2')
const shape = { denseFeatures: 13, tables: new Array(5) }
const dense = Array.from({ length: 13 }, (_, i) => i / 10)

/** Two rows: every form in which bags can be written. */
const twoRows = {
  id: 'two',
  dense: [dense, dense.map((value) => -value)],
  sparse: [[[1, 2], []], [5, 6], 9, { indices: [1, 2, 3], offsets: [0, 1, 3], weights: [1, 0.5, 2] }, [[], []]],
  items: ['first', 'second'],
}
const oneRow = { dense, sparse: [1, [2, 3], [[4]], [], { indices: [], offsets: [0, 0] }] }

interface Answer {
  id?: string
  scores?: number[]
  top?: { row: number; item?: string; score: number }[]
  line?: number
  error?: { code: string; message: string; field: string }
}

test('every form of a request is scored as the API scores it, in order, from a file and from standard input', () =>
  withFolder(async (folder) => {
    const requests = Array.from({ length: 150 }, (_, i) => ({ ...(i % 2 ? oneRow : twoRows), id: i }))
    const text = requests.map((request) => JSON.stringify(request)).join('\n')
    const file = join(folder, 'requests.jsonl')
    writeFileSync(file, `\n${text}\r\n\n`)
    const lines = await output(['rank', dcn, '--requests', file])
    assert.is(await output(['rank', dcn], { input: text }), lines)
    assert.is(await output(['rank', dcn, '-r', '-', '--tables', 'mapped', '--max-batch', '3'], { input: text }), lines)
    const answers = jsonLines(lines) as Answer[]
    assert.equal(
      answers.map(({ id }) => id as unknown as number),
      requests.map(({ id }) => id),
    )
    await using recommender = await loadRecommender(dcn)
    for (const [i, request] of [twoRows, oneRow].entries()) {
      const parsed = parseRequestLine(JSON.stringify(request), shape, { file: 'x', line: 1 })
      const scores = recommender.scoreSync(parsed.request)
      assert.equal(answers[i]?.scores?.map(Math.fround), [...scores])
    }
  }))

test('forms of bags mean what they say', () => {
  const { request, rows, items, id } = parseRequestLine(JSON.stringify(twoRows), shape, { file: 'x', line: 1 })
  assert.is(rows, 2)
  assert.is(id, 'two')
  assert.equal(items, ['first', 'second'])
  assert.equal(
    request.sparse.map(({ indices, offsets }) => [[...indices], [...offsets]]),
    [
      [
        [1, 2],
        [0, 2, 2],
      ],
      [
        [5, 6],
        [0, 1, 2],
      ],
      [
        [9, 9],
        [0, 1, 2],
      ],
      [
        [1, 2, 3],
        [0, 1, 3],
      ],
      [[], [0, 0, 0]],
    ],
  )
  const single = parseRequestLine(JSON.stringify(oneRow), shape, { file: 'x', line: 1 })
  assert.equal(
    single.request.sparse.map(({ indices }) => [...indices]),
    [[1], [2, 3], [4], [], []],
  )
  const wide = { ...oneRow, sparse: [2 ** 40, -1, 0, 0, 0], label: [1] }
  const far = parseRequestLine(JSON.stringify(wide), shape, { file: 'x', line: 1 })
  assert.equal([...(far.request.sparse[0]?.indices ?? [])], [2n ** 40n])
  assert.equal([...(far.request.sparse[1]?.indices ?? [])], [-1])
  assert.equal(far.labels, [1])
})

test('--top gives the best rows, best first, with their names', async () => {
  const input = `${JSON.stringify(twoRows)}\n${JSON.stringify(oneRow)}\n`
  const [scored] = jsonLines(await output(['rank', dcn], { input })) as Answer[]
  const [two, one] = jsonLines(await output(['rank', dcn, '--top', '5', '--json'], { input })) as Answer[]
  const [a = 0, b = 0] = scored?.scores ?? []
  const best = a >= b ? { row: 0, item: 'first', score: a } : { row: 1, item: 'second', score: b }
  assert.equal(two?.top?.[0], best)
  assert.is(two?.top?.length, 2)
  assert.is(one?.top?.length, 1)
  assert.is(one?.top?.[0]?.item, undefined)
  const [alone] = jsonLines(await output(['rank', dcn, '--top', '1'], { input })) as Answer[]
  assert.equal(alone?.top, [best])
})

const badLines: readonly [unknown, RegExp][] = [
  ['{"dense"', /JSON/],
  [[1], /JSON/],
  [{ ...oneRow, dense: [1, 2] }, /dense\[0\]; found: an array of 2; expected: 13 features/],
  [{ ...oneRow, dense: [[...dense.slice(1), 'x']] }, /dense\[0\]\[12\]/],
  [
    { ...oneRow, dense: [[...dense.slice(1), 1e39]] },
    /dense\[0\]\[12\]; found: 1e\+39; expected: a number that is finite/,
  ],
  [{ ...oneRow, dense: 'x' }, /dense/],
  [{ ...oneRow, sparse: [1, 2] }, /sparse; found: an array of 2; expected: an entry for each of 5 tables/],
  [{ ...oneRow, sparse: [0.5, 1, 1, 1, 1] }, /sparse\[0\]\[0\]/],
  [{ ...oneRow, sparse: [[[1], [2]], 1, 1, 1, 1] }, /sparse\[0\].*one bag for each of 1 rows/],
  [{ ...twoRows, sparse: [[1, 2, 3], 1, 1, 1, 1] }, /sparse\[0\].*one index for each of 2 rows/],
  [{ ...twoRows, sparse: [[[1], 2], 1, 1, 1, 1] }, /sparse\[0\]\[1\].*a bag of indices/],
  [{ ...oneRow, sparse: [{ indices: [1] }, 1, 1, 1, 1] }, /sparse\[0\]\.offsets/],
  [{ ...oneRow, sparse: [null, 1, 1, 1, 1] }, /sparse\[0\]/],
  [{ ...twoRows, items: ['a'] }, /items/],
  [{ ...twoRows, label: [1, 2] }, /label/],
  [{ ...twoRows, id: {} }, /id/],
  [{ ...oneRow, sparse: [7, 1, 1, 1, 1] }, /E_RANGE.*sparse\[0\]\.indices\[0\]; found: 7; expected: from 0 to 6/],
]

test('a bad line ends the run with its number, or is answered with its error', async () => {
  const good = JSON.stringify(oneRow)
  for (const [bad, pattern] of badLines) {
    const line = typeof bad === 'string' ? bad : JSON.stringify(bad)
    const { code, out, err } = await drover(['rank', dcn], { input: `${good}\n${line}\n${good}\n` })
    assert.is(code, 1, line)
    assert.is(out.split('\n').length, 2, 'what came before is answered')
    assert.match(err, /line 2/)
    assert.match(err, pattern)
  }
  const input = badLines.map(([bad]) => `${good}\n${typeof bad === 'string' ? bad : JSON.stringify(bad)}\n`).join('')
  const { code, out, err } = await drover(['rank', dcn, '--keep-going'], { input })
  assert.is(code, 1, err)
  const answers = jsonLines(out) as Answer[]
  assert.is(answers.length, 2 * badLines.length)
  for (const [i, answer] of answers.entries()) {
    assert.is(answer.error !== undefined, i % 2 === 1, JSON.stringify(answer))
    if (answer.error !== undefined) assert.is(answer.line, i + 1)
  }
  const outside = JSON.stringify(badLines.at(-1)?.[0])
  const skipped = await drover(['rank', dcn, '--indices', 'skip'], { input: outside })
  assert.is(skipped.code, 0)
  assert.match(skipped.err, /^indices out of range: 1 skipped, 0 clamped$/m)
  const clamped = await drover(['rank', dcn, '--indices', 'clamp', '--json'], { input: `${outside}\n${outside}` })
  assert.match(clamped.err, /^\{"skippedIndices":0,"clampedIndices":2\}$/m)
})

test('lines end at line feeds alone, and somewhere', async () => {
  const id = 'one\u2028line\u2029only\u0085'
  const good = JSON.stringify({ ...oneRow, id })
  const [answer] = jsonLines(await output(['rank', dcn], { input: good })) as Answer[]
  assert.is(answer?.id, id)
  const endless = await drover(['rank', dcn, '--keep-going'], { input: `${good}\n${'['.repeat(2 ** 24 + 1)}` })
  assert.is(endless.code, 1)
  assert.is(jsonLines(endless.out).length, 1, 'what came before is answered')
  assert.match(endless.err, /^drover: E_FORMAT: line 2 is too long.*standard input/m)
})

test('a reader that has seen enough does not hide a failure', async () => {
  const good = `${JSON.stringify(oneRow)}\n`
  const { code } = await drover(['rank', dcn, '--keep-going'], {
    input: `{}\n${good.repeat(5000)}`,
    onOutput: (_, __, closeStdout) => closeStdout(),
  })
  assert.is(code, 1)
})

test('what cannot be read is refused before the model is loaded', async () => {
  await refused(['rank', dcn, '--requests', '/nowhere/requests.jsonl'], /^drover: E_IO: .*\/nowhere\/requests\.jsonl/)
  await refused(['rank', dcn, '--requests', root], /^drover: E_IO: the requests cannot be read.*a folder/)
  await refused(['rank', '/nowhere'], /^drover: E_IO: /, { input: '{}' })
  await refused(['rank', fixture('llama3-8b-like')], /^drover: E_UNSUPPORTED: .*loadLanguageModel/)
  await refused(['rank', dcn, '--top', '0'], /^drover: E_ARGUMENT: --top/)
  await refused(['rank', dcn, '--indices', 'guess'], /^drover: E_ARGUMENT: .*options\.indices/)
  await refused(['rank', dcn, '--request', 'x'], /did you mean --requests/)
})

test('inspect shows tables and memory of a recommender', async () => {
  const shown = await outputJson<{
    config: { architecture: string; tables: number }
    tables: { name: string; rows: number; format: string }[]
    plan: { totalBytes: number; tableBytes: number }
    program: string[]
    tensors: unknown[]
  }>(['inspect', dcn, '--program', '--tensors'])
  assert.is(shown.config.architecture, 'dlrm_dcn')
  assert.is(shown.tables.length, 5)
  assert.equal(shown.tables[4], { name: 't_cat_4', rows: 1200, dim: 24, format: 'f32', bytes: 115200 })
  assert.ok(shown.plan.totalBytes > shown.plan.tableBytes)
  assert.is(shown.program.length, 2 + 2 + 9 + 3 + 1)
  assert.ok(shown.tensors.length > 10)
  const text = await output(['inspect', join(root, 'test', 'fixtures', 'dlrm-dot'), '--tensors', '--program'])
  assert.match(text, /emb_l\.6 +2003 +20 +f32/)
  assert.match(text, /embedding_bag/)
  for (const name of ['context', 'sequences', 'kv', 'type'])
    await refused(
      ['inspect', dcn, `--${name}`, '2'],
      new RegExp(`^drover: E_ARGUMENT: --${name} is for language models`),
    )
  await refused(
    ['inspect', join(dcn, 'config.json')],
    /^drover: E_UNSUPPORTED: a recommender is not planned from its config alone/,
  )
})

test('inspect plans what loading converts', () =>
  withFolder(async (folder) => {
    interface Planned {
      conversions: { tables: Record<string, string>; layers: Record<string, string> }
      plan: {
        tableBytes: number
        preparedBytes: number
        arenaBytes: number
        convertedBytes: number
        totalBytes: number
      }
    }
    const stored = join(folder, 'int8')
    await quantizeModel(dcn, stored, { type: 'int8' })
    const expected = await outputJson<Planned>(['inspect', stored])
    assert.equal(expected.conversions, { tables: {}, layers: {} })
    assert.is(expected.plan.convertedBytes, 0)

    const converted = join(folder, 'converted')
    cpSync(dcn, converted, { recursive: true })
    const config = join(converted, 'config.json')
    const quantization = { tables: 'int8', layers: 'int8' }
    writeFileSync(config, JSON.stringify({ ...JSON.parse(readFileSync(config, 'utf8')), quantization }))
    const { conversions, plan } = await outputJson<Planned>(['inspect', converted])
    assert.is(conversions.tables['t_cat_4'], 'int8')
    assert.ok(Object.keys(conversions.layers).length > 5)
    const { convertedBytes, totalBytes, ...same } = plan
    assert.equal({ ...same, convertedBytes: 0, totalBytes: totalBytes - convertedBytes }, expected.plan)
    await using recommender = await loadRecommender(converted)
    assert.is(recommender.memoryUsage()['converted'], convertedBytes)
    assert.is(recommender.info.tableBytes, plan.tableBytes)
    const text = await output(['inspect', converted])
    assert.match(text, /^t_cat_4 .* f32 → int8 /m)
    assert.match(text, /^converted +5 tables and \d+ layers while loading; /m)
  }))

test.run()
