// What comes of the results of recommend.mjs: rows beside the best peer, shares of the gather rate, a report. Nothing here
// runs anything.
import { median } from './plan.mjs'
import { engineNames, isOurs } from './recommend-plan.mjs'

/** Engines whose outputs differ by more than their number formats explain: none may be compared. */
export const disagreements = (runs) => {
  const checks = new Map()
  const wrong = []
  for (const { kind, model, dim, format, engine, results } of Object.values(runs)) {
    for (const [cell, { check }] of Object.entries(results ?? {})) {
      if (check === undefined) continue
      const key = `${kind === 'bag' ? `bag ${dim}` : model} ${format} ${cell}`
      const first = checks.get(key)
      // Half-precision outputs and 8-bit layers differ by their rounding; else by the order of additions.
      const tolerance = kind === 'model' && format === 'int8' ? 5e-2 : format === 'f16' ? 1e-2 : 1e-3
      if (first === undefined) checks.set(key, { engine, check })
      else if (!(Math.abs(check - first.check) <= tolerance * Math.abs(first.check)))
        wrong.push(`${key}: ${first.engine} ${first.check}, ${engine} ${check}`)
    }
  }
  return wrong
}

/** Rows per second of the best gather loop of all probes: what else runs can only slow one down. */
export const gatherOf = (runs, dim, format, threads) => {
  const probes = Object.values(runs).filter(
    (run) => run.kind === 'gather' && run.dim === dim && run.format === format && run.threads === threads,
  )
  if (probes.length === 0) return undefined
  return probes.reduce((best, probe) => (probe.rowsPerSecond > best.rowsPerSecond ? probe : best))
}

/** What was measured, by cell: `engines[name][round]` holds `seconds` and more. */
const cellsOf = (runs) => {
  const cells = new Map()
  for (const run of Object.values(runs)) {
    if (run.results === undefined) continue
    const { kind, model, dim, format, threads, engine, round } = run
    for (const [cell, measured] of Object.entries(run.results)) {
      const key = cellKey({ kind, model, dim, format, threads, cell })
      const known = cells.get(key) ?? { kind, model, dim, format, threads, cell, engines: {} }
      cells.set(key, known)
      known.engines[engine] ??= {}
      known.engines[engine][round] = measured
    }
  }
  return cells
}

const cellKey = ({ kind, model, dim, format, threads, cell }) => `${kind}/${model ?? dim}/${format}/${threads}/${cell}`

/** The fastest of these peers in a round, each with the number of threads (at most as many as ours) that suits it best. */
const bestPeer = (cells, wanted, peers, round) => {
  let best
  for (let threads = 1; threads <= wanted.threads; threads++) {
    const engines = cells.get(cellKey({ ...wanted, threads }))?.engines
    for (const peer of peers) {
      const measured = engines?.[peer]?.[round]
      if (measured !== undefined && !(measured.seconds >= best?.seconds)) best = { ...measured, peer, threads }
    }
  }
  return best
}

/** A cell of ours beside the best of these peers, round by round; the ratio is the median over rounds. */
const beside = (cells, { engines, ...cell }, ours, peers) => {
  const pairs = Object.entries(engines[ours] ?? {})
    .map(([round, own]) => ({ own, theirs: bestPeer(cells, cell, peers, round) }))
    .filter(({ theirs }) => theirs !== undefined)
  if (pairs.length === 0) return undefined
  const middle = (of) => median(pairs.map(of))
  return {
    seconds: middle(({ own }) => own.seconds),
    p99: middle(({ own }) => own.p99),
    peer: pairs[0].theirs.peer,
    peerThreads: pairs[0].theirs.threads,
    peerSeconds: middle(({ theirs }) => theirs.seconds),
    peerP99: middle(({ theirs }) => theirs.p99),
    ratio: middle(({ own, theirs }) => theirs.seconds / own.seconds),
    rounds: pairs.length,
  }
}

const peerNames = engineNames.filter((engine) => !isOurs(engine))
/** The median over rounds of something that our engine tells beside `seconds`, where every round has it. */
const alsoMedian = (engines, ours, name) => {
  const values = Object.values(engines[ours]).map((measured) => measured[name])
  return values.every((value) => value !== undefined) ? { [name]: median(values) } : {}
}

/** Whether a cell reads its rows from memory at random, many at a time: only then a gather loop is its ceiling. */
const isGather = ({ pooling, distribution, cache }) => pooling >= 20 && distribution === 'uniform' && cache === 'cold'

/**
 * One row per cell of embedding-bags. `share`: of the gather loop's rows per second, where that is the ceiling; `isVoid`:
 * a kernel of the same run, ours or a peer's, was faster than the loop.
 */
export const bagRows = (runs, ours = 'drover') => {
  const rows = []
  const cells = cellsOf(runs)
  for (const one of cells.values()) {
    const { kind, dim, format, threads, cell } = one
    const compared = kind === 'bag' ? beside(cells, one, ours, peerNames) : undefined
    if (compared === undefined) continue
    const [batch, pooling, distribution, cache] = cell.split('-')
    const shape = { batch: Number(batch), pooling: Number(pooling), distribution, cache }
    const lookups = shape.batch * shape.pooling
    const row = {
      dim,
      format,
      threads,
      ...shape,
      lookups,
      ...compared,
      ...alsoMedian(one.engines, ours, 'readSeconds'),
      lookupsPerSecond: lookups / compared.seconds,
    }
    const plain = beside(cells, one, ours, ['torch-plain'])
    if (plain !== undefined) row.plainRatio = plain.ratio
    const gather = isGather(shape) ? gatherOf(runs, dim, format, threads) : undefined
    if (gather !== undefined) {
      const fastest = Math.max(row.lookupsPerSecond, lookups / compared.peerSeconds)
      Object.assign(row, {
        share: row.lookupsPerSecond / gather.rowsPerSecond,
        isVoid: fastest > gather.rowsPerSecond,
        pages: gather.pages,
      })
    }
    rows.push(row)
  }
  return rows
}

/**
 * One row per batch of whole models: latency and samples per second, beside each peer (`peers[name]`); `ratio`: beside
 * the best of them. `floatRatio`: of PyTorch's time with f32 tables and layers.
 */
export const modelRows = (runs, ours = 'drover') => {
  const rows = []
  const cells = cellsOf(runs)
  for (const one of cells.values()) {
    const { kind, model, format, threads, cell } = one
    const compared = kind === 'model' ? beside(cells, one, ours, peerNames) : undefined
    if (compared === undefined) continue
    const peers = {}
    for (const peer of peerNames) {
      const own = beside(cells, one, ours, [peer])
      if (own !== undefined) peers[peer] = { seconds: own.peerSeconds, p99: own.peerP99, ratio: own.ratio }
    }
    const float = beside(cells, { ...one, format: 'f32' }, ours, ['torch', 'torch-plain'])
    rows.push({
      model,
      format,
      threads,
      batch: Number(cell),
      ...compared,
      ...alsoMedian(one.engines, ours, 'syncSeconds'),
      peers,
      ...(float === undefined ? {} : { floatRatio: float.ratio }),
      samplesPerSecond: Number(cell) / compared.seconds,
    })
  }
  return rows
}

/** What an embedding-bag is to reach beside the best peer, at 64 elements, pooling >= 20, batch >= 32, one thread. */
export const targets = {
  avx512: { f32: 1.35, f16: 2.2, int8: 2.5, int4: 3.5 },
  avx2: { f32: 1.2, f16: 1.5, int8: 1.8, int4: 2 },
}

/** Per format the least ratio of the cells that a target speaks of, beside the target. */
export const judgeBags = (rows, isa) => {
  const wanted = isa.startsWith('avx512') ? targets.avx512 : targets.avx2
  return Object.entries(wanted).flatMap(([format, target]) => {
    const judged = rows.filter(
      (row) =>
        row.format === format &&
        row.dim === 64 &&
        row.threads === 1 &&
        row.pooling >= 20 &&
        row.batch >= 32 &&
        row.cache === 'cold',
    )
    if (judged.length === 0) return []
    const least = (of) => {
      const values = judged.map(of).filter((value) => value !== undefined)
      return values.length === 0 ? {} : { least: Math.min(...values), median: median(values) }
    }
    const share = ({ share, isVoid }) => (isVoid ? undefined : share)
    return [
      {
        format,
        target,
        cells: judged.length,
        ...least(({ ratio }) => ratio),
        plain: least(({ plainRatio }) => plainRatio),
        gather: least(share),
      },
    ]
  })
}

const micro = (seconds) => (seconds >= 1e-4 ? (seconds * 1e6).toFixed(0) : (seconds * 1e6).toFixed(1))
const million = (perSecond) => (perSecond / 1e6).toFixed(perSecond >= 1e8 ? 0 : 1)
const shareText = ({ share, isVoid, pages }) => {
  if (share === undefined) return ''
  return isVoid ? 'ceiling void' : `${(share * 100).toFixed(0)} % (${pages} pages)`
}

const peerText = ({ peer, peerThreads, threads }, versions) =>
  `${versions[peer] ?? peer}${peerThreads === threads ? '' : `, ${peerThreads} thread`}`

export const bagMarkdown = (rows, versions) => [
  '| table | threads | batch | pooling | indices | cache | drover, µs | with outputs read | M lookups/s | best peer, µs | peer | ratio | beside torch-plain | of the gather rate |',
  `|${'---|'.repeat(14)}`,
  ...rows.map((row) => {
    const read = row.readSeconds === undefined ? '' : micro(row.readSeconds)
    return `| ${row.format} × ${row.dim} | ${row.threads} | ${row.batch} | ${row.pooling} | ${row.distribution} | ${row.cache} | ${micro(row.seconds)} | ${read} | ${million(row.lookupsPerSecond)} | ${micro(row.peerSeconds)} | ${peerText(row, versions)} | **${row.ratio.toFixed(2)}** | ${row.plainRatio?.toFixed(2) ?? ''} | ${shareText(row)} |`
  }),
]

export const modelMarkdown = (rows, versions) => {
  const names = peerNames.filter((peer) => rows.some(({ peers }) => peer in peers))
  const heads = names.flatMap((peer) => [`${versions[peer] ?? peer} p50`, 'p99', 'ratio'])
  const columns = ['model', 'numbers', 'threads', 'batch', 'drover p50, µs', 'p99', 'sync p50', 'samples/s', ...heads]
  return [
    `| ${columns.join(' | ')} | beside PyTorch in f32 |`,
    `|${'---|'.repeat(columns.length + 1)}`,
    ...rows.map((row) => {
      const beside = names.flatMap((peer) => {
        const own = row.peers[peer]
        return own === undefined ? ['', '', ''] : [micro(own.seconds), micro(own.p99), `**${own.ratio.toFixed(2)}**`]
      })
      const sync = row.syncSeconds === undefined ? '' : micro(row.syncSeconds)
      const ours = [micro(row.seconds), micro(row.p99), sync, row.samplesPerSecond.toFixed(0)]
      const cells = [
        row.model,
        row.format,
        row.threads,
        row.batch,
        ...ours,
        ...beside,
        row.floatRatio?.toFixed(2) ?? '',
      ]
      return `| ${cells.join(' | ')} |`
    }),
  ]
}

const judgedMarkdown = (judged) => {
  const pair = ({ least, median }, digits = 2, unit = 1) =>
    least === undefined ? ' | ' : `${(least * unit).toFixed(digits)} | ${(median * unit).toFixed(digits)}`
  return [
    '| table | to reach | least ratio | median | least beside torch-plain | median | least % of the gather rate | median | cells |',
    `|${'---|'.repeat(9)}`,
    ...judged.map(
      (one) =>
        `| ${one.format} | ${one.target} | ${pair(one)} | ${pair(one.plain)} | ${pair(one.gather, 0, 100)} | ${one.cells} |`,
    ),
  ]
}

/** Tables and text of all that a state holds: { tables, markdown }. Throws when engines give different outputs. */
export const reportOf = ({ runs, machine, commit }, tableRows) => {
  const wrong = disagreements(runs)
  if (wrong.length > 0)
    throw new Error(`engines give different outputs, so that their times say nothing:\n${wrong.join('\n')}`)
  const engineRuns = Object.values(runs).filter(({ engine }) => engine !== undefined)
  const versions = Object.fromEntries(engineRuns.map(({ engine, version }) => [engine, `${engine} ${version}`]))
  const pagesOf = (name) => [...new Set(engineRuns.filter(({ engine }) => engine === name).map(({ pages }) => pages))]
  const pages = Object.keys(versions)
    .map((engine) => [engine, pagesOf(engine).filter(Boolean)])
    .filter(([, kinds]) => kinds.length > 0)
    .map(([engine, kinds]) => `${engine} ${kinds.join(' or ')}`)
  const rowsOf = (ours) => ({ bags: bagRows(runs, ours), models: modelRows(runs, ours) })
  const { bags, models } = rowsOf('drover')
  const mapped = rowsOf('drover-mapped')
  const judged = judgeBags(bags, machine.isa)
  const section = (title, lines, { length }) => (length > 0 ? ['', `## ${title}`, '', ...lines] : [])
  const markdown = [
    `${machine.cpu}, ${machine.cpus} CPUs, last cache ${(machine.l3Bytes / 2 ** 20).toFixed(0)} MiB, drover ${commit} (${machine.isa}), Node ${machine.node}. ${tableRows} rows per table of embedding-bags.`,
    `Pages of tables: ${pages.join(', ')}.`,
    "drover's bags stay with its program, as in a model; 'with outputs read' copies them into an array. PyTorch is called from Python.",
    "Ratio: the best peer's median time by drover's. Cold: other indices in every call; hot: the same call again and again.",
    ...section('One thread, 64 elements, pooling >= 20, batch >= 32, cold', judgedMarkdown(judged), judged),
    ...section('Embedding-bags', bagMarkdown(bags, versions), bags),
    ...section('Embedding-bags, tables read from the mapped file', bagMarkdown(mapped.bags, versions), mapped.bags),
    ...section('Whole models', modelMarkdown(models, versions), models),
    ...section('Whole models, tables read from the mapped file', modelMarkdown(mapped.models, versions), mapped.models),
  ]
  return { tables: { bags, models, judged, mapped }, markdown }
}
