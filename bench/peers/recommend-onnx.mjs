// onnxruntime's part of recommend.mjs: whole models, from model.onnx of their folder.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { checkOf, measureAsync, requestsOf } from './recommend-measure.mjs'

const task = JSON.parse(process.argv[2])
const require = createRequire(import.meta.url)
const { InferenceSession, Tensor } = require('onnxruntime-node')
const { version } = require('onnxruntime-node/package.json')

const session = await InferenceSession.create(join(task.folder, 'model.onnx'), {
  executionProviders: ['cpu'],
  intraOpNumThreads: task.threads,
  logSeverityLevel: 3,
})
const { lookups } = JSON.parse(readFileSync(join(task.folder, 'config.json'), 'utf8'))
const requests = requestsOf(task, lookups)
const results = {}
for (const cell of task.cells) {
  const batch = Number(cell)
  const features = ({ dense }) => dense.length / batch
  const tensors = (request) => ({
    dense: new Tensor('float32', request.dense, [batch, features(request)]),
    ...Object.fromEntries(
      request.sparse.map(({ indices }, i) => [`t${i}`, new Tensor('int32', indices, [batch, lookups[i]])]),
    ),
  })
  const first = await session.run(tensors(requests(batch)()))
  const next = requests(batch)
  const measured = await measureAsync(
    task.milliseconds,
    () => tensors(next()),
    (feeds) => session.run(feeds),
  )
  results[cell] = { ...measured, check: checkOf(first.prob.data) }
}
console.log(JSON.stringify({ version, results }))
process.exit(0)
