/** What models say about their sampling and their ends. */
import { copyFileSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { LanguageModel } from '../../lib/generate/model.js'
import type { GenerateOptions } from '../../lib/generate/options.js'
import { fixture } from '../support.js'
import { withBytesModel, withModel } from './models.js'

const prompt = [5, 6, 7, 8, 5, 6, 7, 8]

const tokensOf = async (model: LanguageModel, options: GenerateOptions = {}): Promise<number[]> =>
  (await model.generate(prompt, { seed: 5, maxTokens: 40, stopTokens: [], ...options }).result()).tokens

/** A folder in Hugging Face layout with this generation_config.json. */
const withFolder = async <T>(
  generation: object | undefined,
  body: (model: LanguageModel) => Promise<T>,
): Promise<T> => {
  const folder = mkdtempSync(join(tmpdir(), 'drover-'))
  try {
    const source = fixture('llama3-8b-like-bf16')
    for (const name of readdirSync(source)) {
      if (/^(config|model).*/.test(name)) copyFileSync(join(source, name), join(folder, name))
    }
    copyFileSync(fixture('tokenizer-bpe-small/tokenizer.json'), join(folder, 'tokenizer.json'))
    if (generation !== undefined) writeFileSync(join(folder, 'generation_config.json'), JSON.stringify(generation))
    return await withModel(folder, { contextLength: 256, maxSequences: 2 }, body)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const cases: [entry: object, options: GenerateOptions][] = [
  [{ temperature: 0.4 }, { temperature: 0.4 }],
  [{ top_k: 3 }, { topK: 3 }],
  [{ top_p: 0.5 }, { topP: 0.5 }],
  [{ min_p: 0.3 }, { minP: 0.3 }],
  [{ typical_p: 0.3 }, { typicalP: 0.3 }],
  [{ repetition_penalty: 1.9 }, { repetitionPenalty: 1.9 }],
  [{ do_sample: false }, { temperature: 0 }],
  [{ do_sample: false, temperature: 0.7 }, { temperature: 0 }],
  [
    { do_sample: true, temperature: 0.6, top_k: 30, top_p: 0.9, min_p: 0.02, repetition_penalty: 1.2 },
    { temperature: 0.6, topK: 30, topP: 0.9, minP: 0.02, repetitionPenalty: 1.2 },
  ],
]

test('generation_config.json: each default, and that options win over it', async () => {
  const plain = await withFolder(undefined, async (model) => {
    const tokens = await tokensOf(model)
    assert.equal(await tokensOf(model, { temperature: 1, topP: 1, topK: 0, minP: 0 }), tokens, 'without a file')
    return tokens
  })
  const off = { temperature: 1, topK: 0, topP: 1, minP: 0, typicalP: 1, repetitionPenalty: 1 }
  for (const [entry, options] of cases) {
    const what = JSON.stringify(entry)
    await withFolder(entry, async (model) => {
      const tokens = await tokensOf(model)
      assert.not.equal(tokens, plain, what)
      assert.equal(await tokensOf(model, options), tokens, what)
      assert.equal(await tokensOf(model, off), plain, `${what}, turned off`)
    })
  }
})

test('generation_config.json: end tokens, one or several', async () => {
  const greedy = { temperature: 0 }
  const tokens = await withFolder(undefined, (model) => tokensOf(model, greedy))
  for (const end of [tokens[3]!, [500, tokens[5]!, tokens[9]!]]) {
    await withFolder({ eos_token_id: end }, async (model) => {
      const at = tokens.findIndex((token) => [end].flat().includes(token))
      const result = await model.generate(prompt, { ...greedy, maxTokens: 40 }).result()
      assert.equal([result.finishReason, result.tokens], ['stop', tokens.slice(0, at)])
      assert.equal(await tokensOf(model, greedy), tokens, 'stopTokens: [] turns them off')
    })
  }
})

test('defaults that make no sense are refused when the model is loaded', async () => {
  for (const entry of [{ top_p: 1.5 }, { min_p: 2 }, { temperature: 1e9 }, { repetition_penalty: 0 }]) {
    try {
      await withFolder(entry, async () => assert.unreachable(JSON.stringify(entry)))
    } catch (error) {
      assert.is((error as { code: string }).code, 'E_FORMAT', String(error))
    }
  }
})

const sampling = (name: string, type: 'f32' | 'i32', value: number) => ({
  metadata: { [`general.sampling.${name}`]: { type, value } },
})

test('GGUF metadata: each default', async () => {
  const plain = await withBytesModel({}, {}, (model) => tokensOf(model))
  for (const [model, options] of [
    [sampling('temp', 'f32', 0.25), { temperature: 0.25 }],
    [sampling('top_k', 'i32', 3), { topK: 3 }],
    [sampling('top_p', 'f32', 0.5), { topP: 0.5 }],
    [sampling('min_p', 'f32', 0.5), { minP: 0.5 }],
    [sampling('penalty_repeat', 'f32', 2), { repetitionPenalty: 2 }],
  ] as const) {
    await withBytesModel(model, {}, async (loaded) => {
      const tokens = await tokensOf(loaded)
      assert.not.equal(tokens, plain, JSON.stringify(model))
      assert.equal(await tokensOf(loaded, options), tokens, JSON.stringify(model))
    })
  }
  const penalty = { repetitionPenalty: 3 }
  for (const [last, window] of [
    [4, 4],
    [0, 0],
    [-1, 1e6],
  ] as const) {
    await withBytesModel(sampling('penalty_last_n', 'i32', last), {}, async (loaded) => {
      assert.equal(await tokensOf(loaded, penalty), await tokensOf(loaded, { ...penalty, penaltyWindow: window }))
      if (window === 4) {
        assert.not.equal(await tokensOf(loaded, penalty), await tokensOf(loaded, { ...penalty, penaltyWindow: 1e6 }))
      }
    })
  }
})

test('GGUF: the end token ends, and is yielded when stopTokens is empty', async () => {
  const greedy = { temperature: 0, maxTokens: 30 }
  const tokens = await withBytesModel({}, {}, (model) => tokensOf(model, greedy))
  const eos = tokens[12]!
  await withBytesModel({ eos }, {}, async (model) => {
    const result = await model.generate(prompt, greedy).result()
    assert.equal([result.finishReason, result.tokens], ['stop', tokens.slice(0, tokens.indexOf(eos))])
    const { tokens: all, finishReason } = await model.generate(prompt, { ...greedy, stopTokens: [] }).result()
    assert.equal([finishReason, all], ['length', tokens.slice(0, 30)])
    const other = await model.generate(prompt, { ...greedy, stopTokens: [tokens[1]!] }).result()
    assert.equal(other.tokens, tokens.slice(0, tokens.indexOf(tokens[1]!)), 'the given ones take their place')
  })
})

test('a chat needs a template', () =>
  withBytesModel({}, {}, async (model) => {
    assert.throws(() => model.chat([{ role: 'user', content: 'hi' }]), /E_UNSUPPORTED.*template/)
  }))

test('chat: the options of both, refused alike', () =>
  withBytesModel(
    {
      metadata: {
        'tokenizer.chat_template': {
          type: 'string',
          value:
            "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[a]{% endif %}{{ date_string | default('') }}",
        },
      },
    },
    {},
    async (model) => {
      const messages = [{ role: 'user', content: 'hi <s>' }]
      const options = { temperature: 0, maxTokens: 5, stopTokens: [] }
      const { usage } = await model.chat(messages, options).result()
      const expected = model.tokenizer.encode('<s>[user]', { parseSpecial: true })
      assert.ok(usage.promptTokens > expected.length)
      const without = await model.chat(messages, { ...options, addGenerationPrompt: false }).result()
      // SentencePiece puts a space, three bytes of U+2581 here, in front of the span.
      assert.is(usage.promptTokens - without.usage.promptTokens, model.tokenizer.encode('[a]').length)
      const dated = await model.chat(messages, { ...options, dateString: '1234' }).result()
      assert.is(dated.usage.promptTokens - usage.promptTokens, 4, 'in the same span')
      for (const [wrong, code, field] of [
        [null, 'E_ARGUMENT', 'options'],
        [3, 'E_ARGUMENT', 'options'],
        [{ addGenerationPrompt: 1 }, 'E_ARGUMENT', 'options.addGenerationPrompt'],
        [{ dateString: 3 }, 'E_ARGUMENT', 'options.dateString'],
        [{ temperature: -1 }, 'E_ARGUMENT', 'options.temperature'],
        [{ tools: [] }, 'E_UNSUPPORTED', 'options.tools'],
        [{ schema: {} }, 'E_UNSUPPORTED', 'options.schema'],
        [{ dates: '' }, 'E_ARGUMENT', 'options.dates'],
      ] as const) {
        try {
          model.chat(messages, wrong as never)
        } catch (error) {
          const found = error as { code: string; field: string }
          assert.equal([found.code, found.field], [code, field], String(error))
          continue
        }
        assert.unreachable(JSON.stringify(wrong))
      }
    },
  ))

test('GGUF: defaults that make no sense are refused', async () => {
  try {
    await withBytesModel({ metadata: { 'general.sampling.top_p': { type: 'f32', value: 7 } } }, {}, async () => {
      assert.unreachable()
    })
  } catch (error) {
    assert.match(String(error), /E_FORMAT.*topP/)
  }
})

test.run()
