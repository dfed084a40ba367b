/** Help, and how wrong command lines are refused. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { fixture, root } from '../support.js'
import { drover, output, refused, storiesPath, withFolder, writeStories } from './run.js'

const commands = ['generate', 'chat', 'tokenize', 'inspect', 'perplexity', 'bench', 'doctor', 'demo']

test('the overview names every command; without a command it is no success', async () => {
  const overview = await output(['--help'])
  for (const command of commands) assert.match(overview, new RegExp(`^ {2}${command}\\b`, 'm'))
  assert.is(await output(['help']), overview)
  const nothing = await drover([])
  assert.is(nothing.out, overview)
  assert.is(nothing.code, 1)
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }
  assert.is(await output(['--version']), `${version}\n`)
})

test('every command has --help, which names --json', async () => {
  for (const command of commands) {
    const help = await output([command, '--help'])
    assert.ok(help.startsWith(`drover ${command} `), help)
    assert.match(help, /^ {6}--json +write JSON/m)
    assert.match(help, /^ {2}-h, --help +/m)
    assert.is(await output(['help', command]), help)
  }
  // Help comes before any complaint about the rest.
  assert.match(await output(['generate', '-h', '--tokens', 'many']), /^drover generate MODEL/)
})

test('unknown commands and options are refused with the nearest right one', async () => {
  await refused(['generat'], /^drover: E_ARGUMENT: there is no command generat; did you mean drover generate\?$/)
  await refused(['perplexety', 'x'], /did you mean drover perplexity\?$/)
  await refused(['xq'], /^drover: E_ARGUMENT: there is no command xq; see: drover --help$/)
  await refused(['help', 'inspekt'], /did you mean drover inspect\?$/)
  await refused(
    ['generate', storiesPath, '--promt', 'x'],
    /^drover: E_ARGUMENT: generate has no option --promt; did you mean --prompt\? see: drover generate --help$/,
  )
  await refused(['inspect', storiesPath, '--tensor'], /has no option --tensor; did you mean --tensors\?/)
  await refused(['demo', '-z'], /demo has no option -z; see: drover demo --help$/)
  await refused(['doctor', 'now'], /^drover: E_ARGUMENT: doctor takes: no arguments/)
  await refused(['generate'], /^drover: E_ARGUMENT: generate takes: MODEL -p TEXT/)
  await refused(['generate', storiesPath, 'Once', '-p', 'x'], /generate takes: MODEL/)
})

test('values of options are checked before a model is loaded', async () => {
  const generate = (...args: string[]) => ['generate', 'missing.gguf', '-p', 'x', ...args]
  await refused(generate('--tokens', 'many'), /E_ARGUMENT: --tokens is not a whole number from 0 up: many/)
  await refused(generate('--tokens', '1.5'), /--tokens is not a whole number from 0 up: 1\.5/)
  await refused(generate('--tokens='), /--tokens is not a whole number from 0 up/)
  await refused(generate('--top-p', '1.5'), /--top-p is not a number from 0 to 1: 1\.5/)
  await refused(generate('--presence-penalty', 'x'), /--presence-penalty is not a number: x/)
  await refused(generate('--presence-penalty', '-1'), /a value that starts with - is written --name=-value/)
  await refused(generate('--prompt-file', 'x'), /E_ARGUMENT: a prompt is needed; give -p TEXT or --prompt-file FILE/)
  await refused(['generate', 'missing.gguf'], /a prompt is needed/)
  await refused(['perplexity', 'missing.gguf'], /E_ARGUMENT: a text is needed; give --file FILE/)
  await refused(['perplexity', 'missing.gguf', '--file', 'x', '--window', '1'], /--window is not a whole number from 2/)
  await refused(['tokenize', 'missing.gguf'], /one text is needed/)
  await refused(['tokenize', 'missing.gguf', 'x', '--decode', '1'], /one text is needed/)
  await refused(['bench', 'missing.gguf', '--rounds', '0'], /--rounds is not a whole number from 1 to 1000: 0/)
  await refused(generate('--kv', 'f64'), /missing\.gguf|kvType/)
})

test('missing files are E_IO, in one line', async () => {
  await refused(['generate', 'missing.gguf', '-p', 'x'], /^drover: E_IO: .*file: missing\.gguf/)
  await refused(['chat', 'missing.gguf'], /^drover: E_IO: .*missing\.gguf/)
  await refused(['bench', 'missing.gguf'], /^drover: E_IO: .*missing\.gguf/)
  await refused(['inspect', 'missing.gguf'], /^drover: E_IO: .*missing\.gguf/)
  await refused(['inspect', 'missing.json'], /^drover: E_IO: .*no such file.*missing\.json/)
  await refused(['tokenize', 'missing.gguf', 'x'], /^drover: E_IO: .*missing\.gguf/)
  await refused(['tokenize', storiesPath, '--file', 'missing.txt'], /^drover: E_IO: .*missing\.txt/)
  await refused(['perplexity', storiesPath, '--file', 'missing.txt'], /^drover: E_IO: .*missing\.txt/)
  await refused(['generate', storiesPath, '--prompt-file', 'missing.txt'], /^drover: E_IO: .*missing\.txt/)
  // A folder is no model just because it is one.
  await refused(['generate', root, '-p', 'x'], /^drover: E_IO: .*no such file.*config\.json/)
})

test('with --json an error is one JSON object on stderr', async () => {
  const { code, out, err } = await drover(['inspect', 'missing.gguf', '--json'])
  assert.is(code, 1)
  assert.is(out, '')
  const { error } = JSON.parse(err) as { error: Record<string, string> }
  assert.is(error['code'], 'E_IO')
  assert.is(error['file'], 'missing.gguf')
  assert.match(error['message'] as string, /^E_IO: /)
  const wrong = await drover(['generate', storiesPath, '--jsn', '--json'])
  assert.is((JSON.parse(wrong.err) as { error: { code: string } }).error.code, 'E_ARGUMENT')
})

test('other architectures are refused by name', async () => {
  await refused(
    ['inspect', fixture('hf-configs/mllama')],
    /^drover: E_UNSUPPORTED: .*found: mllama, MllamaForConditionalGeneration; expected: llama/,
  )
  await withFolder(async (folder) => {
    for (const architecture of ['llama4', 'gemma3', 'qwen2moe']) {
      const path = join(folder, `${architecture}.gguf`)
      await writeStories(path, { 'general.architecture': { type: 'string', value: architecture } })
      const pattern = new RegExp(
        `^drover: E_UNSUPPORTED: .*general\\.architecture; found: ${architecture}; expected: llama`,
      )
      await refused(['inspect', path], pattern)
      await refused(['generate', path, '-p', 'x'], pattern)
    }
  })
})

test('commands that are not built yet are E_UNSUPPORTED', async () => {
  for (const command of ['serve', 'pull'])
    await refused([command, 'x', '--y'], new RegExp(`^drover: E_UNSUPPORTED: drover ${command} is not built yet`))
})

test.run()
