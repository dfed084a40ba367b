/** Writing for people and for machines: bars and colour on a terminal only, plain lines otherwise. */

const plain = process.env['NO_COLOR'] !== undefined && process.env['NO_COLOR'] !== ''

export const write = (text: string): void => {
  process.stdout.write(text)
}

export const line = (text = ''): void => write(`${text}\n`)

/** JSON, with integers beyond 2^53 as text. */
export const toJson = (value: unknown): string =>
  JSON.stringify(value, (_, item) => (typeof item === 'bigint' ? item.toString() : item))

export const json = (value: unknown): void => line(toJson(value))

/** Dims text on a terminal. */
export const dim = (text: string): string => (process.stderr.isTTY && !plain ? `\u001b[2m${text}\u001b[0m` : text)

/** For people, beside the output itself. */
export const note = (text: string): void => {
  process.stderr.write(`${text}\n`)
}

/** Tells of indices out of range, where there were any. */
export const noteOutOfRange = (
  { skippedIndices, clampedIndices }: { readonly skippedIndices: number; readonly clampedIndices: number },
  asJson: boolean,
): void => {
  if (skippedIndices + clampedIndices === 0) return
  if (asJson) note(toJson({ skippedIndices, clampedIndices }))
  else note(`indices out of range: ${skippedIndices} skipped, ${clampedIndices} clamped`)
}

export const bytes = (value: number): string => {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let unit = 0
  let size = value
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024
    unit++
  }
  return `${unit === 0 ? size : size.toFixed(size < 10 ? 2 : 1)} ${units[unit]}`
}

export const count = (value: number): string => {
  if (value >= 1e9) return `${(value / 1e9).toFixed(2)} B`
  if (value >= 1e6) return `${(value / 1e6).toFixed(2)} M`
  return value >= 1e4 ? `${(value / 1e3).toFixed(1)} K` : String(value)
}

/** A progress function: a bar on a terminal, a line every quarter otherwise. */
export const progress = (what: string): { update: (fraction: number) => void; done: () => void } => {
  const terminal = process.stderr.isTTY === true
  let shown = -1
  return {
    update: (fraction) => {
      const percent = Math.floor(Math.min(1, Math.max(0, fraction)) * 100)
      if (terminal) {
        if (percent === shown) return
        const filled = Math.floor(percent / 4)
        process.stderr.write(
          `\r${what} ${'█'.repeat(filled)}${'░'.repeat(25 - filled)} ${String(percent).padStart(3)} %`,
        )
        shown = percent
      } else if (percent - shown >= 25 && percent < 100) {
        shown = percent - (percent % 25)
        note(`${what} ${shown} %`)
      }
    },
    done: () => {
      if (terminal && shown >= 0) process.stderr.write('\r\u001b[K')
      shown = -1
    },
  }
}

/** Columns of text, each as wide as its widest cell. */
export const table = (rows: readonly (readonly string[])[]): string => {
  const widths: number[] = []
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length)
  }
  return rows
    .map((row) => row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i]!))).join('  '))
    .join('\n')
}
