/** Sampling over a vocabulary, row by row. */
import { checkBoolean, checkInstance, checkInteger, checkNumber, checkOptions } from '../check.js'
import { DroverError } from '../errors.js'
import { plainSampling, type SamplingParameters } from '../program/step.js'
import { type AsyncOptions, type Call, type Operands, plainStep, run, runAsync, takeSignal } from './eager.js'
import { checkMatrix, checkShape, type Shape } from './operands.js'

/** What was drawn for one row. */
export interface Sample {
  token: number
  /** Under the raw logits; only when `logprobs` was asked for. */
  logprob?: number
  /** The likeliest tokens under the raw logits, best first; as many as `topLogprobs`. */
  topLogprobs: { token: number; logprob: number }[]
}

/** How a row is drawn; what is left out is off, with seed and counter 0. */
export type SampleOptions = Partial<SamplingParameters>

const mostCandidates = 128
const names = [...Object.keys(plainSampling), 'mask', 'uniform']

const checkPairs = (
  name: string,
  value: unknown,
  vocabulary: number,
  check: (name: string, value: unknown) => number,
): (readonly [number, number])[] => {
  const list = checkInstance<readonly unknown[]>(name, value, Array)
  return list.map((pair, i) => {
    const [token, number] = checkInstance<readonly unknown[]>(`${name}[${i}]`, pair, Array)
    return [checkInteger(`${name}[${i}][0]`, token, 0, vocabulary - 1), check(`${name}[${i}][1]`, number)] as const
  })
}

const checkMask = (name: string, value: unknown, vocabulary: number): Uint32Array => {
  const mask = checkInstance(name, value, Uint32Array).slice()
  const expected = Math.ceil(vocabulary / 32)
  if (mask.length === expected) return mask
  throw new DroverError('E_SHAPE', 'a mask has one bit per token', { field: name, found: mask.length, expected })
}

const checkParameters = (name: string, input: unknown, vocabulary: number): SamplingParameters => {
  const set = Object.entries(checkOptions(name, input, names)).filter(([, value]) => value !== undefined)
  const given = { ...plainSampling, ...(Object.fromEntries(set) as SampleOptions) }
  const number = (key: keyof SamplingParameters, minimum: number, maximum: number): number =>
    checkNumber(`${name}.${key}`, given[key], minimum, maximum)
  if (typeof given.seed !== 'bigint' || BigInt.asUintN(64, given.seed) !== given.seed) {
    throw new DroverError('E_ARGUMENT', `expected a bigint of 64 bits for ${name}.seed`, { field: `${name}.seed` })
  }
  return {
    temperature: number('temperature', 0, 1e6),
    topK: checkInteger(`${name}.topK`, given.topK, 0, 2 ** 31 - 1),
    topP: number('topP', 0, 1),
    minP: number('minP', 0, 1),
    typicalP: number('typicalP', 0, 1),
    repetitionPenalty: number('repetitionPenalty', 1e-6, 1e6),
    presencePenalty: number('presencePenalty', -1e6, 1e6),
    frequencyPenalty: number('frequencyPenalty', -1e6, 1e6),
    seed: given.seed,
    counter: checkInteger(`${name}.counter`, given.counter, 0, 2 ** 32 - 1),
    logprobs: checkBoolean(`${name}.logprobs`, given.logprobs),
    topLogprobs: checkInteger(`${name}.topLogprobs`, given.topLogprobs, 0, Math.min(mostCandidates, vocabulary)),
    bias: checkPairs(`${name}.bias`, given.bias, vocabulary, (field, value) => checkNumber(field, value, -1e9, 1e9)),
    history: checkPairs(`${name}.history`, given.history, vocabulary, (field, value) =>
      checkInteger(field, value, 1, 2 ** 31 - 1),
    ),
    ...(given.mask === undefined ? {} : { mask: checkMask(`${name}.mask`, given.mask, vocabulary) }),
    ...(given.uniform === undefined ? {} : { uniform: number('uniform', 0, 1 - 2 ** -53) }),
  }
}

const samplingCall = <T>(
  op: 'sample' | 'sampleProbabilities',
  logits: unknown,
  shape: unknown,
  options: unknown,
  read: (operands: Operands, rows: number, parameters: readonly SamplingParameters[]) => T,
): Call<T> => {
  const [rows, vocabulary] = checkShape('shape', shape)
  const data = checkMatrix('logits', logits, [rows, vocabulary])
  const listed = Array.isArray(options)
  if (listed && options.length !== rows) {
    throw new DroverError('E_SHAPE', 'a list of options has one entry per row', {
      field: 'options',
      found: options.length,
      expected: rows,
    })
  }
  const parameters = listed
    ? options.map((entry, row) => checkParameters(`options[${row}]`, entry, vocabulary))
    : new Array<SamplingParameters>(rows).fill(checkParameters('options', options, vocabulary))
  return {
    recipe: {
      key: `${op} ${vocabulary}`,
      rows,
      vocabulary,
      build: (b) => {
        const x = b.input('logits', 'outputs', vocabulary)
        b.output('out', op === 'sample' ? b.sample('sample', x, mostCandidates) : b.sampleProbabilities('out', x))
      },
    },
    *work(operands) {
      operands.write('logits', data)
      yield { ...plainStep(rows), sampling: parameters }
      return read(operands, rows, parameters)
    },
  }
}

const refuseRow = (row: number): never => {
  throw new DroverError('E_RANGE', 'there is nothing to draw', {
    field: `row ${row}`,
    found: 'logits that are NaN or +infinity, or none that are left by the mask',
  })
}

const readSamples = (operands: Operands, rows: number, parameters: readonly SamplingParameters[]): Sample[] => {
  const words = operands.readWords('out', rows)
  const floats = new Float32Array(words.buffer)
  const width = words.length / rows
  return parameters.map(({ logprobs }, row) => {
    const at = row * width
    const [token, , count] = words.subarray(at, at + 3) as unknown as [number, number, number]
    if (token === 0xffffffff) refuseRow(row)
    const topLogprobs = Array.from({ length: count }, (_, i) => ({
      token: words[at + 4 + 2 * i] as number,
      logprob: floats[at + 5 + 2 * i] as number,
    }))
    return { token, topLogprobs, ...(logprobs ? { logprob: floats[at + 1] as number } : {}) }
  })
}

/**
 * Draws a token per row. Order: repetition, frequency and presence penalties over `history`, bias, mask, temperature,
 * top-k, top-p, min-p, typical-p, draw; the draw depends on logits, seed and counter alone.
 * @param logits f32 [rows, vocabulary]
 * @param options for all rows, or one entry per row
 * @throws DroverError E_ARGUMENT, E_SHAPE; E_RANGE when nothing is left to draw
 */
export const sample = (
  logits: Float32Array,
  shape: Shape,
  options?: SampleOptions | readonly SampleOptions[],
): Sample[] => run(samplingCall('sample', logits, shape, options, readSamples))

/** {@link sample} off the event loop. */
export const sampleAsync = async (
  logits: Float32Array,
  shape: Shape,
  options?: SampleOptions | readonly SampleOptions[],
  rest?: AsyncOptions,
): Promise<Sample[]> => {
  const [signal, others] = takeSignal(rest)
  checkOptions('rest', others, [])
  return runAsync(samplingCall('sample', logits, shape, options, readSamples), signal)
}

const readProbabilities = (operands: Operands, rows: number): Float32Array => {
  const out = operands.read('out', rows)
  const cols = out.length / rows
  for (let row = 0; row < rows; row++) {
    if (!out.subarray(row * cols, (row + 1) * cols).some((probability) => probability > 0)) refuseRow(row)
  }
  return out
}

/**
 * The distributions f32 [rows, vocabulary] that {@link sample} draws from; each row sums to 1.
 * @throws DroverError as {@link sample}
 */
export const sampleProbabilities = (
  logits: Float32Array,
  shape: Shape,
  options?: SampleOptions | readonly SampleOptions[],
): Float32Array => run(samplingCall('sampleProbabilities', logits, shape, options, readProbabilities))

/** {@link sampleProbabilities} off the event loop. */
export const sampleProbabilitiesAsync = async (
  logits: Float32Array,
  shape: Shape,
  options?: SampleOptions | readonly SampleOptions[],
  rest?: AsyncOptions,
): Promise<Float32Array> => {
  const [signal, others] = takeSignal(rest)
  checkOptions('rest', others, [])
  return runAsync(samplingCall('sampleProbabilities', logits, shape, options, readProbabilities), signal)
}
