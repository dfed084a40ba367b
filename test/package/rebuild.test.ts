/** The addon built from the sources of the installed package. A minute and more of compiling: only with DROVER_TEST_REBUILD=1. */
import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Workshop } from './staging.js'

const build = process.env['DROVER_TEST_REBUILD'] === '1'

test('the installed package builds its addon from source', () => {
  const workshop = new Workshop()
  try {
    const headers = ['node-addon-api', 'node-api-headers']
    const stage = workshop.stage()
    const tarballs = workshop.packInstalled('@huggingface/jinja', 'node-gyp-build', ...headers)
    const project = workshop.project('builder', [workshop.pack(stage, workshop.folder), ...tarballs])
    const folder = join(project, 'node_modules', 'drover')
    const demo = (): { code: number | null; out: string } =>
      workshop.run(project, process.execPath, [join(folder, 'dist', 'cli', 'main.js'), 'demo', '-n', '5'])
    assert.is(demo.call(undefined).code, 1, 'there is no build yet')
    const rebuild = join(folder, 'scripts', 'rebuild.mjs')
    if (build) {
      assert.match(workshop.output(project, process.execPath, [rebuild]), /drover: built .*drover\.node\n$/)
      assert.match(demo().out, /^Once upon a time/)
      rmSync(join(folder, 'build', 'Release'), { recursive: true })
    }
    // Without its tools it says what is missing, and fails.
    const { code, err } = workshop.run(project, process.execPath, [rebuild], { PATH: join(project, 'nothing') })
    assert.is(code, 1)
    assert.match(err, /^drover: cmake is not installed; building from source needs it$/m)
    assert.not.ok(existsSync(join(folder, 'build', 'headers')), 'headers that are installed are not fetched')
  } finally {
    workshop.close()
  }
})

test.run()
