/** Character classes as tokenizers of the Rust and Oniguruma world see them, looked up once per code point. */

export const isLetter = 1
export const isNumber = 2
export const isSpace = 4
const isKnown = 8

const classes = new Uint8Array(0x110000)
const letter = /^\p{L}$/u
const number = /^\p{N}$/u
const space = /^\p{White_Space}$/u

/** Bits of {@link isLetter}, {@link isNumber}, {@link isSpace} (White_Space: with U+0085, without U+FEFF). */
export const classOf = (codePoint: number): number => {
  const known = classes[codePoint] as number
  if (known !== 0) return known
  const text = String.fromCodePoint(codePoint)
  const found =
    isKnown | (letter.test(text) ? isLetter : 0) | (number.test(text) ? isNumber : 0) | (space.test(text) ? isSpace : 0)
  classes[codePoint] = found
  return found
}
