// The machine's own limits with this many threads, measured in the same run as the engines: prints
// {"readGBps", "fmaGflops"}, each the best of several loops.
import { createRequire } from 'node:module'

const { threads } = JSON.parse(process.argv[2])
const { nativeAddon } = createRequire(import.meta.url)('../../dist/device/native.js')
const { readBytesPerSecond, fmaFlopsPerSecond } = await nativeAddon().probe(threads)
console.log(JSON.stringify({ readGBps: readBytesPerSecond / 1e9, fmaGflops: fmaFlopsPerSecond / 1e9 }))
process.exit(0)
