/** Which tables and layers keep their precision so that a net's normalised entropy stays within a budget. */
import { compareNets, type DataOptions, entropiesOf, type LabelCounts, type NetComparison } from './compare.js'
import type { Part } from './forms.js'
import type { LayeredNet } from './layered-net.js'
import { relativeChange } from './metrics.js'

/** What the quantisation of one table or layer costs. */
export interface PartCost {
  readonly kind: 'table' | 'layer'
  /** As `quantization.tables` or `quantization.layers` names it. */
  readonly name: string
  /** Its format in the reference, and in the form that is judged. */
  readonly from: string
  readonly to: string
  /** Relative change of normalised entropy when it alone is quantised. */
  readonly change: number
  /** Whether it keeps the format of the reference. */
  readonly kept: boolean
}

export interface Chosen {
  readonly parts: readonly PartCost[]
  /** Those that are quantised. */
  readonly quantised: readonly Part[]
  readonly comparison: NetComparison
}

export interface ChooseOptions {
  readonly reference: LayeredNet
  readonly parts: readonly Part[]
  /** Largest relative change of normalised entropy, of a part alone and of the whole. */
  readonly budget: number
  /** Normalised entropy of the reference. */
  readonly entropy: number
  /** The reference with these parts quantised. */
  load(parts: readonly Part[]): Promise<LayeredNet>
  data(pass: number, passes: number): DataOptions
  /** Told of what each reading of the data has counted. */
  check(counts: LabelCounts): void
}

/** Nets that are loaded at once: the file is read once for all of them. */
const together = 8

/** Runs `body` with a net for each of the sets of quantised parts. */
const withNets = async <T>(
  load: ChooseOptions['load'],
  sets: readonly (readonly Part[])[],
  body: (nets: readonly LayeredNet[]) => Promise<T>,
): Promise<T> => {
  const nets: LayeredNet[] = []
  try {
    for (const set of sets) nets.push(await load(set))
    return await body(nets)
  } finally {
    await Promise.all(nets.map((net) => net.close()))
  }
}

/**
 * First every part is quantised alone. Those that cost more than the budget keep their precision, and then, costliest first,
 * as many others as it takes for the whole to stay within it. Equal costs are taken in the order of the parts. Throws what
 * {@link compareNets} and loading do.
 */
export const chooseParts = async ({
  reference,
  parts,
  budget,
  entropy,
  load,
  data,
  check,
}: ChooseOptions): Promise<Chosen> => {
  const alonePasses = Math.ceil(parts.length / together)
  const passes = alonePasses + 2
  /** Relative changes of normalised entropy when these parts are quantised, set by set. */
  const changesOf = async (sets: readonly (readonly Part[])[], pass: number): Promise<number[]> => {
    const { entropies, counts } = await withNets(load, sets, (nets) => entropiesOf(nets, data(pass, passes)))
    check(counts)
    return entropies.map((found) => relativeChange(entropy, found))
  }

  const changes: number[] = []
  for (let pass = 0; pass < alonePasses; pass++) {
    const own = parts.slice(pass * together, (pass + 1) * together)
    const alone = own.map((part) => [part])
    changes.push(...(await changesOf(alone, pass)))
  }
  const order = parts.map((_, i) => i).sort((a, b) => (changes[b] as number) - (changes[a] as number) || a - b)
  const withoutFirst = (count: number): Part[] => order.slice(count).map((i) => parts[i] as Part)

  let kept = changes.filter((change) => change > budget).length
  // With all parts kept, it is the reference itself.
  for (let found = false; !found && kept < parts.length; ) {
    const counts = Array.from({ length: Math.min(together, parts.length - kept) }, (_, i) => kept + i)
    const within = (await changesOf(counts.map(withoutFirst), alonePasses)).findIndex((change) => change <= budget)
    found = within !== -1
    kept += found ? within : counts.length
  }
  const quantised = withoutFirst(kept)
  const comparison = await withNets(load, [quantised], ([net]) =>
    compareNets(reference, net as LayeredNet, data(alonePasses + 1, passes)),
  )
  check(comparison)
  const keeps = new Set(order.slice(0, kept))
  return {
    parts: parts.map(({ kind, name, from, to }, i) => ({
      kind,
      name,
      from,
      to,
      change: changes[i] as number,
      kept: keeps.has(i),
    })),
    quantised,
    comparison,
  }
}
