/** A loaded language model: generation, logits, perplexity. */
import {
  checkBoolean,
  checkFunction,
  checkInteger,
  checkOneOf,
  checkOptions,
  checkPath,
  checkSignal,
  checkString,
  checkTokens,
} from '../check.js'
import { cpu, cpuDevice } from '../device/cpu.js'
import type { DeviceProgram, OpTime } from '../device/device.js'
import { DroverError, throwIfAborted } from '../errors.js'
import { metadataNumber } from '../format/gguf-metadata.js'
import { PagePool } from '../memory/pages.js'
import { type OpenedModel, openModel } from '../model/open.js'
import { planProgram } from '../program/plan.js'
import {
  type ActivationMode,
  activationModes,
  type KvType,
  kvTypeNames,
  kvTypes,
  type Program,
  pagePositions,
} from '../program/program.js'
import type { Step } from '../program/step.js'
import { type ChatMessage, type ChatOptions, encodeChat } from '../text/chat.js'
import { chatTemplateOf } from '../text/chat-template.js'
import { loadTokenizer, tokenizerFromGguf } from '../text/load.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { type GeneratedToken, type Generation, GenerationStream } from './generation.js'
import {
  checkDefaults,
  type GenerateOptions,
  mostTopLogprobs,
  planGeneration,
  type SamplingDefaults,
} from './options.js'
import { PenaltyWindow } from './penalties.js'
import { meanwhile, preparedFolder } from './preparing.js'
import { Scheduler, type Sequence } from './scheduler.js'
import { GeneratedText, textOfToken } from './text.js'
import { convertWeights, type WeightType, weightTypes } from './weights.js'

/** Options of {@link loadLanguageModel}. Unknown ones are refused. */
export interface LanguageModelOptions {
  /** Positions per sequence; default: the model's own, cut to what memory holds. */
  contextLength?: number
  /** Caps the workers of this model's steps. */
  threads?: number
  /** Bytes; E_MEMORY before more would be allocated. Mapped files do not count. */
  memoryBudget?: number
  /** Number format of the cache; default f16. */
  kvType?: KvType
  /**
   * 'auto': quantised weights multiply 8-bit activations, and the keys of a q8_0 cache 8-bit queries; 'f32': activations
   * are never rounded; 'bf16': what float weights multiply is rounded to bf16, and a model with others is refused.
   */
  activations?: ActivationMode
  /**
   * Default 'stored': as the files hold them. Any other type: converted while loading, through a temporary file; int8, fp8
   * and int4 need a folder in Hugging Face layout.
   */
  weights?: 'stored' | WeightType
  /** 'full' reads every weight and refuses NaN and infinite ones. */
  verify?: 'header' | 'full'
  /**
   * Folder for prepared weights, made if it is not there: the first load writes a file, later loads and other processes
   * map it and share its memory, which `memoryBudget` does not count. The folder must be this user's own; its files are
   * believed, but for `verify: 'full'`, which compares them with the model. Default: prepare in memory.
   */
  preparedCache?: string
  /** Sequences in flight at once; more wait. Default 8. */
  maxSequences?: number
  onProgress?: (fraction: number, what: string) => void
  signal?: AbortSignal
}

/** What was loaded, and what was chosen for this machine. */
export interface LanguageModelInfo {
  readonly architecture: string
  readonly parameters: number
  /** Number formats of the weights, by size. */
  readonly weightTypes: readonly string[]
  readonly contextLength: number
  readonly vocabularySize: number
  readonly maxSequences: number
  readonly kvType: KvType
  /** Kernel set in use. */
  readonly isa: string
  readonly threads: number
  readonly threadsReason: string
}

/** Rows of a step: long enough for GEMM to be bound by arithmetic, short enough for others to get their turn. */
const rowsPerStep = 512
/** Rows of logits of a step; a batch of this size is enough for perplexity to be bound by arithmetic. */
const outputsPerStep = 64
const mostLogits = 2 ** 31

const optionNames = [
  'contextLength',
  'threads',
  'memoryBudget',
  'kvType',
  'activations',
  'weights',
  'verify',
  'preparedCache',
  'maxSequences',
  'onProgress',
  'signal',
]

const checkedOptions = (input: LanguageModelOptions | undefined): LanguageModelOptions => {
  const options = checkOptions('options', input, optionNames) as LanguageModelOptions & Record<string, unknown>
  const choices: [string, readonly string[]][] = [
    ['weights', ['stored', ...weightTypes]],
    ['kvType', kvTypeNames],
    ['activations', activationModes],
    ['verify', ['header', 'full']],
  ]
  for (const [name, all] of choices) {
    if (options[name] !== undefined) checkOneOf(`options.${name}`, options[name], all)
  }
  const positive = (name: 'contextLength' | 'threads' | 'memoryBudget' | 'maxSequences', most: number): void => {
    if (options[name] !== undefined) checkInteger(`options.${name}`, options[name], 1, most)
  }
  positive('contextLength', 2 ** 24)
  positive('threads', 1024)
  positive('memoryBudget', Number.MAX_SAFE_INTEGER)
  positive('maxSequences', 512)
  if (options.preparedCache !== undefined) checkPath('options.preparedCache', options.preparedCache)
  if (options.signal !== undefined) checkSignal('options.signal', options.signal)
  if (options.onProgress !== undefined) checkFunction('options.onProgress', options.onProgress)
  return options
}

/** Sizes of a program that fits: the cache takes what the budget leaves, at most what all sequences could fill. */
const sizeProgram = (
  opened: OpenedModel,
  options: LanguageModelOptions,
): { program: Program; contextLength: number; maxSequences: number } => {
  const { kvType = 'f16', activations = 'auto', maxSequences = 8 } = options
  const { layout } = cpuDevice
  const wanted = options.contextLength ?? opened.config.contextLength
  const build = (pages: number, contextPages: number): Program =>
    opened.build(layout, {
      maxRows: rowsPerStep,
      maxOutputs: Math.max(outputsPerStep, maxSequences),
      maxSequences,
      maxPages: Math.min(2 ** 22, contextPages * maxSequences),
      kvType: kvTypes[kvType],
      kvPages: pages,
      activations,
      candidates: mostTopLogprobs,
    })
  const contextPages = Math.ceil(wanted / pagePositions)
  const probe = build(1, contextPages)
  const plan = planProgram(probe, layout)
  const scratch = scratchAllowance(options.threads ?? cpu().threads, opened.config.vocabulary)
  // A mapped file takes memory like any other, but is not counted against the budget.
  const { memoryBudget, preparedCache } = options
  const counted = memoryBudget === undefined || preparedCache === undefined
  const fixed = plan.arenaBytes + scratch + (counted ? plan.preparedBytes : 0)
  const left = memoryBudget === undefined ? Math.max(process.availableMemory() - fixed, 0) / 2 : memoryBudget - fixed
  const affordable = Math.floor(left / plan.kvBytes)
  const pages = Math.min(contextPages * maxSequences, Math.max(affordable, 1))
  const context = Math.min(wanted, pages * pagePositions)
  if ((options.contextLength !== undefined && context < wanted) || affordable < 1) {
    throw new DroverError('E_MEMORY', 'the cache does not fit', {
      field: options.contextLength === undefined ? 'options.memoryBudget' : 'options.contextLength',
      found: `${contextPages * plan.kvBytes} bytes for ${wanted} positions, beside ${fixed} for the rest`,
      expected: `at most ${Math.max(0, Math.floor(left))} bytes`,
      hint: 'ask for a shorter context, a smaller kvType or a larger memoryBudget',
    })
  }
  return { program: build(pages, contextPages), contextLength: context, maxSequences }
}

/** What workers need beside the arenas (GEMM tiles, attention tiles, sampling), generously. */
const scratchAllowance = (threads: number, vocabulary: number): number => threads * ((4 << 20) + vocabulary * 64)

const defaultsOf = (opened: OpenedModel): SamplingDefaults => {
  const { gguf, generation } = opened
  if (gguf !== undefined) {
    const value = (key: string): number | undefined => {
      const found = metadataNumber(gguf, `general.sampling.${key}`, Number.NaN)
      return Number.isNaN(found) ? undefined : found
    }
    const window = value('penalty_last_n')
    return checkDefaults(opened.path, {
      temperature: value('temp'),
      topK: value('top_k'),
      topP: value('top_p'),
      minP: value('min_p'),
      repetitionPenalty: value('penalty_repeat'),
      penaltyWindow: window === -1 ? undefined : window, // -1: all that the context holds
    })
  }
  const { doSample, temperature, topK, topP, minP, typicalP, repetitionPenalty } = generation
  const greedy = doSample === false
  return checkDefaults(opened.path, {
    temperature: greedy ? 0 : temperature,
    topK,
    topP,
    minP,
    typicalP,
    repetitionPenalty,
  })
}

/** Loads a .gguf file (the first of several when split) or a folder in Hugging Face layout. */
export const loadLanguageModel = async (path: string, input?: LanguageModelOptions): Promise<LanguageModel> => {
  checkString('path', path)
  const options = checkedOptions(input)
  const { signal, onProgress } = options
  throwIfAborted(signal, 'loading')
  const found = await openModel(path, { signal })
  const { weights = 'stored', threads } = options
  if (weights === 'stored') return loadOpened(found, options)
  const { opened, release } = await convertWeights(found, weights, {
    ...(threads === undefined ? {} : { threads }),
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress: (done: number) => onProgress(done / 2, 'converting weights') }),
  })
  try {
    const rest = onProgress && { onProgress: (done: number, what: string) => onProgress((1 + done) / 2, what) }
    return await loadOpened(opened, { ...options, ...rest }, release)
  } finally {
    await release()
  }
}

const loadOpened = async (
  opened: OpenedModel,
  options: LanguageModelOptions,
  release?: () => Promise<void>,
): Promise<LanguageModel> => {
  const { signal, onProgress } = options
  const { path } = opened
  const defaults = defaultsOf(opened)
  const { program, contextLength, maxSequences } = sizeProgram(opened, options)
  const stop = new AbortController() // ends the load of weights when the rest of the model is refused
  const loading = cpuDevice.load(program, opened.regions, {
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    ...(options.memoryBudget === undefined ? {} : { memoryBudget: options.memoryBudget }),
    verifyWeights: options.verify === 'full',
    ...(options.preparedCache === undefined ? {} : { preparedCache: await preparedFolder(options.preparedCache) }),
    ...(onProgress === undefined
      ? {}
      : { onProgress: (fraction: number) => onProgress(fraction, 'preparing weights') }),
    signal: signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]),
  })
  const { tokenizer, template, loaded } = await meanwhile(loading, stop, async () => ({
    tokenizer: opened.gguf === undefined ? await loadTokenizer(path) : tokenizerFromGguf(opened.gguf),
    template: await chatTemplateOf(opened),
  }))
  const machine = cpu()
  const info: LanguageModelInfo = {
    architecture: opened.architecture,
    parameters: opened.parameters,
    weightTypes: opened.weightTypes,
    contextLength,
    vocabularySize: opened.config.vocabulary,
    maxSequences,
    kvType: options.kvType ?? 'f16',
    isa: machine.isa,
    threads: Math.min(options.threads ?? machine.threads, machine.threads),
    threadsReason:
      options.threads !== undefined && options.threads <= machine.threads
        ? 'the caller asks for it'
        : machine.threadsReason,
  }
  return new LanguageModel({
    info,
    tokenizer,
    program,
    loaded,
    defaults,
    template,
    ends: endTokens(opened, tokenizer),
    release,
  })
}

/** generation_config.json may name more end tokens than the tokenizer knows of. */
const endTokens = (opened: OpenedModel, tokenizer: Tokenizer): number[] => [
  ...new Set([...tokenizer.endTokens, ...opened.generation.eosTokens]),
]

interface Parts {
  info: LanguageModelInfo
  tokenizer: Tokenizer
  program: Program
  loaded: DeviceProgram
  defaults: SamplingDefaults
  template: string | undefined
  ends: readonly number[]
  /** Removes what loading left on disk. */
  release: (() => Promise<void>) | undefined
}

/** A step of a generation, and the times of its ops. */
export interface ProfiledStep {
  readonly step: Step
  readonly times: readonly OpTime[]
}

/** A loaded model. Any number of calls may be in flight at once; `close()` ends them. */
export class LanguageModel implements AsyncDisposable {
  readonly info: LanguageModelInfo
  readonly tokenizer: Tokenizer
  readonly #parts: Parts
  readonly #scheduler: Scheduler
  readonly #opEnds: { logits: number; nll: number; sample: number }
  readonly #pages: PagePool
  #closing: Promise<void> | undefined

  /** @internal use {@link loadLanguageModel} */
  constructor(parts: Parts) {
    this.#parts = parts
    this.info = parts.info
    this.tokenizer = parts.tokenizer
    const { program } = parts
    const end = (name: string): number => program.ops.findIndex((op) => op.name === name) + 1
    this.#opEnds = { logits: end('logits'), nll: end('nll'), sample: end('sample') }
    this.#pages = new PagePool(program.kv?.pages ?? 0)
    const sample = program.outputs.get('sample') as number
    this.#scheduler = new Scheduler(
      parts.loaded,
      this.#pages,
      { maxRows: program.maxRows, maxSequences: parts.info.maxSequences },
      { sample, endOp: this.#opEnds.sample, sampleCols: program.tensors[sample]?.cols ?? 4 },
    )
  }

  /**
   * Continues a prompt. A string gets the model's BOS token and never parses special tokens; tokens are taken as they
   * are. Throws E_ARGUMENT, E_RANGE (prompt longer than the context), E_CLOSED.
   */
  generate(prompt: string | ArrayLike<number>, options?: GenerateOptions): Generation {
    this.#check()
    const tokens =
      typeof prompt === 'string' ? this.tokenizer.encode(prompt, { bos: true }) : this.#tokens('prompt', prompt)
    return this.#generate(Array.from(tokens), options)
  }

  /** Answers a conversation, rendered by the model's chat template. Throws E_UNSUPPORTED when it has none. */
  chat(messages: readonly ChatMessage[], options?: GenerateOptions & ChatOptions): Generation {
    this.#check()
    const { template } = this.#parts
    if (template === undefined) {
      throw new DroverError('E_UNSUPPORTED', 'the model has no chat template', {
        hint: 'use generate with a prompt of your own',
      })
    }
    if (typeof options !== 'object' || options === null) checkOptions('options', options, [])
    const { addGenerationPrompt = true, dateString, ...rest } = options ?? {}
    const chatOptions: ChatOptions = {
      addGenerationPrompt: checkBoolean('options.addGenerationPrompt', addGenerationPrompt),
      ...(dateString === undefined ? {} : { dateString: checkString('options.dateString', dateString) }),
    }
    return this.#generate(Array.from(encodeChat(this.tokenizer, template, messages, chatOptions)), rest)
  }

  /** Logits [rows, vocabulary] of every token or of the last. */
  async logits(
    tokens: ArrayLike<number>,
    options: { rows?: 'all' | 'last'; signal?: AbortSignal } = {},
  ): Promise<{ data: Float32Array; rows: number; vocabularySize: number }> {
    this.#check()
    const { rows = 'last', signal } = checkOptions('options', options, ['rows', 'signal']) as typeof options
    checkOneOf('options.rows', rows, ['all', 'last'])
    if (signal !== undefined) checkSignal('options.signal', signal)
    const copy = this.#tokens('tokens', tokens)
    const { vocabularySize } = this.info
    const wanted = rows === 'all' ? copy.length : 1
    if (wanted * vocabularySize * 4 > mostLogits) {
      throw new DroverError('E_RANGE', 'the logits of all rows are too large', {
        field: 'tokens',
        found: `${wanted} rows of ${vocabularySize}`,
        expected: `at most ${mostLogits} bytes`,
        hint: 'ask for fewer tokens, or for rows: "last"',
      })
    }
    const data = new Float32Array(wanted * vocabularySize)
    const logits = this.#parts.program.outputs.get('logits') as number
    const first = copy.length - wanted
    await this.#forward(copy, { endOp: this.#opEnds.logits, first, signal }, (row, count) => {
      data.set(this.#parts.loaded.read(logits, 0, count), (row - first) * vocabularySize)
    })
    return { data, rows: wanted, vocabularySize }
  }

  /**
   * Perplexity of a text: the mean negative log-likelihood of each token after the first of its window. Windows of
   * `window` tokens (default: the context) advance by `stride` (default: the window); tokens that an earlier window has
   * scored are context only.
   */
  async perplexity(
    tokens: ArrayLike<number>,
    options: { window?: number; stride?: number; onProgress?: (fraction: number) => void; signal?: AbortSignal } = {},
  ): Promise<{ perplexity: number; meanLoss: number; tokens: number }> {
    this.#check()
    const checked = checkOptions('options', options, ['window', 'stride', 'onProgress', 'signal']) as typeof options
    if (checked.signal !== undefined) checkSignal('options.signal', checked.signal)
    if (checked.onProgress !== undefined) checkFunction('options.onProgress', checked.onProgress)
    const copy = this.#tokens('tokens', tokens, Number.MAX_SAFE_INTEGER)
    if (copy.length < 2)
      throw new DroverError('E_RANGE', 'perplexity needs at least two tokens', { field: 'tokens', found: copy.length })
    const { window = this.info.contextLength } = checked
    checkInteger('options.window', window, 2, this.info.contextLength)
    const { stride = window } = checked
    checkInteger('options.stride', stride, 1, window)
    const nll = this.#parts.program.outputs.get('nll') as number
    let sum = 0
    let count = 0
    let scored = 1 // the first token has nothing before it
    for (let start = 0; scored < copy.length; start += stride) {
      const part = copy.subarray(start, Math.min(start + window, copy.length))
      const targets = copy.subarray(start + 1, start + part.length)
      // Row r predicts token start + r + 1; rows whose target an earlier window has scored give context only.
      const first = Math.max(0, scored - 1 - start)
      await this.#forward(
        part.subarray(0, targets.length),
        { endOp: this.#opEnds.nll, first, targets, signal: checked.signal },
        (_, rows) => {
          for (const loss of this.#parts.loaded.read(nll, 0, rows)) sum += loss
          count += rows
        },
      )
      scored = start + part.length
      // A window that begins where the last one ended has no token before its first: that one is not scored.
      if (stride === window) scored++
      checked.onProgress?.(Math.min(1, scored / copy.length))
    }
    const meanLoss = sum / count
    return { perplexity: Math.exp(meanLoss), meanLoss, tokens: count }
  }

  /** @internal Measures every step of a generation and hands it to `take`; undefined: no more. */
  profileSteps(take: ((profiled: ProfiledStep) => void) | undefined): void {
    this.#check()
    const { loaded } = this.#parts
    this.#scheduler.onStep = take === undefined ? undefined : (step) => take({ step, times: loaded.profile() })
  }

  /** @internal */
  get program(): Program {
    return this.#parts.program
  }

  /** Bytes by arena; mapped files apart. */
  memoryUsage(): Record<string, number> {
    this.#check()
    return this.#parts.loaded.memoryUsage()
  }

  /** Ends what is in flight with E_CLOSED and frees everything. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    await this.#scheduler.close(new DroverError('E_CLOSED', 'the model was closed while this was running'))
    await this.#parts.loaded.close()
    await this.#parts.release?.()
  }

  #check(): void {
    if (this.#closing !== undefined) throw new DroverError('E_CLOSED', 'the model has been closed')
  }

  /** A checked copy of the caller's tokens. */
  #tokens(name: string, input: ArrayLike<number>, most = this.info.contextLength): Int32Array {
    return checkTokens(name, input, this.info.vocabularySize, most)
  }

  #generate(tokens: number[], options: GenerateOptions | undefined): Generation {
    const { contextLength, vocabularySize } = this.info
    const { defaults, ends } = this.#parts
    if (tokens.length === 0) throw new DroverError('E_RANGE', 'the prompt has no tokens', { field: 'prompt', found: 0 })
    if (tokens.length > contextLength) {
      throw new DroverError('E_RANGE', 'the prompt is longer than the context', {
        field: 'prompt',
        found: tokens.length,
        expected: `at most ${contextLength}`,
      })
    }
    const plan = planGeneration(options, defaults, vocabularySize, ends, contextLength - tokens.length)
    const promptTokens = tokens.length
    const out = new GenerationStream(new GeneratedText(this.tokenizer, tokens), plan.stop, promptTokens)
    const { sampling, signal } = plan
    const penalties = new PenaltyWindow(tokens, plan.penaltyWindow)
    if (plan.maxTokens === 0 || signal?.aborted) {
      out.finish(signal?.aborted ? 'aborted' : 'length')
      return out
    }
    const sequence: Sequence = {
      tokens,
      cached: 0,
      pages: [],
      sampling: () => ({
        ...sampling,
        counter: tokens.length - promptTokens,
        history: penalties.counts(),
      }),
      started: (cachedTokens) => out.started(cachedTokens),
      drawn: ({ token, logprob, top }) => {
        if (plan.stopTokens.has(token)) {
          end('stop')
          return true
        }
        const item: Omit<GeneratedToken, 'text'> = { token }
        if (plan.logprobs) item.logprob = logprob
        if (sampling.topLogprobs > 0)
          item.topLogprobs = top.map((candidate) => ({
            ...candidate,
            text: textOfToken(this.tokenizer, candidate.token),
          }))
        if (out.push(item)) {
          end('stop', true)
          return true
        }
        if (tokens.length - promptTokens < plan.maxTokens) return false
        end('length')
        return true
      },
      failed: (error) => {
        signal?.removeEventListener('abort', abort)
        out.fail(error)
      },
    }
    const end = (reason: 'stop' | 'length' | 'aborted', stopped = false): void => {
      signal?.removeEventListener('abort', abort)
      out.finish(reason, stopped)
    }
    const abort = (): void => {
      end('aborted')
      this.#scheduler.cancel(sequence)
    }
    out.onCancel = abort
    signal?.addEventListener('abort', abort, { once: true })
    this.#scheduler.add(sequence)
    return out
  }

  /** Runs tokens through the model outside of any generation; `take(row, rows)` reads each portion of output rows. */
  #forward(
    tokens: Int32Array,
    options: { endOp: number; first: number; targets?: Int32Array; signal: AbortSignal | undefined },
    take: (row: number, rows: number) => void,
  ): Promise<void> {
    const { endOp, first, targets, signal } = options
    const { program } = this.#parts
    return this.#scheduler.exclusive(async ({ pages, run }) => {
      const table = pages(tokens.length)
      for (let row = 0; row < tokens.length; ) {
        // Rows before the first wanted one need no output; behind it the room for outputs bounds the portion.
        const rows =
          row < first ? Math.min(program.maxRows, first - row) : Math.min(program.maxOutputs, tokens.length - row)
        const outputs = row < first ? 0 : rows
        await run({
          tokens: tokens.subarray(row, row + rows),
          positions: Int32Array.from({ length: rows }, (_, i) => row + i),
          sequences: [{ rows, cacheStart: row, pages: table }],
          outputRows: Int32Array.from({ length: outputs }, (_, i) => i),
          ...(targets === undefined ? {} : { targets: targets.subarray(row, row + outputs) }),
          endOp,
        })
        if (outputs > 0) take(row, outputs)
        row += rows
      }
    }, signal)
  }
}
