// What recommend.mjs measures: named subsets, processes and their cells, and the tables that come of the results. Nothing
// here runs anything.
import { median } from './plan.mjs'

export const tableRows = 4_000_000
/** Bytes of a row as FBGEMM's kernels read it: scale and bias behind the codes, f32 for int8, f16 for int4. */
export const rowBytesOf = {
  f32: (dim) => 4 * dim,
  f16: (dim) => 2 * dim,
  int8: (dim) => dim + 8,
  int4: (dim) => dim / 2 + 4,
}

/** Named, so that a figure can say what it was part of. */
export const subsets = {
  // Ends within 20 minutes on two cores.
  twenty: {
    formats: 'f32,f16,int8,int4',
    dims: '64',
    batches: '1,32,2048',
    poolings: '1,20,80',
    distributions: 'uniform,zipf',
    caches: 'cold,hot',
    models: 'dlrm,dlrm-cached,dcnv2',
    modelBatches: '1,128,2048',
    precisions: 'f32,int8',
    threads: '1,2',
    rounds: '1',
    engines: 'drover,torch,torch-plain,onnxruntime',
    milliseconds: '120',
  },
  // The cells that the embedding-bag is judged by, with enough rounds for a median.
  judged: {
    formats: 'f32,f16,int8,int4',
    dims: '64',
    batches: '32,256,2048',
    poolings: '20,80',
    distributions: 'uniform,zipf',
    caches: 'cold',
    models: '',
    modelBatches: '',
    precisions: '',
    threads: '1,2',
    rounds: '3',
    engines: 'drover,drover-mapped,torch,torch-plain',
    milliseconds: '250',
  },
  models: {
    formats: '',
    dims: '',
    batches: '',
    poolings: '',
    distributions: '',
    caches: '',
    models: 'dlrm,dlrm-cached,dcnv2',
    modelBatches: '1,128,2048',
    precisions: 'f32,int8',
    threads: '1,2',
    rounds: '3',
    engines: 'drover,drover-mapped,torch,torch-plain,onnxruntime',
    milliseconds: '1000',
  },
  all: {
    formats: 'f32,f16,int8,int4',
    dims: '64,128',
    batches: '1,32,256,2048',
    poolings: '1,20,80',
    distributions: 'uniform,zipf',
    caches: 'cold,hot',
    models: 'dlrm,dlrm-cached,dcnv2',
    modelBatches: '1,128,2048',
    precisions: 'f32,int8',
    threads: '1,2',
    rounds: '3',
    engines: 'drover,drover-mapped,torch,torch-plain,fbgemm,onnxruntime',
    milliseconds: '250',
  },
}

/**
 * What each engine has a way to run. torch gets huge pages, torch-plain is PyTorch as it comes; fbgemm is the table-batched
 * operator; onnxruntime has no embedding-bag.
 */
const ableTo = {
  drover: { bag: ['f32', 'f16', 'int8', 'int4'], model: ['f32', 'int8'] },
  'drover-mapped': { bag: ['f32', 'f16', 'int8', 'int4'], model: ['f32', 'int8'] },
  torch: { bag: ['f32', 'f16', 'int8', 'int4'], model: ['f32', 'int8'] },
  'torch-plain': { bag: ['f32', 'f16', 'int8', 'int4'], model: ['f32', 'int8'] },
  fbgemm: { bag: ['f32', 'f16', 'int8', 'int4'], model: [] },
  onnxruntime: { bag: [], model: ['f32'] },
}
export const engineNames = Object.keys(ableTo)
const isOurs = (engine) => engine.startsWith('drover')

const product = (...lists) => lists.reduce((all, list) => all.flatMap((one) => list.map((x) => [...one, x])), [[]])

/**
 * What has a process of its own per engine: one table or one model, with so many threads. Cells are names of what is
 * measured in it: `32-20-uniform-cold` is batch, pooling, distribution and cache of an embedding-bag, `128` the batch of
 * a model.
 */
export const groupsOf = (options) => {
  const list = (text) => text.split(',').filter(Boolean)
  const cells = product(
    list(options.batches),
    list(options.poolings),
    list(options.distributions),
    list(options.caches),
  ).map((parts) => parts.join('-'))
  const bags = product(list(options.dims), list(options.formats), list(options.threads))
    .map(([dim, format, threads]) => ({ kind: 'bag', dim: Number(dim), format, threads: Number(threads), cells }))
    .filter(() => cells.length > 0)
  const models = product(list(options.models), list(options.precisions), list(options.threads))
    .map(([model, format, threads]) => ({
      kind: 'model',
      model,
      format,
      threads: Number(threads),
      cells: list(options.modelBatches),
    }))
    .filter((group) => group.cells.length > 0)
  return [...bags, ...models]
}

export const keyOf = (group, engine, round) =>
  `${group.kind === 'bag' ? `bag ${group.dim}` : group.model}/${group.format}/${group.threads}/${round}/${engine}`

/** Engines that can run a group, in the order of their turns: the first one changes from round to round. */
export const turnsOf = (group, engines, round) => {
  const able = engines.filter((engine) => ableTo[engine][group.kind].includes(group.format))
  return round % 2 === 0 ? able : able.reverse()
}

/** Cells that no earlier process has measured. */
export const missingCells = (runs, group, engine, round) => {
  const results = runs[keyOf(group, engine, round)]?.results ?? {}
  return group.cells.filter((cell) => !(cell in results))
}

/** The results of a process beside those that were there. */
export const merge = (known, group, engine, round, result) => {
  const { cells: _, ...what } = group
  return { ...what, engine, round, ...result, results: { ...known?.results, ...result.results } }
}

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
    const float = beside(cells, { ...one, format: 'f32' }, ours, ['torch'])
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
    return [
      {
        format,
        target,
        worst: Math.min(...judged.map(({ ratio }) => ratio)),
        median: median(judged.map(({ ratio }) => ratio)),
        cells: judged.length,
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
    `| ${columns.join(' | ')} | beside torch in f32 |`,
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
