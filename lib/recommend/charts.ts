/** Charts of horizontal bars as SVG text, for pages that load nothing from elsewhere. */

/** Where a value lies between the ends of an axis, 0 to 1, and the values that are written at it. */
export interface Axis {
  at(value: number): number
  readonly ticks: readonly number[]
  /** Where bars begin. */
  readonly origin: number
}

export interface Bars {
  readonly label: string
  /** One per series; undefined where a series has none. */
  readonly values: readonly (number | undefined)[]
}

export interface Chart {
  readonly title: string
  readonly axis: Axis
  readonly series: readonly string[]
  readonly rows: readonly Bars[]
  /** A value as text. */
  show(value: number): string
  /** A value that all bars are to be compared with. */
  readonly mark?: { readonly value: number; readonly label: string }
}

const width = 860
const left = 220
const right = 110
const barHeight = 11
const gap = 9
/** Characters that fit beside a bar. */
const longestLabel = 30

export const escapeHtml = (text: string): string =>
  text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;').replace(/'/g, '&#39;')

/** Steps of 1, 2 or 5 times a power of ten, about five to an axis. */
const stepOf = (span: number): number => {
  const rough = span / 5
  const power = 10 ** Math.floor(Math.log10(rough))
  return (([1, 2, 5].find((n) => n * power >= rough) ?? 10) as number) * power
}

const clamped = (share: number): number => Math.min(1, Math.max(0, share))

/** From 0, or below where values are negative, to the largest. */
export const linearAxis = (values: readonly number[]): Axis => {
  const finite = values.filter(Number.isFinite)
  const low = Math.min(0, ...finite)
  const high = Math.max(0, ...finite)
  const span = high > low ? high - low : 1
  const step = stepOf(span)
  const first = Math.floor(low / step + 1e-9)
  const last = Math.ceil((low + span) / step - 1e-9)
  const at = (value: number): number => clamped((value / step - first) / (last - first))
  return { at, origin: at(0), ticks: Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step) }
}

/** Powers of ten around the values above 0; what is not above 0 has no bar. */
export const logAxis = (values: readonly number[]): Axis => {
  const logs = values.filter((value) => value > 0 && Number.isFinite(value)).map(Math.log10)
  const first = logs.length === 0 ? 0 : Math.floor(Math.min(...logs) - 1e-9)
  const last = Math.max(first + 1, logs.length === 0 ? 1 : Math.ceil(Math.max(...logs)))
  const every = Math.ceil((last - first) / 8)
  const exponents = Array.from({ length: last - first + 1 }, (_, i) => first + i).filter(
    (n) => (n - first) % every === 0,
  )
  return {
    at: (value) => (value > 0 ? clamped((Math.log10(value) - first) / (last - first)) : 0),
    origin: 0,
    ticks: exponents.map((n) => 10 ** n),
  }
}

const shortened = (label: string): string =>
  label.length > longestLabel ? `${label.slice(0, longestLabel - 1)}…` : label

const digits = (value: number): string => String(Number(value.toFixed(2)))

export const chartSvg = ({ title, axis, series, rows, show, mark }: Chart): string => {
  const rowHeight = series.length * barHeight + gap
  const top = mark === undefined ? 30 : 46
  const height = top + rows.length * rowHeight + 14
  const x = (share: number): number => left + share * (width - left - right)
  const parts = [
    `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeHtml(title)}">`,
    ...axis.ticks.map((tick) => {
      const place = digits(x(axis.at(tick)))
      return `<line class="grid" x1="${place}" x2="${place}" y1="${top - 6}" y2="${height - 10}"/><text class="tick" x="${place}" y="${top - 12}" text-anchor="middle">${escapeHtml(show(tick))}</text>`
    }),
  ]
  rows.forEach(({ label, values }, i) => {
    const y = top + i * rowHeight
    parts.push(
      `<text x="${left - 10}" y="${y + (series.length * barHeight) / 2 + 4}" text-anchor="end">${escapeHtml(shortened(label))}<title>${escapeHtml(label)}</title></text>`,
    )
    values.forEach((value, s) => {
      if (value === undefined) return
      const [from, to] = [axis.origin, axis.at(value)].sort((a, b) => a - b) as [number, number]
      const end = x(Math.max(to, axis.origin)) + 5
      const barTop = y + s * barHeight
      parts.push(
        `<rect class="series${s}" x="${digits(x(from))}" y="${barTop}" width="${digits(Math.max(1, x(to) - x(from)))}" height="${barHeight - 2}"><title>${escapeHtml(`${label}, ${series[s]}: ${show(value)}`)}</title></rect>`,
        `<text class="tick" x="${digits(end)}" y="${barTop + barHeight - 3}">${escapeHtml(show(value))}</text>`,
      )
    })
  })
  if (mark !== undefined) {
    const place = digits(x(axis.at(mark.value)))
    parts.push(
      `<line class="mark" x1="${place}" x2="${place}" y1="${top - 6}" y2="${height - 10}"/>`,
      `<text class="tick" x="${place}" y="14" text-anchor="middle">${escapeHtml(mark.label)}</text>`,
    )
  }
  return `${parts.join('\n')}\n</svg>`
}
