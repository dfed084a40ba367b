/** `drover inspect`: what is in a model file, and what a model takes in memory. */
import { readdir } from 'node:fs/promises'
import { extname } from 'node:path'
import { cpuDevice } from '../../device/cpu.js'
import { DroverError } from '../../errors.js'
import type { GgufValue } from '../../format/gguf.js'
import { isRecommender } from '../../model/dlrm-config.js'
import type { LlamaConfig } from '../../model/llama.js'
import { type OpenedModel, openConfig, openDescription, openModel } from '../../model/open.js'
import { isRecommenderFolder } from '../../model/open-recommender.js'
import { describePlan, type MemoryPlan } from '../../model/plan.js'
import { disassemble } from '../../program/disassemble.js'
import { planProgram } from '../../program/plan.js'
import { type KvType, kvTypeNames, kvTypes } from '../../program/program.js'
import { type DTypeName, dtypes } from '../../tensor.js'
import type { Command } from '../command.js'
import { bytes, count, json, line, table } from '../output.js'
import { inspectRecommender } from './inspect-recommender.js'

const shown = (value: GgufValue): unknown => (typeof value === 'object' ? `[${value.length} ${value.type}]` : value)

/** A config.json, or a folder that holds no weights beside it, gives a plan of the config alone. */
const openEither = async (path: string): Promise<{ opened?: OpenedModel; config: LlamaConfig }> => {
  const names = await readdir(path).catch(() => undefined)
  const alone = names === undefined ? extname(path) === '.json' : !names.some((name) => /\.safetensors\b/.test(name))
  if (alone) {
    const { config } = await openDescription(path)
    if (isRecommender(config)) {
      throw new DroverError('E_UNSUPPORTED', 'a recommender is not planned from its config alone', {
        file: path,
        hint: 'give the folder with its weights: which formats they have is not in the config',
      })
    }
    return { config: await openConfig(path) }
  }
  const opened = await openModel(path)
  return { opened, config: opened.config }
}

const planLines = (plan: MemoryPlan): string =>
  table([
    ['parameters', count(plan.parameters)],
    ['weights', `${bytes(plan.preparedBytes)} as ${plan.weightType}`],
    [
      'KV cache',
      `${bytes(plan.kvBytes)} as ${plan.kvType}: ${plan.sequences} × ${plan.contextLength} positions of ${bytes(plan.kvBytesPerPosition)}`,
    ],
    ['activations', `${bytes(plan.arenaBytes)} (${bytes(plan.unsharedBytes)} without sharing)`],
    ['total', bytes(plan.totalBytes)],
    ['ops', String(plan.ops)],
  ])

export const inspect: Command = {
  name: 'inspect',
  usage: 'MODEL',
  summary:
    'What a model file or folder holds, and what it takes in memory. A config.json of a language model alone, or its folder, gives the plan.',
  options: {
    context: { type: 'string', value: 'N', help: 'plan for this many positions; default: the model’s own' },
    sequences: { type: 'string', value: 'N', help: 'plan for this many sequences; default 1' },
    kv: { type: 'string', value: 'TYPE', help: 'cache of f32, f16 (default), bf16, q8_0 or fp8' },
    type: {
      type: 'string',
      value: 'TYPE',
      help: 'number format of the weights in the plan; default: the file’s, else bf16',
    },
    tensors: { type: 'boolean', help: 'list the tensors' },
    program: { type: 'boolean', help: 'list the ops' },
  },
  positionals: [1, 1],
  run: async (args) => {
    const [path] = args.positionals as [string]
    if (await isRecommenderFolder(path)) return inspectRecommender(path, args)
    const { opened, config } = await openEither(path)
    const type = args.text('type') ?? opened?.weightTypes[0] ?? 'bf16'
    const kvType = args.text('kv') ?? 'f16'
    if (!Object.hasOwn(dtypes, type))
      throw new DroverError('E_ARGUMENT', 'no such number format', { field: '--type', found: type })
    if (!Object.hasOwn(kvTypes, kvType)) {
      throw new DroverError('E_ARGUMENT', 'no such cache', {
        field: '--kv',
        found: kvType,
        expected: kvTypeNames.join(', '),
      })
    }
    const { plan, program } = describePlan(cpuDevice.layout, config, {
      contextLength: args.integer('context', 1, 2 ** 24) ?? config.contextLength,
      sequences: args.integer('sequences', 1, 4096) ?? 1,
      kvType: kvType as KvType,
      weightType: type as DTypeName,
      maxRows: 512,
    })
    const { ropeFrequencies, file: _, ...shape } = config
    const tensors = opened?.tensors ?? []
    const listing = (): string => disassemble(program, cpuDevice.layout, planProgram(program, cpuDevice.layout))
    if (args.flag('json')) {
      json({
        path,
        config: { ...shape, rotated: ropeFrequencies.length * 2 },
        ...(opened === undefined
          ? {}
          : { parameters: opened.parameters, weightTypes: opened.weightTypes, weightBytes: opened.weightBytes }),
        ...(opened?.gguf === undefined
          ? {}
          : { metadata: Object.fromEntries([...opened.gguf.metadata].map(([key, value]) => [key, shown(value)])) }),
        ...(args.flag('tensors') ? { tensors } : {}),
        plan,
        ...(args.flag('program') ? { program: listing().trimEnd().split('\n') } : {}),
      })
      return
    }
    line(table(Object.entries(shape).map(([key, value]) => [key, String(value)])))
    if (opened !== undefined) {
      line()
      line(
        table([
          ['parameters', count(opened.parameters)],
          ['weights', `${bytes(opened.weightBytes)}: ${opened.weightTypes.join(', ')}`],
        ]),
      )
      if (opened.gguf !== undefined) {
        line()
        line(
          table(
            [...opened.gguf.metadata].map(([key, value]) => [
              key,
              String(shown(value)).replaceAll('\n', '\\n').slice(0, 100),
            ]),
          ),
        )
      }
      if (args.flag('tensors') && tensors.length > 0) {
        line()
        line(
          table(
            tensors.map(({ name, dtype, shape: dims, bytes: size }) => [
              name,
              dtype,
              `[${dims.join(', ')}]`,
              bytes(size),
            ]),
          ),
        )
      }
    }
    line()
    line(planLines(plan))
    if (args.flag('program')) {
      line()
      line(listing())
    }
  },
}
