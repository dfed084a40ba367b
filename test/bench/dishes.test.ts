/** The recommender in the package: its files fit together, and its requests can be judged. */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { root } from '../support.js'

interface Request {
  id: string
  likes: string[]
  dislikes: string[]
  items: string[]
  dense: number[][]
  sparse: number[][][]
  label: number[]
  preference: number[]
}

const folder = join(root, 'assets', 'dishes')
const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'))
const requests = readFileSync(join(folder, 'requests.jsonl'), 'utf8')
  .trim()
  .split('\n')
  .map((line): Request => JSON.parse(line))

test('at most 2 MB', () => {
  const bytes = readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0)
  assert.ok(bytes <= 2e6, String(bytes))
})

test('names of rows are as many as rows', () => {
  const rows: number[] = config.arch_embedding_size
  assert.is(config.tables.length, rows.length)
  for (const [table, names] of Object.entries(config.names as Record<string, string[]>)) {
    assert.is(names.length, rows[config.tables.indexOf(table)], table)
    assert.is(new Set(names).size, names.length)
  }
})

test('requests have rows of one length, indices of their tables and the names of their dishes', () => {
  const rows: number[] = config.arch_embedding_size
  const dishes = config.tables.indexOf('dish')
  assert.is(requests.length, 40)
  for (const { id, items, dense, sparse, label, preference, likes, dislikes } of requests) {
    const batch = items.length
    assert.is(batch, 40)
    for (const list of [dense, label, preference, ...sparse]) assert.is(list.length, batch)
    for (const row of dense) assert.is(row.length, config.arch_mlp_bot[0])
    assert.is(sparse.length, rows.length)
    sparse.forEach((bags, table) => {
      for (const index of bags.flat()) {
        assert.ok(Number.isInteger(index) && index >= 0 && index < (rows[table] as number), `${id} ${table}`)
      }
    })
    assert.equal(
      items,
      (sparse[dishes] as number[][]).map(([dish]) => config.names.dish[dish as number]),
    )
    for (const tag of [...likes, ...dislikes]) assert.ok(config.names.tags.includes(tag), tag)
  }
})

test('labels follow the true preference', () => {
  const rows = requests.flatMap(({ label, preference }) => label.map((one, i) => ({ one, p: preference[i] as number })))
  const positives = rows.filter(({ one }) => one === 1)
  const negatives = rows.filter(({ one }) => one === 0)
  let ordered = 0
  for (const { p } of positives) for (const other of negatives) ordered += p > other.p ? 1 : p === other.p ? 0.5 : 0
  const auc = ordered / (positives.length * negatives.length)
  assert.ok(auc > 0.75 && auc < 0.9, String(auc))
  const expected = rows.reduce((sum, { p }) => sum + p, 0)
  assert.ok(Math.abs(positives.length - expected) < 4 * Math.sqrt(rows.length / 4))
})

test.run()
