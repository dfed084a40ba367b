/** The picture of tokens per second against context: well-formed, a mark per measurement, all inside of the frame. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type ContextPoint, contextChart } from '../../bench/context-chart.js'

const contexts = [512, 2048, 8192, 32768, 131072]
const formats = ['f16', 'q8_0', 'fp8']
const points = formats.flatMap((kvType, i) =>
  contexts.map((context): ContextPoint => {
    const decodePerSecond = 1 / (0.02 + (context * (3 - i)) / 2e6)
    return { kvType, context, decodePerSecond, prefillPerSecond: decodePerSecond * 9 }
  }),
)

test('every measurement has a mark inside of the frame', () => {
  const svg = contextChart('a <machine> & more', points)
  assert.match(svg, /a &lt;machine> &amp; more/)
  const marks = [
    ...svg.matchAll(/<g fill="[^"]+"><title>([^<]+)<\/title><(circle|rect) c?x="([\d.]+)" c?y="([\d.]+)"/g),
  ]
  assert.is(marks.length, points.length * 2)
  for (const [, title, , x, y] of marks) {
    assert.ok(Number(x) > 74 - 5 && Number(x) < 714 + 5, `${title}: x ${x}`)
    assert.ok(Number(y) > 72 - 5 && Number(y) < 502 + 5, `${title}: y ${y}`)
  }
  for (const { kvType, context } of points)
    assert.is(
      marks.filter(
        ([, title]) => title?.startsWith(`${kvType}, `) && title.includes(` ${context.toLocaleString('en-US')}:`),
      ).length,
      2,
    )
  assert.is([...svg.matchAll(/class="line"/g)].length, formats.length * 2)
})

test('more context is drawn further right, more tokens per second higher', () => {
  const svg = contextChart('', points)
  const [, path = ''] = /class="line" stroke="[^"]+" d="M([^"]+)"/.exec(svg) ?? []
  const places = path.split('L').map((place) => place.split(' ').map(Number) as [number, number])
  assert.is(places.length, contexts.length)
  for (let i = 1; i < places.length; i++) {
    assert.ok(places[i]![0] > places[i - 1]![0])
    assert.ok(places[i]![1] > places[i - 1]![1], 'slower is lower, and y counts down')
  }
})

test.run()
