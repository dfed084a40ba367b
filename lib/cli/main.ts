#!/usr/bin/env node
/** The command line: finds the command, prints help, turns errors into one line and an exit code. */
import { DroverError } from '../errors.js'
import { version } from '../version.js'
import { type Command, helpOf, nearest, readArguments, usageError } from './command.js'
import { bench } from './commands/bench.js'
import { chat } from './commands/chat.js'
import { demo } from './commands/demo.js'
import { doctor } from './commands/doctor.js'
import { generate } from './commands/generate.js'
import { inspect } from './commands/inspect.js'
import { perplexity } from './commands/perplexity.js'
import { quantize } from './commands/quantize.js'
import { rank } from './commands/rank.js'
import { tokenize } from './commands/tokenize.js'
import { validate } from './commands/validate.js'
import { toJson } from './output.js'

const commands: readonly Command[] = [
  generate,
  chat,
  tokenize,
  inspect,
  perplexity,
  quantize,
  rank,
  validate,
  bench,
  doctor,
  demo,
]
const later = ['pull', 'serve']

const overview = (): string => {
  const rows = commands.map(
    ({ name, usage, summary }) => `  ${`${name} ${usage}`.padEnd(52)} ${summary.split('. ')[0]}`,
  )
  return `drover ${version}: language models and recommenders on CPUs\n\n${rows.join('\n')}\n\nEvery command has --help and --json.\n`
}

const run = async (args: string[]): Promise<void> => {
  const [name, ...rest] = args
  if (name === 'help' && rest.length > 0) return run([rest[0] as string, '--help'])
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    process.stdout.write(overview())
    if (name === undefined) process.exitCode = 1
    return
  }
  if (name === '--version' || name === '-v') {
    process.stdout.write(`${version}\n`)
    return
  }
  const command = commands.find((candidate) => candidate.name === name)
  if (command === undefined) {
    if (later.includes(name)) throw new DroverError('E_UNSUPPORTED', `drover ${name} is not built yet`, { field: name })
    const near = nearest(
      name,
      commands.map((candidate) => candidate.name),
    )
    throw usageError(
      `there is no command ${name}`,
      near === undefined ? 'see: drover --help' : `did you mean drover ${near}?`,
    )
  }
  const parsed = readArguments(command, rest)
  if (parsed.flag('help')) process.stdout.write(helpOf(command))
  else await command.run(parsed)
}

// A reader that has seen enough (`drover generate … | head -1`) ends the program quietly.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit() // with what has gone wrong so far
  throw error
})

run(process.argv.slice(2)).catch((error: unknown) => {
  process.exitCode = 1
  if (process.argv.includes('--json')) {
    const { code = 'E_INTERNAL', message, ...rest } = error as DroverError
    process.stderr.write(`${toJson({ error: { code, message, ...rest, cause: undefined } })}\n`)
  } else if (error instanceof DroverError) process.stderr.write(`drover: ${error.message}\n`)
  else process.stderr.write(`drover: ${(error as Error).stack ?? String(error)}\n`)
})
