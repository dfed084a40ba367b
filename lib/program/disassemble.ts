/** Writes a program as text, one op per line, for people: `drover inspect --program` and failing tests. */
import type { Plan } from './plan.js'
import { absent, type DeviceLayout, type Program } from './program.js'

const float = (bits: number): number => new Float32Array(Uint32Array.of(bits).buffer)[0] as number

export const disassemble = (program: Program, layout: DeviceLayout, plan?: Plan): string => {
  const signatures = new Map(layout.ops.map(({ name, signature }) => [name, signature]))
  const tensor = (index: number): string => {
    const spec = program.tensors[index]
    if (spec === undefined) return `tensor ${index}?`
    const rows = spec.dimension === 'fixed' ? spec.fixedRows : spec.dimension
    const offset = plan === undefined ? '' : `@${plan.tensors[index]?.offset}`
    return `${spec.name}:${spec.dtype}[${rows}, ${spec.cols}]${offset}`
  }
  const weight = (index: number): string => {
    const spec = program.weights[index]
    return spec === undefined
      ? `weight ${index}?`
      : `${spec.name}:${spec.dtype}[${spec.rows}, ${spec.cols}] ${spec.form}`
  }
  return program.ops
    .map(({ name, op, args }, at) => {
      const operands = args.map((arg, i) => {
        const kind = signatures.get(op)?.[i] ?? 'u'
        if (arg === absent && 'pq'.includes(kind)) return '-'
        if ('oibp'.includes(kind)) return tensor(arg)
        if ('wq'.includes(kind)) return weight(arg)
        return kind === 'f' ? String(float(arg)) : String(arg)
      })
      return `${String(at).padStart(4)}  ${name}  ${op} ${operands.join(', ')}`
    })
    .join('\n')
}
