/**
 * Cuts text into the pieces that byte-level BPE merges within. The published patterns are matched by hand: the regular
 * expressions below say what each scanner does, tests compare them.
 */
import { classOf, isLetter, isNumber, isSpace } from './unicode.js'

/** Gives the end of the piece that starts at `from`. Text is well-formed UTF-16. */
export type Scanner = (text: string, from: number) => number

const lineFeed = 10
const carriageReturn = 13
const blank = 32
const apostrophe = 39
const longS = 0x17f

const isNewline = (code: number): boolean => code === lineFeed || code === carriageReturn
const width = (codePoint: number): number => (codePoint > 0xffff ? 2 : 1)

/** End of the run of code points from `at` that have one of `wanted` (negated: none of them), at most `most`. */
const run = (text: string, at: number, wanted: number, negated = false, most = Number.POSITIVE_INFINITY): number => {
  let end = at
  for (let count = 0; end < text.length && count < most; count++) {
    const codePoint = text.codePointAt(end) as number
    if (((classOf(codePoint) & wanted) === 0) !== negated) break
    end += width(codePoint)
  }
  return end
}

/** Length of 's, 't, 're, 've, 'm, 'll, 'd at an apostrophe, or 0. With `fold`, in either case, and ſ for s. */
const contraction = (text: string, at: number, fold: boolean): number => {
  const code = (i: number): number => {
    const unit = text.charCodeAt(at + i)
    if (!fold) return unit
    if (unit === longS) return 115
    return unit >= 65 && unit <= 90 ? unit + 32 : unit
  }
  switch (code(1)) {
    case 115: // s
    case 116: // t
    case 109: // m
    case 100: // d
      return 2
    case 114: // re
    case 118: // ve
      return code(2) === 101 ? 3 : 0
    case 108: // ll
      return code(2) === 108 ? 3 : 0
    default:
      return 0
  }
}

/** \s+(?!\S)|\s+ : a run of space leaves its last character to the word behind it. */
const spaceRun = (text: string, from: number): number => {
  const end = run(text, from, isSpace)
  if (end === text.length) return end
  const last = end - 1 // White_Space lies in the basic plane
  return last > from ? last : end
}

const anyClass = isLetter | isNumber | isSpace

/**
 * Llama 3: `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
 */
export const llama3Scanner: Scanner = (text, from) => {
  const first = text.codePointAt(from) as number
  const kind = classOf(first)
  if (kind & isLetter) return run(text, from, isLetter)
  if (first === apostrophe) {
    const length = contraction(text, from, true)
    if (length > 0) return from + length
  }
  const next = from + width(first)
  if (!isNewline(first) && !(kind & isNumber)) {
    const end = run(text, next, isLetter)
    if (end > next) return end
  }
  if (kind & isNumber) return run(text, from, isNumber, false, 3)
  const marks = first === blank ? next : from
  const end = run(text, marks, anyClass, true)
  if (end > marks) {
    let after = end
    while (after < text.length && isNewline(text.charCodeAt(after))) after++
    return after
  }
  const spaces = run(text, from, isSpace)
  for (let at = spaces - 1; at >= from; at--) if (isNewline(text.charCodeAt(at))) return at + 1
  return spaceRun(text, from)
}

/** GPT-2: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+` */
export const gpt2Scanner: Scanner = (text, from) => {
  const first = text.codePointAt(from) as number
  if (first === apostrophe) {
    const length = contraction(text, from, false)
    if (length > 0) return from + length
  }
  const start = first === blank && from + 1 < text.length ? from + 1 : from
  const kind = classOf(text.codePointAt(start) as number)
  if (kind & isLetter) return run(text, start, isLetter)
  if (kind & isNumber) return run(text, start, isNumber)
  if (!(kind & isSpace)) return run(text, start, anyClass, true)
  return spaceRun(text, from)
}

/** A piece per match of `pattern` and per stretch between matches. */
export const regexScanner = (pattern: RegExp): Scanner => {
  const sticky = new RegExp(pattern.source, `${pattern.flags.replace(/[gy]/g, '')}g`)
  return (text, from) => {
    sticky.lastIndex = from
    const match = sticky.exec(text)
    if (match === null || match[0] === '') return text.length
    return match.index > from ? match.index : from + match[0].length
  }
}

/** No cuts at all. */
export const wholeScanner: Scanner = (text) => text.length
