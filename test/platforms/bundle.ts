/** Test files as single CommonJS files that use an installed drover in place of this repository's lib/. */
import { readdirSync } from 'node:fs'
import { join, relative, sep } from 'node:path'
import { build } from 'esbuild'
import { root } from '../support.js'

/** The kernel tests that need nothing but the package. isa.test.ts starts processes of its own; bits.ts stands for it. */
export const kernelTests = readdirSync(join(root, 'test', 'kernel'))
  .filter((file) => file.endsWith('.test.ts') && file !== 'isa.test.ts')
  .map((file) => join('kernel', file))

/** Writes each script of test/ to `folder`, a folder beside the project's node_modules. */
export const bundle = async (scripts: readonly string[], folder: string): Promise<void> => {
  await build({
    entryPoints: scripts.map((script) => join(root, 'test', script)),
    entryNames: '[name]',
    outdir: folder,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node20',
    plugins: [
      {
        name: 'installed',
        setup: ({ onResolve }) => {
          onResolve({ filter: /^\..*\/lib\// }, ({ path, resolveDir }) => {
            const inside = relative(join(root, 'lib'), join(resolveDir, path)).split(sep).join('/')
            return { path: `../node_modules/drover/dist/${inside}`, external: true }
          })
        },
      },
    ],
  })
}
