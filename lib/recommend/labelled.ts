/** A file of labelled requests as steps of a bounded size, however long its lines are. */
import { createReadStream, type ReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { DroverError } from '../errors.js'
import { Pace } from '../format/file.js'
import { atLine, parseRequestLine } from './jsonl.js'
import { linesOf } from './lines.js'
import { findIndexError, lookupsOf, type MergedRows, mergeParts, type Part } from './merge.js'
import { checkRequest, type RequestShape } from './request.js'

/** Rows that are computed together, with what happened. */
export interface LabelledBatch {
  readonly merged: MergedRows
  /** 0 or 1 per row. */
  readonly labels: readonly number[]
  /** The line that a row stands in. */
  lineOf(row: number): number
  /** The error of an index out of range, with its line. */
  indexError(): unknown
}

export interface LabelledOptions {
  /** Rows of a batch. */
  readonly maxRows: number
  readonly signal: AbortSignal | undefined
  /** Told of the share of the file that has been read. */
  readonly onProgress?: ((fraction: number) => void) | undefined
}

/** A batch that has so many lookups gets no more lines. */
const manyLookups = 2 ** 19

/** Opens a file that can be read again and again; of a pipe there would be no end. */
const openLabelled = async (
  file: string,
  signal: AbortSignal | undefined,
): Promise<{ input: ReadStream; size: number }> => {
  const what = 'the labelled requests cannot be read'
  const status = await stat(file).catch((cause: unknown) => {
    throw new DroverError('E_IO', what, { file, cause })
  })
  if (!status.isFile()) {
    throw new DroverError('E_IO', what, {
      file,
      found: status.isDirectory() ? 'a folder' : 'a pipe or a device',
      expected: 'a regular file, which may be read several times',
      hint: 'write what comes through a pipe to a file first',
    })
  }
  const input = createReadStream(file, { highWaterMark: 2 ** 18, ...(signal === undefined ? {} : { signal }) })
  return { input, size: status.size }
}

interface Placed extends Part {
  readonly line: number
  readonly labels: readonly number[]
}

const batchOf = (parts: readonly Placed[], shape: RequestShape, file: string): LabelledBatch => ({
  merged: mergeParts(parts, shape.denseFeatures),
  labels: parts.flatMap(({ labels, from, rows }) => labels.slice(from, from + rows)),
  lineOf: (row) => {
    let first = 0
    const own = parts.find(({ rows }) => {
      first += rows
      return row < first
    })
    return own?.line ?? 0
  },
  indexError: () => {
    for (const part of parts) {
      const error = findIndexError(part, shape)
      if (error !== undefined) return atLine(error, { file, line: part.line })
    }
    return undefined
  },
})

/** Throws E_IO, E_ABORTED; E_FORMAT, E_SHAPE and E_RANGE with the line. */
export async function* labelledBatches(
  file: string,
  shape: RequestShape,
  { maxRows, signal, onProgress }: LabelledOptions,
): AsyncGenerator<LabelledBatch> {
  const pace = new Pace(signal, 'reading labelled requests')
  let parts: Placed[] = []
  let rows = 0
  let lookups = 0
  const take = (): LabelledBatch => {
    const batch = batchOf(parts, shape, file)
    parts = []
    rows = 0
    lookups = 0
    return batch
  }
  const { input, size } = await openLabelled(file, signal)
  for await (const { text, line } of linesOf(input, file, signal)) {
    if (text.trim() === '') continue
    const { request, labels } = labelledLine(text, shape, { file, line })
    for (let from = 0; from < request.batch; ) {
      const part = { request, from, rows: Math.min(maxRows - rows, request.batch - from), line, labels }
      parts.push(part)
      rows += part.rows
      lookups += lookupsOf(part)
      from += part.rows
      if (rows === maxRows || lookups >= manyLookups) yield take()
    }
    onProgress?.(Math.min(1, input.bytesRead / size))
    if (pace.late()) await pace.rest()
  }
  if (rows > 0) yield take()
}

const labelledLine = (text: string, shape: RequestShape, place: { file: string; line: number }) => {
  const { request, labels } = parseRequestLine(text, shape, place)
  if (labels === undefined) {
    throw new DroverError('E_FORMAT', `line ${place.line} has no labels`, {
      file: place.file,
      field: `line ${place.line}: label`,
      found: 'nothing',
      expected: '0 or 1 for each row',
      hint: 'write what happened as "label": [0, 1, …]',
    })
  }
  try {
    return { request: checkRequest(request, shape, true), labels }
  } catch (error) {
    throw atLine(error, place)
  }
}
