/** `drover rank`: scores of requests from a file or from standard input. */
import { createReadStream } from 'node:fs'
import type { Readable } from 'node:stream'
import { DroverError } from '../../errors.js'
import { isFolder } from '../../format/file.js'
import { atLine, parseRequestLine, type RequestLine } from '../../recommend/jsonl.js'
import { linesOf } from '../../recommend/lines.js'
import type { RecommenderOptions } from '../../recommend/options.js'
import { loadRecommender, type Recommender } from '../../recommend/recommender.js'
import { type Arguments, type Command, usageError } from '../command.js'
import { json, noteOutOfRange, progress } from '../output.js'

/** Requests in flight at once: enough to fill steps, few enough to forget. */
const inFlight = 64

const optionsFrom = (args: Arguments): RecommenderOptions => {
  const options: RecommenderOptions = {}
  const threads = args.integer('threads', 1, 1024)
  const memoryBudget = args.integer('memory', 1)
  const maxBatch = args.integer('max-batch', 1, 2 ** 16)
  if (threads !== undefined) options.threads = threads
  if (memoryBudget !== undefined) options.memoryBudget = memoryBudget
  if (maxBatch !== undefined) options.maxBatch = maxBatch
  if (args.text('tables') !== undefined) options.tables = args.text('tables') as 'mapped'
  if (args.text('indices') !== undefined) options.indices = args.text('indices') as 'error'
  return options
}

const load = async (path: string, args: Arguments): Promise<Recommender> => {
  const options = optionsFrom(args)
  const bar = progress('loading')
  try {
    return await loadRecommender(path, { ...options, onProgress: (fraction) => bar.update(fraction) })
  } finally {
    bar.done()
  }
}

/** The fewest digits that give the same 32 bits again. */
const shown = (score: number): number => {
  for (let digits = 6; digits < 9; digits++) {
    const short = Number(score.toPrecision(digits))
    if (Math.fround(short) === score) return short
  }
  return score
}

const answerOf = ({ id, items }: RequestLine, scores: Float32Array, top: number | undefined): unknown => {
  const head = id === undefined ? {} : { id }
  if (top === undefined) return { ...head, scores: Array.from(scores, shown) }
  // Equal scores keep the order of the request.
  const order = Array.from(scores, (_, row) => row).sort((a, b) => scores[b]! - scores[a]! || a - b)
  return {
    ...head,
    top: order.slice(0, top).map((row) => ({ row, ...(items && { item: items[row] }), score: shown(scores[row]!) })),
  }
}

/** The failure of one line, as an answer. */
const failureOf = (error: unknown, line: number): unknown => {
  if (!(error instanceof DroverError)) throw error
  const { code, message, field } = error
  return { line, error: { code, message, field } }
}

interface Pending {
  readonly line: number
  readonly answer: Promise<unknown>
}

export const rank: Command = {
  name: 'rank',
  usage: 'MODEL [--requests FILE]',
  summary:
    'Scores the requests of a file, or of standard input, with a recommender: a line of JSON for each, in their order. A request is {"id", "dense": [[features] per row], "sparse": [bags per table], "items": [names]}; bags are [[1, 2], [3]] (a list per row), [5, 6] (an index per row), 9 (the same index in all rows), or {"indices", "offsets", "weights"}.',
  options: {
    requests: { type: 'string', short: 'r', value: 'FILE', help: 'a request per line; default, and -: standard input' },
    top: { type: 'string', value: 'K', help: 'only the best K rows of each request, best first' },
    'keep-going': { type: 'boolean', help: 'answer a bad request with its error and go on; the exit code is then 1' },
    tables: {
      type: 'string',
      value: 'HOW',
      help: 'prepared (copied into huge pages) or mapped; default: as memory allows',
    },
    indices: { type: 'string', value: 'POLICY', help: 'an index out of range: error (default), skip or clamp' },
    'max-batch': { type: 'string', value: 'N', help: 'rows of a step; default 512' },
    threads: { type: 'string', value: 'N', help: 'workers of each step; default: what the machine allows' },
    memory: { type: 'string', value: 'BYTES', help: 'refuse to allocate more than this' },
  },
  positionals: [1, 1],
  run: async (args) => {
    const [path] = args.positionals as [string]
    const file = args.text('requests') ?? '-'
    const top = args.integer('top', 1)
    if (file === '-' && process.stdin.isTTY)
      throw usageError('requests are needed', 'give --requests FILE, or pipe them in')
    // Before a model is loaded for it.
    const input = file === '-' ? process.stdin : await openRequests(file)
    const recommender = await load(path, args)
    try {
      await answerAll(recommender, input, file === '-' ? 'standard input' : file, top, args.flag('keep-going'))
      noteOutOfRange(recommender.stats(), args.flag('json'))
    } finally {
      await recommender.close()
    }
  },
}

/** A file or a pipe. Throws E_IO. */
const openRequests = async (file: string): Promise<Readable> => {
  const failed = (details: { found?: string; cause?: unknown }): DroverError =>
    new DroverError('E_IO', 'the requests cannot be read', { file, ...details, expected: 'a file of requests' })
  if (await isFolder(file)) throw failed({ found: 'a folder' })
  const input = createReadStream(file)
  await new Promise<void>((resolve, reject) => {
    input.once('open', () => resolve())
    input.once('error', (cause: unknown) => reject(failed({ cause })))
  })
  return input
}

const answerAll = async (
  recommender: Recommender,
  input: Readable,
  file: string,
  top: number | undefined,
  keepGoing: boolean,
): Promise<void> => {
  const { denseFeatures, tables } = recommender.info
  const queue: Pending[] = []
  const answer = async (text: string, line: number): Promise<unknown> => {
    const parsed = parseRequestLine(text, { denseFeatures, tables }, { file, line })
    return answerOf(parsed, await recommender.score(parsed.request), top)
  }
  const writeFirst = async (): Promise<void> => {
    const { line, answer: pending } = queue.shift() as Pending
    try {
      json(await pending)
    } catch (error) {
      if (!keepGoing) throw atLine(error, { file, line })
      json(failureOf(error, line))
      process.exitCode = 1
    }
  }
  const writeAll = async (): Promise<void> => {
    while (queue.length > 0) await writeFirst()
  }
  /** What comes before a line that cannot be read is answered. */
  async function* lines() {
    try {
      yield* linesOf(input, file)
    } catch (error) {
      await writeAll()
      throw error
    }
  }
  for await (const { text, line } of lines()) {
    if (text.trim() === '') continue
    const pending = answer(text, line)
    pending.catch(() => {}) // heard of when its turn comes
    queue.push({ line, answer: pending })
    if (queue.length >= inFlight) await writeFirst()
  }
  await writeAll()
}
