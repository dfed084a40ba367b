/** The second part of `drover demo`: the recommender in the package ranks dishes for people whose true taste is known. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseRequestLine, type RequestLine } from '../recommend/jsonl.js'
import { loadRecommender, type Recommender } from '../recommend/recommender.js'
import { type Arguments, nearest, usageError } from './command.js'
import { table } from './output.js'

/** Trained on made-up tastes (bench/train); part of the package. */
export const dishes = join(__dirname, '..', '..', 'assets', 'dishes')

/** What lines of requests.jsonl hold beside a request. */
interface Taste {
  readonly id: string
  readonly items: readonly string[]
  readonly likes: readonly string[]
  readonly dislikes: readonly string[]
  /** The true probability that the person likes the dish. */
  readonly preference: readonly number[]
}

interface Case extends Taste {
  readonly request: RequestLine['request']
  readonly scores: Float32Array
}

export interface Ranking {
  readonly person: string
  readonly likes: readonly string[]
  readonly dislikes: readonly string[]
  /** Best first. */
  readonly dishes: readonly { readonly item: string; readonly score: number; readonly preference: number }[]
  /** Over all people: the mean true preference for the five dishes that come first. */
  readonly people: number
  readonly firstFive: { readonly model: number; readonly best: number; readonly all: number }
  /** Of pairs of dishes, the share whose order is the true one. */
  readonly pairsInOrder: number
  readonly parameters: number
  /** Of one call for all dishes of a person, on the caller's thread. */
  readonly microseconds: number
}

const first = 5

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length
const descending = (values: ArrayLike<number>): number[] =>
  Array.from(values, (_, i) => i).sort((a, b) => values[b]! - values[a]! || a - b)

const casesOf = async (recommender: Recommender): Promise<Case[]> => {
  const file = join(dishes, 'requests.jsonl')
  const { denseFeatures, tables } = recommender.info
  const lines = readFileSync(file, 'utf8').trim().split('\n')
  return Promise.all(
    lines.map(async (text, i) => {
      const { request } = parseRequestLine(text, { denseFeatures, tables }, { file, line: i + 1 })
      return { ...(JSON.parse(text) as Taste), request, scores: await recommender.score(request) }
    }),
  )
}

const pairsInOrder = ({ scores, preference }: Case): number => {
  let ordered = 0
  let pairs = 0
  for (let a = 0; a < scores.length; a++) {
    for (let b = 0; b < a; b++, pairs++) {
      if (scores[a]! > scores[b]! === preference[a]! > preference[b]!) ordered++
    }
  }
  return ordered / pairs
}

/** The median of some calls. */
const microsecondsOf = (recommender: Recommender, { request }: Case): number => {
  const times = Array.from({ length: 200 }, () => {
    const start = process.hrtime.bigint()
    recommender.scoreSync(request)
    return Number(process.hrtime.bigint() - start) / 1000
  })
  return times.sort((a, b) => a - b)[100] as number
}

const choose = (cases: readonly Case[], name: string | undefined): Case => {
  if (name === undefined) return cases[0] as Case
  const found = cases.find(({ id }) => id.toLowerCase() === name.toLowerCase())
  if (found !== undefined) return found
  const names = cases.map(({ id }) => id)
  const near = nearest(name, names)
  throw usageError(
    `nobody is called ${name}`,
    `${near === undefined ? '' : `did you mean ${near}? `}there are ${names.join(', ')}`,
  )
}

/** Loads the recommender, asks it about everybody, and shows it for one person. Throws E_ARGUMENT when nobody has that name. */
export const rankDishes = async (args: Arguments): Promise<Ranking> => {
  const threads = args.integer('threads', 1, 1024)
  const recommender = await loadRecommender(dishes, threads === undefined ? {} : { threads })
  try {
    const cases = await casesOf(recommender)
    const shown = choose(cases, args.text('person'))
    const { id, likes, dislikes, items, scores, preference } = shown
    const trueMean = (order: (one: Case) => readonly number[]): number =>
      mean(cases.map((one) => mean(order(one).map((dish) => one.preference[dish]!))))
    return {
      person: id,
      likes,
      dislikes,
      dishes: descending(scores).map((i) => ({ item: items[i]!, score: scores[i]!, preference: preference[i]! })),
      people: cases.length,
      firstFive: {
        model: trueMean((one) => descending(one.scores).slice(0, first)),
        best: trueMean((one) => descending(one.preference).slice(0, first)),
        all: trueMean((one) => descending(one.preference)),
      },
      pairsInOrder: mean(cases.map(pairsInOrder)),
      parameters: recommender.info.parameters,
      microseconds: microsecondsOf(recommender, shown),
    }
  } finally {
    await recommender.close()
  }
}

const percent = (share: number): string => `${(100 * share).toFixed(0)} %`

export const rankingText = ({ dishes, person, ...ranking }: Ranking): string => {
  const { firstFive: five, people } = ranking
  const row = (place: number): string[] => {
    const { item, score, preference } = dishes[place - 1] as Ranking['dishes'][number]
    return [`${place}.`, item, percent(score), percent(preference)]
  }
  return [
    `${person} likes ${ranking.likes.join(', ')}; dislikes ${ranking.dislikes.join(', ')}. The recommender, which knows meals only, says:`,
    '',
    table([
      ['', 'dish', 'score', 'true preference'],
      ...[1, 2, 3, 4, 5].map(row),
      ['', '...', '', ''],
      row(dishes.length),
    ]),
    '',
    table([
      ['recommender', `dishes, a DLRM of ${ranking.parameters} parameters`],
      [
        'first five',
        `true preference ${percent(five.model)}; at best ${percent(five.best)}, of all ${percent(five.all)} (${people} people)`,
      ],
      ['pairs of dishes', `${percent(ranking.pairsInOrder)} in their true order`],
      ['time', `${ranking.microseconds.toFixed(0)} µs for ${dishes.length} dishes`],
    ]),
  ].join('\n')
}
