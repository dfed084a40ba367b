/** Conversations as prompts: chat templates, rendered so that no message can forge a role or a special token. */
import { Template } from '@huggingface/jinja'
import { checkString } from '../check.js'
import { DroverError } from '../errors.js'
import type { Tokenizer } from './tokenizer.js'

/** One message of a conversation; which roles exist is up to the model's chat template. */
export interface ChatMessage {
  role: string
  content: string
}

/** What a chat template is told beside the messages. */
export interface ChatOptions {
  /** End with the header of an assistant message. Default true. */
  addGenerationPrompt?: boolean
  /** Today, for templates that tell the model; default: what the template chooses. */
  dateString?: string
}

const parsed = new Map<string, Template>()
const mostParsed = 16

const parse = (template: string): Template => {
  const known = parsed.get(template)
  if (known !== undefined) return known
  try {
    const made = new Template(template)
    if (parsed.size >= mostParsed) parsed.clear()
    parsed.set(template, made)
    return made
  } catch (cause) {
    throw new DroverError('E_FORMAT', 'the chat template cannot be parsed', {
      field: 'chat_template',
      found: String(cause),
      cause,
    })
  }
}

/** Renders a Jinja chat template with everything it may name. Throws E_FORMAT, or E_ARGUMENT when the template refuses. */
export const renderChat = (template: string, context: Record<string, unknown>): string => {
  const made = parse(template)
  try {
    return made.render(context)
  } catch (cause) {
    throw new DroverError('E_ARGUMENT', 'the chat template refuses the conversation', {
      field: 'messages',
      found: cause instanceof Error ? cause.message : String(cause),
      cause,
    })
  }
}

// Stand-ins for contents. The padding tells whether the template trims; none of this is in any template.
const open = '\u{f0000}'
const close = '\u{f0001}'
const padding = '\u2003'
const standIn = /(\u2003?)\u{f0000}(\d+)\u{f0001}(\u2003?)/u

const textOf = (tokenizer: Tokenizer, token: number | undefined): string => {
  for (const [text, id] of tokenizer.specialTokens) if (id === token) return text
  return ''
}

const checkMessages = (messages: readonly ChatMessage[]): ChatMessage[] => {
  if (!Array.isArray(messages) || messages.length === 0) {
    throw new DroverError('E_ARGUMENT', 'expected messages', { field: 'messages', found: messages })
  }
  return messages.map((message, i) => {
    const { role, content, ...rest } = message as ChatMessage & Record<string, unknown>
    // A role stands between special tokens: it may not bring any.
    if (typeof role !== 'string' || !/^[A-Za-z][\w-]{0,63}$/.test(role)) {
      throw new DroverError('E_ARGUMENT', 'expected a word as role', { field: `messages[${i}].role`, found: role })
    }
    if (typeof content !== 'string') {
      throw new DroverError('E_ARGUMENT', 'expected text as content', {
        field: `messages[${i}].content`,
        found: content,
      })
    }
    const other = Object.keys(rest)[0]
    if (other !== undefined) {
      throw new DroverError('E_UNSUPPORTED', 'messages have a role and a content; more is not built yet', {
        field: `messages[${i}].${other}`,
        found: other,
      })
    }
    return { role, content }
  })
}

/**
 * Tokens of a conversation. The template's own text may hold special tokens; contents are encoded as spans of their own,
 * in which nothing is special. Throws E_ARGUMENT, E_FORMAT, or E_UNSUPPORTED for a template that changes contents in
 * other ways than by trimming them.
 */
export const encodeChat = (
  tokenizer: Tokenizer,
  template: string,
  messages: readonly ChatMessage[],
  { addGenerationPrompt = true, dateString }: ChatOptions = {},
): Int32Array => {
  const checked = checkMessages(messages)
  // The date becomes part of the template's own text, where special tokens are parsed.
  if (dateString !== undefined && !/^[^<>|[\]{}]{0,64}$/.test(checkString('dateString', dateString))) {
    throw new DroverError('E_ARGUMENT', 'expected a date', { field: 'dateString', found: dateString })
  }
  const contextOf = (list: ChatMessage[]): Record<string, unknown> => ({
    messages: list,
    add_generation_prompt: addGenerationPrompt,
    bos_token: textOf(tokenizer, tokenizer.bos),
    eos_token: textOf(tokenizer, tokenizer.endTokens[0]),
    ...(dateString === undefined ? {} : { date_string: dateString }),
  })
  const masked = checked.map(({ role }, i) => ({ role, content: `${padding}${open}${i}${close}${padding}` }))
  let rest = renderChat(template, contextOf(masked))
  let whole = ''
  const spans: Int32Array[] = []
  for (let match = standIn.exec(rest); match !== null; match = standIn.exec(rest)) {
    const own = rest.slice(0, match.index)
    let content = checked[Number(match[2])]?.content ?? ''
    if (match[1] === '') content = content.trimStart()
    if (match[3] === '') content = content.trimEnd()
    spans.push(tokenizer.encode(own, { parseSpecial: true }), tokenizer.encode(content))
    whole += own + content
    rest = rest.slice(match.index + match[0].length)
  }
  spans.push(tokenizer.encode(rest, { parseSpecial: true }))
  if (whole + rest !== renderChat(template, contextOf(checked))) {
    throw new DroverError('E_UNSUPPORTED', 'the chat template changes what messages say', {
      field: 'chat_template',
      hint: 'render the conversation yourself and use generate with tokens',
    })
  }
  const tokens = new Int32Array(spans.reduce((length, span) => length + span.length, 0))
  let at = 0
  for (const span of spans) {
    tokens.set(span, at)
    at += span.length
  }
  return tokens
}
