/** Importance matrices byte by byte. */
import { f32, ggufBytes, join, stringValue, u32 } from './gguf-bytes.js'

export interface ListEntry {
  calls: number
  values: readonly number[]
}

/** The older form, with the tail about the text that follows its entries. */
export const importanceList = (entries: Readonly<Record<string, ListEntry>>): Uint8Array =>
  join(
    u32(Object.keys(entries).length),
    ...Object.entries(entries).flatMap(([name, { calls, values }]) => [
      u32(Buffer.byteLength(name)),
      Buffer.from(name),
      u32(calls),
      u32(values.length),
      ...values.map(f32),
    ]),
    u32(7),
    u32(4),
    Buffer.from('text'),
  )

/** The newer form: `a.weight` with sums 2, 4 of 2 samples; `b.weight` with a sum of 9 of none. */
export const importanceGguf = (type = 'imatrix'): Uint8Array => {
  const bytes = ggufBytes({
    entries: [['general.type', stringValue(type)]],
    tensors: [
      { name: 'a.weight.in_sum2', dimensions: [2, 1] },
      { name: 'a.weight.counts', dimensions: [1, 1], offset: 32 },
      { name: 'b.weight.in_sum2', dimensions: [1, 1], offset: 64 },
      { name: 'b.weight.counts', dimensions: [1, 1], offset: 96 },
    ],
    data: 128,
  })
  const view = new DataView(bytes.buffer, bytes.length - 128)
  view.setFloat32(0, 2, true)
  view.setFloat32(4, 4, true)
  view.setFloat32(32, 2, true)
  view.setFloat32(64, 9, true)
  return bytes
}
