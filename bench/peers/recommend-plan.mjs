// What recommend.mjs measures: named subsets, processes and their cells, what of it a run has already. Nothing here runs
// anything.
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
export const isOurs = (engine) => engine.startsWith('drover')

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
