/** Worker threads that end, in one way or another, while steps and loads of theirs are in flight. */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { cpuDevice } from '../../lib/device/cpu.js'
import { randomSource } from '../support.js'
import { randomProgram } from './random-programs.js'

const ways = ['return', 'exit', 'throw', 'terminate'] as const
const rounds = 12

const work = async (way: (typeof ways)[number], seed: number): Promise<void> => {
  const { program, regions, steps } = randomProgram(randomSource(seed))
  const loads = [1, 2, 3].map(() => cpuDevice.load(program, regions, { onProgress: () => {} }))
  const loaded = await Promise.race(loads)
  parentPort?.postMessage('running')
  let running = loaded.run(steps[0]!)
  const turns = seed % 5
  for (let i = 0; i < turns; i++) {
    await running
    running = loaded.run(steps[0]!)
  }
  if (way === 'exit') process.exit(0)
  if (way === 'throw') throw new Error('as planned')
  while (way === 'terminate') {
    await running
    running = loaded.run(steps[0]!)
  }
}

const main = async (): Promise<void> => {
  for (let round = 0; round < rounds; round++) {
    await Promise.all(
      ways.map(
        (way, i) =>
          new Promise<void>((resolve) => {
            const worker = new Worker(__filename, { workerData: { way, seed: round * ways.length + i + 1 } })
            worker.on('message', () => {
              if (way === 'terminate') void worker.terminate()
            })
            worker.on('error', () => {})
            worker.on('exit', () => resolve())
          }),
      ),
    )
  }
  // This thread, too, ends with a step in flight.
  const { program, regions, steps } = randomProgram(randomSource(99))
  const loaded = await cpuDevice.load(program, regions)
  void loaded.run(steps[0]!)
  process.stdout.write('ended', () => process.exit(0))
}

if (isMainThread) void main()
else void work(workerData.way, workerData.seed)
