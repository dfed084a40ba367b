/** `drover chat`: a conversation on the terminal, or over a pipe. */
import { createInterface } from 'node:readline'
import { DroverError } from '../../errors.js'
import type { ChatMessage } from '../../text/chat.js'
import type { Command } from '../command.js'
import { loadFrom, modelOptions, samplingFrom, samplingOptions } from '../load.js'
import { json, line, note, write } from '../output.js'

const commands = '/clear forgets the conversation, /exit or Ctrl-D ends, Ctrl-C stops a reply.'

export const chat: Command = {
  name: 'chat',
  usage: 'MODEL',
  summary: `A conversation with history. ${commands}`,
  options: {
    system: { type: 'string', value: 'TEXT', help: 'instructions for the model' },
    ...samplingOptions,
    ...modelOptions,
  },
  positionals: [1, 1],
  run: async (args) => {
    const [path] = args.positionals as [string]
    const options = samplingFrom(args)
    const model = await loadFrom(path, args)
    const system = args.text('system')
    const start: ChatMessage[] = system === undefined ? [] : [{ role: 'system', content: system }]
    let messages = [...start]
    const terminal = process.stdin.isTTY === true
    const lines = createInterface({ input: process.stdin, output: process.stderr, terminal, prompt: '> ' })
    const prompt = (): void => {
      if (terminal) lines.prompt()
    }
    let reply: AbortController | undefined
    let leaving = false
    // Ctrl-C: stops the reply; between replies the first one says how to leave, the second leaves.
    const interrupt = (): void => {
      if (reply !== undefined) reply.abort()
      else if (leaving || !terminal) lines.close()
      else {
        leaving = true
        note('\n(Ctrl-C again, Ctrl-D or /exit ends)')
        // Not lines.line = '': that would leave the cursor behind the old text.
        lines.write(null, { ctrl: true, name: 'e' })
        lines.write(null, { ctrl: true, name: 'u' })
        prompt()
      }
    }
    const answer = async (text: string): Promise<void> => {
      reply = new AbortController()
      try {
        const asked: ChatMessage[] = [...messages, { role: 'user', content: text }]
        const generation = model.chat(asked, { ...options, signal: reply.signal })
        for await (const item of generation) if (!args.flag('json')) write(item.text)
        const result = await generation.result()
        if (args.flag('json')) json({ text: result.text, finishReason: result.finishReason, usage: result.usage })
        else line()
        messages = [...asked, { role: 'assistant', content: result.text }]
      } catch (error) {
        // A message that does not fit need not cost the conversation; a script should hear of it by the exit code.
        const passing = error instanceof DroverError && ['E_RANGE', 'E_ARGUMENT'].includes(error.code)
        if (!terminal || !passing) throw error
        note(error.message)
      } finally {
        reply = undefined
      }
    }
    lines.on('SIGINT', interrupt)
    process.on('SIGINT', interrupt)
    try {
      if (terminal) note(commands)
      prompt()
      for await (const input of lines) {
        leaving = false
        const text = input.trim()
        if (text === '/exit') break
        if (text === '/help') note(commands)
        else if (text === '/clear') messages = [...start]
        else if (text !== '') await answer(text)
        prompt()
      }
    } finally {
      process.removeListener('SIGINT', interrupt)
      lines.close()
      await model.close()
    }
  },
}
