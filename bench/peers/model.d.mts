/** Writes a synthetic model of a published shape, unless the file is there. Needs the built package. */
export const writeModel: (
  path: string,
  shape: '1b' | '8b',
  mix: 'F16' | 'Q8_0' | 'Q4_0' | 'Q4_K_M',
) => Promise<void>
