/** The index of a vocabulary's bytes against Maps of strings. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type StringTable, StringTableBuilder } from '../../lib/format/string-table.js'
import { alphabetCharacter, writeAlphabet } from '../../lib/text/byte-alphabet.js'
import { TokenIndex } from '../../lib/text/token-index.js'
import { randomSource } from '../support.js'

const tableOf = (strings: readonly string[]): StringTable => {
  const parts = strings.flatMap((text) => {
    const bytes = Buffer.from(text)
    const size = Buffer.alloc(8)
    size.writeBigUInt64LE(BigInt(bytes.length))
    return [size, bytes]
  })
  const bytes = Buffer.concat(parts)
  const builder = new StringTableBuilder(strings.length)
  assert.is(builder.takePrefixed(bytes, 0, bytes.length), bytes.length)
  assert.is(builder.notUtf8(0), -1)
  return builder.finish()
}

const random = randomSource(11)
const letters = ['a', 'b', 'c', 'ü', '\u2581', '😀', '']
const word = (): string =>
  Array.from({ length: Math.floor(random() * 7) }, () => letters[Math.floor(random() * 7)]).join('')
const words = Array.from({ length: 3000 }, word)

test('strings of a table, one by one and all at once', () => {
  const table = tableOf(words)
  assert.equal(table.toArray(), words)
  assert.equal([...table], words)
  assert.equal(tableOf([]).toArray(), [])
})

test('a table is taken up in portions, and says which string is not UTF-8', () => {
  const source = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, 97, 2, 0, 0, 0, 0, 0, 0, 0, 195, 188, 1, 0, 0, 0, 0, 0, 0, 0, 98])
  for (let cut = 0; cut <= source.length; cut++) {
    const builder = new StringTableBuilder(3)
    const taken = builder.takePrefixed(source, 0, cut)
    assert.is(builder.takePrefixed(source, taken, source.length) + taken, source.length)
    assert.equal(builder.finish().toArray(), ['a', 'ü', 'b'])
  }
  const halves = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, 195, 1, 0, 0, 0, 0, 0, 0, 0, 188])
  const builder = new StringTableBuilder(2)
  builder.takePrefixed(halves, 0, halves.length)
  assert.is(builder.notUtf8(0), 0, 'a character that two strings share')
  assert.is(builder.notUtf8(1), 1)
})

test('finds what a Map finds', () => {
  const index = new TokenIndex(tableOf(words))
  const ids = new Map<string, number>()
  words.forEach((text, id) => {
    assert.is(index.add(id), ids.get(text) ?? -1)
    if (!ids.has(text)) ids.set(text, id)
  })
  let known = 0
  for (let i = 0; i < 20_000; i++) {
    const text = word()
    const bytes = Buffer.from(`x${text}y`)
    assert.is(index.find(bytes, 1, bytes.length - 1), ids.get(text) ?? -1, text)
    if (ids.has(text)) known++
  }
  assert.ok(known > 1000 && known < 19_000)
})

test('merges are two tokens and what they become', () => {
  const index = new TokenIndex(tableOf(words))
  const ids = new Map<string, number>()
  words.forEach((text, id) => {
    if (index.add(id) === -1) ids.set(text, id)
  })
  const out = new Int32Array(6)
  let found = 0
  for (let i = 0; i < 20_000; i++) {
    const [left, right] = [word() || 'a', word()]
    const bytes = Buffer.from(`-${left} ${right} -`)
    const right3 = [ids.get(left), ids.get(right), ids.get(left + right)]
    const is = index.findMerge(bytes, 1, bytes.length - 2, out, 3)
    assert.is(is, !right3.includes(undefined), `${left} ${right}`)
    if (!is) continue
    found++
    assert.equal([...out.subarray(3)], right3)
  }
  assert.ok(found > 100)
  // Without a space, or with one only behind the merge.
  for (const text of ['ab', '', 'a']) {
    const bytes = Buffer.from(`${text} b`)
    assert.is(index.findMerge(bytes, 0, text.length, out, 0), false, text)
  }
})

test('binary strings are written as the alphabet has them', () => {
  const binary = String.fromCharCode(...Array.from({ length: 256 }, (_, byte) => byte))
  const out = new Uint8Array(512)
  const length = writeAlphabet(binary, out)
  const expected = Array.from({ length: 256 }, (_, byte) => alphabetCharacter(byte)).join('')
  assert.is(Buffer.from(out.subarray(0, length)).toString(), expected)
})

test.run()
