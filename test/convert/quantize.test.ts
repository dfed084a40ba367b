/** What conversion writes beside its formats: slices of large matrices, odd names, outputs that are sources. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { readTensor } from '../../lib/format/file.js'
import { readGguf } from '../../lib/format/gguf.js'
import { entryOf, type GgufEntry, writeGguf } from '../../lib/format/gguf-writer.js'
import { readSafetensors } from '../../lib/format/safetensors.js'
import { type SafetensorsEntry, SafetensorsWriter } from '../../lib/format/safetensors-writer.js'
import { loadLanguageModel, quantizeModel } from '../../lib/index.js'
import { storiesPath, withFolder } from '../cli/run.js'
import { randomSource, rejectionOf } from '../support.js'

/** stories260K in two parts; paths of both. */
const writeSplit = async (folder: string): Promise<[string, string]> => {
  const source = await readGguf(storiesPath)
  const all = [...source.tensors.values()]
  const paths = [1, 2].map((part) => join(folder, `m-0000${part}-of-00002.gguf`)) as [string, string]
  for (const [part, path] of paths.entries()) {
    const number = (value: number): GgufEntry => ({ type: 'u16', value })
    const metadata = new Map<string, GgufEntry>([
      ['split.no', number(part)],
      ['split.count', number(2)],
      ['split.tensors.count', { type: 'i32', value: all.length }],
    ])
    if (part === 0)
      for (const [key, value] of source.metadata) metadata.set(key, entryOf(key, source.metadataTypes.get(key), value))
    const own = all.filter((_, i) => i % 2 === part)
    const tensors = own.map(async (info) => {
      const data = await readTensor(source, info)
      return { name: info.name, type: info.dtype, shape: info.shape, bytes: info.bytes, chunks: () => [data] }
    })
    await writeGguf(path, metadata, await Promise.all(tensors))
  }
  return paths
}

test('no part of a split source is replaced', async () => {
  await withFolder(async (folder) => {
    const paths = await writeSplit(folder)
    const before = paths.map((path) => readFileSync(path))
    for (const path of paths) {
      const error = await rejectionOf(quantizeModel(paths[0], path, { type: 'q8_0' }))
      assert.equal([error.code, error.field, error.found], ['E_ARGUMENT', 'output', path])
    }
    assert.equal(readdirSync(folder).length, 2)
    for (const [i, path] of paths.entries()) assert.ok(readFileSync(path).equals(before[i] as Buffer))
    const joined = join(folder, 'joined.gguf')
    await quantizeModel(paths[0], joined, { type: 'f16' })
    const model = await loadLanguageModel(joined)
    assert.is((await model.generate('Once', { maxTokens: 3, temperature: 0 }).result()).tokens.length, 3)
    await model.close()
  })
})

const hidden = 256
const intermediate = 1100 // times hidden: more than is encoded at once
const config = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_size: hidden,
  intermediate_size: intermediate,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 4,
  vocab_size: 32,
  tie_word_embeddings: true,
}

/** Writes a folder of these tensors, f32 all; their content by name. */
const writeFolder = async (
  folder: string,
  shapes: Readonly<Record<string, readonly number[]>>,
): Promise<Map<string, Float32Array>> => {
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
  const entries = Object.entries(shapes).map(([name, shape]): SafetensorsEntry => ({ name, dtype: 'f32', shape }))
  const writer = await SafetensorsWriter.create(join(folder, 'model.safetensors'), entries)
  const random = randomSource(7)
  const content = new Map<string, Float32Array>()
  for (const { name, shape } of entries) {
    const values = Float32Array.from({ length: shape.reduce((n, size) => n * size, 1) }, () => random() - 0.5)
    content.set(name, values)
    await writer.write(name, new Uint8Array(values.buffer))
  }
  await writer.finish()
  return content
}

const upName = 'model.layers.1.mlp.up_proj.weight' // fp8 leaves the first and the last layer as they are

test('int8: matrices of several slices, row by row', async () => {
  await withFolder(async (folder) => {
    const content = await writeFolder(folder, { [upName]: [intermediate, hidden] })
    const path = join(folder, 'int8')
    await quantizeModel(folder, path, { type: 'int8' })
    const written = await readSafetensors(path)
    const read = async (name: string): Promise<Uint8Array<ArrayBuffer>> => {
      const info = written.tensors.get(name)
      assert.ok(info, name)
      return Uint8Array.from(await readTensor(written, info))
    }
    const codes = new Int8Array((await read(upName)).buffer)
    const scales = new Float32Array((await read(`${upName}_scale`)).buffer)
    const values = content.get(upName) as Float32Array
    assert.is(scales.length, intermediate)
    for (let row = 0; row < intermediate; row++) {
      const part = values.subarray(row * hidden, (row + 1) * hidden)
      const peak = part.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
      assert.is(scales[row], Math.fround(peak / 127), `row ${row}`)
      // Ties aside, of which there are none.
      const expected = Int8Array.from(part, (value) => Math.round(Math.fround(value / (scales[row] as number))))
      assert.equal(codes.subarray(row * hidden, (row + 1) * hidden), expected, `row ${row}`)
    }
  })
})

test('the row of a weight that cannot be stored is named, whatever slice it is in', async () => {
  await withFolder(async (folder) => {
    await writeFolder(folder, { [upName]: [intermediate, hidden] })
    const file = join(folder, 'model.safetensors')
    const bytes = readFileSync(file)
    bytes.writeFloatLE(Number.NaN, bytes.length - 4)
    writeFileSync(file, bytes)
    for (const type of ['int8', 'int4', 'fp8']) {
      const { code, field, found } = await rejectionOf(quantizeModel(folder, join(folder, 'out'), { type }))
      assert.equal([code, field, found], ['E_RANGE', upName, `in row ${intermediate - 1}`], type)
    }
    assert.equal(readdirSync(folder).sort(), ['config.json', 'model.safetensors'])
  })
})

test('tensors may have any name', async () => {
  await withFolder(async (folder) => {
    const names = ['__proto__', 'constructor', 'toString']
    await writeFolder(folder, Object.fromEntries(names.map((name) => [name, [2, 3]])))
    assert.equal([...(await readSafetensors(folder)).tensors.keys()].sort(), names.sort())
    const path = join(folder, 'bf16')
    await quantizeModel(folder, path, { type: 'bf16' })
    assert.equal([...(await readSafetensors(path)).tensors.keys()].sort(), names.sort())
  })
})

test('rows that are too long are refused in folders, too', async () => {
  await withFolder(async (folder) => {
    writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
    const entry = { name: 'wide', dtype: 'bf16', shape: [2 ** 24 + 1] } as const
    const writer = await SafetensorsWriter.create(join(folder, 'model.safetensors'), [entry])
    await writer.write('wide', new Uint8Array(2 * (2 ** 24 + 1)))
    await writer.finish()
    const { code, field } = await rejectionOf(quantizeModel(folder, join(folder, 'out'), { type: 'int8' }))
    assert.equal([code, field], ['E_UNSUPPORTED', 'wide'])
    assert.not.ok(readdirSync(folder).includes('out'))
  })
})

test.run()
