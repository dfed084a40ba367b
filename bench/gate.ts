/**
 * The regression gate: shares of the machine's limits beside those that were saved, case by case. Times say nothing on
 * another day or machine; a share says how much of the machine a kernel uses.
 */
import type { Report } from './report.js'

/**
 * A case may lose a tenth of its share. Its time is a median and its limit a best of many, so that two quiet runs of one
 * build agree within a few percent; a busy machine slows single runs by more, but not the best of several, which is what
 * is compared. What costs less than a tenth is for a benchmark of its own.
 */
export const tolerance = 0.1

/** Runs of a file: as many as it takes to see a quiet one on a machine that is not ours alone. */
export const attempts = 3

/** Shares by `file/suite/case`. */
export type Shares = Record<string, number>

export interface Saved {
  readonly isa: string
  /** By number of threads. */
  readonly threads: Record<string, { cpu: string; shares: Shares }>
}

export type Kind = 'kept' | 'better' | 'worse' | 'void' | 'new' | 'gone'

export interface Verdict {
  readonly key: string
  readonly kind: Kind
  readonly saved?: number | undefined
  readonly share?: number | undefined
}

/** A limit that a kernel passes was measured badly: the case has no share then, but it is there. */
export const sharesOf = (file: string, report: Report): Map<string, number | undefined> => {
  const name = file.replace(/\.bench\.ts$/, '')
  return new Map(
    report.measured
      .filter(({ share }) => share !== undefined)
      .map(({ suite, name: case_, share, isVoid }) => [`${name}/${suite}/${case_}`, isVoid ? undefined : share]),
  )
}

/** The better share of each case. */
export const best = (a: Map<string, number | undefined>, b: Map<string, number | undefined>): typeof a => {
  const result = new Map(a)
  for (const [key, share] of b) {
    const known = result.get(key)
    result.set(key, known === undefined || (share !== undefined && share > known) ? share : known)
  }
  return result
}

/** Every case of either side. Saved cases count only when they belong to one of `files`: the others did not run. */
export const compare = (
  saved: Shares,
  found: ReadonlyMap<string, number | undefined>,
  files: readonly string[],
): Verdict[] => {
  const verdicts: Verdict[] = []
  for (const [key, share] of found) {
    const before = saved[key]
    const kind = ((): Kind => {
      if (share === undefined) return 'void'
      if (before === undefined) return 'new'
      if (share < before * (1 - tolerance)) return 'worse'
      return share > before * (1 + tolerance) ? 'better' : 'kept'
    })()
    verdicts.push({ key, kind, saved: before, share })
  }
  const names = files.map((file) => `${file.replace(/\.bench\.ts$/, '')}/`)
  for (const [key, before] of Object.entries(saved))
    if (!found.has(key) && names.some((name) => key.startsWith(name)))
      verdicts.push({ key, kind: 'gone', saved: before })
  return verdicts
}

/** A case that has gone is not measured any more, and one without a limit not at all: neither may pass unseen. */
export const fails = ({ kind }: Verdict): boolean => kind === 'worse' || kind === 'void' || kind === 'gone'

/** The saved shares with those of `files` replaced. */
export const accept = (
  saved: Shares,
  found: ReadonlyMap<string, number | undefined>,
  files: readonly string[],
): Shares => {
  const names = files.map((file) => `${file.replace(/\.bench\.ts$/, '')}/`)
  const kept = Object.entries(saved).filter(([key]) => !names.some((name) => key.startsWith(name)))
  const added = [...found].filter((entry): entry is [string, number] => entry[1] !== undefined)
  return Object.fromEntries([...kept, ...added].sort(([a], [b]) => (a < b ? -1 : 1)))
}
