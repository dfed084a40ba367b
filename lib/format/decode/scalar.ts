/** Single numbers: half, bfloat16 and the two 8-bit floats, to f32 (always exact) and from f32 (to nearest even). */

const word = new Uint32Array(1)
const float = new Float32Array(word.buffer)

/** f32 of its bit pattern. */
export const floatFromBits = (bits: number): number => {
  word[0] = bits
  return float[0]!
}

/** Bit pattern of the f32 nearest to `value`. */
export const bitsFromFloat = (value: number): number => {
  float[0] = value
  return word[0]!
}

/** Decodes sign, exponent and mantissa fields of IEEE form, where the highest exponent means infinity or NaN. */
const decodeIeee = (code: number, exponentBits: number, mantissaBits: number): number => {
  const sign = (code >> (exponentBits + mantissaBits)) & 1 ? -1 : 1
  const highest = (1 << exponentBits) - 1
  const exponent = (code >> mantissaBits) & highest
  const mantissa = code & ((1 << mantissaBits) - 1)
  const bias = highest >> 1
  if (exponent === highest) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
  if (exponent === 0) return sign * mantissa * 2 ** (1 - bias - mantissaBits)
  return sign * (1 + mantissa / (1 << mantissaBits)) * 2 ** (exponent - bias)
}

/** All 65,536 half-precision numbers, once one is asked for: whoever loads a model seldom does. */
let halves: Float32Array | undefined

/** f32 of a half-precision bit pattern. */
export const halfToFloat = (code: number): number => {
  halves ??= Float32Array.from({ length: 65536 }, (_, number) => decodeIeee(number, 5, 10))
  return halves[code & 0xffff]!
}

/** f32 of a bfloat16 bit pattern. */
export const bfloatToFloat = (code: number): number => floatFromBits((code << 16) >>> 0)

/** All E5M2 numbers: the upper byte of a half. */
export const f8E5m2: Float32Array = Float32Array.from({ length: 256 }, (_, code) => decodeIeee(code, 5, 2))

/** All E4M3 ("fn") numbers: no infinity; only all ones is NaN, so 448 is the largest. */
export const f8E4m3: Float32Array = Float32Array.from({ length: 256 }, (_, code) => {
  if ((code & 0x7f) === 0x7f) return Number.NaN
  const exponent = (code >> 3) & 15
  const magnitude = exponent === 0 ? (code & 7) * 2 ** -9 : (1 + (code & 7) / 8) * 2 ** (exponent - 7)
  return code & 0x80 ? -magnitude : magnitude
})

/**
 * Rounds |f32| with these bits to a float of fewer bits, ties to even, as an integer code without sign. The code may run past
 * the largest finite one: the caller decides what that means.
 */
const roundMagnitude = (bits: number, exponentBias: number, mantissaBits: number): number => {
  const exponent = (bits >>> 23) - 127 + exponentBias
  const dropped = 23 - mantissaBits
  // Subnormal results shift the mantissa, with its hidden one, further right; everything is gone after 25 bits.
  const shift = exponent > 0 ? dropped : dropped + 1 - exponent
  if (shift > 24) return 0
  const mantissa = exponent > 0 ? bits & 0x7fffff : (bits & 0x7fffff) | 0x800000
  const half = 2 ** (shift - 1)
  const rest = mantissa % 2 ** shift
  const kept = (mantissa - rest) / 2 ** shift + (exponent > 0 ? exponent * 2 ** mantissaBits : 0)
  return rest > half || (rest === half && kept % 2 === 1) ? kept + 1 : kept
}

/** The nearest half, as a bit pattern; past 65,504 infinity, NaN stays a quiet NaN. */
export const floatToHalf = (value: number): number => {
  const bits = bitsFromFloat(value)
  const sign = (bits >>> 16) & 0x8000
  const magnitude = bits & 0x7fffffff
  if (magnitude > 0x7f800000) return sign | 0x7e00
  return sign | Math.min(0x7c00, roundMagnitude(magnitude, 15, 10))
}

/** The nearest bfloat16, as a bit pattern; NaN stays a quiet NaN. */
export const floatToBfloat = (value: number): number => {
  const bits = bitsFromFloat(value)
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) / 65536) & 0xffff
}

/** The nearest E5M2; past 57,344 infinity, NaN stays NaN. */
export const floatToE5m2 = (value: number): number => {
  const bits = bitsFromFloat(value)
  const sign = (bits >>> 24) & 0x80
  const magnitude = bits & 0x7fffffff
  if (magnitude > 0x7f800000) return sign | 0x7f
  return sign | Math.min(0x7c, roundMagnitude(magnitude, 15, 2))
}

/** The nearest E4M3; past 448, infinity included, +-448, as current converters and quantisers do. NaN stays NaN. */
export const floatToE4m3 = (value: number): number => {
  const bits = bitsFromFloat(value)
  const sign = (bits >>> 24) & 0x80
  const magnitude = bits & 0x7fffffff
  if (magnitude > 0x7f800000) return sign | 0x7f
  return sign | Math.min(0x7e, roundMagnitude(magnitude, 7, 3))
}
