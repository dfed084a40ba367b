/** `drover tokenize`: text to tokens and back. */
import { readFile } from 'node:fs/promises'
import { DroverError } from '../../errors.js'
import { loadTokenizer } from '../../text/load.js'
import { decodeUtf8 } from '../../text/vocabulary.js'
import { type Command, usageError } from '../command.js'
import { json, line } from '../output.js'

export const tokenize: Command = {
  name: 'tokenize',
  usage: 'MODEL [TEXT | --file FILE | --decode IDS]',
  summary: 'Text as tokens, or tokens as text. MODEL may also be a tokenizer file.',
  options: {
    file: { type: 'string', short: 'f', value: 'FILE', help: 'the text is in a file' },
    decode: {
      type: 'string',
      short: 'd',
      value: 'IDS',
      help: 'token ids, separated by commas or spaces, back to text',
    },
    bos: { type: 'boolean', help: 'with the token that starts a text' },
    special: { type: 'boolean', help: 'parse (or show) special tokens' },
  },
  positionals: [1, 2],
  run: async (args) => {
    const [path, given] = args.positionals as [string, string?]
    const ids = args.text('decode')
    const file = args.text('file')
    if ([given, ids, file].filter((source) => source !== undefined).length !== 1)
      throw usageError('one text is needed', 'give TEXT, --file or --decode')
    const tokenizer = await loadTokenizer(path)
    if (ids !== undefined) {
      const tokens = ids
        .split(/[\s,]+/)
        .filter(Boolean)
        .map(Number)
      const text = tokenizer.decode(tokens, { special: args.flag('special') })
      if (args.flag('json')) json({ text })
      else line(text)
      return
    }
    const text =
      given ??
      (await readFile(file as string, 'utf8').catch((cause: unknown) => {
        throw new DroverError('E_IO', 'the text cannot be read', { file: file as string, cause })
      }))
    const tokens = tokenizer.encode(text, { bos: args.flag('bos'), parseSpecial: args.flag('special') })
    const names = new Map([...tokenizer.specialTokens].map(([name, id]) => [id, name]))
    const pieces = Array.from(tokens, (token) => names.get(token) ?? decodeUtf8(tokenizer.tokenBytes(token)))
    if (args.flag('json')) json({ tokens: [...tokens], pieces, count: tokens.length })
    else {
      for (const [i, token] of tokens.entries()) line(`${String(token).padStart(8)}  ${JSON.stringify(pieces[i])}`)
      line(`${tokens.length} tokens`)
    }
  },
}
