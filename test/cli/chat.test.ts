/** `drover chat`: history, Ctrl-C, and what ends it, through pipes and on a terminal. */
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { loadLanguageModel } from '../../lib/index.js'
import { drover, hasTerminal, jsonLines, onTerminal, refused, storiesPath, withFolder, writeChatModel } from './run.js'

interface Reply {
  text: string
  finishReason: string
  usage: { promptTokens: number; completionTokens: number }
}

const greedy = ['-t', '0', '-n', '24']
// Never ends by itself while a test waits.
const endless = ['--context', '100000', '-n', '90000', '--ignore-end']

const withChatModel = (body: (path: string) => Promise<void>): Promise<void> =>
  withFolder(async (folder) => {
    const path = join(folder, 'chat.gguf')
    await writeChatModel(path)
    await body(path)
  })

test('messages and replies are history, until /clear', async () => {
  await withChatModel(async (path) => {
    const model = await loadLanguageModel(path)
    const ask = async (...contents: string[]): Promise<Reply> => {
      const messages = contents.map((content, i) => ({ role: i % 2 === 0 ? 'user' : 'assistant', content }))
      const system = { role: 'system', content: 'Be kind.' }
      return model.chat([system, ...messages], { temperature: 0, maxTokens: 24 }).result()
    }
    const first = await ask('A cat sat.')
    const second = await ask('A cat sat.', first.text, 'And a dog?')
    const third = await ask('And a dog?')
    await model.close()
    assert.is.not(second.text, third.text, 'the history matters')
    const args = ['chat', path, '--system', 'Be kind.', ...greedy]
    const input = 'A cat sat.\n\n  And a dog?  \n/clear\nAnd a dog?\n/exit\nnever seen\n'
    const { code, out, err } = await drover([...args, '--json'], { input })
    assert.is(code, 0, err)
    assert.equal(
      (jsonLines(out) as Reply[]).map(({ text, usage }) => [text, usage.promptTokens]),
      [first, second, third].map(({ text, usage }) => [text, usage.promptTokens]),
    )
    const plain = await drover(args, { input })
    assert.is(plain.out, [first, second, third].map(({ text }) => `${text}\n`).join(''))
    assert.not.match(plain.err, /> |Ctrl-C/, 'no prompts on a pipe')
  })
})

test('the end of the input ends it; a message that does not fit is an error in a script', async () => {
  await withChatModel(async (path) => {
    const ended = await drover(['chat', path, ...greedy], { input: 'A cat sat.' })
    assert.is(ended.code, 0, ended.err)
    assert.ok(ended.out.length > 10)
    assert.is((await drover(['chat', path], { input: '' })).out, '')
    const long = await drover(['chat', path, '--context', '64', ...greedy], { input: `${'cat '.repeat(200)}\n` })
    assert.is(long.code, 1)
    assert.match(long.err, /^drover: E_RANGE: /m)
  })
  await refused(['chat', storiesPath], /^drover: E_UNSUPPORTED: the model has no chat template/, { input: 'Hi\n' })
})

test('an interrupt stops a reply, not the program, on a pipe too', async () => {
  await withChatModel(async (path) => {
    let interrupts = 0
    const { code, out, err } = await drover(['chat', path, '--seed', '1', ...endless], {
      input: 'A cat sat.\nAnd a dog?\n',
      onOutput: (text, kill) => {
        // Once in the first reply, once in the second, which begins on a new line behind what the first has written.
        if (interrupts === 0 && text.length > 40) kill('SIGINT')
        if (interrupts === 1 && text.length > 4000) kill('SIGINT')
        interrupts = text.length > 4000 ? 2 : text.length > 40 ? 1 : 0
      },
    })
    assert.is(code, 0, err)
    assert.ok(out.length > 4000)
  })
})

test('on a terminal: Ctrl-C stops a reply, the conversation goes on', async () => {
  if (!hasTerminal) return console.log('python3 is missing: not tried')
  await withChatModel(async (path) => {
    const { code, shown } = onTerminal(
      ['chat', path, '-s', '3', ...endless],
      [
        ['expect', 'loading '],
        ['expect', 'Ctrl-C stops a reply'],
        ['expect', '> '],
        ['send', 'Once upon a time there was a cat.\r'],
        ['expect', 'cat.'],
        ['expect', '\n'],
        ['expect', ' the '],
        ['send', '\u0003'],
        ['expect', '> '],
        ['send', 'And a dog?\r'],
        ['expect', 'dog?'],
        ['expect', '\n'],
        ['expect', ' the '],
        ['send', '\u0003'],
        ['expect', '> '],
        // Between replies the first Ctrl-C only says how to leave, and drops the line.
        ['send', 'half a li'],
        ['expect', 'half a li'],
        ['send', '\u0003'],
        ['expect', '/exit ends)'],
        ['expect', '> '],
        ['send', '/help\r'],
        ['expect', 'forgets the conversation'],
        ['expect', '> '],
        ['send', '\u0003'],
        ['expect', '/exit ends)'],
        ['expect', '> '],
        ['send', '\u0003'],
      ],
    )
    assert.is(code, 0, shown)
    assert.match(shown, /loading █/)
  })
})

test('on a terminal: a message that does not fit does not end the conversation', async () => {
  if (!hasTerminal) return console.log('python3 is missing: not tried')
  await withChatModel(async (path) => {
    const { code, shown } = onTerminal(
      ['chat', path, '--context', '64', ...greedy],
      [
        ['expect', '> '],
        ['send', `${'cat '.repeat(100)}\r`],
        ['expect', 'E_RANGE: '],
        ['expect', '> '],
        ['send', 'Hi\r'],
        ['expect', 'Hi'],
        ['expect', '\n'],
        ['expect', '> '],
        ['send', '\u0004'],
      ],
    )
    assert.is(code, 0, shown)
  })
})

test.run()
