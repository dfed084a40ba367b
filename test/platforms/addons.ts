/** What a built addon gives and needs, read from its file: for platforms whose addons cannot be loaded here. */
import { readFileSync } from 'node:fs'

const entry = 'napi_register_module_v1'

interface MachSymbols {
  exported: string[]
  /** What the program that loads it must provide. */
  lookedUp: string[]
  /** The oldest macOS that it runs on, as major. */
  system: number
}

const readMach = (file: Buffer): MachSymbols => {
  if (file.readUInt32LE(0) !== 0xfeedfacf) throw new Error('no 64-bit Mach-O file')
  const symbols: MachSymbols = { exported: [], lookedUp: [], system: Number.NaN }
  let at = 32
  for (let command = 0; command < file.readUInt32LE(16); command++) {
    const kind = file.readUInt32LE(at)
    if (kind === 0x32) symbols.system = file.readUInt32LE(at + 12) >>> 16
    if (kind === 0x2) {
      const [first, count, names] = [8, 12, 16].map((offset) => file.readUInt32LE(at + offset)) as [
        number,
        number,
        number,
      ]
      for (let i = 0; i < count; i++) {
        const symbol = first + i * 16
        const begin = names + file.readUInt32LE(symbol)
        const name = file.toString('latin1', begin, file.indexOf(0, begin)).replace(/^_/, '')
        const type = file.readUInt8(symbol + 4)
        const outside = (type & 0xe1) === 1 // external, and no note for debuggers
        if (outside && (type & 0x0e) !== 0) symbols.exported.push(name)
        if (outside && (type & 0x0e) === 0 && file.readUInt8(symbol + 7) === 0xfe) symbols.lookedUp.push(name)
      }
    }
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
    if (!exported.includes(entry)) faults.push(`does not export ${entry}`)
    const others = [
      ...exported.filter((name) => !/^(napi|node_api)_/.test(name)),
      ...lookedUp.filter((name) => !/^napi_/.test(name)),
    ]
    if (others.length > 0) faults.push(`exports or expects what is not of N-API: ${others.slice(0, 5).join(', ')}`)
    if (lookedUp.length < 20) faults.push(`expects only ${lookedUp.length} functions of N-API`)
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
