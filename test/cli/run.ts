/** Runs the command line as a program of its own, through pipes or through a pseudo-terminal. */
import { spawn, spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { readTensor } from '../../lib/format/file.js'
import { readGguf } from '../../lib/format/gguf.js'
import { type GgufEntry, type GgufTensor, writeGguf } from '../../lib/format/gguf-writer.js'
import { root } from '../support.js'

export const storiesPath = join(root, 'assets', 'stories260K.gguf')

export const main = ['--import', 'tsx', join(root, 'lib', 'cli', 'main.ts')]

export interface Ended {
  code: number | null
  signal: NodeJS.Signals | null
  out: string
  err: string
}

export interface RunOptions {
  input?: string
  env?: Record<string, string>
  /** Called with all that stdout has given so far. */
  onOutput?: (out: string, kill: (signal: NodeJS.Signals) => void, closeStdout: () => void) => void
}

/** Settles when the program has ended, however it ends; a program that hangs is killed and fails by its signal. */
export const drover = (args: readonly string[], options: RunOptions = {}): Promise<Ended> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [...main, ...args], { cwd: root, env: { ...process.env, ...options.env } })
    const ended: Ended = { code: null, signal: null, out: '', err: '' }
    const timer = setTimeout(() => child.kill('SIGKILL'), 400_000)
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      ended.out += text
      options.onOutput?.(
        ended.out,
        (signal) => child.kill(signal),
        () => child.stdout.destroy(),
      )
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      ended.err += text
    })
    child.stdin.on('error', () => {}) // the program may end before it has read everything
    child.stdin.end(options.input ?? '')
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      resolve({ ...ended, code, signal })
    })
  })

/** What a command wrote that must succeed. */
export const output = async (args: readonly string[], options?: RunOptions): Promise<string> => {
  const { code, signal, out, err } = await drover(args, options)
  assert.is(`${signal ?? code}`, '0', `drover ${args.join(' ')}: ${err}`)
  return out
}

export const jsonLines = (text: string): unknown[] =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))

/** The JSON that a command wrote that must succeed. */
export const outputJson = async <T>(args: readonly string[], options?: RunOptions): Promise<T> =>
  JSON.parse(await output([...args, '--json'], options)) as T

/** Fails unless the command fails with exit code 1, one line on stderr that `pattern` matches, and nothing on stdout. */
export const refused = async (args: readonly string[], pattern: RegExp, options?: RunOptions): Promise<void> => {
  const { code, signal, out, err } = await drover(args, options)
  const lines = err.split('\n').filter((line) => !/^loading \d+ %$/.test(line))
  assert.is(`${signal ?? code}`, '1', `drover ${args.join(' ')}: ${err}`)
  assert.is(out, '', `drover ${args.join(' ')}`)
  assert.is(lines.length, 2, `one line, not: ${err}`)
  assert.match(lines[0] as string, pattern)
}

/** A folder for files of one test; gone when the body has ended. */
export const withFolder = async <T>(body: (folder: string) => Promise<T>): Promise<T> => {
  const folder = mkdtempSync(join(tmpdir(), 'drover-cli-'))
  try {
    return await body(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** stories260K with other metadata: undefined leaves an entry out. */
export const writeStories = async (
  path: string,
  changes: Readonly<Record<string, GgufEntry | undefined>>,
): Promise<void> => {
  const file = await readGguf(storiesPath)
  const metadata = new Map<string, GgufEntry>()
  for (const [key, value] of file.metadata) {
    const type = file.metadataTypes.get(key)
    if (typeof value !== 'object') metadata.set(key, { type: type as 'u32', value })
    else if (value.type === 'string') {
      metadata.set(key, { type: 'string[]', value: [...value.values] })
    } else metadata.set(key, { type: `${value.type}[]`, value: value.values } as GgufEntry)
  }
  for (const [key, entry] of Object.entries(changes)) {
    if (entry === undefined) metadata.delete(key)
    else metadata.set(key, entry)
  }
  const tensors: GgufTensor[] = []
  for (const { name, dtype, shape, bytes, ...info } of file.tensors.values()) {
    const data = await readTensor(file, { name, dtype, shape, bytes, ...info })
    tensors.push({ name, type: dtype, shape, bytes, chunks: () => [data] })
  }
  await writeGguf(path, metadata, tensors)
}

/** stories260K with a chat template that any conversation fits. */
export const writeChatModel = (path: string): Promise<void> =>
  writeStories(path, {
    'tokenizer.chat_template': {
      type: 'string',
      value:
        "{{ bos_token }}{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}" +
        "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
    },
  })

/** Copies a fixture's folder without the files whose names match. */
export const copyWithout = (from: string, to: string, without: RegExp): void =>
  cpSync(from, to, { recursive: true, filter: (path) => !without.test(path) })

/** True where python3 can open pseudo-terminals. */
export const hasTerminal = spawnSync('python3', ['-c', 'import pty']).status === 0

export type Step = ['expect', string] | ['send', string]

const script = `
import json, os, pty, select, signal, sys, time
steps, command = json.loads(sys.argv[1]), sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.environ['TERM'] = 'xterm'
    os.execvp(command[0], command)
shown, seen, failed = b'', 0, None
def read(seconds):
    global shown
    if not select.select([terminal], [], [], seconds)[0]: return True
    try: part = os.read(terminal, 65536)
    except OSError: part = b''
    shown += part
    return part != b''
for kind, text in steps:
    data = text.encode()
    if kind == 'send':
        os.write(terminal, data)
        continue
    end = time.time() + 120
    while failed is None and data not in shown[seen:]:
        if not read(1) or time.time() > end: failed = text
    if failed is not None: break
    seen = shown.index(data, seen) + len(data)
end = time.time() + 30
while failed is None and time.time() < end and read(1): pass
done, status = os.waitpid(pid, os.WNOHANG)
if done == 0:
    if failed is None: time.sleep(1)
    done, status = os.waitpid(pid, os.WNOHANG)
if done == 0:
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
print(json.dumps({'shown': shown.decode('utf8', 'replace'), 'missing': failed, 'code': os.waitstatus_to_exitcode(status)}))
`

/** Types into the program as a person would: each text is waited for behind the last one. */
export const onTerminal = (args: readonly string[], steps: readonly Step[]): { code: number; shown: string } => {
  const { stdout, stderr } = spawnSync(
    'python3',
    ['-c', script, JSON.stringify(steps), process.execPath, ...main, ...args],
    { cwd: root, encoding: 'utf8', timeout: 900_000 },
  )
  assert.ok(stdout, stderr)
  const { shown, missing, code } = JSON.parse(stdout) as { shown: string; missing: string | null; code: number }
  assert.is(missing, null, `not shown: ${missing}; shown last: ${shown.slice(-2000)}`)
  return { code, shown }
}
