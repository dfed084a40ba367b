/** Source files and their imports, for the tests of the house rules. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { root } from '../support.js'

export interface Import {
  /** Path from the folder of the sources, or the name of a package. */
  readonly to: string
  /** False for a package. */
  readonly own: boolean
}

export type Sources = ReadonlyMap<string, readonly Import[]>

const listFiles = (folder: string, ending: RegExp): string[] =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((file) => ending.test(file))
    .sort()

/** What a TypeScript file imports: statically, for types only, dynamically, or by require. */
export const importsOf = (file: string, text: string): Import[] => {
  // `from` behind a closing brace or a name; a word in a comment or a text has no quoted name behind it.
  const pattern = /(?:\bfrom\s+|\bimport\s+|\bimport\s*\(\s*|\brequire\s*\(\s*)(['"])([^'"\n]+)\1/g
  return [...text.matchAll(pattern)].map(([, , name = '']) =>
    name.startsWith('.')
      ? { to: normalize(join(dirname(file), name)).replace(/\.js$/, '.ts'), own: true }
      : { to: name, own: false },
  )
}

/** Files of lib/ with their imports; paths are relative to lib/. */
export const typeScriptSources = (): Sources =>
  new Map(
    listFiles('lib', /\.ts$/).map((file) => [file, importsOf(file, readFileSync(join(root, 'lib', file), 'utf8'))]),
  )

/** What a C++ file includes. A name in quotes is looked for beside the file, then in native/, then in native/include/. */
export const includesOf = (file: string, text: string, isThere: (path: string) => boolean): Import[] =>
  [...text.matchAll(/^[ \t]*#[ \t]*include[ \t]+([<"])([^>"]+)[>"]/gm)].map(([, bracket, name = '']) => {
    if (bracket === '<') return { to: name, own: false }
    const places = [normalize(join(dirname(file), name)), name, join('include', name)]
    return { to: places.find(isThere) ?? `missing: ${name}`, own: true }
  })

/** Files of native/ with their includes; paths are relative to native/. */
export const nativeSources = (): Sources => {
  const files = listFiles('native', /\.(h|cc|c|inl|def)$/)
  return new Map(
    files.map((file) => [
      file,
      includesOf(file, readFileSync(join(root, 'native', file), 'utf8'), (path) => files.includes(path)),
    ]),
  )
}

/** A folder directly below, or the file itself. */
export const roomOf = (path: string): string => path.split('/')[0] as string

/** Imports of our own files that `allowed` does not name for the importer's room; unknown rooms may import nothing. */
export const wrongArrows = (sources: Sources, allowed: Readonly<Record<string, readonly string[]>>): string[] =>
  [...sources].flatMap(([file, imports]) => {
    const from = roomOf(file)
    return imports
      .filter(({ own, to }) => own && roomOf(to) !== from && !(allowed[from] ?? []).includes(roomOf(to)))
      .map(({ to }) => `${file} -> ${to}`)
  })

/** Chains of files that import each other in a circle. */
export const cycles = (sources: Sources): string[] => {
  const found: string[] = []
  const done = new Set<string>()
  const visit = (file: string, chain: readonly string[]): void => {
    const at = chain.indexOf(file)
    if (at >= 0) found.push([...chain.slice(at), file].join(' -> '))
    if (at >= 0 || done.has(file)) return
    for (const { own, to } of sources.get(file) ?? []) if (own) visit(to, [...chain, file])
    done.add(file)
  }
  for (const file of sources.keys()) visit(file, [])
  return found
}
