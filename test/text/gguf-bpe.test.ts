/** Byte-level BPE in GGUF metadata: GPT-2's published file, and Llama 3's vocabulary derived from its rank file. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { loadTokenizer } from '../../lib/text/load.js'
import type { Tokenizer } from '../../lib/text/tokenizer.js'
import { fixture } from '../support.js'
import { writeTokenizers } from './derived.js'

interface Vector {
  text: string
  ids: number[]
}
const read = <T>(path: string): T => JSON.parse(readFileSync(fixture(path), 'utf8')) as T

const gpt2 = suite<{ tokenizer: Tokenizer }>('GPT-2, GGUF')

gpt2.before(async (context) => {
  context.tokenizer = await loadTokenizer(fixture('tokenizer-gguf/ggml-vocab-gpt-2.gguf'))
})

for (const name of ['ggml-gpt-2', 'hf-gpt2']) {
  gpt2(`agrees with ${name}`, ({ tokenizer }) => {
    const vectors = read<Vector[]>(`tokenizer-gguf/${name}.json`)
    assert.ok(vectors.length > 10)
    for (const { text, ids } of vectors) {
      assert.equal([...tokenizer.encode(text)], ids, JSON.stringify(text))
      assert.is(tokenizer.decode(ids), text)
    }
  })
}

gpt2.run()

const llama3 = suite<{ folder: string; forms: Map<string, Tokenizer> }>('Llama 3, derived from its ranks')

llama3.before(async (context) => {
  context.folder = mkdtempSync(join(tmpdir(), 'drover-tokenizer-'))
  const paths = await writeTokenizers(fixture('tokenizer-llama3/tokenizer.model'), context.folder)
  context.forms = new Map()
  for (const path of paths) context.forms.set(path.slice(context.folder.length + 1), await loadTokenizer(path))
})
llama3.after(({ folder }) => rmSync(folder, { recursive: true }))

llama3('every form encodes as tiktoken does', ({ forms }) => {
  const { encode } = read<{ encode: (Vector & { ids_allow_special?: number[] })[] }>('tokenizer-llama3/cases.json')
  assert.is(forms.size, 2)
  for (const [form, tokenizer] of forms) {
    for (const { text, ids, ids_allow_special } of encode) {
      assert.equal([...tokenizer.encode(text)], ids, `${form}: ${JSON.stringify(text)}`)
      if (ids_allow_special !== undefined) {
        assert.equal([...tokenizer.encode(text, { parseSpecial: true })], ids_allow_special, `${form}: ${text}`)
      }
      assert.is(tokenizer.decode(ids), text.toWellFormed(), form)
    }
  }
})

llama3('every form agrees with llama.cpp', ({ forms }) => {
  for (const tokenizer of forms.values()) {
    for (const { text, ids } of read<Vector[]>('tokenizer-llama3/vectors/ggml-llama-bpe.json')) {
      assert.equal([...tokenizer.encode(text)], ids, JSON.stringify(text))
    }
  }
})

llama3.run()
