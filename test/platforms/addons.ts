/** What a built addon gives and needs, read from its file: for platforms whose addons cannot be loaded here. */
import { readFileSync } from 'node:fs'

const entry = 'napi_register_module_v1'

interface MachSymbols {
  exported: string[]
  /** What any image of the process may provide: flat lookup. */
  lookedUp: string[]
  /** The oldest macOS that it runs on, as major. */
  system: number
}

/** Symbols that a stream of dyld's bind opcodes binds by flat lookup. */
const flatBinds = (code: Buffer): string[] => {
  const found: string[] = []
  let [at, name, flat] = [0, '', false]
  const skipNumber = (): void => {
    while (code.readUInt8(at++) >= 0x80);
  }
  while (at < code.length) {
    const opcode = code.readUInt8(at++)
    const kind = opcode & 0xf0
    if (kind === 0x10 || kind === 0x20 || kind === 0x30) flat = opcode === 0x3e // library, long library, special: -2
    if (kind === 0x40) {
      const end = code.indexOf(0, at)
      name = code.toString('latin1', at, end)
      at = end + 1
    }
    if ([0x20, 0x60, 0x70, 0x80, 0xa0, 0xc0].includes(kind)) skipNumber()
    if (kind === 0xc0) skipNumber()
    if (kind >= 0x90 && kind <= 0xc0 && flat) found.push(name)
  }
  return found
}

/** Names of external symbols that a symbol table defines. */
const definedSymbols = (file: Buffer, first: number, count: number, names: number): string[] => {
  const found: string[] = []
  for (let i = 0; i < count; i++) {
    const symbol = first + i * 16
    const type = file.readUInt8(symbol + 4)
    const begin = names + file.readUInt32LE(symbol)
    // External, no note for debuggers, in some section.
    if ((type & 0xe1) === 1 && (type & 0x0e) !== 0) found.push(file.toString('latin1', begin, file.indexOf(0, begin)))
  }
  return found
}

const readMach = (file: Buffer): MachSymbols => {
  if (file.readUInt32LE(0) !== 0xfeedfacf) throw new Error('no 64-bit Mach-O file')
  const symbols: MachSymbols = { exported: [], lookedUp: [], system: Number.NaN }
  let at = 32
  for (let command = 0; command < file.readUInt32LE(16); command++) {
    const kind = file.readUInt32LE(at)
    const field = (i: number): number => file.readUInt32LE(at + 8 + i * 4)
    if (kind === 0x32) symbols.system = field(1) >>> 16
    if (kind === 0x02) symbols.exported = definedSymbols(file, field(0), field(1), field(2))
    if (kind === 0x80000022)
      // Bound when loaded, and when first called.
      for (const part of [2, 6])
        symbols.lookedUp.push(...flatBinds(file.subarray(field(part), field(part) + field(part + 1))))
    at += file.readUInt32LE(at + 4)
  }
  return symbols
}

/** What is wrong with the addon of this target; nothing when all is well. */
export const faultsOf = (target: string, path: string): string[] => {
  const file = readFileSync(path)
  const faults: string[] = []
  if (target.startsWith('darwin')) {
    const { exported, lookedUp, system } = readMach(file)
    if (!exported.includes(`_${entry}`)) faults.push(`does not export ${entry}`)
    // libc++ makes new and delete replaceable, so they are seen; the last is the linker's.
    const others = exported.filter((name) => !/^_(napi|node_api)_|^__Z[nd][awl]|^__(mh|_dso)_/.test(name))
    if (others.length > 0) faults.push(`exports ${others.join(', ')}`)
    const unknown = lookedUp.filter((name) => !name.startsWith('_napi_'))
    if (unknown.length > 0) faults.push(`expects of the process what is not of N-API: ${unknown.join(', ')}`)
    if (lookedUp.length < 50) faults.push(`expects only ${lookedUp.length} functions of N-API`)
    if (system !== 11) faults.push(`is for macOS ${system}, not 11`)
    return faults
  }
  const text = file.toString('latin1')
  if (!text.includes(`${entry}\0`)) faults.push(`does not export ${entry}`)
  const versions = [...text.matchAll(/GLIBC_2\.(\d+)/g)].map(([, minor]) => Number(minor))
  const newest = Math.max(0, ...versions)
  if (target.endsWith('glibc') ? newest === 0 || newest > 28 : newest > 0) faults.push(`needs glibc 2.${newest}`)
  if (/(?:libstdc\+\+|libc\+\+|libgcc_s)[^\0]*\.(?:so|dll)/.test(text)) faults.push('needs a C++ library of the system')
  return faults
}
