/** A process that is killed while it exchanges models leaves their files as they were, and the next one starts on them. */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { loadRecommender } from '../../lib/recommend/recommender.js'
import { randomSource, root } from '../support.js'
import {
  randomRequest,
  type TinyRecommender,
  tinyRecommender,
  withFolder,
  withTiny,
  writeRecommender,
} from './folders.js'

const tiny: TinyRecommender = { dense: 5, dim: 12, rows: [7, 100, 1000, 20000] }

const hashes = (folder: string): Record<string, string> =>
  Object.fromEntries(
    readdirSync(folder)
      .sort()
      .map((name) => [
        name,
        createHash('sha256')
          .update(readFileSync(join(folder, name)))
          .digest('hex'),
      ]),
  )

const ours = (folder: string): string[] => readdirSync(folder).filter((name) => name.startsWith('drover-'))

const scoresOf = async (folder: string): Promise<number[]> => {
  await using recommender = await loadRecommender(folder)
  return [...(await recommender.score(randomRequest(randomSource(5), tiny, 9)))]
}

/** Starts the service and kills it `delay` ms after it has said for the `turn`-th time that it is in a swap. */
const killInSwap = async (
  folders: readonly string[],
  temporary: string,
  turn: number,
  delay: number,
): Promise<void> => {
  const script = join(root, 'test', 'recommend', 'swapper.ts')
  const args = ['--import', 'tsx', script, ...folders, String(tiny.dense), tiny.rows.join(',')]
  const env = { ...process.env, TMPDIR: temporary }
  const child = spawn(process.execPath, args, { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'] })
  let errors = ''
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString()
  })
  const ended = once(child, 'close')
  let seen = 0
  for await (const _ of createInterface(child.stdout)) if (++seen === turn) break
  await setTimeout(delay)
  child.kill('SIGKILL')
  const [, signal] = await ended
  assert.is(seen, turn, errors)
  assert.is(signal, 'SIGKILL', errors)
}

test('a service killed in a swap, again and again', () =>
  withTiny(tiny, (first) =>
    withFolder(async (second) => {
      // The second version is converted while it is loaded.
      const { config, tensors } = tinyRecommender({ ...tiny, seed: 2 })
      const quantization = { tables: 'int8', layers: 'int8' }
      await writeRecommender(second, { ...config, quantization }, tensors)
      const folders = [first, second]
      const before = folders.map(hashes)
      const expected = await Promise.all(folders.map(scoresOf))
      assert.not.equal(expected[0], expected[1])
      for (const [turn, delay] of [
        [1, 0],
        [2, 1],
        [3, 3],
        [1, 7],
        [4, 2],
      ] as const) {
        await withFolder(async (temporary) => {
          await killInSwap(folders, temporary, turn, delay)
          assert.equal(ours(temporary), [], 'no drafts are left')
        })
        assert.equal(folders.map(hashes), before, `turn ${turn}, ${delay} ms`)
        assert.equal(await Promise.all(folders.map(scoresOf)), expected)
      }
    }),
  ))

test.run()
