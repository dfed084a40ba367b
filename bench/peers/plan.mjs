// What run.mjs measures: named subsets, the processes that they need, and the table that comes of the results. Nothing
// here runs anything.

/** Named, so that a figure can say what it was part of. */
export const subsets = {
  // Ends within 20 minutes on two cores.
  twenty: { mixes: 'F16,Q8_0,Q4_0,Q4_K_M', threads: '1,2', rounds: '1', want: 'prompt-512,decode-64,batch-8' },
  long: { mixes: 'Q4_K_M,F16', threads: '1,2', rounds: '1', want: 'prompt-2048,decode-4096' },
  batch32: { mixes: 'F16,Q8_0,Q4_0,Q4_K_M', threads: '2', rounds: '1', want: 'batch-8,batch-32' },
  q6: { mixes: 'Q6_K', threads: '1,2', rounds: '1', want: 'prompt-512,decode-64,batch-8' },
  q4: { mixes: 'Q4_K_M', threads: '1,2', rounds: '3', want: 'prompt-512,decode-64,batch-8' },
  all: {
    mixes: 'F16,Q8_0,Q6_K,Q4_0,Q4_K_M',
    threads: '1,2',
    rounds: '3',
    want: 'prompt-512,prompt-2048,decode-64,decode-4096,batch-8,batch-32',
  },
}

export const decodeTokens = 64
/** Contexts of up to this length are measured in one process; a longer one would make every sequence's cache as long. */
const shortContext = 1024

/** Wants like prompt-512, put together to processes: `{ want, sequences, contextLength }`. */
export const processesOf = (wants) => {
  const sizes = wants.map((what) => {
    const [, kind, text] = /^(prompt|decode|batch)-(\d+)$/.exec(what) ?? []
    if (kind === undefined) throw new Error(`${what} is none of prompt-N, decode-N, batch-N`)
    const size = Number(text)
    return { what, context: (kind === 'batch' ? 16 : size) + decodeTokens, sequences: kind === 'batch' ? size : 1 }
  })
  const groups = [
    sizes.filter(({ context }) => context <= shortContext),
    sizes.filter(({ context }) => context > shortContext),
  ]
  return groups
    .filter((group) => group.length > 0)
    .map((group) => ({
      want: group.map(({ what }) => what),
      sequences: Math.max(...group.map(({ sequences }) => sequences)),
      contextLength: Math.max(...group.map(({ context }) => context)) + 64,
    }))
}

export const median = (numbers) => {
  const sorted = [...numbers].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** Of all probes with so many threads the best: what else runs can only slow one down. */
export const ceilingsOf = (runs, threads) => {
  const probes = Object.values(runs).filter(({ engine, threads: own }) => engine === 'limits' && own === threads)
  if (probes.length === 0) return undefined
  const best = (name) => Math.max(...probes.map((probe) => probe[name]))
  return { readGBps: best('readGBps'), f32Gflops: best('f32Gflops'), int8Gops: best('int8Gops') }
}

const labels = {
  load: (from) => (from === undefined ? 'load to first token, s' : 'load from a prepared cache, s'),
  prompt: (size) => `prompt ${size}`,
  decode: (size) => `decode at ${size}`,
  batch: (size) => `${size} sequences`,
}

/** What a result is of the machine: the share of the ceiling that is nearest, and the rate. */
const ofMachine = (what, value, mix, ceilings, cost) => {
  const [kind, text] = what.split('-')
  if (ceilings === undefined) return {}
  if (kind === 'decode') {
    const bytes = cost.weightBytes(mix) + cost.cacheBytes(Number(text) + decodeTokens / 2)
    const gbps = (value * bytes) / 1e9
    return { gbps, share: gbps / ceilings.readGBps, of: 'read' }
  }
  if (kind === 'prompt') {
    const peak = mix === 'F16' ? ceilings.f32Gflops : ceilings.int8Gops
    const tokens = Number(text)
    const least =
      (tokens * cost.layerOperations) / (peak * 1e9) + cost.attentionOperations(tokens) / (ceilings.f32Gflops * 1e9)
    const operations = tokens * cost.layerOperations + cost.attentionOperations(tokens)
    return {
      gops: (value * operations) / tokens / 1e9,
      share: (least * value) / tokens,
      of: mix === 'F16' ? 'f32 peak' : 'int8 peak',
    }
  }
  return {}
}

/**
 * One row per mix, threads and result that both sides have. runs: key -> { engine, mix, threads, round, results }. A
 * ratio is the median over rounds of ours / theirs. Decoding is compared with the best that the peer reaches with at
 * most as many threads: more of them can slow it down.
 */
export const tableOf = (runs, peer, cost) => {
  const cells = new Map()
  for (const run of Object.values(runs)) {
    for (const [what, value] of Object.entries(run.results ?? {})) {
      const key = `${run.mix}/${run.threads}/${what}`
      const cell = cells.get(key) ?? { mix: run.mix, threads: run.threads, what, values: {} }
      cells.set(key, cell)
      cell.values[run.engine] ??= {}
      cell.values[run.engine][run.round] = value
    }
  }
  const peerValue = ({ mix, threads, what }, round) => {
    // The peer has no such cache: its own load is what counts.
    const same = what === 'load-cached' ? 'load' : what
    const own = cells.get(`${mix}/${threads}/${same}`)?.values[peer]?.[round]
    if (own === undefined || !what.startsWith('decode')) return own
    const others = [...cells.values()].filter((c) => c.mix === mix && c.what === what && c.threads <= threads)
    return Math.max(...others.map(({ values }) => values[peer]?.[round] ?? 0))
  }
  const rows = []
  for (const cell of cells.values()) {
    const { mix, threads, what, values } = cell
    const pairs = Object.entries(values.drover ?? {})
      .map(([round, ours]) => ({ ours, theirs: peerValue(cell, round) }))
      .filter(({ theirs }) => theirs !== undefined)
    if (pairs.length === 0) continue
    const [kind, text] = what.split('-')
    const drover = median(pairs.map(({ ours }) => ours))
    rows.push({
      mix,
      threads,
      what: labels[kind](text),
      drover,
      peer: median(pairs.map(({ theirs }) => theirs)),
      ratio: median(pairs.map(({ ours, theirs }) => (kind === 'load' ? theirs / ours : ours / theirs))),
      rounds: pairs.length,
      ...ofMachine(what, drover, mix, ceilingsOf(runs, threads), cost),
    })
  }
  return rows
}

const number = (value) => (value >= 100 ? value.toFixed(0) : value.toFixed(2))
const machineText = ({ gbps, gops, share, of }) => {
  if (share === undefined) return ''
  const rate = gbps === undefined ? `${gops.toFixed(0)} Gop/s` : `${gbps.toFixed(1)} GB/s`
  // A ceiling that something passes is none.
  return share > 1 ? `${rate}, ceiling void` : `${rate}, ${(share * 100).toFixed(0)} % of ${of}`
}

export const markdownOf = (rows, peerName) => [
  `| file | threads | what | drover | ${peerName} | ratio | of the machine |`,
  '|---|---|---|---|---|---|---|',
  ...rows.map(
    (row) =>
      `| ${row.mix} | ${row.threads} | ${row.what} | ${number(row.drover)} | ${number(row.peer)} | **${row.ratio.toFixed(2)}** | ${machineText(row)} |`,
  ),
]
