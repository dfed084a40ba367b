/** Where a model keeps its chat template. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DroverError } from '../errors.js'
import { type HuggingFaceFolder, tokenizerSettings } from '../format/config.js'
import type { GgufFile } from '../format/gguf.js'
import { metadataString } from '../format/gguf-metadata.js'

/** The template in GGUF metadata, in tokenizer_config.json, or in a chat_template.jinja beside it; undefined without one. */
export const chatTemplateOf = async (model: {
  gguf?: GgufFile
  folder?: HuggingFaceFolder
}): Promise<string | undefined> => {
  const { gguf, folder } = model
  if (gguf !== undefined) return metadataString(gguf, 'tokenizer.chat_template', '') || undefined
  if (folder === undefined) return undefined
  const file = join(folder.path, 'chat_template.jinja')
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') {
      throw new DroverError('E_IO', 'the chat template cannot be read', { file, cause })
    }
  }
  return folder.tokenizer === undefined ? undefined : tokenizerSettings(folder.tokenizer).chatTemplates.get('default')
}
