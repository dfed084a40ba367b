/** Tensors of a fixture as numbers, for the tests of the formats. */
import { readTensor } from '../../lib/format/file.js'
import { readSafetensors } from '../../lib/format/safetensors.js'
import type { TensorInfo } from '../../lib/tensor.js'

export interface Stored {
  readonly info: TensorInfo
  readonly bytes: Uint8Array
}

export const readStored = async (path: string): Promise<ReadonlyMap<string, Stored>> => {
  const source = await readSafetensors(path)
  const stored = new Map<string, Stored>()
  for (const info of source.tensors.values()) {
    stored.set(info.name, { info, bytes: Uint8Array.from(await readTensor(source, info)) })
  }
  return stored
}

/** A stored tensor that must be there. */
export const storedTensor = (stored: ReadonlyMap<string, Stored>, name: string): Stored => {
  const found = stored.get(name)
  if (found === undefined) throw new Error(`the fixture has no ${name}`)
  return found
}

export const asFloats = ({ bytes }: Stored): Float32Array => new Float32Array(bytes.buffer, 0, bytes.length / 4)
export const asWords = ({ bytes }: Stored): Uint32Array => new Uint32Array(bytes.buffer, 0, bytes.length / 4)
export const asShorts = ({ bytes }: Stored): Uint16Array => new Uint16Array(bytes.buffer, 0, bytes.length / 2)
