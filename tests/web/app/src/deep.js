import { name } from './name.js'

export const deep = `deep ${name}`
