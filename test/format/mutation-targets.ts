/** What is mutated, how it is read, and what must hold when a reader accepts the result. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { DroverError } from '../../lib/errors.js'
import {
  generationDefaults,
  huggingFaceConfig,
  readHuggingFaceFrom,
  tokenizerSettings,
} from '../../lib/format/config.js'
import { type Folder, memoryFolder, type TensorSource } from '../../lib/format/file.js'
import { type GgufFile, type GgufValue, readGgufFrom } from '../../lib/format/gguf.js'
import { readImportanceFrom } from '../../lib/format/imatrix.js'
import { readSafetensorsFrom } from '../../lib/format/safetensors.js'
import { dtypes, elementCount } from '../../lib/tensor.js'
import { fixture, root } from '../support.js'
import {
  arrayValue,
  f32,
  ggufBytes,
  join as joinBytes,
  string,
  stringValue,
  typeId,
  u32,
  u32Value,
  u64,
} from './gguf-bytes.js'
import { importanceGguf, importanceList } from './imatrix-bytes.js'
import { caseRandom, mutateBytes, mutateJson, pick, type Seed, seedFolder } from './mutate.js'
import { entry, safetensorsBytes } from './safetensors-bytes.js'

export interface Target {
  readonly name: string
  readonly files: ReadonlyMap<string, Seed>
  /** Which of the files are mutated, and whether as JSON too: a safetensors header is JSON after 8 bytes. */
  readonly mutable: readonly string[]
  readonly form: 'bytes' | 'json' | 'safetensors'
  /** Reads the files and throws an Error that is no DroverError when an accepted result contradicts itself. */
  read(folder: Folder): Promise<void>
}

const insist = (condition: boolean, what: string): void => {
  if (!condition) throw new Error(`accepted, but ${what}`)
}

const checkTensors = ({ files, tensors }: TensorSource): void => {
  const ends = files.map(() => 0)
  const sorted = [...tensors.values()].sort((a, b) => a.file - b.file || a.offset - b.offset || a.bytes - b.bytes)
  for (const { name, dtype, shape, file, offset, bytes } of sorted) {
    const { block, bytes: size } = dtypes[dtype]
    insist(
      shape.every((count) => Number.isSafeInteger(count) && count >= 0),
      `${name} has shape ${shape}`,
    )
    insist((shape.at(-1) ?? block) % block === 0 || block === 1, `${name} has no whole blocks`)
    insist(bytes === (elementCount(shape) / block) * size, `${name} has ${bytes} bytes`)
    insist(Number.isSafeInteger(offset) && offset >= 0, `${name} lies at ${offset}`)
    insist(offset + bytes <= files[file]!.size, `${name} lies outside its file`)
    if (bytes === 0) continue
    insist(offset >= ends[file]!, `${name} overlaps`)
    ends[file] = offset + bytes
  }
}

const checkValue = (value: GgufValue): void => {
  if (typeof value !== 'object') return
  insist(value.length === value.values.length, 'an array has another length')
  if (value.type === 'array') for (const inner of value.values) checkValue(inner)
  else if (value.type === 'string')
    insist(value.length === 0 || value.values.at(value.length - 1) !== undefined, 'a hole')
}

const checkGguf = (file: GgufFile): void => {
  checkTensors(file)
  for (const value of file.metadata.values()) checkValue(value)
  for (const { offset } of file.tensors.values())
    insist(offset % file.alignment === 0 || file.files.length > 1, 'misaligned')
}

const whole = (bytes: Uint8Array): Seed => ({ bytes, tail: 0 })

/** The header of a GGUF or safetensors file as bytes, its data as a tail. */
const headerOf = (path: string, start: number): Seed => {
  const bytes = Uint8Array.from(readFileSync(path))
  return { bytes: bytes.slice(0, start), tail: bytes.length - start }
}

const smallGguf = (): Uint8Array =>
  ggufBytes({
    entries: [
      ['general.architecture', stringValue('llama')],
      ['general.alignment', u32Value(32)],
      ['numbers', arrayValue(typeId('f32'), 3, joinBytes(f32(1), f32(2), f32(3)))],
      ['tokens', arrayValue(typeId('string'), 3, joinBytes(string('a'), string('ü'), string('')))],
      ['flags', arrayValue(typeId('bool'), 2, Uint8Array.of(0, 1))],
      ['nested', arrayValue(typeId('array'), 1, joinBytes(u32(typeId('u8')), u64(2), Uint8Array.of(1, 2)))],
      ['big', joinBytes(u32(typeId('u64')), u64(2n ** 60n))],
    ],
    tensors: [
      { name: 'a', dimensions: [8, 2] },
      { name: 'b', offset: 64 },
      { name: 'q', type: 2, dimensions: [32, 2], offset: 96 },
    ],
    data: 160,
  })

const splitPart = (number: number): Uint8Array =>
  ggufBytes({
    entries: [
      ['split.no', u32Value(number)],
      ['split.count', u32Value(2)],
      ['split.tensors.count', u32Value(2)],
    ],
    tensors: [{ name: `t${number}` }],
  })

const smallSafetensors = (): Uint8Array =>
  safetensorsBytes(
    {
      __metadata__: { format: 'pt' },
      'a.weight': { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24] },
      'b.weight': { dtype: 'BF16', shape: [4], data_offsets: [24, 32] },
      'c\u00fc': { dtype: 'U8', shape: [], data_offsets: [32, 33] },
    },
    33,
  )

const storiesHeader = async (): Promise<Seed> => {
  const path = join(root, 'assets/stories260K.gguf')
  const bytes = readFileSync(path)
  const file = await readGgufFrom(memoryFolder(new Map([['m.gguf', bytes]])), 'm.gguf')
  return headerOf(path, Math.min(...[...file.tensors.values()].map(({ offset }) => offset)))
}

const safetensorsHeader = (path: string): Seed => headerOf(path, 8 + Number(readFileSync(path).readBigUInt64LE(0)))

/** Reads all three files in their typed forms, each although another may be refused. */
const readConfig = async (folder: Folder): Promise<void> => {
  const { config, generation, tokenizer } = await readHuggingFaceFrom(folder)
  let refused: unknown
  for (const typed of [
    () => huggingFaceConfig(config),
    () => generation && generationDefaults(generation),
    () => tokenizer && tokenizerSettings(tokenizer),
  ]) {
    try {
      typed()
    } catch (error) {
      if (!(error instanceof DroverError)) throw error
      refused = error
    }
  }
  if (refused !== undefined) throw refused
}

const configFiles = (name: string): [string, Seed][] =>
  ['config.json', 'generation_config.json', 'tokenizer_config.json'].map((file) => [
    file,
    whole(Uint8Array.from(readFileSync(fixture(`hf-configs/${name}/${file}`)))),
  ])

export const targets = async (): Promise<Target[]> => {
  const gguf = (name: string, files: [string, Seed][], mutable = files.map(([file]) => file)): Target => ({
    name,
    files: new Map(files),
    mutable,
    form: 'bytes',
    read: async (folder) => checkGguf(await readGgufFrom(folder, files[0]![0])),
  })
  const safetensors = (name: string, seed: Seed): Target => ({
    name,
    files: new Map([['m.safetensors', seed]]),
    mutable: ['m.safetensors'],
    form: 'safetensors',
    read: async (folder) => checkTensors(await readSafetensorsFrom(folder, 'm.safetensors')),
  })
  const index = { metadata: { total_size: 8 }, weight_map: { a: 'x.safetensors', b: 'y.safetensors' } }
  const shards: [string, Seed][] = [
    ['model.safetensors.index.json', whole(Buffer.from(JSON.stringify(index)))],
    ['x.safetensors', whole(safetensorsBytes({ a: entry(0, 1) }, 4))],
    ['y.safetensors', whole(safetensorsBytes({ b: entry(0, 1) }, 4))],
  ]
  const config = (name: string): Target => ({
    name: `config of ${name}`,
    files: new Map(configFiles(name)),
    mutable: ['config.json', 'generation_config.json', 'tokenizer_config.json'],
    form: 'json',
    read: readConfig,
  })
  const importance = (name: string, bytes: Uint8Array): Target => ({
    name,
    files: new Map([['m.dat', whole(bytes)]]),
    mutable: ['m.dat'],
    form: 'bytes',
    read: async (folder) => {
      for (const values of (await readImportanceFrom(folder, 'm.dat')).values())
        for (const value of values) insist(value >= 0 && value < Number.POSITIVE_INFINITY, `importance ${value}`)
    },
  })
  return [
    importance('importance list', importanceList({ a: { calls: 2, values: [1, 2, 3] }, b: { calls: 0, values: [4] } })),
    importance('importance GGUF', importanceGguf()),
    gguf('stories260K.gguf', [['m.gguf', await storiesHeader()]]),
    gguf('small gguf', [['m.gguf', whole(smallGguf())]]),
    gguf('split gguf', [
      ['m-00001-of-00002.gguf', whole(splitPart(0))],
      ['m-00002-of-00002.gguf', whole(splitPart(1))],
    ]),
    safetensors('kernels-formats safetensors', safetensorsHeader(fixture('kernels-formats/expected.safetensors'))),
    safetensors('small safetensors', whole(smallSafetensors())),
    {
      name: 'safetensors index',
      files: new Map(shards),
      mutable: ['model.safetensors.index.json'],
      form: 'json',
      read: async (folder) => checkTensors(await readSafetensorsFrom(folder)),
    },
    config('llama31-rope8-like'),
    config('llama-bias-hd80'),
  ]
}

/** The bytes of one mutated file. */
const mutateFile = ({ form }: Target, { bytes, tail }: Seed, random: () => number): Seed => {
  const start = form === 'safetensors' ? 8 : 0
  if (form === 'bytes' || random() < 0.4) return { bytes: mutateBytes(bytes, random), tail }
  const length = form === 'safetensors' ? Number(Buffer.from(bytes).readBigUInt64LE(0)) : bytes.length
  const text = mutateJson(Buffer.from(bytes.subarray(start, start + length)).toString(), random)
  if (form === 'json') return { bytes: Buffer.from(text), tail }
  // The rest stays behind the header, so that only the header is wrong.
  return { bytes: Buffer.concat([safetensorsBytes(text), bytes.subarray(start + length)]), tail }
}

export interface Outcome {
  /** Code and first words of the refusal; undefined when the file was accepted. */
  refusal?: string
  milliseconds: number
}

/** A case may not take longer, whatever the machine does besides: the files have some kilobytes. */
const longestMilliseconds = 5000

/** Runs one case. Throws what is no proper refusal: another error than a DroverError about a file, a contradiction, a crawl. */
export const runCase = async (target: Target, seed: number, number: number): Promise<Outcome> => {
  const random = caseRandom(seed, number)
  const name = target.mutable[pick(random, target.mutable.length)] as string
  const files = new Map(target.files).set(name, mutateFile(target, target.files.get(name) as Seed, random))
  const start = performance.now()
  let refusal: string | undefined
  try {
    await target.read(seedFolder(files))
  } catch (error) {
    if (!(error instanceof DroverError) || !['E_FORMAT', 'E_UNSUPPORTED', 'E_IO'].includes(error.code)) throw error
    insist(error.file !== undefined && error.found !== undefined && error.expected !== undefined, error.message)
    refusal = error.message.split(';', 1)[0]!.replace(/\d+/g, 'n')
  }
  const milliseconds = performance.now() - start
  if (milliseconds > longestMilliseconds) throw new Error(`the case took ${milliseconds} ms`)
  return refusal === undefined ? { milliseconds } : { refusal, milliseconds }
}
