/**
 * Runs one bundled script in a Node of another platform and writes what it printed to a file: under Wine, Node has no
 * usable stdout.   node inside.js RESULT SCRIPT
 */
import { writeFileSync } from 'node:fs'
import { Writable } from 'node:stream'

const [, , result = '', script = ''] = process.argv
const printed: string[] = []
const stream = new Writable({
  write(chunk, _, done) {
    printed.push(String(chunk))
    done()
  },
})
for (const name of ['stdout', 'stderr']) Object.defineProperty(process, name, { value: stream })
process.on('uncaughtException', (error) => {
  printed.push(`${error.stack}\n`)
  process.exit(1)
})
process.on('exit', (code) => writeFileSync(result, JSON.stringify({ code, output: printed.join('') })))
require(script)
