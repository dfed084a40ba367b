/** Prints the choices that a process comes to, for tuning.test.ts. */
import { cpuDevice } from '../../lib/device/cpu.js'
import { tuning, tuningFile } from '../../lib/device/tuning.js'

tuning(cpuDevice).then((choices) => console.log(JSON.stringify({ choices, file: tuningFile() })))
