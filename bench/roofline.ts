/**
 * Draws a roofline: operations per second over operations per byte, both axes logarithmic, measured points under the
 * machine's ceilings. Plain SVG that follows the reader's light or dark setting.
 */
import type { Limits } from '../lib/device/limits.js'
import {
  colours,
  escapeXml,
  giga,
  label,
  legendLeft,
  plot,
  powers,
  shapes,
  short,
  style,
  unique,
  width,
} from './drawing.js'
import type { Judged } from './report.js'

export interface Point {
  /** Gives the colour. */
  readonly series: string
  /** Gives the shape. */
  readonly mark: string
  /** Shown when pointed at. */
  readonly title: string
  /** Operations per byte. */
  readonly intensity: number
  readonly perSecond: number
}

interface Ceiling {
  readonly name: string
  readonly perSecond: number
}

interface Chart {
  readonly title: string
  readonly subtitle: string
  readonly readBytesPerSecond: number
  readonly ceilings: readonly Ceiling[]
  readonly points: readonly Point[]
}

export const roofline = (chart: Chart): string => {
  const { points, readBytesPerSecond, ceilings } = chart
  const highest = Math.max(...ceilings.map(({ perSecond }) => perSecond))
  const intensities = points.map(({ intensity }) => intensity)
  const xTicks = powers(4, Math.min(...intensities) / 2, Math.max(...intensities, (2 * highest) / readBytesPerSecond))
  const xLow = xTicks[0] as number
  const xHigh = xTicks[xTicks.length - 1] as number
  const lowest = Math.min(...points.map(({ perSecond }) => perSecond), xLow * 2 * readBytesPerSecond)
  const yTicks = powers(10, lowest, highest * 1.3)
  const yLow = yTicks[0] as number
  const yHigh = yTicks[yTicks.length - 1] as number
  const across = (value: number): number => plot.left + (plot.width * Math.log(value / xLow)) / Math.log(xHigh / xLow)
  const up = (value: number): number =>
    plot.top + plot.height - (plot.height * Math.log(value / yLow)) / Math.log(yHigh / yLow)
  const right = plot.left + plot.width
  const bottom = plot.top + plot.height

  const seriesNames = unique(points.map(({ series }) => series))
  const markNames = unique(points.map(({ mark }) => mark))
  const legendRows = seriesNames.length + (markNames.length > 1 ? markNames.length + 1 : 0)
  const height = Math.max(bottom + 62, plot.top + 22 * legendRows + 30)
  const colour = (series: string): string => colours[seriesNames.indexOf(series) % colours.length] as string
  const shape = (mark: string, x: number, y: number): string =>
    (shapes[markNames.indexOf(mark) % shapes.length] as (typeof shapes)[number])(x, y)

  const out: string[] = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">`,
    `<title>${escapeXml(chart.title)}</title>`,
    `<style>${style}\n</style>`,
    `<rect class="paper" width="${width}" height="${height}"/>`,
    `<text class="title" x="${plot.left}" y="30">${escapeXml(chart.title)}</text>`,
    `<text class="small" x="${plot.left}" y="51">${escapeXml(chart.subtitle)}</text>`,
  ]
  const text = (x: number, y: number, anchor: string, what: string, more = ''): void => {
    out.push(
      `<text class="small" x="${short(x)}" y="${short(y)}" text-anchor="${anchor}"${more}>${escapeXml(what)}</text>`,
    )
  }
  for (const tick of xTicks) {
    const x = short(across(tick))
    out.push(`<path class="grid" d="M${x} ${plot.top}V${bottom}"/>`)
    text(across(tick), bottom + 20, 'middle', label(tick))
  }
  for (const decade of yTicks) {
    for (const step of decade === yHigh ? [1] : [1, 2, 5]) {
      const y = up(decade * step)
      out.push(`<path class="grid" d="M${plot.left} ${short(y)}H${right}"/>`)
      text(plot.left - 9, y + 4, 'end', label(Number(((decade * step) / 1e9).toPrecision(3))))
    }
  }
  out.push(
    `<rect class="frame" x="${plot.left}" y="${plot.top}" width="${plot.width}" height="${plot.height}"/>`,
    `<clipPath id="plot"><rect x="${plot.left}" y="${plot.top}" width="${plot.width}" height="${plot.height}"/></clipPath>`,
  )
  text(plot.left + plot.width / 2, bottom + 44, 'middle', 'operations per byte from memory')
  const middle = plot.top + plot.height / 2
  text(20, middle, 'middle', '10⁹ operations per second', ` transform="rotate(-90 20 ${middle})"`)

  // The slope of memory up to the highest ceiling, then each ceiling from the slope to the right.
  const ridge = (perSecond: number): number => perSecond / readBytesPerSecond
  out.push(
    `<path class="roof" clip-path="url(#plot)" d="M${short(across(xLow))} ${short(up(xLow * readBytesPerSecond))}L${short(across(ridge(highest)))} ${short(up(highest))}"/>`,
  )
  for (const { name, perSecond } of ceilings) {
    const from = Math.max(plot.left, across(ridge(perSecond)))
    out.push(`<path class="roof" d="M${short(from)} ${short(up(perSecond))}H${right}"/>`)
    text(right - 8, up(perSecond) - 6, 'end', `${name}: ${giga(perSecond)} Gop/s`)
  }
  const rise = plot.height / Math.log(yHigh / yLow) / (plot.width / Math.log(xHigh / xLow))
  const angle = short((-Math.atan(rise) * 180) / Math.PI)
  // On the slope, where it is inside of the frame and left of most points.
  const start = Math.max(across(xLow), across(yLow / readBytesPerSecond)) + 24
  const startY = up(xLow * readBytesPerSecond) - (start - plot.left) * rise
  const turned = ` transform="rotate(${angle} ${short(start)} ${short(startY)})"`
  text(start, startY - 7, 'start', `reading memory: ${giga(readBytesPerSecond)} GB/s`, turned)

  for (const { series, mark, title, intensity, perSecond } of points) {
    const x = Number(short(across(intensity)))
    const y = Number(short(up(perSecond)))
    out.push(`<g class="point" fill="${colour(series)}"><title>${escapeXml(title)}</title>${shape(mark, x, y)}</g>`)
  }

  let row = plot.top + 12
  const legend = (fill: string, drawn: string, name: string): void => {
    out.push(`<g fill="${fill}">${drawn}</g>`)
    out.push(`<text x="${legendLeft + 16}" y="${row + 4.5}">${escapeXml(name)}</text>`)
    row += 22
  }
  for (const name of seriesNames) legend(colour(name), shapes[0]!(legendLeft, row), name)
  if (markNames.length > 1) {
    row += 14
    for (const name of markNames) legend('#888888', shape(name, legendLeft, row), name)
  }
  out.push('</svg>')
  return `${out.join('\n')}\n`
}

/** The picture of one family of kernels; undefined where no case has both operations and bytes. */
export const familyChart = (
  family: string,
  machine: string,
  measured: readonly Judged[],
  limits: Limits,
): string | undefined => {
  const drawable = measured.filter(({ flops, bytes }) => flops !== undefined && bytes !== undefined)
  if (drawable.length === 0) return undefined
  const names = drawable.map(({ name }) => name)
  // Cases that several suites share get a shape each, and suites the colours; else every case has its colour.
  const shared = new Set(names).size < names.length
  const points = drawable.map((m): Point => {
    const share = m.isVoid
      ? 'above its limit, which is void'
      : `${((m.share as number) * 100).toFixed(0)} % of the limit`
    return {
      series: shared ? m.suite : m.name,
      mark: shared ? m.name : '',
      title: `${m.suite}, ${m.name}: ${(m.gflops as number).toPrecision(3)} Gop/s, ${share}`,
      intensity: (m.flops as number) / (m.bytes as number),
      perSecond: (m.flops as number) / m.seconds,
    }
  })
  const integer = drawable.some(({ arithmetic }) => arithmetic === 'int8')
  const bfloat = drawable.some(({ arithmetic }) => arithmetic === 'bf16')
  const ceilings: Ceiling[] = [
    ...(integer ? [{ name: 'int8 products', perSecond: limits.int8PerSecond }] : []),
    { name: 'f32 multiply-adds', perSecond: limits.f32PerSecond },
    ...(bfloat && limits.bf16PerSecond > 0 ? [{ name: 'BF16 products', perSecond: limits.bf16PerSecond }] : []),
  ]
  return roofline({
    title: `${family[0]!.toUpperCase()}${family.slice(1)} under the machine's ceilings`,
    subtitle: machine,
    readBytesPerSecond: limits.readBytesPerSecond,
    ceilings,
    points,
  })
}
