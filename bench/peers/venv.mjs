// The Python of peers: an environment of its own in bench/peers/venv, made when the first one is asked for, with the
// versions of requirements.txt. llama-cpp-python is compiled from its sources there, which takes some minutes.
//
//   node bench/peers/venv.mjs [package ...]
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { argv } from 'node:process'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const folder = join(here, 'venv')
const python = join(folder, 'bin', 'python3')

const run = (command, args) => {
  const { status, error } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'] })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? `ended with ${status}`}`)
}

/** The environment's Python, which has these packages from now on. */
export const venvPython = (...packages) => {
  if (!existsSync(python)) run('python3', ['-m', 'venv', folder])
  const asked = spawnSync(python, ['-m', 'pip', 'show', '--quiet', ...packages], { encoding: 'utf8' })
  if (asked.status !== 0 || asked.stderr.includes('not found')) {
    console.error(`installing ${packages.join(', ')} into bench/peers/venv`)
    run(python, ['-m', 'pip', 'install', '--quiet', '--constraint', join(here, 'requirements.txt'), ...packages])
  }
  return python
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  if (argv.length === 2) throw new Error('name the packages to install')
  console.log(venvPython(...argv.slice(2)))
}
