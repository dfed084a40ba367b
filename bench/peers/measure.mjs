// What both engines are asked to do, as one protocol over an adapter, so that neither is timed by other rules:
//   load      process start of the engine (its import included) to the first token of a 16-token prompt
//   prompt    a prompt of `promptTokens`: time to its first token
//   decode    the `decodeTokens` that follow
//   batch     `sequences` prompts of 16 tokens at once: tokens per second from the moment all have begun to write
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
  const { path, threads, vocabulary, promptTokens, decodeTokens, sequences, want } = task
  const loadStart = seconds()
  const session = await adapter.open({
    path,
    threads,
    sequences: Math.max(1, sequences),
    contextLength: promptTokens + decodeTokens + 64,
  })
  let salt = process.pid
  const first = await timeline(session, promptOf(16, vocabulary, ++salt), 1)
  const result = {
    engine: adapter.name,
    version: adapter.version,
    info: session.info,
    loadSeconds: first.start + first.times[0] - loadStart,
  }
  await timeline(session, promptOf(16, vocabulary, ++salt), 4)
  if (want.includes('prompt') || want.includes('decode')) {
    const { times } = await timeline(session, promptOf(promptTokens, vocabulary, ++salt), decodeTokens + 1)
    result.promptPerSecond = promptTokens / times[0]
    if (want.includes('decode')) result.decodePerSecond = decodeTokens / (times[decodeTokens] - times[0])
  }
  if (want.includes('batch')) {
    const runs = await Promise.all(
      Array.from({ length: sequences }, () => timeline(session, promptOf(16, vocabulary, ++salt), decodeTokens + 1)),
    )
    const absolute = runs.map(({ start, times }) => times.map((time) => start + time))
    const begun = Math.max(...absolute.map((times) => times[0]))
    // Until the first sequence ends all of them are writing.
    const ended = Math.min(...absolute.map((times) => times[times.length - 1]))
    const written = absolute.flat().filter((time) => time > begun && time <= ended).length
    result.batchPerSecond = written / (ended - begun)
  }
  await session.close()
  return result
}
