/**
 * Book-keeping of KV pages: who holds which, and which full pages hold which tokens, so that a sequence that starts
 * with the same tokens reads them instead of computing them. Pages nobody holds keep their content until the space is
 * needed; the one unused for longest goes first. Nothing here touches memory.
 */
import { DroverError } from '../errors.js'
import { pagePositions } from '../program/program.js'

interface PageState {
  holders: number
  /** Key under which the page's content is published. */
  key: string | undefined
  /** Number of the tokens up to the page's end, 0 when they are not known; children name it in their keys. */
  content: number
}

const keyOf = (parent: number, tokens: ArrayLike<number>, from: number): string => {
  let key = `${parent}:`
  for (let i = from; i < from + pagePositions; i++) key += `${tokens[i]},`
  return key
}

export class PagePool {
  readonly #pages: PageState[]
  readonly #free: number[]
  readonly #published = new Map<string, number>()
  /** Published pages without holders, oldest first. */
  readonly #idle = new Set<number>()
  #contents = 0

  /** @param count pages of the program's cache */
  constructor(count: number) {
    this.#pages = Array.from({ length: count }, () => ({ holders: 0, key: undefined, content: 0 }))
    this.#free = Array.from({ length: count }, (_, i) => count - 1 - i)
  }

  get count(): number {
    return this.#pages.length
  }

  /** Pages that {@link take} can still give. */
  get available(): number {
    return this.#free.length + this.#idle.size
  }

  /** A page for the caller alone, or undefined when all are held. */
  take(): number | undefined {
    let page = this.#free.pop()
    if (page === undefined) {
      page = this.#idle.values().next().value
      if (page === undefined) return undefined
      this.#forget(page)
    }
    const state = this.#state(page)
    state.holders = 1
    state.content = 0
    return page
  }

  /** Gives a page back; a published one stays readable until its space is needed. */
  release(page: number): void {
    const state = this.#state(page)
    if (state.holders === 0) throw new DroverError('E_INTERNAL', 'a page is released twice', { found: page })
    if (--state.holders > 0) return
    if (state.key === undefined) this.#free.push(page)
    else this.#idle.add(page)
  }

  /**
   * Empties a page table. The last page goes first: of pages nobody holds the ends of sequences make room before
   * their starts, without which no end can be found.
   */
  releaseAll(pages: number[]): void {
    for (const page of pages.splice(0).reverse()) this.release(page)
  }

  /** The longest run of published pages that holds the start of `tokens`, at most `most` pages; the caller holds them. */
  match(tokens: ArrayLike<number>, most: number): number[] {
    const found: number[] = []
    let parent = 0
    while (found.length < most) {
      const page = this.#published.get(keyOf(parent, tokens, found.length * pagePositions))
      if (page === undefined) break
      const state = this.#state(page)
      state.holders++
      this.#idle.delete(page)
      parent = state.content
      found.push(page)
    }
    return found
  }

  /** Tells that `page`, the one after `previous`, is full and holds positions [from, from + 64) of `tokens`. */
  publish(page: number, previous: number | undefined, tokens: ArrayLike<number>, from: number): void {
    const state = this.#state(page)
    const parent = previous === undefined ? 0 : this.#state(previous).content
    if (state.key !== undefined || (previous !== undefined && parent === 0)) return
    const key = keyOf(parent, tokens, from)
    const twin = this.#published.get(key)
    if (twin !== undefined) {
      // Another sequence was first with these tokens: this page stays private, but pages behind it may be found.
      state.content = this.#state(twin).content
      return
    }
    this.#published.set(key, page)
    state.key = key
    state.content = ++this.#contents
  }

  #forget(page: number): void {
    const state = this.#state(page)
    if (state.key !== undefined) this.#published.delete(state.key)
    state.key = undefined
    state.content = 0
    this.#idle.delete(page)
  }

  #state(page: number): PageState {
    const state = this.#pages[page]
    if (state === undefined) throw new DroverError('E_INTERNAL', 'no such page', { found: page, expected: this.count })
    return state
  }
}
