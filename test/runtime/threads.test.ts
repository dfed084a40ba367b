/**
 * How many threads a process takes, and the reason it gives: cpuset, cgroup v1 and v2 quotas in made-up folders, the
 * environment's and the caller's caps. And which kernels: DROVER_ISA.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { CpuInfo } from '../../lib/device/native.js'
import { isaNames } from '../isa.js'
import { root } from '../support.js'
import type { Facts } from './facts.js'

const script = join(__dirname, 'facts.ts')
const model = join(root, 'assets', 'stories260K.gguf')

const runNode = (environment: Record<string, string>, args: readonly string[], prefix: readonly string[]): string => {
  const { DROVER_ISA, DROVER_THREADS, DROVER_CGROUP_ROOT, ...inherited } = process.env
  const [command = process.execPath, ...rest] = [...prefix, process.execPath, ...args]
  const { status, stdout, stderr } = spawnSync(command, rest, {
    cwd: root,
    encoding: 'utf8',
    // A root without groups, unless the case names one: the quota of the machine that runs the tests plays no part.
    env: { ...inherited, DROVER_CGROUP_ROOT: join(root, 'test', 'no-such-folder'), ...environment },
  })
  assert.is(status, 0, stderr)
  return stdout
}

const factsOf = (environment: Record<string, string>, args: readonly string[] = []): Facts =>
  JSON.parse(runNode(environment, ['--import', 'tsx', script, ...args], [])) as Facts

/** Asks the addon itself: it starts ten times as fast as TypeScript does, and there are many cases. */
const cpuOf = (environment: Record<string, string>, prefix: readonly string[] = []): CpuInfo =>
  JSON.parse(
    runNode(environment, ['-p', 'JSON.stringify(require("node-gyp-build")(process.cwd()).cpu())'], prefix),
  ) as CpuInfo

/** Facts of a process whose /proc and /sys are these files. */
const withFiles = (files: Record<string, string | undefined>, prefix: readonly string[] = []): CpuInfo => {
  const folder = mkdtempSync(join(tmpdir(), 'drover-cgroup-'))
  try {
    for (const [path, text] of Object.entries(files)) {
      const full = join(folder, path)
      // undefined: a folder where a file belongs
      mkdirSync(text === undefined ? full : dirname(full), { recursive: true })
      if (text !== undefined) writeFileSync(full, text)
    }
    return cpuOf({ DROVER_CGROUP_ROOT: folder }, prefix)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const plain = cpuOf({})
const coresReason = `${plain.physicalCores} physical cores (${plain.affinityCpus} logical CPUs) in the process's CPU set`
const group = 'proc/self/cgroup'
const v2 = 'sys/fs/cgroup'
const v1 = (mount: string, folder: string, quota: string, period: string): Record<string, string> => ({
  [`sys/fs/cgroup/${mount}${folder}/cpu.cfs_quota_us`]: quota,
  [`sys/fs/cgroup/${mount}${folder}/cpu.cfs_period_us`]: period,
})

/** Thread count and reason must follow the quota; 0: none is found. */
const expectQuota = (name: string, files: Record<string, string | undefined>, quota: number): void => {
  const found = withFiles(files)
  assert.is(found.quotaCpus, quota, name)
  if (quota === 0 || quota >= found.physicalCores) {
    assert.is(found.threads, plain.threads, name)
    assert.is(found.threadsReason, coresReason, name)
  } else {
    assert.is(found.threads, Math.max(1, Math.floor(quota + 0.01)), name)
    assert.is(
      found.threadsReason,
      `the cgroup's quota of ${quota.toFixed(2)} CPUs, below the ${found.physicalCores} physical cores`,
      name,
    )
  }
}

const cores = suite('cores')

cores('without a quota: the physical cores of the CPU set, and the reason says so', () => {
  assert.is(plain.affinityCpus, availableParallelism())
  assert.is(plain.quotaCpus, 0)
  assert.ok(plain.physicalCores >= 1 && plain.physicalCores <= plain.affinityCpus)
  assert.is(plain.threads, plain.physicalCores)
  assert.is(plain.threadsReason, coresReason)
})

// One CPU allows for no smaller set, and not every system has taskset.
const allowed = /^Cpus_allowed_list:\s*(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))
const firstCpu = allowed?.[1] ?? '0'
const canRestrict = availableParallelism() > 1 && spawnSync('taskset', ['-c', firstCpu, 'true']).status === 0
const orSkip = canRestrict ? cores : cores.skip

orSkip('a CPU set of one CPU gives one thread', () => {
  const cpu = cpuOf({}, ['taskset', '-c', firstCpu])
  assert.is(cpu.affinityCpus, 1)
  assert.is(cpu.physicalCores, 1)
  assert.is(cpu.threads, 1)
  assert.is(cpu.threadsReason, "1 physical cores (1 logical CPUs) in the process's CPU set")
  assert.is(cpu.logicalCpus, plain.logicalCpus)
})

orSkip('the smaller of CPU set and quota counts', () => {
  const quota = (text: string): Record<string, string> => ({ [group]: '0::/\n', [`${v2}/cpu.max`]: text })
  const wider = withFiles(quota('150000 100000\n'), ['taskset', '-c', firstCpu])
  assert.is(wider.quotaCpus, 1.5)
  assert.is(wider.threads, 1)
  assert.match(wider.threadsReason, /^1 physical cores/)
  const narrower = withFiles(quota('50000 100000\n'), ['taskset', '-c', firstCpu])
  assert.is(narrower.threads, 1)
  assert.is(narrower.threadsReason, "the cgroup's quota of 0.50 CPUs, below the 1 physical cores")
})

cores.run()

const second = suite('cgroup v2')

second('the quota of the process group', () => {
  expectQuota('own group', { [group]: '0::/service\n', [`${v2}/service/cpu.max`]: '100000 100000\n' }, 1)
  expectQuota('no newline', { [group]: '0::/service', [`${v2}/service/cpu.max`]: '100000 100000' }, 1)
  expectQuota('other period', { [group]: '0::/service\n', [`${v2}/service/cpu.max`]: '60000 50000\n' }, 1.2)
  expectQuota('less than one CPU', { [group]: '0::/service\n', [`${v2}/service/cpu.max`]: '20000 100000\n' }, 0.2)
  expectQuota('no limit', { [group]: '0::/service\n', [`${v2}/service/cpu.max`]: 'max 100000\n' }, 0)
  expectQuota('more than the machine', { [group]: '0::/a\n', [`${v2}/a/cpu.max`]: '409600000 100000\n' }, 4096)
})

second('the smallest quota on the way to the root', () => {
  const nested = (outer: string, middle: string, inner: string): Record<string, string> => ({
    [group]: '0::/kubepods.slice/pod-7/main\n',
    [`${v2}/kubepods.slice/cpu.max`]: outer,
    [`${v2}/kubepods.slice/pod-7/cpu.max`]: middle,
    [`${v2}/kubepods.slice/pod-7/main/cpu.max`]: inner,
  })
  expectQuota('pod', nested('max 100000\n', '100000 100000\n', 'max 100000\n'), 1)
  expectQuota('slice', nested('50000 100000\n', '100000 100000\n', '150000 100000\n'), 0.5)
  expectQuota('container', nested('max 100000\n', 'max 100000\n', '125000 100000\n'), 1.25)
  expectQuota('none', nested('max 100000\n', 'max 100000\n', 'max 100000\n'), 0)
})

second('groups beside the way do not count', () => {
  expectQuota(
    'sibling',
    {
      [group]: '0::/a/b\n',
      [`${v2}/a/b/cpu.max`]: 'max 100000\n',
      [`${v2}/a/c/cpu.max`]: '10000 100000\n',
      [`${v2}/b/cpu.max`]: '10000 100000\n',
    },
    0,
  )
})

second('a container, where the mount is the process group itself', () => {
  // With a group namespace the path is /; without one it is the host's, of which the container sees nothing.
  expectQuota('namespace', { [group]: '0::/\n', [`${v2}/cpu.max`]: '100000 100000\n' }, 1)
  expectQuota('host path', { [group]: '0::/docker/3f2a/init\n', [`${v2}/cpu.max`]: '100000 100000\n' }, 1)
  expectQuota('outside', { [group]: '0::/../../other\n', [`${v2}/cpu.max`]: '100000 100000\n' }, 1)
})

second('files that are missing or damaged give no quota', () => {
  expectQuota('no file', { [group]: '0::/service\n' }, 0)
  expectQuota('nothing at all', {}, 0)
  const damaged = ['', '\n', 'abc\n', 'max\n', '100000\n', '100000 0\n', '-1 100000\n', '0 100000\n', '100000 -5\n']
  for (const text of [...damaged, '\0\0\0', '1e5 100000\n']) {
    expectQuota(JSON.stringify(text), { [group]: '0::/service\n', [`${v2}/service/cpu.max`]: text }, 0)
  }
  expectQuota('a folder', { [group]: '0::/service\n', [`${v2}/service/cpu.max`]: undefined }, 0)
  for (const text of ['', '\n', ':', '0:', 'no colons\n', '0::\n', '::::\n', '\n\n0::/other\n']) {
    expectQuota(`groups ${JSON.stringify(text)}`, { [group]: text, [`${v2}/service/cpu.max`]: '50000 100000\n' }, 0)
  }
  // A damaged group does not hide the sound one above it.
  expectQuota(
    'above',
    { [group]: '0::/a/b\n', [`${v2}/a/cpu.max`]: '100000 100000\n', [`${v2}/a/b/cpu.max`]: 'abc\n' },
    1,
  )
})

second.run()

const first = suite('cgroup v1')

first('the cpu controller, under either name of its mount', () => {
  const lines = (controllers: string, path: string): string =>
    `12:pids:/x\n4:${controllers}:${path}\n3:cpuset:/y\n1:name=systemd:/z\n0::/z\n`
  expectQuota('cpu', { [group]: lines('cpu', '/job'), ...v1('cpu', '/job', '100000\n', '100000\n') }, 1)
  expectQuota(
    'cpu,cpuacct',
    { [group]: lines('cpu,cpuacct', '/job'), ...v1('cpu,cpuacct', '/job', '50000\n', '100000\n') },
    0.5,
  )
  expectQuota('other order', { [group]: lines('cpuacct,cpu', '/job'), ...v1('cpu', '/job', '100000\n', '100000\n') }, 1)
  expectQuota('nested', { [group]: lines('cpu', '/a/b/c'), ...v1('cpu', '/a', '120000\n', '100000\n') }, 1.2)
  expectQuota('container', { [group]: lines('cpu', '/docker/9c'), ...v1('cpu', '', '100000\n', '100000\n') }, 1)
})

first('other controllers are not taken for it', () => {
  const file = v1('cpuset', '/job', '100000\n', '100000\n')
  expectQuota('cpuset', { [group]: '3:cpuset:/job\n', ...file, ...v1('cpu', '/job', '50000\n', '100000\n') }, 0)
  expectQuota('cpuacct', { [group]: '3:cpuacct:/job\n', ...v1('cpu', '/job', '50000\n', '100000\n') }, 0)
})

first('no limit, files that are missing or damaged', () => {
  const pairs = [
    ['-1\n', '100000\n'],
    ['0\n', '100000\n'],
    ['100000\n', '0\n'],
    ['100000\n', ''],
    ['abc\n', '100000\n'],
    ['', ''],
  ] as const
  for (const [quota, period] of pairs) {
    expectQuota(`${quota} ${period}`, { [group]: '4:cpu:/job\n', ...v1('cpu', '/job', quota, period) }, 0)
  }
  expectQuota('no period', { [group]: '4:cpu:/job\n', 'sys/fs/cgroup/cpu/job/cpu.cfs_quota_us': '100000\n' }, 0)
})

first('both versions at once: the smaller quota counts', () => {
  const both = (one: string, two: string): Record<string, string> => ({
    [group]: '4:cpu,cpuacct:/job\n0::/job\n',
    ...v1('cpu,cpuacct', '/job', one, '100000\n'),
    [`${v2}/job/cpu.max`]: two,
  })
  expectQuota('v1', both('100000\n', '150000 100000\n'), 1)
  expectQuota('v2', both('150000\n', '100000 100000\n'), 1)
})

first('the line is found behind any length of others', () => {
  const deep = '/kubepods/burstable/pod0a8d7f3c-7ed1-4c36-a5a1-0e5f1f6a6c11/docker'.repeat(6)
  const others = ['pids', 'memory', 'devices', 'freezer', 'blkio', 'net_cls', 'hugetlb', 'rdma', 'perf_event', 'misc']
  const text = `${others.map((name, i) => `${20 - i}:${name}:${deep}\n`).join('')}4:cpu:${deep}\n0::${deep}\n`
  assert.ok(text.length > 4096)
  expectQuota('long', { [group]: text, ...v1('cpu', deep, '100000\n', '100000\n') }, 1)
})

first.run()

const caps = suite('caps')

caps('DROVER_THREADS sets the number, and the reason says so', () => {
  for (const [text, threads] of [
    ['1', 1],
    ['3', 3],
    ['8', 8],
    ['1000', 64],
  ] as const) {
    const cpu = cpuOf({ DROVER_THREADS: text })
    assert.is(cpu.threads, threads)
    assert.is(cpu.threadsReason, `DROVER_THREADS asks for ${threads}`)
  }
  for (const text of ['', '0', '-2', 'many']) {
    const cpu = cpuOf({ DROVER_THREADS: text })
    assert.is(cpu.threads, plain.threads, text)
    assert.is(cpu.threadsReason, coresReason, text)
  }
})

caps('the pool has as many threads as it says', () => {
  for (const threads of [1, 4]) {
    const { busy = [] } = factsOf({ DROVER_THREADS: `${threads}` }, [model])
    assert.equal(
      busy.map(({ name }) => name).sort(),
      ['drover-0', ...Array.from({ length: threads - 1 }, () => 'drover-helper')].sort(),
    )
  }
})

caps("a model's `threads` caps the workers of its steps", () => {
  const four = factsOf({ DROVER_THREADS: '4' }, [model])
  assert.is(four.model?.threads, 4)
  assert.is(four.model?.threadsReason, 'DROVER_THREADS asks for 4')
  const one = factsOf({ DROVER_THREADS: '4' }, [model, '1'])
  assert.is(one.model?.threads, 1)
  assert.is(one.model?.threadsReason, 'the caller asks for it')
  // The helpers are there for other models, and sleep through this one's steps.
  const helpers = (one.busy ?? []).filter(({ name }) => name === 'drover-helper')
  const leader = (one.busy ?? []).find(({ name }) => name === 'drover-0')?.ns ?? 0
  assert.is(helpers.length, 3)
  assert.ok(leader > 0)
  for (const { ns } of helpers) assert.ok(ns < leader / 20, `a helper took ${ns} ns beside the leader's ${leader}`)
  // So do those that two workers leave out, and at times the one that they need, where steps are short.
  const two = factsOf({ DROVER_THREADS: '4' }, [model, '2'])
  const idle = (two.busy ?? []).filter(({ name }) => name === 'drover-helper').map(({ ns }) => ns)
  const most = (two.busy ?? []).find(({ name }) => name === 'drover-0')?.ns ?? 0
  assert.is(idle.length, 3)
  assert.ok(idle.filter((ns) => ns < most / 20).length >= 2, `helpers took ${idle} ns beside the leader's ${most}`)
  const more = factsOf({ DROVER_THREADS: '4' }, [model, '9'])
  assert.is(more.model?.threads, 4)
  assert.is(more.model?.threadsReason, 'DROVER_THREADS asks for 4')
  assert.is(one.text, four.text)
  assert.is(more.text, four.text)
})

caps.run()

const sets = suite('instruction sets')

sets('DROVER_ISA forces each set that the CPU can run; others are refused with those that it can', () => {
  const refused = factsOf({ DROVER_ISA: 'avx1024' }).error
  assert.is(refused?.code, 'E_ISA')
  assert.match(refused?.message ?? '', /DROVER_ISA is "avx1024", which this CPU cannot run; it can run: scalar/)
  const runnable = /it can run: (.*?)(?:;|\.|$)/m.exec(refused?.message ?? '')?.[1]?.split(', ') ?? []
  assert.is(runnable.at(-1), plain.isaBest)
  const texts = new Set<string>()
  for (const isa of isaNames) {
    const { cpu, model: info, text = '', error } = factsOf({ DROVER_ISA: isa }, [model])
    if (runnable.includes(isa)) {
      assert.is(cpu?.isa, isa)
      assert.is(cpu?.isaBest, plain.isaBest)
      assert.is(info?.isa, isa)
      texts.add(text)
    } else {
      assert.is(error?.code, 'E_ISA', isa)
    }
  }
  assert.is(texts.size, 1)
  assert.is(cpuOf({ DROVER_ISA: '' }).isa, plain.isaBest)
  for (const name of ['AVX2', ' scalar', 'x'.repeat(500)]) {
    assert.is(factsOf({ DROVER_ISA: name }).error?.code, 'E_ISA', name)
  }
})

sets.run()
