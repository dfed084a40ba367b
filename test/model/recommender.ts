/** Runs a recommender's program for the tests: every named output of one step. */
import { cpuDevice } from '../../lib/device/cpu.js'
import type { Device } from '../../lib/device/device.js'
import { openRecommender, programOf } from '../../lib/model/open-recommender.js'
import { bagStep } from '../../lib/program/step.js'
import type { ScoreRequest } from '../../lib/recommend/request.js'
import { asFloats, asWords, type Stored, storedTensor } from '../format/stored.js'

export interface Outputs {
  /** The output of this role, [rows, cols]. */
  role(name: string): Float32Array
  /** What the op of this name has written. */
  op(name: string): Float32Array
  close(): Promise<void>
}

/** One step of the folder's model over the request. */
export const runRecommender = async (
  folder: string,
  { dense, sparse }: ScoreRequest,
  options: { device?: Device; tables?: 'mapped' | 'copied'; threads?: number } = {},
): Promise<Outputs> => {
  const { device = cpuDevice, tables = 'mapped', threads } = options
  const opened = await openRecommender(folder)
  const rows = dense.length / opened.config.denseFeatures
  const program = programOf(device.layout, opened.config, opened, {
    maxRows: rows,
    activations: 'auto',
    tables,
    keeps: 'layers',
  })
  const loaded = await device.load(program, opened.regions, threads === undefined ? {} : { threads })
  const step = bagStep(rows, sparse)
  loaded.write(program.outputs.get('dense') as number, 0, dense)
  await loaded.run(step)
  const found = (index: number | undefined, name: string): number => {
    if (index === undefined || index === -1) throw new Error(`the program has no ${name}`)
    return index
  }
  return {
    role: (name) => loaded.read(found(program.outputs.get(name), name), 0, rows),
    op: (name) => {
      const tensor = found(
        program.tensors.findIndex((spec) => spec.name === name),
        name,
      )
      // Written over by later ops: run again, to just behind it.
      const end = program.ops.findIndex((op) => op.name === name) + 1
      loaded.runSync({ ...step, endOp: end })
      return loaded.read(tensor, 0, rows)
    },
    close: () => loaded.close(),
  }
}

const asIndices = (stored: Stored): Int32Array | BigInt64Array =>
  stored.info.dtype === 'i64'
    ? new BigInt64Array(stored.bytes.buffer, 0, stored.bytes.length / 8)
    : Int32Array.from(asWords(stored))

/** The request of a fixture's expected tensors. */
export const requestOf = (expected: ReadonlyMap<string, Stored>, tables: number, weighted = false): ScoreRequest => ({
  dense: asFloats(storedTensor(expected, 'dense')),
  sparse: Array.from({ length: tables }, (_, t) => ({
    indices: asIndices(storedTensor(expected, `t${t}.indices`)),
    offsets: asIndices(storedTensor(expected, `t${t}.offsets`)),
    ...(weighted ? { weights: asFloats(storedTensor(expected, `t${t}.weights`)) } : {}),
  })),
})
