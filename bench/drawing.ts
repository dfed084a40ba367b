/** What the pictures of benchmarks share: size, colours, marks, ticks of logarithmic axes. Plain SVG. */
export const width = 960
export const plot = { left: 74, top: 72, width: 640, height: 430 }
export const legendLeft = plot.left + plot.width + 28
/** Distinct on white and on near-black, and to colour-blind readers by their order of lightness. */
export const colours = [
  '#2f7ed8',
  '#e08214',
  '#1b9e77',
  '#d6456b',
  '#8073ac',
  '#4db6d0',
  '#a6761d',
  '#7f9f1f',
  '#888888',
]

export const shapes: ((x: number, y: number) => string)[] = [
  (x, y) => `<circle cx="${x}" cy="${y}" r="5"/>`,
  (x, y) => `<rect x="${x - 4.5}" y="${y - 4.5}" width="9" height="9"/>`,
  (x, y) => `<path d="M${x} ${y - 6}l5.6 10h-11.2z"/>`,
  (x, y) => `<path d="M${x} ${y - 6.4}l6.4 6.4l-6.4 6.4l-6.4 -6.4z"/>`,
  (x, y) => `<path d="M${x} ${y + 6}l5.6 -10h-11.2z"/>`,
  (x, y) => `<path d="M${x - 5.5} ${y - 2}h3.5v-3.5h4v3.5h3.5v4h-3.5v3.5h-4v-3.5h-3.5z"/>`,
]

export const style = `
text { font: 13px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #24292f }
.title { font-size: 17px; font-weight: 600 }
.small { font-size: 12px; fill: #57606a }
.paper { fill: #ffffff }
.frame, .grid { fill: none; stroke: #d0d7de }
.grid { stroke-width: 0.7 }
.roof { fill: none; stroke: #24292f; stroke-width: 1.8 }
.void { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .small { fill: #9198a1 }
  .paper { fill: #0d1117 }
  .frame, .grid { stroke: #3d444d }
  .roof { stroke: #e6edf3 }
}`

export const escapeXml = (text: string): string =>
  text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/"/g, '&quot;')
export const short = (value: number): string => String(Number(value.toFixed(1)))
/** 0.25, 4, 1,024. */
export const label = (value: number): string => (value >= 1 ? value.toLocaleString('en-US') : String(value))
export const giga = (value: number): string => (value >= 1e11 ? (value / 1e9).toFixed(0) : (value / 1e9).toPrecision(3))

/** Powers of `base` from the last one at or below `low` to the first at or above `high`. */
export const powers = (base: number, low: number, high: number): number[] => {
  const first = Math.floor(Math.log(low) / Math.log(base) + 1e-9)
  const last = Math.ceil(Math.log(high) / Math.log(base) - 1e-9)
  return Array.from({ length: last - first + 1 }, (_, i) => base ** (first + i))
}

export const unique = (values: readonly string[]): string[] => [...new Set(values)]
