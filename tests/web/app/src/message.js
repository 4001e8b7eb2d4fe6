import { deep } from './deep.js'
import { name } from './name.js'

export const message = `first ${name}`
export const chain = deep
