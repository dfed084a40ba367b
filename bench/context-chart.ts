/** Draws tokens per second against context, both axes logarithmic: a line per format of the cache and kind of work. */
import { colours, escapeXml, label, legendLeft, plot, powers, shapes, short, style, unique, width } from './drawing.js'

export interface ContextPoint {
  readonly kvType: string
  /** Positions that the last token sees. */
  readonly context: number
  /** Tokens per second of steps of one token. */
  readonly decodePerSecond: number
  /** Tokens per second of the last chunk of a prompt of `context` tokens. */
  readonly prefillPerSecond: number
}

const kinds = [
  { name: 'reading a prompt', value: (point: ContextPoint) => point.prefillPerSecond },
  { name: 'writing', value: (point: ContextPoint) => point.decodePerSecond },
] as const

export const contextChart = (machine: string, points: readonly ContextPoint[]): string => {
  const values = points.flatMap((point) => kinds.map(({ value }) => value(point)))
  const contexts = unique(points.map(({ context }) => String(context))).map(Number)
  const yTicks = powers(10, Math.min(...values), Math.max(...values))
  const [xLow, xHigh] = [Math.min(...contexts) / 1.25, Math.max(...contexts) * 1.25]
  const [yLow, yHigh] = [yTicks[0] as number, yTicks[yTicks.length - 1] as number]
  const across = (value: number): number => plot.left + (plot.width * Math.log(value / xLow)) / Math.log(xHigh / xLow)
  const up = (value: number): number =>
    plot.top + plot.height - (plot.height * Math.log(value / yLow)) / Math.log(yHigh / yLow)
  const bottom = plot.top + plot.height
  const title = 'Tokens per second against context'
  const out: string[] = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${bottom + 62}" width="${width}" height="${bottom + 62}" role="img">`,
    `<title>${title}</title>`,
    `<style>${style}\n.line { fill: none; stroke-width: 2 }\n</style>`,
    `<rect class="paper" width="${width}" height="${bottom + 62}"/>`,
    `<text class="title" x="${plot.left}" y="30">${title}: a model of 1B, Q4_K</text>`,
    `<text class="small" x="${plot.left}" y="51">${escapeXml(machine)}</text>`,
  ]
  const text = (x: number, y: number, anchor: string, what: string, more = ''): void => {
    out.push(
      `<text class="small" x="${short(x)}" y="${short(y)}" text-anchor="${anchor}"${more}>${escapeXml(what)}</text>`,
    )
  }
  for (const context of contexts) {
    out.push(`<path class="grid" d="M${short(across(context))} ${plot.top}V${bottom}"/>`)
    text(across(context), bottom + 20, 'middle', label(context))
  }
  for (const decade of yTicks) {
    for (const part of decade === yHigh ? [1] : [1, 2, 5]) {
      out.push(`<path class="grid" d="M${plot.left} ${short(up(decade * part))}H${plot.left + plot.width}"/>`)
      text(plot.left - 9, up(decade * part) + 4, 'end', label(decade * part))
    }
  }
  out.push(`<rect class="frame" x="${plot.left}" y="${plot.top}" width="${plot.width}" height="${plot.height}"/>`)
  text(plot.left + plot.width / 2, bottom + 44, 'middle', 'positions of context')
  const middle = plot.top + plot.height / 2
  text(20, middle, 'middle', 'tokens per second', ` transform="rotate(-90 20 ${middle})"`)
  const formats = unique(points.map(({ kvType }) => kvType))
  const colour = (kvType: string): string => colours[formats.indexOf(kvType) % colours.length] as string
  kinds.forEach(({ name, value }, kind) => {
    for (const kvType of formats) {
      const line = points.filter((point) => point.kvType === kvType)
      const places = line.map((point) => `${short(across(point.context))} ${short(up(value(point)))}`)
      out.push(`<path class="line" stroke="${colour(kvType)}" d="M${places.join('L')}"/>`)
      for (const point of line) {
        const told = `${kvType}, ${name} at ${label(point.context)}: ${value(point).toPrecision(3)} tokens/s`
        const mark = shapes[kind]?.(Number(short(across(point.context))), Number(short(up(value(point)))))
        out.push(`<g fill="${colour(kvType)}"><title>${escapeXml(told)}</title>${mark}</g>`)
      }
    }
  })
  let row = plot.top + 12
  const legend = (fill: string, mark: number, name: string): void => {
    out.push(`<g fill="${fill}">${shapes[mark]?.(legendLeft, row)}</g>`)
    out.push(`<text x="${legendLeft + 16}" y="${row + 4.5}">${escapeXml(name)}</text>`)
    row += 22
  }
  for (const kvType of formats) legend(colour(kvType), 1, `cache of ${kvType}`)
  row += 14
  kinds.forEach(({ name }, kind) => {
    legend('#888888', kind, name)
  })
  out.push('</svg>')
  return `${out.join('\n')}\n`
}
