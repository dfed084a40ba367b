/** A service that answers and exchanges its model without end, for swap-kill.test.ts to kill. Arguments: two folders. */
import { loadRecommender } from '../../lib/recommend/recommender.js'
import { randomSource } from '../support.js'
import { randomRequest } from './folders.js'

const [first = '', second = '', dense = '', rows = ''] = process.argv.slice(2)
const model = { dense: Number(dense), rows: rows.split(',').map(Number) }

const main = async (): Promise<void> => {
  const recommender = await loadRecommender(first, { tables: 'mapped' })
  const random = randomSource(1)
  for (let swaps = 0; ; swaps++) {
    const swapping = recommender.swap(swaps % 2 === 0 ? second : first)
    // Told in the middle of a swap, so that it is one that is cut short.
    if (swaps % 3 === 1) console.log(`swapping ${swaps}`)
    await Promise.all([
      swapping,
      ...Array.from({ length: 8 }, () => recommender.score(randomRequest(random, model, 4))),
    ])
  }
}

void main()
