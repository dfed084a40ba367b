/** `drover rank` and `drover inspect` of a recommender. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
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
  const skipped = await drover(['rank', dcn, '--indices', 'skip'], { input: JSON.stringify(badLines.at(-1)?.[0]) })
  assert.is(skipped.code, 0)
})

test('what cannot be read is refused before the model is loaded', async () => {
  await refused(['rank', dcn, '--requests', '/nowhere/requests.jsonl'], /^drover: E_IO: .*\/nowhere\/requests\.jsonl/)
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
})

test.run()
