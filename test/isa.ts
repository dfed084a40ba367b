/** Runs a script once per instruction set of this machine, for tests that compare their results. */
import { spawnSync } from 'node:child_process'
import { cpu } from '../lib/device/cpu.js'
import { root } from './support.js'

/** Every set that a build may hold, from the least to the best of each kind of CPU. */
export const isaNames = ['scalar', 'avx2', 'avxvnni', 'avx512', 'avx512bf16', 'neon', 'neondot', 'neoni8mm']

const run = (isa: string, script: string): { output: string; error: string; code: number | null } => {
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--import', 'tsx', script], {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, DROVER_ISA: isa, DROVER_THREADS: '2' },
    maxBuffer: 1 << 28,
  })
  return { output: stdout, error: stderr, code: status }
}

/** What `script` prints as JSON, by instruction set; sets that the CPU does not have are left out. */
export const perIsa = <T>(script: string): ReadonlyMap<string, T> => {
  const results = new Map<string, T>()
  for (const isa of isaNames) {
    const { output, error, code } = run(isa, script)
    if (code === 0) results.set(isa, JSON.parse(output) as T)
    else if (!/E_ISA/.test(error)) throw new Error(`${script} with DROVER_ISA=${isa}: ${error}`)
  }
  for (const isa of ['scalar', cpu().isaBest]) if (!results.has(isa)) throw new Error(`${isa} did not run`)
  return results
}
