/** Prints, as JSON, hashes of what every small model computes: the same whatever the instruction set. */
import { createHash } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { cpu } from '../../lib/device/cpu.js'
import type { ActivationMode, KvDType } from '../../lib/program/program.js'
import { fixture, randomSource } from '../support.js'
import { ModelRunner, range } from './runner.js'

const hashOf = (values: Float32Array): string =>
  createHash('sha256')
    .update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
    .digest('hex')

const models = ['llama3-8b-like', 'llama3-8b-like-bf16', 'llama32-tied-like', 'llama-bias-hd80', 'llama31-rope8-like']
for (const folder of ['llama-gguf-types', 'llama-gguf-q4km']) {
  for (const file of readdirSync(fixture(folder)).sort()) if (file.endsWith('.gguf')) models.push(`${folder}/${file}`)
}

const main = async (): Promise<void> => {
  const hashes: Record<string, string> = {}
  for (const model of models) {
    const settings: (readonly [KvDType, ActivationMode])[] = [
      ['f32', 'f32'],
      ['f16', 'auto'],
      ['q8_0', 'auto'],
      ['q8_0', 'f32'],
      ['f8_e4m3', 'auto'],
      ...(model.includes('gguf') ? [] : ([['bf16', 'bf16']] as const)),
    ]
    for (const [kvType, activations] of settings) {
      const runner = await ModelRunner.open(fixture(model), { kvType, activations })
      const random = randomSource(7)
      const ids = range(90).map(() => Math.floor(random() * runner.vocabulary))
      const prompt = await runner.forward(ids.slice(0, 85))
      const decode = await runner.forward(ids.slice(85, 86), { start: 85 })
      const chunk = await runner.forward(ids.slice(86), { start: 86 })
      hashes[`${model} ${kvType} ${activations}`] = [prompt, decode, chunk].map(hashOf).join(' ')
      await runner.close()
    }
  }
  process.stdout.write(JSON.stringify({ isa: cpu().isa, hashes }))
}

void main()
