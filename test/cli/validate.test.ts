/** `drover validate`: what it prints and writes, exit codes, refusals, Ctrl-C. */
import { spawn } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { ValidationReport } from '../../lib/index.js'
import { validateRecommender } from '../../lib/index.js'
import { root } from '../support.js'
import { drover, main, output, outputJson, refused, withFolder } from './run.js'

const dishes = join(root, 'assets', 'dishes')
const data = join(dishes, 'requests.jsonl')
const validate = ['validate', dishes, '--data', data]

/** As JSON has it. */
const plain = (report: ValidationReport): unknown => JSON.parse(JSON.stringify(report))

test('text for people, JSON as the API gives it', async () => {
  const text = await output(validate)
  const expected = await validateRecommender(dishes, { data })
  assert.match(text, /^1600 rows, 661 positive \(41\.31 %\)$/m)
  for (const { name } of expected.layers) assert.match(text, new RegExp(`^${name.replace('.', '\\.')} `, 'm'))
  assert.match(text, /^top\.2 \(logit\) +\d+\.\d +0\.\d+ +f32 → int8$/m)
  assert.match(text, /^table tags of liked dishes +\d+\.\d /m)
  const { auc, logLoss, normalizedEntropy } = expected.reference
  assert.match(
    text,
    new RegExp(`^reference +${[auc, logLoss, normalizedEntropy].map((n) => n.toFixed(6)).join(' +')}$`, 'm'),
  )
  assert.match(text, /^difference .*NE \+0\.\d{4} %$/m)
  assert.equal(await outputJson(validate), plain(expected))
  const halves = await outputJson<ValidationReport>([...validate, '--type', 'int4', '--layers', 'f16'])
  assert.equal(halves.result.quantization, { tables: { default: 'int4' }, layers: { default: 'f16' } })
})

test('--choose writes a config, a report and a page, and never over others unless told', () =>
  withFolder(async (folder) => {
    const config = join(folder, 'config.json')
    const report = join(folder, 'report.json')
    const html = join(folder, 'report.html')
    const args = [...validate, '-t', 'int4', '--choose', '-o', config, '--report', report, '--html', html]
    const text = await output(args)
    assert.match(text, /^NE within 0\.0200 %: \d of 11 parts keep their precision$/m)
    assert.match(text, /^tags +table +\+0\.\d+ % +f32$/m)
    const written = JSON.parse(readFileSync(report, 'utf8')) as ValidationReport
    const expected = await validateRecommender(dishes, { data, type: 'int4', choose: true })
    assert.ok(expected.choice)
    assert.equal(written, plain({ ...expected, choice: { ...expected.choice, output: config } }))
    assert.equal(JSON.parse(readFileSync(config, 'utf8')).quantization, written.choice?.result.quantization)
    const page = readFileSync(html, 'utf8')
    assert.match(page, /^<!doctype html>/)
    assert.not.match(page, /<script/i)
    for (const [option, file] of [
      ['--output', config],
      ['--report', report],
      ['--html', html],
    ] as const) {
      const choose = option === '--output' ? ['--choose'] : []
      await refused([...validate, ...choose, option, file], /^drover: E_ARGUMENT: the output exists.*--force/)
    }
    assert.is(readFileSync(html, 'utf8'), page)
    writeFileSync(html, 'old')
    await output([...args, '--force'])
    assert.is(readFileSync(html, 'utf8'), page, 'the same every time')
    const nowhere = join(folder, 'nowhere', 'report.json')
    const { code, err } = await drover([...validate, '--report', nowhere])
    assert.is(code, 1)
    assert.match(err, /drover: E_IO: the file could not be written/)
  }))

test('--budget without --choose is a limit', async () => {
  const { code, err, out } = await drover([...validate, '--budget', '0.01'])
  assert.is(code, 1)
  assert.match(err, /NE has grown by \+0\.\d+ %, more than 0\.0100 %/)
  assert.match(out, /^difference/m)
  await output([...validate, '--budget', '5'])
})

test('what cannot be judged is refused', async () => {
  await refused(['validate', dishes], /^drover: E_ARGUMENT: labelled requests are needed; give --data FILE/)
  await refused(['validate'], /^drover: E_ARGUMENT: validate takes: MODEL --data FILE/)
  await refused(
    ['validate', dishes, '--data', '/nowhere/requests.jsonl'],
    /^drover: E_IO: .*\/nowhere\/requests\.jsonl/,
  )
  await refused(['validate', '/nowhere', '--data', data], /^drover: E_IO: /)
  await refused([...validate, '--type', 'q4_k'], /^drover: E_ARGUMENT: .*options\.type/)
  await refused([...validate, '--output', 'x'], /^drover: E_ARGUMENT: there is nothing to write; give --choose/)
  await refused([...validate, '--budget', '-1'], /^drover: E_ARGUMENT: /)
  await refused([...validate, '--agains', 'x'], /did you mean --against/)
  const help = await output(['validate', '--help'])
  for (const option of ['--data FILE', '--against MODEL', '--choose', '--budget PERCENT', '--html FILE'])
    assert.ok(help.includes(option), option)
})

test('Ctrl-C ends it and leaves nothing behind', () =>
  withFolder(async (folder) => {
    const file = join(folder, 'requests.jsonl')
    const config = join(folder, 'config.json')
    writeFileSync(file, readFileSync(data, 'utf8').repeat(60))
    const args = ['validate', dishes, '--data', file, '--choose', '-o', config]
    const child = spawn(process.execPath, [...main, ...args], { cwd: root })
    let out = ''
    let err = ''
    child.stdout.on('data', (text) => {
      out += text
    })
    child.stderr.on('data', (text) => {
      err += text
      if (err.endsWith('validating 25 %\n')) child.kill('SIGINT')
    })
    const code = await new Promise((resolve) => child.on('close', resolve))
    assert.is(code, 130, err)
    assert.is(out, '')
    assert.match(err, /interrupted; nothing was written/)
    assert.not.ok(existsSync(config))
  }))

test.run()
