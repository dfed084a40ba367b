/** Prints, as JSON, hashes of the scores of small recommenders in every format: the same whatever the instruction set. */
import { createHash } from 'node:crypto'
import { cpu } from '../../lib/device/cpu.js'
import { loadRecommender } from '../../lib/recommend/recommender.js'
import { randomSource } from '../support.js'
import { randomRequest, type TinyRecommender, tinyRecommender, withFolder, writeRecommender } from './folders.js'

const models: Record<string, TinyRecommender> = {
  odd: { dense: 5, dim: 13, rows: [7, 100, 1000], bottom: [33], top: [47, 9] },
  even: { dense: 13, dim: 64, rows: [40, 300], bottom: [128], top: [64] },
}
const quantizations: Record<string, unknown> = {
  f32: null,
  f16: { tables: 'f16', layers: 'f16' },
  bf16: { tables: 'bf16', layers: 'bf16' },
  int8: { tables: 'int8', layers: 'int8' },
  int8_f16: { tables: 'int8_f16' },
  int4: { tables: 'int4', layers: 'int8' },
  int2: { tables: 'int2' },
}

const main = async (): Promise<void> => {
  const hashes: Record<string, string> = {}
  for (const [name, model] of Object.entries(models)) {
    for (const pooling of ['sum', 'mean', 'max']) {
      const { config, tensors } = tinyRecommender({ ...model, changes: { pooling } })
      for (const [format, quantization] of Object.entries(quantizations)) {
        await withFolder(async (folder) => {
          await writeRecommender(folder, { ...config, quantization }, tensors)
          await using recommender = await loadRecommender(folder)
          const request = randomRequest(randomSource(5), model, 70, pooling !== 'max')
          const scores = await recommender.score(request)
          const bytes = new Uint8Array(scores.buffer, scores.byteOffset, scores.byteLength)
          hashes[`${name} ${pooling} ${format}`] = createHash('sha256').update(bytes).digest('hex')
        })
      }
    }
  }
  process.stdout.write(JSON.stringify({ isa: cpu().isa, hashes }))
}

void main()
