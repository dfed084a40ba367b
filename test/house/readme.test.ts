/** What README, ARCHITECTURE and CHANGELOG name is there. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import * as drover from '../../lib/index.js'
import * as kernels from '../../lib/kernels.js'
import { root } from '../support.js'

const read = (name: string): string => readFileSync(join(root, name), 'utf8')
const readme = read('README.md')
const { scripts, version } = JSON.parse(read('package.json')) as { scripts: Record<string, string>; version: string }

test('imports in README exist', () => {
  const modules: Record<string, object> = { drover, 'drover/kernels': kernels }
  const imports = [...readme.matchAll(/^import \{ ([^}]+) \} from '([^']+)'/gm)]
  assert.ok(imports.length >= 3)
  for (const [, names, from] of imports) {
    for (const name of (names as string).split(', '))
      assert.ok(name in modules[from as string]!, `${name} from ${from}`)
  }
})

test('npm scripts that the documents name exist', () => {
  for (const text of [readme, read('ARCHITECTURE.md')]) {
    for (const [, name] of text.matchAll(/npm run ([\w:]+)/g)) assert.ok((name as string) in scripts, name)
  }
})

test('files that ARCHITECTURE names exist', () => {
  const paths = [...read('ARCHITECTURE.md').matchAll(/`((?:native|lib|test|bench)\/[\w./-]*\w\/?)`/g)].map(
    ([, path]) => path,
  )
  assert.ok(paths.length > 8)
  for (const path of paths as string[]) assert.ok(existsSync(join(root, path)), path)
})

test('CHANGELOG begins with this version', () => {
  assert.is(/^## (\S+?),? /m.exec(read('CHANGELOG.md'))?.[1], version)
})

test.run()
