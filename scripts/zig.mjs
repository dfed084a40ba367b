// Builds the addon for another platform with zig, which brings every C library and libc++ that it links.
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'

/** The command that starts zig: its own, or that of the Python package ziglang. */
export const findZig = () =>
  [['zig'], ['python3', '-m', 'ziglang']].find(
    ([command, ...args]) => spawnSync(command, [...args, 'version']).status === 0,
  )

const run = (command, args) => {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 28 })
  if (status === 0) return
  console.error(error ? `drover: ${command} could not be started: ${error.message}` : `${stdout}${stderr}`)
  process.exit(1)
}

/** CMake wants compilers that are one word. It does not notice when they change: then the build begins anew. */
const writeCompilers = (build, zig, triple) => {
  const folder = join(build, 'compilers')
  const scripts = ['cc', 'c++'].map((language) => ({
    path: join(folder, language),
    text: `#!/bin/sh\nexec ${zig.join(' ')} ${language} -target ${triple} "$@"\n`,
  }))
  if (!scripts.every(({ path, text }) => existsSync(path) && readFileSync(path, 'utf8') === text)) {
    rmSync(build, { recursive: true, force: true })
    mkdirSync(folder, { recursive: true })
    for (const { path, text } of scripts) {
      writeFileSync(path, text)
      chmodSync(path, 0o755)
    }
  }
  return scripts.map(({ path }) => path)
}

/** What an addon for Windows is linked to: the functions that node.exe exports. */
const writeImportLibrary = (folder, [zig, ...args]) => {
  const library = join(folder, 'node.lib')
  const { def_paths: definitions } = createRequire(import.meta.url)('node-api-headers')
  run(zig, [...args, 'dlltool', '-m', 'i386:x86-64', '-D', 'node.exe', '-d', definitions.node_api_def, '-l', library])
  return library
}

/** Returns the path of the addon that was built. */
export const buildWithZig = (root, zig, { name, triple, cmake: [system, processor] }) => {
  const folder = join(root, 'build', 'zig', name)
  const [c, cxx] = writeCompilers(folder, zig, triple)
  run('cmake', [
    ...['-S', root, '-B', folder, '-DCMAKE_BUILD_TYPE=Release'],
    ...[`-DCMAKE_SYSTEM_NAME=${system}`, `-DCMAKE_SYSTEM_PROCESSOR=${processor}`],
    ...[`-DCMAKE_C_COMPILER=${c}`, `-DCMAKE_CXX_COMPILER=${cxx}`, '-DCMAKE_MODULE_LINKER_FLAGS=-s'],
    ...(system === 'Windows' ? [`-DCMAKE_JS_LIB=${writeImportLibrary(folder, zig)}`] : []),
  ])
  run('cmake', ['--build', folder, '--parallel', String(availableParallelism())])
  return join(folder, 'drover.node')
}
