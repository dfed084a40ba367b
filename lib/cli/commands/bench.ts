/** `drover bench`: how fast a model runs here, and what the time goes to. */
import { writeFile } from 'node:fs/promises'
import { cpu, cpuDevice } from '../../device/cpu.js'
import { betterLimits, type Limits, measureLimits } from '../../device/limits.js'
import { DroverError } from '../../errors.js'
import type { LanguageModel, ProfiledStep } from '../../generate/model.js'
import type { Command } from '../command.js'
import { loadFrom, modelOptions, speeds } from '../load.js'
import { json, line, table } from '../output.js'
import { type Summary, traceOf } from '../trace.js'
import { model260K } from './demo.js'

const median = (values: number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] as number

interface Profile extends Summary {
  file: string
  steps: number
  limits: Limits
}

const write = (file: string, text: string): Promise<void> =>
  writeFile(file, text).catch((cause: unknown) => {
    throw new DroverError('E_IO', 'the trace cannot be written', { file, cause })
  })

/** Runs one generation with every op measured, between two measurements of the machine, and writes its trace. */
const profileTo = async (
  file: string,
  model: LanguageModel,
  generate: () => Promise<unknown>,
  facts: Record<string, unknown>,
): Promise<Profile> => {
  const { threads } = model.info
  const before = await measureLimits(threads)
  const steps: ProfiledStep[] = []
  model.profileSteps((step) => steps.push(step))
  await generate()
  model.profileSteps(undefined)
  const limits = betterLimits(before, await measureLimits(threads))
  const machine = { limits, lastCacheBytes: cpu().l3Bytes }
  const { trace, ...summary } = traceOf(steps, model.program, cpuDevice.layout, machine, facts)
  await write(file, `${JSON.stringify(trace)}\n`)
  return { file, steps: steps.length, limits, ...summary }
}

const percent = (value: number): string => `${(value * 100).toFixed(1)} %`

const profileLines = ({ file, steps, stepsMs, readsMemory, ops }: Profile): string =>
  [
    '',
    `${steps} steps, ${stepsMs.toFixed(1)} ms in ops; trace for Perfetto: ${file}`,
    ...(readsMemory ? [] : ['the model fits the last cache: limits are those of arithmetic alone']),
    '',
    table([
      ['op', 'calls', 'ms', 'of the time', 'of the limit', 'lost in barriers'],
      ...ops.map(({ op, calls, ms, shareOfTime, shareOfLimit, lostInBarriers }) => [
        op,
        String(calls),
        ms.toFixed(2),
        percent(shareOfTime),
        percent(shareOfLimit),
        percent(lostInBarriers),
      ]),
    ]),
  ].join('\n')

export const bench: Command = {
  name: 'bench',
  usage: '[MODEL]',
  summary:
    'Speed of a model on this machine. Prompt, generation, time to the first token: medians of several rounds. Without MODEL: the model of the demo.',
  options: {
    prompt: { type: 'string', value: 'N', help: 'tokens of the prompt; default 512' },
    generate: { type: 'string', value: 'N', help: 'tokens to write; default 64' },
    rounds: { type: 'string', value: 'N', help: 'default 3' },
    profile: { type: 'string', value: 'FILE', help: 'one more round, each op measured: a trace that Perfetto opens' },
    ...modelOptions,
  },
  positionals: [0, 1],
  run: async (args) => {
    const [path = model260K] = args.positionals
    const most = args.integer('rounds', 1, 1000) ?? 3
    const file = args.text('profile')
    if (file !== undefined) await write(file, '') // refused now, not when all has been measured
    const started = performance.now()
    const model = await loadFrom(path, args)
    const loadMs = performance.now() - started
    try {
      const { contextLength, vocabularySize, isa, threads } = model.info
      const written = args.integer('generate', 2, contextLength - 1) ?? Math.min(64, contextLength >> 1)
      const length = args.integer('prompt', 1, contextLength - written) ?? Math.min(512, contextLength - written)
      const run = (round: number) => {
        // Other tokens each time: a prompt that the cache holds would not be computed.
        const prompt = Array.from({ length }, (_, i) => (i * 7919 + round * 104729 + 3) % vocabularySize)
        return model.generate(prompt, { maxTokens: written, temperature: 0, stopTokens: [] }).result()
      }
      const rounds: ReturnType<typeof speeds>[] = []
      for (let round = 0; round < most; round++) rounds.push(speeds(await run(round)))
      const facts = { model: path, isa, threads, promptTokens: length, generatedTokens: written }
      const profile = file === undefined ? undefined : await profileTo(file, model, () => run(most), facts)
      const report = {
        ...facts,
        loadMs,
        promptPerSecond: median(rounds.map((round) => round.promptPerSecond)),
        generationPerSecond: median(rounds.map((round) => round.generationPerSecond ?? 0)),
        firstTokenMs: median(rounds.map((round) => round.firstTokenMs)),
        ...(profile === undefined ? {} : { profile }),
      }
      if (args.flag('json')) json(report)
      else {
        line(
          table([
            ['instruction set', `${isa}, ${threads} threads`],
            ['load', `${loadMs.toFixed(0)} ms`],
            ['prompt', `${report.promptPerSecond.toFixed(1)} tokens/s (${length} tokens)`],
            ['generation', `${report.generationPerSecond.toFixed(1)} tokens/s (${written} tokens)`],
            ['first token', `${report.firstTokenMs.toFixed(1)} ms`],
          ]),
        )
        if (profile !== undefined) line(profileLines(profile))
      }
    } finally {
      await model.close()
    }
  },
}
