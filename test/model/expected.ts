/** What a fixture expects: tensors of its expected.safetensors, tolerances of its description. */
import { readFileSync } from 'node:fs'
import { asFloats, asWords, readStored, storedTensor } from '../format/stored.js'

export interface Expected {
  floats(name: string): Float32Array
  ids(name: string): number[]
  has(name: string): boolean
}

export const expectedOf = async (folder: string): Promise<Expected> => {
  const stored = await readStored(`${folder}/expected.safetensors`)
  return {
    floats: (name) => asFloats(storedTensor(stored, name)),
    ids: (name) => [...asWords(storedTensor(stored, name))],
    has: (name) => stored.has(name),
  }
}

/** The largest absolute error that a fixture's description allows for the entry that starts so. */
export const toleranceOf = (folder: string, start: string): number => {
  const { tolerances } = JSON.parse(readFileSync(`${folder}/fixture.json`, 'utf8')) as {
    tolerances: Record<string, string>
  }
  const [, text] = Object.entries(tolerances).find(([key]) => key.startsWith(start)) ?? []
  const tolerance = Number(/<= ([\d.e-]+)/.exec(text ?? '')?.[1])
  if (!(tolerance > 0)) throw new Error(`no tolerance for ${start}`)
  return tolerance
}
