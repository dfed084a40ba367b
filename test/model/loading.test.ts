/** Weights that are converted while a model loads: what of them stays on disk, and what ends their load. */
import { cpSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { DeviceProgram } from '../../lib/device/device.js'
import { meanwhile } from '../../lib/generate/preparing.js'
import { convertWeights } from '../../lib/generate/weights.js'
import { DroverError, loadLanguageModel, quantizeModel, type WeightType } from '../../lib/index.js'
import { openModel } from '../../lib/model/open.js'
import { storiesPath, withFolder } from '../cli/run.js'
import { fixture } from '../support.js'

const tokens = [5, 42, 79, 116]

/** Runs `body` with a folder for temporary files of its own, which must be empty at the end. */
const withTemporary = async (body: (folder: string) => Promise<void>): Promise<void> => {
  await withFolder(async (folder) => {
    const temporary = join(folder, 'temporary')
    mkdirSync(temporary)
    const names = process.platform === 'win32' ? ['TEMP', 'TMP'] : ['TMPDIR']
    const before = names.map((name) => process.env[name])
    for (const name of names) process.env[name] = temporary
    try {
      await body(folder)
    } finally {
      for (const [i, name] of names.entries()) {
        if (before[i] === undefined) delete process.env[name]
        else process.env[name] = before[i]
      }
    }
    assert.equal(readdirSync(temporary), [])
  })
}

test('prepared weights of converted ones are found again', async () => {
  const source = fixture('llama31-rope8-like')
  for (const [path, weights] of [
    [source, 'q8_0'],
    [source, 'int8'],
    [storiesPath, 'q4_0'],
  ] as [string, WeightType][]) {
    await withTemporary(async (folder) => {
      const preparedCache = join(folder, 'cache')
      const load = async (): Promise<Float32Array> => {
        const model = await loadLanguageModel(path, { weights, preparedCache, contextLength: 64 })
        const { data } = await model.logits(tokens)
        await model.close()
        return data
      }
      const right = await load()
      const [name, ...others] = readdirSync(preparedCache)
      assert.equal(others, [], weights)
      const { ino, mtimeMs } = statSync(join(preparedCache, name as string))
      assert.equal(await load(), right)
      assert.equal(readdirSync(preparedCache), [name])
      const again = statSync(join(preparedCache, name as string))
      assert.equal([again.ino, again.mtimeMs], [ino, mtimeMs], weights)
    })
  }
})

test('a tokenizer that GGUF has no form for is no obstacle', async () => {
  await withTemporary(async (folder) => {
    const source = join(folder, 'source')
    cpSync(fixture('llama31-rope8-like'), source, { recursive: true })
    const file = join(source, 'tokenizer.json')
    const json = JSON.parse(readFileSync(file, 'utf8')) as { normalizer: unknown }
    json.normalizer = { type: 'NFC' }
    writeFileSync(file, JSON.stringify(json))
    const refused = await quantizeModel(source, join(folder, 'x.gguf'), { type: 'q8_0' }).then(
      () => undefined,
      (error: unknown) => error as DroverError,
    )
    assert.equal([refused?.code, refused?.field], ['E_UNSUPPORTED', 'normalizer'])
    const model = await loadLanguageModel(source, { weights: 'q8_0' })
    assert.ok(model.info.weightTypes.includes('q8_0'))
    const plain = await loadLanguageModel(source)
    const generation = { temperature: 0, maxTokens: 4 }
    assert.is((await model.generate('Hi', generation).result()).tokens.length, 4)
    assert.equal(model.tokenizer.encode('e\u0301 Hi'), plain.tokenizer.encode('e\u0301 Hi'))
    await Promise.all([model.close(), plain.close()])
  })
})

test('what is left of a conversion goes when the model is closed', async () => {
  await withTemporary(async () => {
    const { release } = await convertWeights(await openModel(storiesPath), 'q8_0', {})
    await release()
    await release() // there is nothing more
    const model = await loadLanguageModel(storiesPath, { weights: 'q8_0' })
    await model.close()
    await model.close()
  })
})

test('weights stop loading as soon as the rest of the model is refused', async () => {
  const stop = new AbortController()
  const loading = new Promise<DeviceProgram>((_, reject) => {
    stop.signal.addEventListener('abort', () => reject(new DroverError('E_ABORTED', 'loading was aborted')))
  })
  const refused = new DroverError('E_UNSUPPORTED', 'a tokenizer')
  try {
    await meanwhile(loading, stop, () => Promise.reject(refused))
    assert.unreachable()
  } catch (error) {
    assert.is(error, refused)
  }
  assert.ok(stop.signal.aborted)
})

test.run()
