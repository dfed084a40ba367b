/** The picture: well-formed, every case in it, every mark inside of the frame. */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Measured, reportOf } from '../../bench/report.js'
import { familyChart } from '../../bench/roofline.js'

const limits = {
  bufferBytes: 2e9,
  readBytesPerSecond: 22e9,
  f32PerSecond: 190e9,
  int8PerSecond: 740e9,
  bf16PerSecond: 380e9,
}
const types = ['q8_0', 'q4_0', 'iq4_nl', 'q4_k', 'q5_k', 'q6_k & <odd>']
const measured = types.flatMap((type, i) =>
  [1, 8, 32, 512].map((rows): Measured => {
    const bytes = 2 ** 24 * (1 - i * 0.08)
    const flops = rows * 2 ** 25
    const seconds = Math.max(bytes / 22e9, flops / 740e9) * (1.1 + 0.1 * i)
    return {
      family: 'integer layers',
      suite: `gemm ${type}`,
      name: `${rows} rows`,
      seconds,
      flops,
      bytes,
      arithmetic: 'int8',
    }
  }),
)

const chart = (cases: readonly Measured[]): string => {
  const report = reportOf([{ isa: 'avx512', threads: 2, limits, measured: cases }])
  return familyChart('integer layers', 'A <CPU>, 2 threads', report.measured, limits) as string
}

/** Fails unless tags are closed in order and text holds no bare < or &. */
const assertWellFormed = (svg: string): void => {
  const open: string[] = []
  for (const [tag, close, name, self] of svg.matchAll(/<(\/?)([a-zA-Z]+)(?:\s+[\w:-]+="[^"<]*")*\s*(\/?)>/g)) {
    if (close) assert.is(open.pop(), name, tag)
    else if (!self) open.push(name as string)
  }
  assert.equal(open, [])
  const text = svg.replace(/<(\/?)([a-zA-Z]+)(?:\s+[\w:-]+="[^"<]*")*\s*(\/?)>/g, '')
  assert.not.match(text, /</)
  assert.not.match(text, /&(?!amp;|lt;|gt;|quot;)/)
  assert.not.match(svg, /NaN|Infinity|undefined/)
}

test('a picture is well-formed and holds every case', () => {
  const svg = chart(measured)
  assertWellFormed(svg)
  const titles = [...svg.matchAll(/<g class="point"[^>]*><title>([^<]*)<\/title>/g)].map(([, title]) => title as string)
  assert.is(titles.length, measured.length)
  for (const { suite, name } of measured) {
    const escaped = suite.replace('&', '&amp;').replace('<', '&lt;')
    assert.is(titles.filter((title) => title.startsWith(`${escaped}, ${name}: `)).length, 1, `${suite}, ${name}`)
  }
  for (const name of [
    'reading memory: 22.0 GB/s',
    'int8 products: 740 Gop/s',
    'f32 multiply-adds: 190 Gop/s',
    '512 rows',
  ])
    assert.ok(svg.includes(`>${name}<`), name)
  assert.not.match(svg, /BF16/)
  // Colours for suites, shapes for row counts.
  assert.is(new Set([...svg.matchAll(/class="point" fill="([^"]+)"/g)].map(([, fill]) => fill)).size, types.length)
})

test('points lie inside of the frame, on or below their ceilings', () => {
  const svg = chart(measured)
  const [, x, y, width, height] = /class="frame" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"/.exec(
    svg,
  ) as unknown as string[]
  const circles = [...svg.matchAll(/class="point"[^>]*><title>[^<]*<\/title><circle cx="([\d.]+)" cy="([\d.]+)"/g)]
  assert.is(circles.length, types.length)
  for (const [, cx, cy] of circles) {
    assert.ok(Number(cx) > Number(x) && Number(cx) < Number(x) + Number(width), cx)
    assert.ok(Number(cy) > Number(y) && Number(cy) < Number(y) + Number(height), cy)
  }
})

test('a family of cases that share no names gives each a colour; one without operations gives no picture', () => {
  const rows = ['rmsNorm', 'softmax'].map(
    (name): Measured => ({ family: 'rows', suite: 'row by row', name, seconds: 0.1, flops: 1e8, bytes: 1e8 }),
  )
  const svg = chart(rows)
  assertWellFormed(svg)
  assert.not.match(svg, /BF16/)
  const bfloat = chart(rows.map((one) => ({ ...one, arithmetic: 'bf16' })))
  assert.ok(bfloat.includes('BF16 products: 380 Gop/s'))
  assert.is(new Set([...svg.matchAll(/class="point" fill="([^"]+)"/g)].map(([, fill]) => fill)).size, 2)
  const report = reportOf([{ isa: 'x', threads: 1, limits, measured: [{ ...rows[0]!, flops: undefined }] }])
  assert.is(familyChart('rows', 'x', report.measured, limits), undefined)
})

test.run()
