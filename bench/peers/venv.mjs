// The Python of peers: an environment of its own in bench/peers/venv, made when the first one is asked for, with the
// versions of requirements.txt. llama-cpp-python is compiled from its sources there, which takes some minutes.
//
//   node bench/peers/venv.mjs [package ...]
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
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

/** Of requirements.txt or of pip's freeze: versions by name, without what a build adds to its own (2.14.1+cpu). */
const versionsOf = (text) =>
  Object.fromEntries(
    [...text.matchAll(/^([\w.-]+)==([^\s+]+)/gm)].map(([, name, version]) => [name.replace(/_/g, '-'), version]),
  )

/** The environment's Python, which has these packages from now on, in the pinned versions. */
export const venvPython = (...packages) => {
  if (!existsSync(python)) run('python3', ['-m', 'venv', folder])
  const requirements = join(here, 'requirements.txt')
  const pinned = versionsOf(readFileSync(requirements, 'utf8'))
  const installed = versionsOf(spawnSync(python, ['-m', 'pip', 'freeze'], { encoding: 'utf8' }).stdout)
  if (packages.some((name) => installed[name] === undefined || installed[name] !== (pinned[name] ?? installed[name]))) {
    console.error(`installing ${packages.join(', ')} into bench/peers/venv`)
    run(python, ['-m', 'pip', 'install', '--quiet', '--constraint', requirements, ...packages])
  }
  return python
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  if (argv.length === 2) throw new Error('name the packages to install')
  console.log(venvPython(...argv.slice(2)))
}
