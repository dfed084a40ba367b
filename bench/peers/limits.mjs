// The machine's own limits with this many threads, each the best of several loops: prints
// {"readGBps", "f32Gflops", "int8Gops", "bufferGB"}.
import { createRequire } from 'node:module'

const { threads } = JSON.parse(process.argv[2])
const { measureLimits } = createRequire(import.meta.url)('../../dist/device/limits.js')
const { bufferBytes, readBytesPerSecond, f32PerSecond, int8PerSecond } = await measureLimits(threads)
console.log(
  JSON.stringify({
    readGBps: readBytesPerSecond / 1e9,
    f32Gflops: f32PerSecond / 1e9,
    int8Gops: int8PerSecond / 1e9,
    bufferGB: bufferBytes / 1e9,
  }),
)
process.exit(0)
