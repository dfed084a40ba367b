/**
 * The longer run of test/format/mutations.test.ts: mutates real files until the time is over and reports each case that
 * is neither refused properly nor described without contradiction, so that it can be repeated.
 *
 *   tsx test/fuzz.ts [--seconds 60] [--seed 1] [--target text-in-its-name] [--case number]
 */
import { parseArgs } from 'node:util'
import { runCase, type Target, targets } from './format/mutation-targets.js'

const casesPerTurn = 500
const mostFailures = 20

const number = (name: string, text: string): number => {
  const value = Number(text)
  if (text !== '' && Number.isSafeInteger(value) && value >= 0) return value
  throw new Error(`--${name} takes a whole number, not ${text}`)
}

const main = async (): Promise<void> => {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '60' },
      seed: { type: 'string', default: '1' },
      target: { type: 'string', default: '' },
      case: { type: 'string' },
    },
  })
  const seconds = number('seconds', values.seconds)
  const seed = number('seed', values.seed)
  const chosen = (await targets()).filter(({ name }) => name.includes(values.target))
  if (chosen.length === 0) throw new Error(`no target is named ${values.target}`)
  let failures = 0
  const run = async (target: Target, index: number): Promise<string | undefined> => {
    try {
      return (await runCase(target, seed, index)).refusal ?? 'accepted'
    } catch (error) {
      failures++
      console.error(`failed: --target '${target.name}' --seed ${seed} --case ${index}`)
      console.error(error)
      return undefined
    }
  }
  if (values.case !== undefined) {
    for (const target of chosen) console.log(`${target.name}: ${await run(target, number('case', values.case))}`)
  } else {
    const counts = new Map(chosen.map((target) => [target, { cases: 0, accepted: 0 }]))
    const end = Date.now() + seconds * 1000
    for (let from = 0; Date.now() < end && failures < mostFailures; from += casesPerTurn) {
      for (const [target, count] of counts) {
        for (let index = from; index < from + casesPerTurn; index++) {
          count.cases++
          if ((await run(target, index)) === 'accepted') count.accepted++
        }
      }
    }
    for (const [{ name }, { cases, accepted }] of counts) console.log(`${name}: ${cases} cases, ${accepted} accepted`)
  }
  console.log(failures === 0 ? 'no failures' : `${failures} failures`)
  process.exitCode = failures === 0 ? 0 : 1
}

void main()
