/** Finds and reads the tokenizer of a file or folder. */
import { stat } from 'node:fs/promises'
import { basename, dirname, extname } from 'node:path'
import { DroverError } from '../errors.js'
import { ConfigRecord, tokenizerSettings } from '../format/config.js'
import { diskFolder, type Folder, isMissing, Pace, withSource } from '../format/file.js'
import { readGgufFrom } from '../format/gguf.js'
import { parseJson } from '../format/json.js'
import { tokenizerFromGguf } from './gguf-tokenizer.js'
import { looksLikeSentencePiece, sentencePieceFromModel } from './sentencepiece-model.js'
import { tiktokenTokenizer } from './tiktoken.js'
import type { Tokenizer } from './tokenizer.js'
import { tokenizerFromJson } from './tokenizer-json.js'

/** The largest tokenizer.json of today has 33 MB. */
const largestFile = 1 << 28

/** A tokenizer file as bytes. Throws E_FORMAT when it is absurdly large. */
export const readWhole = (folder: Folder, name: string): Promise<{ bytes: Uint8Array; path: string }> =>
  withSource(folder.open(name), async (source) => {
    if (source.size > largestFile) {
      throw new DroverError('E_FORMAT', 'a tokenizer file is absurdly large', {
        file: source.path,
        found: source.size,
        expected: `at most ${largestFile} bytes`,
      })
    }
    return { bytes: await source.read(0, source.size), path: source.path }
  })

/** Names of special tokens from a tokenizer_config.json in the folder, where there is one. */
const specialNames = async (folder: Folder): Promise<ReadonlyMap<number, string> | undefined> => {
  try {
    const { bytes, path } = await readWhole(folder, 'tokenizer_config.json')
    const json = await parseJson(bytes, path, new Pace(undefined, 'reading a tokenizer'))
    if (!(json instanceof Map)) {
      throw new DroverError('E_FORMAT', 'a tokenizer configuration holds no object', {
        file: path,
        field: 'JSON',
        found: Array.isArray(json) ? 'an array' : json,
        expected: 'an object',
      })
    }
    const { addedTokens } = tokenizerSettings(new ConfigRecord(path, json))
    return addedTokens.size === 0 ? undefined : new Map([...addedTokens].map(([id, { content }]) => [id, content]))
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}

/** Reads a tokenizer file of a folder; `whole` takes the names of special tokens from beside it. */
export const readTokenizer = async (folder: Folder, name: string, whole = false): Promise<Tokenizer> => {
  if (extname(name) === '.gguf') return tokenizerFromGguf(await readGgufFrom(folder, name))
  const { bytes, path } = await readWhole(folder, name)
  if (extname(name) === '.json')
    return tokenizerFromJson(await parseJson(bytes, path, new Pace(undefined, 'reading a tokenizer')), path)
  if (looksLikeSentencePiece(bytes)) return sentencePieceFromModel(bytes, path)
  return tiktokenTokenizer(bytes, path, whole ? await specialNames(folder) : undefined)
}

/**
 * Loads a tokenizer from `tokenizer.model` (tiktoken ranks or SentencePiece), `tokenizer.json`, a .gguf file, or a model
 * folder, which holds one of them. Throws E_IO, E_FORMAT, E_UNSUPPORTED.
 */
export const loadTokenizer = async (path: string): Promise<Tokenizer> => {
  const status = await stat(path).catch((cause: unknown) => {
    throw new DroverError('E_IO', 'the tokenizer cannot be opened', {
      file: path,
      expected: 'a file or a model folder',
      cause,
    })
  })
  if (!status.isDirectory()) return readTokenizer(diskFolder(dirname(path)), basename(path))
  for (const name of ['tokenizer.json', 'tokenizer.model']) {
    try {
      return await readTokenizer(diskFolder(path), name, true)
    } catch (error) {
      if (!isMissing(error)) throw error
    }
  }
  throw new DroverError('E_IO', 'the folder holds no tokenizer', {
    file: path,
    expected: 'tokenizer.json or tokenizer.model',
  })
}

export { tokenizerFromGguf }
