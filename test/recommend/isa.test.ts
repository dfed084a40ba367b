/** Every instruction set of this machine gives recommenders the same bits. */
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { perIsa } from '../isa.js'

test('scores are equal bit for bit between instruction sets', () => {
  const results = perIsa<{ isa: string; hashes: Record<string, string> }>(join(__dirname, 'bits.ts'))
  const scalar = results.get('scalar')?.hashes ?? {}
  assert.is(Object.keys(scalar).length, 42)
  assert.is(new Set(Object.values(scalar)).size, 42, 'they all differ')
  for (const [isa, { isa: used, hashes }] of results) {
    assert.is(used, isa)
    assert.equal(hashes, scalar, `${isa} against scalar`)
  }
})

test.run()
