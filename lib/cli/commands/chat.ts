import { createInterface } from 'node:readline'
import type { ChatMessage } from '../../text/chat.js'
import type { Command } from '../command.js'
import { loadFrom, modelOptions, samplingFrom, samplingOptions } from '../load.js'
import { json, line, note, write } from '../output.js'

const commands = '/clear forgets the conversation, /exit ends, Ctrl-C stops a reply.'

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
    let reply: AbortController | undefined
    // Ctrl-C: ends the reply while one is written, the program otherwise.
    const interrupt = (): void => {
      if (reply !== undefined) reply.abort()
      else lines.close()
    }
    lines.on('SIGINT', interrupt)
    process.on('SIGINT', interrupt)
    try {
      if (terminal) note(commands)
      lines.prompt()
      for await (const input of lines) {
        const text = input.trim()
        if (text === '/exit') break
        if (text === '/help') note(commands)
        else if (text === '/clear') messages = [...start]
        else if (text !== '') {
          messages.push({ role: 'user', content: text })
          reply = new AbortController()
          const generation = model.chat(messages, { ...options, signal: reply.signal })
          for await (const item of generation) if (!args.flag('json')) write(item.text)
          const result = await generation.result()
          reply = undefined
          if (args.flag('json')) json({ text: result.text, finishReason: result.finishReason, usage: result.usage })
          else line()
          messages.push({ role: 'assistant', content: result.text })
        }
        lines.prompt()
      }
    } finally {
      process.removeListener('SIGINT', interrupt)
      lines.close()
      await model.close()
    }
  },
}
