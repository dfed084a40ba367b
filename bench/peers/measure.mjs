// What all engines are asked to do, as one protocol over an adapter, so that none is timed by other rules:
//   load        process start of the engine (its import included) to the first token of a 16-token prompt
//   prompt-P    a prompt of P tokens: tokens per second up to its first token
//   decode-C    the tokens written behind a context of C tokens, per second
//   batch-N     N prompts of 16 tokens at once: tokens per second from the moment all have begun to write
//
// adapter: { open({path, threads, sequences, contextLength}): Promise<session>, name, version }
// session: { tokens(prompt: number[], count): AsyncIterable<number>, close(), info }
const seconds = () => Number(process.hrtime.bigint()) / 1e9

/** Token ids that no prefix cache has seen: a different sequence for every `salt`. */
const promptOf = (length, vocabulary, salt) => {
  let state = (salt * 2654435761 + 12345) >>> 0
  return Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return 300 + (state % (vocabulary - 1000))
  })
}

const timeline = async (session, prompt, count) => {
  const start = seconds()
  const times = []
  for await (const _ of session.tokens(prompt, count)) {
    times.push(seconds() - start)
    if (times.length === count) break
  }
  return { start, times }
}

export const measure = async (adapter, task) => {
  const { path, threads, vocabulary, contextLength, sequences, decodeTokens, want } = task
  const loadStart = seconds()
  const session = await adapter.open({ path, threads, sequences, contextLength })
  let salt = process.pid
  const prompt = (length) => promptOf(length, vocabulary, ++salt)
  const first = await timeline(session, prompt(16), 1)
  const results = { load: first.start + first.times[0] - loadStart }
  await timeline(session, prompt(16), 4)
  for (const what of want) {
    const [kind, text] = what.split('-')
    const size = Number(text)
    if (kind === 'prompt') {
      const { times } = await timeline(session, prompt(size), 1)
      results[what] = size / times[0]
    } else if (kind === 'decode') {
      const { times } = await timeline(session, prompt(size), decodeTokens + 1)
      results[what] = decodeTokens / (times[decodeTokens] - times[0])
    } else {
      const runs = await Promise.all(
        Array.from({ length: size }, () => timeline(session, prompt(16), decodeTokens + 1)),
      )
      const absolute = runs.map(({ start, times }) => times.map((time) => start + time))
      const begun = Math.max(...absolute.map((times) => times[0]))
      // Until the first sequence ends all of them are writing.
      const ended = Math.min(...absolute.map((times) => times[times.length - 1]))
      const written = absolute.flat().filter((time) => time > begun && time <= ended).length
      results[what] = written / (ended - begun)
    }
  }
  await session.close()
  return { engine: adapter.name, version: adapter.version, info: session.info, results }
}
