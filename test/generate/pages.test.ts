/** Book-keeping of KV pages. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { PagePool } from '../../lib/memory/pages.js'
import { pagePositions } from '../../lib/program/program.js'
import { between, pick } from '../program/random-programs.js'
import { randomSource } from '../support.js'

const tokensOf = (pages: number, salt = 0): number[] =>
  Array.from({ length: pages * pagePositions }, (_, i) => (i * 31 + salt) % 997)

/** Takes and publishes the pages of tokens, as a sequence that computes them does. */
const compute = (pool: PagePool, tokens: readonly number[]): number[] => {
  const pages: number[] = []
  for (let from = 0; from < tokens.length; from += pagePositions) {
    const page = pool.take()
    if (page === undefined) throw new Error('the pool is empty')
    pages.push(page)
    pool.publish(page, pages.at(-2), tokens, from)
  }
  return pages
}

test('pages are given once and come back', () => {
  const pool = new PagePool(3)
  const pages = [pool.take(), pool.take(), pool.take()]
  assert.equal([...pages].sort(), [0, 1, 2])
  assert.is(pool.take(), undefined)
  assert.is(pool.available, 0)
  pool.release(1)
  assert.is(pool.take(), 1)
  assert.throws(() => pool.release(3), /E_INTERNAL/)
  pool.release(0)
  assert.throws(() => pool.release(0), /E_INTERNAL/)
})

test('a start that is published is found, up to the first page that differs', () => {
  const pool = new PagePool(8)
  const tokens = tokensOf(3)
  const pages = compute(pool, tokens)
  assert.equal(pool.match(tokens, 3), pages, 'while it is held')
  pool.releaseAll([...pages])
  pool.releaseAll([...pages])
  assert.is(pool.available, 8)
  const found = pool.match(tokens, 2)
  assert.equal(found, pages.slice(0, 2), 'no more than asked for')
  assert.is(pool.available, 6, 'what is found is held')
  const other = [...tokens]
  other[pagePositions + 5] = 1
  assert.equal(pool.match(other, 3), pages.slice(0, 1))
  other[0] = 1
  assert.equal(pool.match(other, 3), [])
})

test('the same page behind another start is another page', () => {
  const pool = new PagePool(8)
  const tokens = tokensOf(2)
  compute(pool, tokens)
  const moved = [...tokensOf(1, 5), ...tokens.slice(pagePositions)]
  assert.equal(pool.match(moved, 2), [])
  assert.equal(pool.match(tokens.slice(pagePositions), 1), [])
})

test('space goes to those who ask: the one unused for longest first, ends before starts', () => {
  const pool = new PagePool(4)
  const first = tokensOf(2, 1)
  const second = tokensOf(2, 2)
  pool.releaseAll(compute(pool, first))
  pool.releaseAll(compute(pool, second))
  assert.is(pool.available, 4)
  const taken = [pool.take()]
  assert.is(pool.match(first, 2).length, 1, 'the end of the older one has gone, its start is there')
  assert.is(pool.match(second, 2).length, 2, 'the younger one is there')
  assert.is(pool.take(), undefined, 'all are held')
  pool.releaseAll(taken as number[])
  assert.is(pool.available, 1)
})

test('of two that compute the same, the second leads to what only it has', () => {
  const pool = new PagePool(8)
  const tokens = tokensOf(3)
  const shorter = compute(pool, tokens.slice(0, pagePositions))
  const twin = compute(pool, tokens)
  const found = pool.match(tokens, 3)
  assert.equal(found, [shorter[0], twin[1], twin[2]])
})

test('a page that is used again forgets what it held', () => {
  const pool = new PagePool(2)
  const tokens = tokensOf(2)
  // The second page of a twin stays private, and goes back to the free ones with its parent's number known.
  pool.releaseAll(compute(pool, tokens.slice(0, pagePositions)))
  const twin = compute(pool, tokens.slice(0, pagePositions))
  pool.releaseAll(twin)
  const all = [pool.take() as number, pool.take() as number]
  // Nothing is published any more, and no page may pass for the start of anything.
  pool.publish(all[1] as number, all[0] as number, tokens, pagePositions)
  pool.releaseAll(all)
  assert.equal(pool.match(tokens, 2), [])
})

test('random use: what is found is what was put there, and nothing is lost', () => {
  for (let seed = 1; seed <= 30; seed++) {
    const random = randomSource(seed)
    const count = between(random, 1, 12)
    const pool = new PagePool(count)
    // What is written to a page, by whoever took it: tokens from the start of a text to the page's end.
    const written = new Map<number, string>()
    const starts = Array.from({ length: 3 }, (_, i) => tokensOf(1, i))
    const held: number[][] = []
    for (let round = 0; round < 400; round++) {
      if (random() < 0.45 && held.length > 0) {
        pool.releaseAll(held.splice(between(random, 0, held.length - 1), 1)[0] as number[])
      } else {
        const tokens = Array.from({ length: between(random, 1, 4) }, () => pick(random, starts)).flat()
        const total = tokens.length / pagePositions
        const pages = pool.match(tokens, between(random, 0, total))
        pages.forEach((page, i) => {
          assert.is(written.get(page), tokens.slice(0, (i + 1) * pagePositions).join(), `seed ${seed}, round ${round}`)
        })
        while (pages.length < total) {
          const page = pool.take()
          if (page === undefined) break
          for (const other of held) assert.not(other.includes(page), `seed ${seed}: page ${page} is held`)
          pages.push(page)
          written.set(page, tokens.slice(0, pages.length * pagePositions).join())
          if (random() < 0.9) pool.publish(page, pages.at(-2), tokens, (pages.length - 1) * pagePositions)
        }
        held.push(pages)
      }
      assert.is(pool.available, count - new Set(held.flat()).size, `seed ${seed}, round ${round}`)
    }
    for (const pages of held) pool.releaseAll(pages)
    assert.is(pool.available, count)
    const all = Array.from({ length: count }, () => pool.take())
    assert.equal(
      [...all].sort((a, b) => Number(a) - Number(b)),
      Array.from({ length: count }, (_, i) => i),
    )
  }
})

test.run()
