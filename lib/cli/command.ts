/** What a command is, and how its arguments are read. */
import { type ParseArgsConfig, parseArgs } from 'node:util'
import { DroverError } from '../errors.js'

/** One option, as its help shows it. */
export interface Option {
  type: 'string' | 'boolean'
  short?: string
  /** What stands for the value in the help. */
  value?: string
  help: string
}

export interface Arguments {
  positionals: string[]
  text(name: string): string | undefined
  flag(name: string): boolean
  /** A number in [minimum, maximum]; E_ARGUMENT otherwise. */
  number(name: string, minimum?: number, maximum?: number): number | undefined
  integer(name: string, minimum?: number, maximum?: number): number | undefined
}

export interface Command {
  name: string
  /** Positional arguments, as in `MODEL [TEXT]`. */
  usage: string
  summary: string
  options: Record<string, Option>
  /** Fewest and most positional arguments. */
  positionals: [number, number]
  run(args: Arguments): Promise<void>
}

export const commonOptions: Record<string, Option> = {
  json: { type: 'boolean', help: 'write JSON instead of text' },
  help: { type: 'boolean', short: 'h', help: 'show this help' },
}

const distance = (a: string, b: string): number => {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1))
    }
    row = next
  }
  return row[b.length] as number
}

/** The name most like `wrong`, for error messages. */
export const nearest = (wrong: string, names: readonly string[]): string | undefined =>
  names
    .map((name) => ({ name, far: distance(wrong, name) }))
    .sort((a, b) => a.far - b.far)
    // Something must agree: two letters are within two changes of any short name.
    .find(({ far, name }) => far <= Math.max(2, name.length / 2) && far < Math.max(wrong.length, name.length))?.name

export const usageError = (what: string, hint: string): DroverError => new DroverError('E_ARGUMENT', what, { hint })

/** Reads a command's arguments. Throws E_ARGUMENT with the nearest right name. */
export const readArguments = (command: Command, args: string[]): Arguments => {
  const options = { ...command.options, ...commonOptions }
  const help = `see: drover ${command.name} --help`
  let parsed: ReturnType<typeof parseArgs>
  try {
    const config: ParseArgsConfig = {
      args,
      allowPositionals: true,
      options: Object.fromEntries(
        Object.entries(options).map(([name, { type, short }]) => [
          name,
          short === undefined ? { type } : { type, short },
        ]),
      ),
    }
    parsed = parseArgs(config)
  } catch (error) {
    const wrong = /'(-{1,2}[^' ]*)/.exec((error as Error).message)?.[1]
    const near = wrong === undefined ? undefined : nearest(wrong.replace(/^-+/, ''), Object.keys(options))
    const [reason = '', ...rest] = (error as Error).message.split(/\.\s/)
    const unknown = (error as NodeJS.ErrnoException).code === 'ERR_PARSE_ARGS_UNKNOWN_OPTION'
    if (!unknown && rest.length > 0 && wrong !== undefined)
      throw usageError(reason, `a value that starts with - is written --name=-value; ${help}`)
    throw usageError(
      unknown ? `${command.name} has no option ${wrong}` : reason,
      unknown && near !== undefined ? `did you mean --${near}? ${help}` : help,
    )
  }
  const { values, positionals } = parsed
  const [fewest, most] = command.positionals
  if (!values['help'] && (positionals.length < fewest || positionals.length > most)) {
    throw usageError(`${command.name} takes: ${command.usage || 'no arguments'}`, help)
  }
  const text = (name: string): string | undefined => values[name] as string | undefined
  const number = (
    name: string,
    minimum = Number.NEGATIVE_INFINITY,
    maximum = Number.POSITIVE_INFINITY,
    whole = false,
  ): number | undefined => {
    const given = text(name)
    if (given === undefined) return undefined
    const value = Number(given)
    if (given.trim() !== '' && value >= minimum && value <= maximum && (!whole || Number.isInteger(value))) return value
    const from = minimum > Number.NEGATIVE_INFINITY ? ` from ${minimum}` : ''
    const to = maximum < Number.POSITIVE_INFINITY ? ` to ${maximum}` : from && ' up'
    throw usageError(`--${name} is not ${whole ? 'a whole number' : 'a number'}${from}${to}: ${given}`, help)
  }
  return {
    positionals,
    text,
    flag: (name) => values[name] === true,
    number,
    integer: (name, minimum, maximum) => number(name, minimum, maximum, true),
  }
}

export const helpOf = (command: Command): string => {
  const lines = Object.entries({ ...command.options, ...commonOptions }).map(([name, { short, value, help, type }]) => {
    const left = `${short === undefined ? '    ' : `-${short}, `}--${name}${type === 'string' ? ` ${value ?? 'VALUE'}` : ''}`
    return `  ${left.padEnd(30)} ${help}`
  })
  return `drover ${command.name} ${command.usage}\n\n${command.summary}\n\n${lines.join('\n')}\n`
}
