/** Grouped-query attention, 32 query heads, 8 key heads, 128 elements: a causal prompt, and one row over a long cache. */
import { cpuDevice } from '../lib/device/cpu.js'
import { ProgramBuilder } from '../lib/program/builder.js'
import { kvTypeNames, kvTypes, pagePositions } from '../lib/program/program.js'
import { beyondCaches, type Case, suite, threads } from './harness.js'

const heads = 32
const kvHeads = 8
const headDim = 128
const prompt = 2048
const contexts = [2048, 8192, 32_768]
const bytesPerElement = { f32: 4, f16: 2, bf16: 2, q8_0: 34 / 32, fp8: 1 + 2 / headDim }

const main = async (): Promise<void> => {
  for (const kvType of kvTypeNames) {
    const positionBytes = 2 * kvHeads * headDim * bytesPerElement[kvType]
    // Room for so many caches that none is still in the processor's when its turn comes again.
    const longest = Math.max(...contexts)
    const caches = Math.max(2, Math.ceil(beyondCaches / (longest * positionBytes)))
    const pages = (caches * longest) / pagePositions
    const builder = new ProgramBuilder(cpuDevice.layout, {
      maxRows: prompt,
      maxOutputs: 1,
      maxSequences: 1,
      maxPages: longest / pagePositions,
      vocabulary: 0,
      activations: 'auto',
      kv: { layers: 1, heads: kvHeads, headDim, dtype: kvTypes[kvType], pages },
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
    /** Runs an op on the `place`-th cache of `length` positions. */
    const runOp = (op: number, rows: number, cacheStart: number, length: number, place: number): void => {
      const held = length / pagePositions
      const first = (place % Math.floor(pages / held)) * held
      loaded.runSync({
        tokens: new Uint32Array(rows),
        positions: new Uint32Array(rows),
        sequences: [{ rows, cacheStart, pages: Array.from({ length: held }, (_, i) => first + i) }],
        outputRows: [],
        firstOp: op,
        endOp: op + 1,
      })
    }
    for (let cache = 0; cache < caches; cache++)
      for (let start = 0; start < longest; start += prompt) runOp(0, prompt, start, longest, cache)
    let turn = 0
    const cases: Case[] = [
      {
        name: `prompt of ${prompt}`,
        flops: 2 * heads * headDim * prompt * (prompt + 1), // two products, half of the square
        bytes: prompt * (positionBytes + 2 * heads * headDim * 4), // the cache, queries, results
        run: () => runOp(1, prompt, 0, prompt, turn++),
      },
      ...contexts.map(
        (context): Case => ({
          name: `one row over ${context}`,
          flops: 4 * heads * headDim * context,
          bytes: positionBytes * context,
          run: () => runOp(1, 1, context - 1, context, turn++),
        }),
      ),
    ]
    await suite('attention', `attention ${kvType}`, cases)
    await loaded.close()
  }
}

void main()
