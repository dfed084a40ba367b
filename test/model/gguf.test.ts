/** Llama from GGUF: every tensor type, mixed files, rope factors. */
import { readdirSync } from 'node:fs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { assertClose, cosine, fixture, shared } from '../support.js'
import { expectedOf, toleranceOf } from './expected.js'
import { greedyOf, ModelRunner, type RunnerOptions, range } from './runner.js'

const floatTypes = ['F32', 'F16', 'BF16']
/** The dtype that a file's matrices must be opened as. */
const dtypeOf = (type: string): string => type.toLowerCase()

const files = (name: string): { folder: string; types: string[] } => {
  const folder = shared(`fixtures/${name}`) ?? fixture(name)
  const types = readdirSync(folder).flatMap((file) => /^model\.(\w+)\.gguf$/.exec(file)?.[1] ?? [])
  return { folder, types: types.sort() }
}

const withModel = async (
  path: string,
  options: RunnerOptions,
  body: (runner: ModelRunner) => Promise<void>,
): Promise<void> => {
  const runner = await ModelRunner.open(path, options)
  try {
    await body(runner)
  } finally {
    await runner.close()
  }
}

const greedy = async (runner: ModelRunner, prompt: readonly number[], count: number): Promise<number[]> => {
  const found: number[] = []
  let logits = await runner.forward(prompt, { outputRows: [prompt.length - 1] })
  for (const i of range(count)) {
    found.push(greedyOf(logits))
    logits = await runner.forward([found[i] as number], { start: prompt.length + i })
  }
  return found
}

const { folder, types } = files('llama-gguf-types')
for (const type of types) {
  const path = `${folder}/model.${type}.gguf`

  test(`${type}: f32 activations give the dequantised model's logits and greedy tokens`, () =>
    withModel(path, { activations: 'f32' }, async (runner) => {
      const expected = await expectedOf(folder)
      assert.is(runner.model.weightTypes[0], dtypeOf(type))
      const prompt = expected.ids('prompt_ids')
      const tolerance = toleranceOf(folder, '*.logits_dequant, f32')
      const logits = await runner.forward(prompt)
      assertClose(logits, expected.floats(`${type}.logits_dequant`), tolerance, type)
      const wanted = expected.ids(`${type}.greedy_ids`)
      assert.equal(await greedy(runner, prompt, wanted.length), wanted)
    }))

  test(`${type}: as the weights ask, no further off than llama.cpp`, () =>
    withModel(path, { activations: 'auto' }, async (runner) => {
      const expected = await expectedOf(folder)
      const wanted = expected.floats(`${type}.logits_dequant`)
      const logits = await runner.forward(expected.ids('prompt_ids'))
      if (floatTypes.includes(type)) {
        assertClose(logits, wanted, toleranceOf(folder, '*.logits_dequant, f32'), type)
        return
      }
      const line = cosine(expected.floats(`${type}.logits_llamacpp`), wanted) - 0.001
      const found = cosine(logits, wanted)
      assert.ok(found >= line, `cosine ${found}, llama.cpp's less 0.001 is ${line}`)
    }))
}

const mixed = files('llama-gguf-q4km')
for (const type of mixed.types) {
  const path = `${mixed.folder}/model.${type}.gguf`

  test(`${type} with rope factors, past the original context`, async () => {
    const expected = await expectedOf(mixed.folder)
    const prompt = expected.ids('prompt_ids')
    const wanted = expected.floats(`${type}.logits_dequant`)
    const ids = expected.ids(`${type}.greedy_ids`)
    await withModel(path, { activations: 'f32' }, async (runner) => {
      const rows = wanted.length / runner.vocabulary
      const outputRows = range(rows, prompt.length - rows)
      const logits = await runner.forward(prompt, { outputRows })
      assertClose(logits, wanted, toleranceOf(mixed.folder, '*.logits_dequant'), type)
      assert.equal(await greedy(runner, prompt, ids.length), ids)
    })
    await withModel(path, { activations: 'auto' }, async (runner) => {
      const rows = wanted.length / runner.vocabulary
      const logits = await runner.forward(prompt, { outputRows: range(rows, prompt.length - rows) })
      const line = cosine(expected.floats(`${type}.logits_llamacpp`), wanted) - 0.001
      const found = cosine(logits, wanted)
      assert.ok(found >= line, `cosine ${found}, llama.cpp's less 0.001 is ${line}`)
    })
  })
}

test.run()
