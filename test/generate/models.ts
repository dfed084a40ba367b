/** Models for the tests of generation: the one that comes with drover, and random ones with a tokenizer of bytes. */
import { type LanguageModel, type LanguageModelOptions, loadLanguageModel } from '../../lib/generate/model.js'
import { type TinyModel, withTinyModel } from '../model/tiny.js'
import { randomSource, root } from '../support.js'

export const storiesPath = `${root}/assets/stories260K.gguf`

export const withModel = async <T>(
  path: string,
  options: LanguageModelOptions,
  body: (model: LanguageModel) => Promise<T>,
): Promise<T> => {
  const model = await loadLanguageModel(path, options)
  try {
    return await body(model)
  } finally {
    await model.close()
  }
}

export const withStories = <T>(
  body: (model: LanguageModel) => Promise<T>,
  options: LanguageModelOptions = {},
): Promise<T> => withModel(storiesPath, { contextLength: 512, ...options }, body)

export const tiny: TinyModel = {
  hidden: 32,
  intermediate: 64,
  layers: 1,
  heads: 2,
  kvHeads: 1,
  headDim: 16,
  vocabulary: 300,
  tied: false,
  bias: false,
  ropeFactors: false,
  rotated: 16,
  types: ['f32'],
}

type Metadata = NonNullable<NonNullable<Parameters<typeof withTinyModel>[3]>['metadata']>

/** 0 unknown, 1 BOS, 2 EOS, then 256 bytes, then words. */
const byteTokenizer = (size: number, eos: number): Metadata => ({
  'tokenizer.ggml.model': { type: 'string', value: 'llama' },
  'tokenizer.ggml.tokens': {
    type: 'string[]',
    value: Array.from({ length: size }, (_, i) =>
      i < 3
        ? ['<unk>', '<s>', '</s>'][i]!
        : i < 259
          ? `<0x${(i - 3).toString(16).padStart(2, '0').toUpperCase()}>`
          : `\u2581w${i}`,
    ),
  },
  'tokenizer.ggml.scores': { type: 'f32[]', value: Array.from({ length: size }, (_, i) => -i) },
  'tokenizer.ggml.token_type': {
    type: 'i32[]',
    value: Array.from({ length: size }, (_, i) => (i === 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1)),
  },
  'tokenizer.ggml.bos_token_id': { type: 'u32', value: 1 },
  'tokenizer.ggml.eos_token_id': { type: 'u32', value: eos },
})

export interface BytesModel {
  seed?: number
  shape?: Partial<TinyModel>
  /** Tokens that the tokenizer knows; default all. */
  known?: number
  eos?: number
  metadata?: Metadata
}

/** A random model whose tokens are mostly single bytes; its file goes when the body has ended. */
export const withBytesModel = <T>(
  { seed = 1, shape = {}, known, eos = 2, metadata = {} }: BytesModel,
  options: LanguageModelOptions,
  body: (model: LanguageModel) => Promise<T>,
): Promise<T> => {
  const model = { ...tiny, ...shape }
  return withTinyModel(randomSource(seed), model, (path) => withModel(path, options, body), {
    metadata: { ...byteTokenizer(known ?? model.vocabulary, eos), ...metadata },
  })
}
