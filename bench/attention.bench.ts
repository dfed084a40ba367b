/** Grouped-query attention, 32 query heads, 8 key heads, 128 elements: a causal prompt, and one row over a long cache. */
import { cpuDevice } from '../lib/device/cpu.js'
import { ProgramBuilder } from '../lib/program/builder.js'
import { pagePositions } from '../lib/program/program.js'
import { type Case, suite, threads } from './harness.js'

const heads = 32
const kvHeads = 8
const headDim = 128
const prompt = 2048
const contexts = [2048, 8192]
const bytesPerElement = { f32: 4, f16: 2, q8_0: 34 / 32 }

const main = async (): Promise<void> => {
  for (const dtype of ['f32', 'f16', 'q8_0'] as const) {
    const pages = Math.max(...contexts) / pagePositions + 1
    const builder = new ProgramBuilder(cpuDevice.layout, {
      maxRows: prompt,
      maxOutputs: 1,
      maxSequences: 1,
      maxPages: pages,
      vocabulary: 0,
      activations: 'auto',
      kv: { layers: 1, heads: kvHeads, headDim, dtype, pages },
    })
    const [q, k, v] = ['q', 'k', 'v'].map((name) =>
      builder.input(name, 'rows', (name === 'q' ? heads : kvHeads) * headDim),
    )
    builder.kvWrite('cache', k!, v!, 0)
    builder.attention('attention', q!, { layer: 0, heads, scale: headDim ** -0.5, causal: true })
    const program = builder.finish()
    const loaded = cpuDevice.loadSync(program, [], threads === 0 ? {} : { threads })
    for (const [role, count] of [
      ['q', heads],
      ['k', kvHeads],
      ['v', kvHeads],
    ] as const) {
      const values = Float32Array.from({ length: prompt * count * headDim }, (_, i) => Math.sin(i * 0.37))
      loaded.write(program.outputs.get(role) as number, 0, values)
    }
    const table = Array.from({ length: pages }, (_, i) => i)
    const run = (rows: number, cacheStart: number, firstOp: number): void =>
      loaded.runSync({
        tokens: new Uint32Array(rows),
        positions: new Uint32Array(rows),
        sequences: [{ rows, cacheStart, pages: table }],
        outputRows: [],
        firstOp,
      })
    for (let start = 0; start < Math.max(...contexts); start += prompt) run(prompt, start, 0)
    const cases: Case[] = [
      {
        name: `prompt of ${prompt}`,
        flops: 2 * heads * headDim * prompt * (prompt + 1), // two products, half of the square
        run: () => run(prompt, 0, 1),
      },
      ...contexts.map(
        (context): Case => ({
          name: `one row over ${context}`,
          flops: 4 * heads * headDim * context,
          bytes: 2 * kvHeads * headDim * context * bytesPerElement[dtype],
          run: () => run(1, context - 1, 1),
        }),
      ),
    ]
    await suite(`attention ${dtype}`, cases)
    await loaded.close()
  }
}

void main()
