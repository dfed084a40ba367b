import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { mutateBytes, mutateJson, seedFolder } from './mutate.js'
import { runCase, targets } from './mutation-targets.js'

const casesPerTarget = 14_000
const seed = 1
/** How many ways of being wrong the readers must have told apart, at least: mutations that never get far prove nothing. */
const leastRefusals = 5

test('mutated files are refused with a DroverError or described without contradiction', async () => {
  const all = await targets()
  assert.ok(all.length * casesPerTarget >= 100_000)
  const start = process.cpuUsage()
  const before = process.memoryUsage().rss
  for (const target of all) {
    await target.read(seedFolder(target.files))
    const refusals = new Set<string>()
    let accepted = 0
    for (let number = 0; number < casesPerTarget; number++) {
      const { refusal } = await runCase(target, seed, number).catch((error: unknown) => {
        throw new Error(`${target.name}, seed ${seed}, case ${number}: ${error}`, { cause: error })
      })
      if (refusal === undefined) accepted++
      else refusals.add(refusal)
    }
    assert.ok(refusals.size >= leastRefusals, `${target.name}: ${refusals.size} kinds of refusals`)
    assert.ok(accepted > 0 && accepted < casesPerTarget, `${target.name}: ${accepted} accepted`)
  }
  const { user, system } = process.cpuUsage(start)
  assert.ok((user + system) / 1e6 < 60, `${(user + system) / 1e6} s of CPU`)
  const grown = process.memoryUsage().rss - before
  assert.ok(grown < 512 * 2 ** 20, `${grown >> 20} MB more`)
})

test('the same seed and number make the same case', async () => {
  const [target] = await targets()
  const outcome = async (seed: number, number: number) => (await runCase(target!, seed, number)).refusal
  const first = await Promise.all(Array.from({ length: 50 }, (_, i) => outcome(7, i)))
  const again = await Promise.all(Array.from({ length: 50 }, (_, i) => outcome(7, i)))
  const other = await Promise.all(Array.from({ length: 50 }, (_, i) => outcome(8, i)))
  assert.equal(first, again)
  assert.not.equal(first, other)
})

test('mutations leave their input alone, and JSON stays JSON', () => {
  const bytes = Uint8Array.from({ length: 64 }, (_, i) => i)
  const text = JSON.stringify({ a: [1, { b: null }], c: 'd' })
  let state = 1
  const random = (): number => {
    state = (state * 48271) % 2147483647
    return state / 2147483647
  }
  let changed = 0
  for (let i = 0; i < 1000; i++) {
    if (Buffer.compare(mutateBytes(bytes, random), bytes) !== 0) changed++
    JSON.parse(mutateJson(text, random))
  }
  assert.ok(changed > 900, `${changed} of 1000 differ`)
  assert.equal(
    bytes,
    Uint8Array.from({ length: 64 }, (_, i) => i),
  )
  assert.is(mutateBytes(new Uint8Array(0), () => 0).length, 0)
})

test.run()
