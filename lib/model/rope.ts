/** Inverse frequencies of rotary position embedding, as transformers computes them: in f32, step by step. */
import { DroverError } from '../errors.js'

export interface RopeScaling {
  readonly type: string
  readonly factor?: number | undefined
  readonly lowFrequencyFactor?: number | undefined
  readonly highFrequencyFactor?: number | undefined
  readonly originalMaxPositions?: number | undefined
}

const f = Math.fround

/** theta^(-2i/dim) for i in [0, dim / 2). */
export const inverseFrequencies = (theta: number, dim: number): Float32Array =>
  Float32Array.from({ length: dim / 2 }, (_, i) => f(1 / f(theta ** f((2 * i) / dim))))

/**
 * Scaled frequencies. `llama3` (Llama 3.1 and later): wavelengths longer than original / low are slowed by `factor`,
 * those shorter than original / high stay, and between the two the change is smooth.
 * Throws E_UNSUPPORTED for a scaling of another kind.
 */
export const scaleFrequencies = (frequencies: Float32Array, scaling: RopeScaling, file: string): Float32Array => {
  const { type, factor = 1, lowFrequencyFactor = 1, highFrequencyFactor = 4, originalMaxPositions = 8192 } = scaling
  switch (type) {
    case 'default':
      return frequencies
    case 'linear':
      return frequencies.map((frequency) => f(frequency / factor))
    case 'llama3':
      return frequencies.map((frequency) => {
        const wavelength = f((2 * Math.PI) / frequency)
        if (wavelength < originalMaxPositions / highFrequencyFactor) return frequency
        if (wavelength > originalMaxPositions / lowFrequencyFactor) return f(frequency / factor)
        const smooth = f(
          f(originalMaxPositions / wavelength - lowFrequencyFactor) / (highFrequencyFactor - lowFrequencyFactor),
        )
        return f(f((1 - smooth) * f(frequency / factor)) + f(smooth * frequency))
      })
    default:
      throw new DroverError('E_UNSUPPORTED', 'this kind of RoPE scaling is not supported', {
        file,
        field: 'rope_scaling.rope_type',
        found: type,
        expected: 'default, linear or llama3',
      })
  }
}
