/** Every kernel computes the same bits on every instruction set of this machine. */
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { perIsa } from '../isa.js'

test('kernels are equal bit for bit between instruction sets', () => {
  const results = perIsa<{ isa: string; hashes: Record<string, string> }>(join(__dirname, 'bits.ts'))
  const scalar = results.get('scalar')?.hashes ?? {}
  assert.ok(Object.keys(scalar).length >= 250)
  for (const [isa, { isa: used, hashes }] of results) {
    assert.is(used, isa)
    const different = Object.keys(scalar).filter((name) => hashes[name] !== scalar[name])
    assert.equal(different, [], `${isa} against scalar`)
  }
})

test.run()
