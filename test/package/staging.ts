/** A packed tarball of this repository, and empty projects that install it without network, cache or home folder. */
import { spawnSync } from 'node:child_process'
import { copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import * as assert from 'uvu/assert'
import { root } from '../support.js'

export const addon = join(root, 'build', 'Release', 'drover.node')

/** The other Node that the package must run on: a dev dependency, so only on the platform that it is built for. */
export const otherNode = join(root, 'node_modules', 'node-22', 'bin', 'node')

export interface Ran {
  code: number | null
  out: string
  err: string
}

export class Workshop {
  readonly folder = mkdtempSync(join(tmpdir(), 'drover-package-'))
  /** Nothing of the user, of npm's cache or of a run under npm leaks in; every request over the network fails at once. */
  readonly #env: NodeJS.ProcessEnv

  constructor() {
    const home = join(this.folder, 'home')
    mkdirSync(home)
    const kept = Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_|DROVER_|INIT_CWD)/i.test(name))
    this.#env = {
      ...Object.fromEntries(kept),
      HOME: home,
      npm_config_cache: join(home, 'cache'),
      npm_config_userconfig: join(home, 'npmrc'),
      npm_config_globalconfig: join(home, 'npmrc-global'),
      npm_config_offline: 'true',
      npm_config_audit: 'false',
      npm_config_fund: 'false',
      npm_config_update_notifier: 'false',
    }
  }

  run(cwd: string, command: string, args: readonly string[], env: Record<string, string> = {}): Ran {
    const { status, stdout, stderr, error } = spawnSync(command, args, {
      cwd,
      encoding: 'utf8',
      env: { ...this.#env, ...env },
      timeout: 600_000,
      maxBuffer: 1 << 26,
    })
    if (error) throw error
    return { code: status, out: stdout, err: stderr }
  }

  /** Output of a program that must succeed. */
  output(cwd: string, command: string, args: readonly string[], env?: Record<string, string>): string {
    const { code, out, err } = this.run(cwd, command, args, env)
    assert.is(code, 0, `${command} ${args.join(' ')}: ${err}\n${out}`)
    return out
  }

  /** Puts a Node first, for programs that npm starts. */
  pathWith(node: string): Record<string, string> {
    return { PATH: [dirname(node), process.env['PATH']].join(delimiter) }
  }

  pack(from: string, to: string): string {
    mkdirSync(to, { recursive: true })
    const args = ['pack', '--ignore-scripts', '--silent', '--pack-destination', to]
    return join(to, this.output(from, 'npm', args).trim())
  }

  /** The repository as a clone has it after `npm install`, with fresh TypeScript and the addon as a prebuild. */
  stage(): string {
    const stage = join(this.folder, 'stage')
    const left = /^(node_modules|build.*|dist|prebuilds|coverage|\.git|bench)$/
    cpSync(root, stage, {
      recursive: true,
      filter: (path) => {
        const [first = '', second = ''] = path.slice(root.length + 1).split('/')
        return !left.test(first) && !(first === 'test' && second === 'fixtures')
      },
    })
    symlinkSync(join(root, 'node_modules'), join(stage, 'node_modules'))
    this.output(root, process.execPath, [join(root, 'scripts', 'build-ts.mjs'), join(stage, 'dist')])
    mkdirSync(join(stage, 'build', 'Release'), { recursive: true })
    copyFileSync(addon, join(stage, 'build', 'Release', 'drover.node'))
    return stage
  }

  /** Tarballs of packages that are installed here. */
  packInstalled(...names: string[]): string[] {
    return names.map((name) => this.pack(join(root, 'node_modules', name), join(this.folder, 'dependencies')))
  }

  /** An empty project with these tarballs installed. */
  project(name: string, tarballs: readonly string[], args: readonly string[] = []): string {
    const folder = join(this.folder, name)
    mkdirSync(folder)
    writeFileSync(join(folder, 'package.json'), JSON.stringify({ name, version: '1.0.0', private: true }))
    this.output(folder, 'npm', ['install', '--offline', ...args, ...tarballs])
    assert.ok(existsSync(join(folder, 'node_modules', 'drover', 'dist', 'index.js')))
    return folder
  }

  close(): void {
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 })
  }
}
