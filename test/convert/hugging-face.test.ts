/** Folders in Hugging Face layout as GGUF files: the same predictions, the same tokens. */
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { tokenizerEntries } from '../../lib/convert/tokenizer.js'
import { diskFolder } from '../../lib/format/file.js'
import { readGguf } from '../../lib/format/gguf.js'
import { writeGguf } from '../../lib/format/gguf-writer.js'
import { DroverError, loadLanguageModel, loadTokenizer, quantizeModel } from '../../lib/index.js'
import { withFolder } from '../cli/run.js'
import { cosine, fixture, largestDifference } from '../support.js'

interface TokenizerJson {
  model: { vocab: Record<string, number>; ignore_merges?: boolean }
  added_tokens: { id: number; content: string; special: boolean }[]
}

const jsonOf = (name: string): TokenizerJson =>
  JSON.parse(readFileSync(join(fixture(name), 'tokenizer.json'), 'utf8')) as TokenizerJson

/** The GGUF file of the tokenizer in `folder` finds the tokens that the folder's finds. */
const sameTokens = async (folder: string, vocabulary: number, extra: readonly string[]): Promise<void> => {
  const { entries, ids } = await tokenizerEntries(diskFolder(folder), vocabulary)
  const path = join(folder, 't.gguf')
  await writeGguf(path, entries, [])
  const [found, expected] = [await loadTokenizer(path), await loadTokenizer(folder)]
  assert.is(found.vocabularySize, vocabulary)
  assert.equal([...found.specialTokens].sort(), [...expected.specialTokens].filter(([text]) => text !== '<unk>').sort())
  for (const [text, id] of expected.specialTokens) assert.is(ids.get(text), id, text)
  for (const text of [...texts, ...extra]) {
    for (const parseSpecial of [false, true]) {
      const options = { bos: true, parseSpecial }
      assert.equal(found.encode(text, options), expected.encode(text, options), text)
    }
  }
}

const texts = ['Hello world', ' 12345 a\n\n b', "it's größer 漢字 🦙", '<|begin_of_text|>x', '']

test('rotated halves, rope factors, biases: logits are those of the folder', async () => {
  // One has rope factors, the other biases and heads of 80.
  for (const name of ['llama31-rope8-like', 'llama-bias-hd80']) {
    await withFolder(async (folder) => {
      const [exact, small] = [join(folder, 'f32.gguf'), join(folder, 'q8.gguf')]
      const report = await quantizeModel(fixture(name), exact, { type: 'f32' })
      assert.equal(report.notes, [])
      await quantizeModel(fixture(name), small, { type: 'q8_0' })
      const load = { kvType: 'f32' } as const // halves would turn the last bit of a sum into more
      const before = await loadLanguageModel(fixture(name), load)
      const after = await loadLanguageModel(exact, load)
      const rounded = await loadLanguageModel(small)
      const tokens = Array.from({ length: 100 }, (_, i) => (i * 37 + 5) % before.info.vocabularySize)
      const expected = (await before.logits(tokens, { rows: 'all' })).data
      const found = (await after.logits(tokens, { rows: 'all' })).data
      assert.ok(largestDifference(found, expected).worst < 2e-4, `${largestDifference(found, expected).worst}`)
      assert.ok(cosine((await rounded.logits(tokens, { rows: 'all' })).data, expected) > 0.999)
      assert.equal(after.info.parameters - before.info.parameters, name.includes('rope') ? 64 : 0)
      assert.is(after.info.contextLength, before.info.contextLength)
      for (const text of texts) {
        for (const parseSpecial of [false, true]) {
          const options = { bos: true, parseSpecial }
          assert.equal(after.tokenizer.encode(text, options), before.tokenizer.encode(text, options), text)
        }
      }
      assert.equal([...after.tokenizer.endTokens].sort(), [...before.tokenizer.endTokens].sort())
      const generation = { temperature: 0, maxTokens: 12 }
      const [a, b] = [await before.generate('Hi', generation).result(), await after.generate('Hi', generation).result()]
      assert.equal(a.tokens, b.tokens)
      await Promise.all([before.close(), after.close(), rounded.close()])
    })
  }
})

test('a SentencePiece model becomes metadata', async () => {
  await withFolder(async (folder) => {
    const { entries } = await tokenizerEntries(diskFolder(fixture('tokenizer-llama2-spm')), 32016)
    const path = join(folder, 't.gguf')
    await writeGguf(path, entries, [])
    const [found, expected] = [
      await loadTokenizer(path),
      await loadTokenizer(join(fixture('tokenizer-llama2-spm'), 'tokenizer.model')),
    ]
    assert.is(found.bos, expected.bos)
    assert.is(found.vocabularySize, 32016)
    for (const text of [...texts, readFileSync(fixture('stories260K/tinystories_first.txt'), 'utf8')]) {
      assert.equal(found.encode(text, { bos: true }), expected.encode(text, { bos: true }), text)
    }
  })
})

test('a vocabulary of 128,256 tokens and more', async () => {
  await withFolder(async (folder) => {
    const json = jsonOf('llama31-rope8-like')
    // Letters and digits are never one piece: none of these is ever found.
    for (let id = 331; id < 130_000; id++) json.model.vocab[`q${id}`] = id
    writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(json))
    await sameTokens(folder, 130_001, ['q331', '<|eot_id|>'])
  })
})

test('tokens that tokenizer.json adds to a SentencePiece model', async () => {
  await withFolder(async (folder) => {
    const json = jsonOf('tokenizer-llama2-spm')
    json.added_tokens.push(
      { id: 32000, content: '<pad>', special: true },
      { id: 32002, content: 'a tool', special: false },
    )
    writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(json))
    cpSync(fixture('tokenizer-llama2-spm/tokenizer.model'), join(folder, 'tokenizer.model'))
    await sameTokens(folder, 32003, ['x<pad>y', 'such a tool here', '</s><s>'])
  })
})

test('a folder with two tokenizers is converted with the one that it is loaded with', async () => {
  await withFolder(async (folder) => {
    cpSync(fixture('llama31-rope8-like/tokenizer.json'), join(folder, 'tokenizer.json'))
    cpSync(fixture('tokenizer-llama2-spm/tokenizer.model'), join(folder, 'tokenizer.model'))
    await sameTokens(folder, 331, [])
  })
})

test('ignore_merges that the pre-tokenizer does not stand for is refused', async () => {
  for (const [name, whole] of [
    ['llama31-rope8-like', false],
    ['tokenizer-roberta-bpe', true],
  ] as const) {
    await withFolder(async (folder) => {
      const json = jsonOf(name)
      json.model.ignore_merges = whole
      writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(json))
      const error = await tokenizerEntries(diskFolder(folder), 60_000).then(
        () => undefined,
        (reason: unknown) => reason as DroverError,
      )
      assert.equal([error?.code, error?.field, error?.found], ['E_UNSUPPORTED', 'model.ignore_merges', whole])
    })
  }
})

test('settings of the folder: end tokens, sampling, chat template', async () => {
  await withFolder(async (folder) => {
    cpSync(fixture('llama31-rope8-like'), folder, { recursive: true })
    const write = (name: string, value: object): void => writeFileSync(join(folder, name), JSON.stringify(value))
    write('generation_config.json', { eos_token_id: [322, 323], temperature: 0.6, top_p: 0.9, top_k: 40 })
    write('tokenizer_config.json', { chat_template: '{{ messages[0].content }}', pad_token: '<|end_of_text|>' })
    const path = join(folder, 'x.gguf')
    await quantizeModel(folder, path, { type: 'f16' })
    const { metadata } = await readGguf(path)
    const { specialTokens } = await loadTokenizer(path)
    assert.is(metadata.get('tokenizer.chat_template'), '{{ messages[0].content }}')
    assert.is(metadata.get('general.sampling.top_k'), 40)
    assert.is(metadata.get('general.sampling.temp'), Math.fround(0.6))
    assert.is(metadata.get('tokenizer.ggml.eos_token_id'), 322)
    assert.is(metadata.get('tokenizer.ggml.eot_token_id'), specialTokens.get('<|eot_id|>'))
    assert.is(metadata.get('tokenizer.ggml.padding_token_id'), specialTokens.get('<|end_of_text|>'))
    assert.is(metadata.get('general.file_type'), 1)
  })
})

test('what has no form in GGUF is refused by name', async () => {
  await withFolder(async (folder) => {
    const refuse = async (code: string, pattern: RegExp): Promise<void> => {
      const error = await quantizeModel(folder, join(folder, 'x.gguf'), { type: 'q8_0' }).then(
        () => undefined,
        (reason: unknown) => reason,
      )
      assert.ok(error instanceof DroverError && error.code === code, String(error))
      assert.match(error.message, pattern)
    }
    cpSync(fixture('llama31-rope8-like'), folder, { recursive: true })
    rmSync(join(folder, 'tokenizer.json'))
    await refuse('E_UNSUPPORTED', /tokenizer\.json of the model/)
    cpSync(fixture('tokenizer-bpe-small/tokenizer.json'), join(folder, 'tokenizer.json'))
    await refuse('E_FORMAT', /more tokens than the model/)
    cpSync(fixture('tokenizer-llama2-spm/tokenizer.json'), join(folder, 'tokenizer.json'))
    await refuse('E_UNSUPPORTED', /tokenizer\.model of the model/)
    cpSync(fixture('tokenizer-llama2-spm/tokenizer.model'), join(folder, 'tokenizer.model'))
    await refuse('E_FORMAT', /more tokens than the model/)
    cpSync(fixture('hf-configs/mllama/config.json'), join(folder, 'config.json'))
    await refuse('E_UNSUPPORTED', /architecture/)
  })
})

test.run()
