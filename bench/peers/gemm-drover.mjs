// drover's part of gemm.mjs: a program of one layer behind the other, run whole. Prints seconds per layer by rows.
import { createRequire } from 'node:module'

const task = JSON.parse(process.argv[2])
const require = createRequire(import.meta.url)
const { cpuDevice } = require('../../dist/device/cpu.js')
const { plainStep } = require('../../dist/kernels/eager.js')
const { ProgramBuilder } = require('../../dist/program/builder.js')
const { rowBytes } = require('../../dist/tensor.js')
const { version } = require('../../dist/version.js')

const { format, rows, threads, inputs, outputs } = task
const dtype = { f32: 'f32', f16: 'f16', bf16: 'bf16', int8: 'i8', int4: 'q4_0' }[format]
const bytes = rowBytes(dtype, inputs) * outputs
const layers = Math.ceil(task.bytes / bytes)
const mostRows = Math.max(...rows)
const builder = new ProgramBuilder(cpuDevice.layout, {
  maxRows: mostRows,
  maxOutputs: mostRows,
  maxSequences: 1,
  maxPages: 0,
  vocabulary: 0,
  activations: format === 'bf16' ? 'bf16' : 'auto',
})
let value = builder.input('x', 'rows', inputs)
const stride = rowBytes(dtype, inputs)
for (let i = 0; i < layers; i++) {
  // Each layer begins one row later: other bytes, so a weight of its own.
  const weight = { name: `weight${i}`, dtype, rows: outputs, cols: inputs, region: 0, offset: i * stride }
  if (dtype === 'i8') weight.scales = { name: 'scales', dtype: 'f32', rows: outputs, cols: 1, region: 1, offset: 0 }
  value = builder.linear(`layer${i}`, value, weight)
}
builder.output('y', value)
const program = builder.finish()

// Small weights: activations neither overflow nor vanish on their way through the chain.
const data = new Uint8Array(bytes + layers * stride)
let state = 1
for (let i = 0; i < data.length; i++) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  data[i] = state >>> 24
}
const halves = new Uint16Array(data.buffer)
const words = new Uint32Array(data.buffer)
// f32: +-2^-6 to 2^-5; bf16, f16: the same; blocks of 4-bit codes: a scale of 2^-8; rows of 8-bit codes: of 2^-12.
if (dtype === 'f32') for (let i = 0; i < words.length; i++) words[i] = (words[i] & 0x807fffff) | (121 << 23)
else if (dtype === 'bf16') for (let i = 0; i < halves.length; i++) halves[i] = (halves[i] & 0x807f) | (121 << 7)
else if (dtype === 'f16') for (let i = 0; i < halves.length; i++) halves[i] = (halves[i] & 0x83ff) | (9 << 10)
else if (dtype === 'q4_0') {
  for (let at = 0; at + 1 < data.length; at += 18) {
    data[at] = 0
    data[at + 1] = 0x1c
  }
}
const scales = new Uint8Array(new Float32Array(outputs).fill(2 ** -12).buffer)
const loaded = cpuDevice.loadSync(program, [{ data }, { data: scales }], { threads })
const x = Float32Array.from({ length: mostRows * inputs }, (_, i) => Math.sin(i * 0.37))
loaded.write(program.outputs.get('x'), 0, x)

const now = () => Number(process.hrtime.bigint()) / 1e9
const seconds = {}
for (const count of rows) {
  const step = plainStep(count)
  const given = x.subarray(0, count * inputs)
  // A single layer is given its rows and gives its results to JavaScript, as the peers' do to Python.
  const call = () => {
    if (layers === 1) loaded.write(program.outputs.get('x'), 0, given)
    loaded.runSync(step)
    return layers === 1 ? loaded.read(program.outputs.get('y'), 0, count) : undefined
  }
  for (let i = 0; i < (layers === 1 ? 2000 : 1); i++) call()
  const times = []
  for (const end = now() + 2; times.length < 3 || (now() < end && times.length < (layers === 1 ? 20000 : 50)); ) {
    const start = now()
    call()
    times.push((now() - start) / layers)
  }
  seconds[count] = times.sort((a, b) => a - b)[times.length >> 1]
}
console.log(JSON.stringify({ version, layers, seconds }))
process.exit(0)
