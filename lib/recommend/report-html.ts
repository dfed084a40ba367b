/** What `drover validate` found as a page of its own: tables and charts, nothing loaded from elsewhere, no scripts. */
import { type Bars, type Chart, chartSvg, escapeHtml, linearAxis, logAxis } from './charts.js'
import type { Difference } from './compare.js'
import type { Formats, ValidatedNet, ValidationChoice, ValidationReport } from './validation.js'

const style = `
:root { color-scheme: light dark; --text: #24292f; --faint: #57606a; --line: #d0d7de; --paper: #ffffff; --first: #2f7ed8; --second: #e08214; --mark: #d6456b }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --faint: #9198a1; --line: #3d444d; --paper: #0d1117 } }
body { font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; color: var(--text); background: var(--paper); max-width: 900px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.4em } h2 { font-size: 1.1em; margin-top: 2em }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: 0.2em 0.8em 0.2em 0; border-bottom: 1px solid var(--line) }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
pre { border: 1px solid var(--line); padding: 0.8em; overflow: auto }
svg { width: 100%; height: auto } svg text { font-size: 13px; fill: var(--text) } svg text.tick { font-size: 11px; fill: var(--faint) }
.grid { stroke: var(--line); stroke-width: 0.7 } .mark { stroke: var(--mark); stroke-width: 1.5; stroke-dasharray: 4 3 }
.series0 { fill: var(--first) } .series1 { fill: var(--second) }
.key { display: inline-block; width: 0.8em; height: 0.8em; margin: 0 0.4em 0 1em } .key0 { background: var(--first) } .key1 { background: var(--second) }
.faint { color: var(--faint) }`

/** A cell of a table; numbers are set to the right. */
type Cell = string | { readonly number: string }

const tableOf = (head: readonly Cell[], rows: readonly (readonly Cell[])[]): string => {
  const cell = (tag: 'th' | 'td', value: Cell): string =>
    typeof value === 'string'
      ? `<${tag}>${escapeHtml(value)}</${tag}>`
      : `<${tag} class="number">${escapeHtml(value.number)}</${tag}>`
  const row = (tag: 'th' | 'td', cells: readonly Cell[]): string =>
    `<tr>${cells.map((value) => cell(tag, value)).join('')}</tr>`
  return `<table>\n${row('th', head)}\n${rows.map((cells) => row('td', cells)).join('\n')}\n</table>`
}

export const decibels = (value: number): string => {
  if (value === Number.POSITIVE_INFINITY) return 'equal'
  return value === Number.NEGATIVE_INFINITY ? 'no signal' : value.toFixed(1)
}

/** Three digits, in whatever form is shorter. */
export const errorText = (value: number): string => (value === 0 ? '0' : String(Number(value.toPrecision(3))))

/** 0.0002 is +0.0200 %. */
export const percentText = (share: number): string => `${share < 0 ? '−' : '+'}${Math.abs(share * 100).toFixed(4)} %`

const signed = (value: number, places: number): string => `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(places)}`

/** The format that an entry of `quantization` has for a name. */
export const formatIn = (formats: Formats, kind: 'tables' | 'layers', name: string): string => {
  const entry = formats[kind]
  return (Object.hasOwn(entry, name) ? entry[name] : entry['default']) ?? ''
}

const qualityTable = ({ reference, result, change, choice }: ValidationReport): string => {
  const nets: [string, ValidatedNet, ValidationReport['change'] | undefined][] = [
    ['reference', reference, undefined],
    ['judged', result, change],
    ...(choice === undefined
      ? []
      : [['chosen', choice.result, choice.change] as [string, ValidatedNet, typeof change]]),
  ]
  const head = ['', ...['AUC', 'log loss', 'NE', 'AUC', 'log loss', 'NE', 'NE, relative'].map((number) => ({ number }))]
  return tableOf(
    head,
    nets.map(([name, net, changes]) => [
      name,
      ...[net.auc, net.logLoss, net.normalizedEntropy].map((value) => ({ number: value.toFixed(6) })),
      ...(changes === undefined
        ? ['', '', '', '']
        : [
            { number: signed(changes.auc, 6) },
            { number: signed(changes.logLoss, 6) },
            { number: signed(changes.normalizedEntropy, 6) },
            { number: percentText(changes.relativeNormalizedEntropy) },
          ]),
    ]),
  )
}

const legend = (series: readonly string[]): string =>
  series.length < 2
    ? ''
    : `<p>${series.map((name, s) => `<span class="key key${s}"></span>${escapeHtml(name)}`).join('')}</p>`

/** Charts and a table of layers or tables; `chosen` has the same ones in the same order. */
const differences = (
  what: string,
  items: readonly (Difference & { readonly label: string; readonly formats: string })[],
  chosen: readonly Difference[] | undefined,
): string => {
  const series = chosen === undefined ? ['judged'] : ['judged', 'chosen']
  const rowsOf = (value: (item: Difference) => number): Bars[] =>
    items.map((item, i) => {
      const other = chosen?.[i]
      return { label: item.label, values: [value(item), ...(other === undefined ? [] : [value(other)])] }
    })
  const chart = (title: string, show: (value: number) => string, value: (item: Difference) => number, log: boolean) => {
    const rows = rowsOf(value)
    const all = rows.flatMap(({ values }) => values) as number[]
    const made: Chart = { title, series, rows, show, axis: log ? logAxis(all) : linearAxis(all) }
    return `<h3>${escapeHtml(title)}</h3>\n${legend(series)}\n${chartSvg(made)}`
  }
  return [
    chart(`SQNR of ${what} in dB`, decibels, ({ sqnr }) => sqnr, false),
    chart(`Largest error of ${what}`, errorText, ({ maxError }) => maxError, true),
    tableOf(
      [what, 'formats', { number: 'SQNR, dB' }, { number: 'largest error' }],
      items.map(({ label, formats, sqnr, maxError }) => [
        label,
        formats,
        { number: decibels(sqnr) },
        { number: errorText(maxError) },
      ]),
    ),
  ].join('\n')
}

const arrow = (from: string, to: string): string => (from === to ? from : `${from} → ${to}`)

const choiceHtml = ({ parts, budget, result }: ValidationChoice): string => {
  const rows = parts.map(({ kind, name, change, kept }) => ({
    label: `${name} (${kind}${kept ? ', kept' : ''})`,
    values: [change],
  }))
  const show = (value: number): string => percentText(value)
  const title = 'Relative change of normalised entropy when one part alone is quantised'
  const axis = linearAxis([...parts.map(({ change }) => change), budget])
  const mark = { value: budget, label: `budget ${percentText(budget)}` }
  return [
    `<h2>${title}</h2>`,
    chartSvg({ title, axis, series: ['cost'], rows, show, mark }),
    tableOf(
      ['part', '', 'formats', { number: 'NE, relative' }, 'chosen'],
      parts.map(({ kind, name, from, to, change, kept }) => [
        name,
        kind,
        arrow(from, to),
        { number: percentText(change) },
        kept ? from : to,
      ]),
    ),
    '<h2>Entry of config.json</h2>',
    `<pre>${escapeHtml(JSON.stringify({ quantization: result.quantization }, undefined, 2))}</pre>`,
  ].join('\n')
}

/** A page without scripts; everything that comes from files is escaped. */
export const reportHtml = (report: ValidationReport): string => {
  const { reference, result, rows, positives, baseRate, data, layers, tables, choice } = report
  const formatsOf = (kind: 'tables' | 'layers', name: string): string =>
    arrow(formatIn(reference.quantization, kind, name), formatIn(result.quantization, kind, name))
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>${escapeHtml(`Validation of ${result.path}`)}</title>
<style>${style}</style>
</head>
<body>
<h1>${escapeHtml(`Validation of ${result.path}`)}</h1>
<p class="faint">${escapeHtml(`against ${reference.path}; ${rows} rows of ${data}, ${positives} positive (${(baseRate * 100).toFixed(2)} %)`)}</p>
${qualityTable(report)}
<p class="faint">NE: log loss by the entropy of the base rate. The right half is less the reference.</p>
<h2>Layers</h2>
${differences(
  'layers',
  layers.map((layer) => ({
    ...layer,
    label: layer.role === undefined || layer.role === layer.name ? layer.name : `${layer.name} (${layer.role})`,
    formats: layer.module === undefined ? '' : `${layer.module}: ${formatsOf('layers', layer.module)}`,
  })),
  choice?.layers,
)}
<h2>Tables, pooled</h2>
${differences(
  'tables',
  tables.map((table) => ({ ...table, label: table.name, formats: formatsOf('tables', table.name) })),
  choice?.tables,
)}
${choice === undefined ? '' : choiceHtml(choice)}
</body>
</html>
`
}
