/**
 * Tokenizers on one thread: WikiText where the data collection lies beside the repository, else texts of the tests,
 * repeated. tiktoken runs on the same text in the same minute, where Python has it.
 *
 *   npx tsx bench/tokenizer.bench.ts [--json]
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import b from 'benny'
import { cpu } from '../lib/device/cpu.js'
import { loadTokenizer } from '../lib/text/load.js'
import { fixture, shared } from '../test/support.js'
import { tell } from './harness.js'
import type { Measured } from './report.js'

const rankFile = fixture('tokenizer-llama3/tokenizer.model')
const suite = 'tokenizers, one thread'

const readText = (): { name: string; text: string } => {
  const path = shared('data/eval/wikitext2-raw-test.txt')
  if (path !== undefined) return { name: 'WikiText', text: readFileSync(path, 'utf8') }
  const license = readFileSync(fixture('tokenizer-llama3/LICENSE'), 'utf8')
  const { encode } = JSON.parse(readFileSync(fixture('tokenizer-llama3/cases.json'), 'utf8')) as {
    encode: { text: string }[]
  }
  const part = `${license}\n${encode.map(({ text }) => text).join('\n')}\n`
  return { name: 'texts of the tests', text: part.repeat(Math.ceil(2e6 / part.length)) }
}

/** Median of repeated runs in a process of its own; its standard output is the seconds. */
const tiktoken = `
import base64, statistics, sys, time
import tiktoken
text = sys.stdin.buffer.read().decode()
ranks = {}
for line in open(sys.argv[1], 'rb'):
    token, rank = line.split()
    ranks[base64.b64decode(token)] = int(rank)
pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
encoding = tiktoken.Encoding('llama3', pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
times = []
for _ in range(12):
    start = time.perf_counter()
    encoding.encode_ordinary(text)
    times.append(time.perf_counter() - start)
print(statistics.median(times))
`

const tiktokenSeconds = (text: string): number | undefined => {
  const { status, stdout } = spawnSync('python3', ['-c', tiktoken, rankFile], { input: text, encoding: 'utf8' })
  return status === 0 ? Number(stdout) : undefined
}

/** Loading lies outside of the time, which benny cannot do: every run has a tokenizer that has seen no piece. */
const freshSeconds = async (text: string): Promise<number> => {
  const times: number[] = []
  for (let i = 0; i < 7; i++) {
    const tokenizer = await loadTokenizer(rankFile)
    const start = performance.now()
    tokenizer.encode(text)
    times.push((performance.now() - start) / 1000)
  }
  return times.sort((one, other) => one - other)[3] as number
}

const main = async (): Promise<void> => {
  const { name, text } = readText()
  const megabytes = Buffer.byteLength(text) / 1e6
  const [llama3, llama2, gpt2] = await Promise.all(
    ['tokenizer-llama3/tokenizer.model', 'tokenizer-llama2-spm/tokenizer.model', 'tokenizer-gguf/ggml-vocab-gpt-2.gguf']
      .map(fixture)
      .map(loadTokenizer),
  )
  const tokens = llama3!.encode(text)
  const medians = new Map<string, number>()
  const before = tiktokenSeconds(text)
  medians.set('Llama 3 encodes, nothing seen before', await freshSeconds(text))
  const options = { minSamples: 10, maxTime: 2 }
  await b.suite(
    suite,
    b.add('Llama 3 encodes', () => () => void llama3!.encode(text), options),
    b.add('Llama 3 decodes', () => () => void llama3!.decode(tokens), options),
    b.add('GPT-2 encodes', () => () => void gpt2!.encode(text), options),
    b.add('Llama 2 encodes', () => () => void llama2!.encode(text), options),
    b.cycle((result) => {
      medians.set(result.name, result.details.median)
      return ''
    }),
    b.complete(),
  )
  // Of two measurements around ours the faster one: the machine may be busy.
  const after = tiktokenSeconds(text)
  if (before !== undefined && after !== undefined) medians.set('tiktoken, Llama 3 encodes', Math.min(before, after))
  const measured = [...medians].map(
    ([case_, seconds]): Measured => ({
      family: 'tokenizers',
      suite,
      name: `${case_} ${name}`,
      seconds,
      items: `${(megabytes / seconds).toPrecision(3)} MB/s`,
    }),
  )
  const { isa, threads } = cpu()
  tell({ isa, threads, measured })
}

void main()
