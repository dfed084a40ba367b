/** Linear layers [rows, 4096] x [4096, 4096]: quantisation of the activations inside the time, weights from memory. */
import { cpuDevice } from '../lib/device/cpu.js'
import { plainStep } from '../lib/kernels/eager.js'
import { type WeightDType, weightDTypes } from '../lib/kernels/operands.js'
import { ProgramBuilder, type WeightSource } from '../lib/program/builder.js'
import { arithmeticOf } from '../lib/program/cost.js'
import type { ActivationMode } from '../lib/program/program.js'
import { rowBytes } from '../lib/tensor.js'
import { beyondCaches, type Case, suite, threads } from './harness.js'

const size = 4096
/** Formats that have kernels of their own. */
const types = weightDTypes.filter((type) => cpuDevice.layout.gemmActivations(type) !== undefined)
const rowCounts = [1, 8, 16, 32, 512]
/** By format, and bf16 also with activations of bf16. */
const layers = [
  ...types.map((type) => ({ name: type as string, type, activations: 'auto' as ActivationMode })),
  { name: 'bf16 x bf16', type: 'bf16' as WeightDType, activations: 'bf16' as ActivationMode },
]
/** Of formats whose scales lie beside the weight: scales of a row. */
const scaleGroups: Partial<Record<WeightDType, number>> = { i8: 1, f8_e4m3: 1, i4: size / 32 }

/** Bytes whose scales are small finite numbers in every format: both bytes of any half are 0x20 to 0x2f. */
const weightBytes = (length: number): Uint8Array => {
  const bytes = new Uint8Array(length)
  let state = 1
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes[i] = 0x20 | (state >>> 28)
  }
  return bytes
}

const main = async (): Promise<void> => {
  for (const { name, type, activations } of layers) {
    const bytes = rowBytes(type, size) * size
    const copies = Math.ceil(beyondCaches / bytes)
    const arithmetic = arithmeticOf(activations === 'bf16' ? 'bf16' : cpuDevice.layout.gemmActivations(type))
    const groups = scaleGroups[type]
    const scales: WeightSource = { name: 'scales', dtype: 'f32', rows: size, cols: groups ?? 1, region: 1, offset: 0 }
    const builder = new ProgramBuilder(cpuDevice.layout, {
      maxRows: Math.max(...rowCounts),
      maxOutputs: Math.max(...rowCounts),
      maxSequences: 1,
      maxPages: 0,
      vocabulary: 0,
      activations,
    })
    const x = builder.input('x', 'rows', size)
    for (let i = 0; i < copies; i++) {
      // Each copy begins one row later: other bytes, so a weight of its own.
      const offset = i * rowBytes(type, size)
      const weight: WeightSource = {
        name: `weight${i}`,
        dtype: type,
        rows: size,
        cols: size,
        region: 0,
        offset,
        ...(groups === undefined ? {} : { scales }),
      }
      builder.linear(`gemm${i}`, x, weight)
    }
    const program = builder.finish()
    const data = weightBytes(bytes + copies * rowBytes(type, size))
    const ones = new Uint8Array(new Float32Array(size * (groups ?? 1)).fill(1).buffer)
    const loaded = cpuDevice.loadSync(program, [{ data }, { data: ones }], threads === 0 ? {} : { threads })
    const input = Float32Array.from({ length: Math.max(...rowCounts) * size }, (_, i) => Math.sin(i * 0.37))
    loaded.write(program.outputs.get('x') as number, 0, input)
    const first = program.ops.findIndex(({ op }) => op === 'gemm')
    let turn = 0
    await suite(
      arithmetic === 'int8' ? 'integer layers' : 'float layers',
      `gemm ${name}`,
      rowCounts.map(
        (rows): Case => ({
          name: rows === 1 ? '1 row' : `${rows} rows`,
          arithmetic,
          flops: 2 * rows * size * size,
          bytes,
          run: () => {
            const op = first + (turn++ % copies)
            if (first > 0) loaded.runSync({ ...plainStep(rows), firstOp: 0, endOp: first })
            loaded.runSync({ ...plainStep(rows), firstOp: op, endOp: op + 1 })
          },
        }),
      ),
    )
    await loaded.close()
  }
}

void main()
