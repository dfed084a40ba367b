/** Nothing crashes when threads or the process end while native work is in flight. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { root } from '../support.js'

test('threads and processes may end at any time', () => {
  const script = join(__dirname, 'teardown.ts')
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', script], {
    cwd: root,
    encoding: 'utf8',
    timeout: 300_000,
  })
  assert.is(`${signal} ${status} ${stdout}`, 'null 0 ended', stderr)
})

test.run()
