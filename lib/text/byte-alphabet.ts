/** GPT-2's alphabet: a printable character for each byte, in which vocabularies of byte-level BPE are written. */

const printable = (byte: number): boolean => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174

const characters: string[] = []
const bytes = new Map<string, number>()
for (let byte = 0, next = 256; byte < 256; byte++) {
  const character = String.fromCharCode(printable(byte) ? byte : next++)
  characters.push(character)
  bytes.set(character, byte)
}

/** One char code per byte ("binary string") of a token written in the alphabet; undefined when a character is foreign. */
export const alphabetToBinary = (text: string): string | undefined => {
  let result = ''
  for (const character of text) {
    const byte = bytes.get(character)
    if (byte === undefined) return undefined
    result += String.fromCharCode(byte)
  }
  return result
}

const utf8 = characters.map((character) => [...Buffer.from(character)])

/** Writes a binary string in the alphabet, as UTF-8, to `out`, which holds two bytes per char; says how many they are. */
export const writeAlphabet = (binary: string, out: Uint8Array): number => {
  let at = 0
  for (let i = 0; i < binary.length; i++) for (const byte of utf8[binary.charCodeAt(i)]!) out[at++] = byte
  return at
}

/** The alphabet's character of a byte. */
export const alphabetCharacter = (byte: number): string => characters[byte] as string
