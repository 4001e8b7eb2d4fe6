import { deep } from './deep.js'

export const late = `late alone NAME, ${deep}`
