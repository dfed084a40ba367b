/** Llama in Hugging Face layout against transformers in float32. */
import { readdirSync } from 'node:fs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { assertClose, cosine, fixture, shared } from '../support.js'
import { type Expected, expectedOf, toleranceOf } from './expected.js'
import { greedyOf, ModelRunner, range } from './runner.js'

const names = ['llama3-8b-like', 'llama3-8b-like-bf16', 'llama31-rope8-like', 'llama32-tied-like', 'llama-bias-hd80']

const tail = (values: Float32Array, rows: number, total: number): Float32Array =>
  values.subarray(((total - rows) * values.length) / total)

/** A fixture's folder in the repository; a larger collection may hold more of the same form. */
const folders = new Map(names.map((name) => [name, fixture(name)]))
for (const name of readdirSync(shared('fixtures') ?? fixture(''))) {
  const folder = shared(`fixtures/${name}`)
  if (folder !== undefined && name.startsWith('llama') && !name.includes('gguf') && !folders.has(name)) {
    folders.set(name, folder)
  }
}

for (const [name, folder] of folders) {
  const opened = async (body: (runner: ModelRunner, expected: Expected, tolerance: number) => Promise<void>) => {
    const runner = await ModelRunner.open(folder)
    try {
      await body(runner, await expectedOf(folder), toleranceOf(folder, 'logits'))
    } finally {
      await runner.close()
    }
  }

  test(`${name}: logits of every prompt`, () =>
    opened(async (runner, expected, tolerance) => {
      for (const prompt of ['p0', 'p1', 'p2', 'p3']) {
        const ids = expected.ids(`${prompt}.input_ids`)
        const wanted = expected.floats(`${prompt}.logits`)
        const rows = wanted.length / runner.vocabulary
        const all = await runner.forward(ids)
        assertClose(tail(all, rows, ids.length), wanted, tolerance, prompt)
        // Rows that are not asked for do not change those that are.
        const asked = await runner.forward(ids, { outputRows: range(rows, ids.length - rows) })
        assert.equal(asked, tail(all, rows, ids.length), `${prompt}: the asked rows alone`)
      }
    }))

  test(`${name}: hidden states behind every layer`, () =>
    opened(async (runner, expected, tolerance) => {
      const { layers } = runner.model.config
      for (const prompt of ['p1', 'p2']) {
        const step = runner.step(expected.ids(`${prompt}.input_ids`))
        for (const i of range(layers + 1)) {
          const tensor = i === 0 ? 'embedding' : i === layers ? 'norm' : `layers.${i - 1}.mlp.down`
          assertClose(
            await runner.trace(tensor, step),
            expected.floats(`${prompt}.hidden.${i}`),
            tolerance,
            `${prompt} ${tensor}`,
          )
        }
      }
    }))

  test(`${name}: the cache after prefill`, () =>
    opened(async (runner, expected, tolerance) => {
      const ids = expected.ids('p1.input_ids')
      await runner.forward(ids)
      for (const layer of range(runner.model.config.layers)) {
        assertClose(
          runner.kv(layer, 'keys', ids.length),
          expected.floats(`p1.kv.${layer}.k`),
          tolerance,
          `keys ${layer}`,
        )
        assertClose(
          runner.kv(layer, 'values', ids.length),
          expected.floats(`p1.kv.${layer}.v`),
          tolerance,
          `values ${layer}`,
        )
      }
    }))

  test(`${name}: decoding one by one, then in a chunk`, () =>
    opened(async (runner, expected, tolerance) => {
      const prompt = expected.ids('p1.input_ids')
      const forced = expected.ids('decode.forced_ids')
      const wanted = expected.floats('decode.logits')
      await runner.forward(prompt)
      const single = 8
      for (const i of range(single)) {
        const logits = await runner.forward([forced[i] as number], { start: prompt.length + i })
        assertClose(logits, wanted.subarray(i * runner.vocabulary, (i + 1) * runner.vocabulary), tolerance, `row ${i}`)
      }
      const rest = await runner.forward(forced.slice(single), { start: prompt.length + single })
      assertClose(rest, wanted.subarray(single * runner.vocabulary), tolerance, 'chunk')
    }))

  test(`${name}: greedy tokens and the logits they come from`, () =>
    opened(async (runner, expected, tolerance) => {
      const wanted = expected.ids('greedy.output_ids')
      const ids = expected.ids('greedy.input_ids')
      const prompt = ids.length
      let logits = await runner.forward(ids, { outputRows: [prompt - 1] })
      const found: number[] = []
      for (const i of range(wanted.length)) {
        const row = expected.floats('greedy.logits').subarray(i * runner.vocabulary, (i + 1) * runner.vocabulary)
        assertClose(logits, row, tolerance, `token ${i}`)
        found.push(greedyOf(logits))
        logits = await runner.forward([found[i] as number], { start: prompt + i })
      }
      assert.equal(found, wanted)
    }))

  test(`${name}: loss of the next tokens`, () =>
    opened(async (runner, expected, tolerance) => {
      const ids = expected.ids('ppl.input_ids')
      const rows = ids.length - 1
      await runner.loaded.run({
        ...runner.step(ids.slice(0, rows), { targets: ids.slice(1) }),
        endOp: runner.after('nll'),
      })
      const nll = runner.loaded.read(runner.role('nll'), 0, rows)
      assertClose(
        nll.map((value) => -value),
        expected.floats('ppl.token_logprobs'),
        tolerance,
        'log-probabilities',
      )
      const loss = nll.reduce((sum, value) => sum + value, 0) / rows
      assertClose([loss], expected.floats('ppl.loss'), toleranceOf(folder, 'ppl.loss'), 'loss')
    }))

  test(`${name}: prompts and positions past the original context`, () =>
    opened(async (runner, expected) => {
      if (!expected.has('long.input_ids')) return
      const tolerance = toleranceOf(folder, 'long')
      const ids = expected.ids('long.input_ids')
      const wanted = expected.floats('long.logits_tail')
      const rows = wanted.length / runner.vocabulary
      const outputRows = range(rows, ids.length - rows)
      assertClose(await runner.forward(ids, { outputRows }), wanted, tolerance, 'long logits')
      const step = runner.step(ids, { outputRows })
      assertClose(await runner.trace('norm', step), expected.floats('long.hidden_last_tail'), tolerance, 'long hidden')
      const far = await runner.forward(expected.ids('far.input_ids'), { positions: expected.ids('far.position_ids') })
      assertClose(far, expected.floats('far.logits'), tolerance, 'far positions')
    }))

  test(`${name}: a compressed cache stays near`, async () => {
    const expected = await expectedOf(folder)
    for (const [kvType, least] of [
      ['f16', 0.999999],
      ['bf16', 0.9999],
      ['q8_0', 0.999],
      ['f8_e4m3', 0.995],
    ] as const) {
      const runner = await ModelRunner.open(folder, { kvType })
      const found = await runner.forward(expected.ids('p2.input_ids'))
      const similarity = cosine(found, expected.floats('p2.logits'))
      assert.ok(similarity >= least, `${kvType}: cosine ${similarity}`)
      await runner.close()
    }
  })
}

test.run()
