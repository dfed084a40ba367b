/** Norm, gate, rotary embedding, softmax, sampling: what runs row by row. */
import * as kernels from '../lib/kernels.js'
import { type Case, suite } from './harness.js'

const rows = 256
const cols = 8192
const vocabulary = 128256
const values = (length: number): Float32Array => Float32Array.from({ length }, (_, i) => Math.sin(i * 0.37) * 4)

const x = values(rows * cols)
const other = values(rows * cols)
const weight = values(cols)
const logits = values(8 * vocabulary)
// Each call copies its operands in and its result out: counted as read once each.
const unary = (name: string, run: () => unknown): Case => ({
  name: `${name} [${rows}, ${cols}]`,
  bytes: 2 * x.byteLength,
  run: () => void run(),
})

const main = async (): Promise<void> => {
  await suite('rows', [
    unary('rmsNorm', () => kernels.rmsNorm(x, weight)),
    unary('swiglu', () => kernels.swiglu(x, other, [rows, cols])),
    unary('softmax', () => kernels.softmax(x, [rows, cols])),
    unary('logSumExp', () => kernels.logSumExp(x, [rows, cols])),
  ])
  const sampled = (name: string, options: kernels.SampleOptions): Case => ({
    name: `${name} of 8 x ${vocabulary}`,
    items: { count: 8, unit: 'rows' },
    run: () => void kernels.sample(logits, [8, vocabulary], options),
  })
  await suite('sampling', [
    sampled('greedy', { temperature: 0 }),
    sampled('temperature', { temperature: 0.8, seed: 1n }),
    sampled('top-k 40', { temperature: 0.8, topK: 40, seed: 1n }),
    sampled('top-p 0.9', { temperature: 0.8, topP: 0.9, seed: 1n }),
    sampled('typical 0.9', { temperature: 0.8, typicalP: 0.9, seed: 1n }),
  ])
}

void main()
