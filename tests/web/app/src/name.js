export const name = 'NAME'
