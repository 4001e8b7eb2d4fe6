// A Vite development server with a small application of its own, which records what reaches it.

import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer } from 'vite'
import { WebSocketServer } from 'ws'

/** Starts a server on a free port, with a copy of the application that calls itself `name`. */
export async function serve(name) {
  const root = await mkdtemp(join(tmpdir(), 'arp-web-'))
  await cp(new URL('app', import.meta.url), root, { recursive: true })
  for (const file of ['src/name.js', 'src/late.js']) await replace(root, file, 'NAME', name)
  const seen = []
  const vite = await createServer({
    root,
    configFile: false,
    logLevel: 'warn',
    // So that the smallest image, too, is a request of its own.
    build: { assetsInlineLimit: 0 },
    server: { host: '127.0.0.1', port: 0 },
    plugins: [application(name, seen)],
  })
  await vite.listen()
  return {
    port: vite.httpServer.address().port,
    seen,
    edit: (file, from, to) => replace(root, file, from, to),
    async close() {
      await vite.close()
      await rm(root, { recursive: true, force: true })
    },
  }
}

/** What the application has on its server: `/api/name` and a WebSocket at `/live` that echoes. */
function application(name, seen) {
  return {
    name: 'application',
    configureServer(vite) {
      const note = (request) => seen.push({ url: request.url, cookie: request.headers.cookie })
      const live = new WebSocketServer({ noServer: true })
      vite.httpServer.on('upgrade', (request, socket, head) => {
        note(request)
        if (new URL(request.url, 'http://local').pathname !== '/live') return
        live.handleUpgrade(request, socket, head, (client) => {
          client.on('message', (text) => client.send(`${name} heard ${text}`))
        })
      })
      vite.middlewares.use((request, response, next) => {
        note(request)
        if (request.url !== '/api/name') return next()
        response.end(name)
      })
    },
  }
}

async function replace(root, file, from, to) {
  const path = join(root, file)
  const text = await readFile(path, 'utf8')
  if (!text.includes(from)) throw new Error(`${file} does not hold ${from}`)
  await writeFile(path, text.replace(from, to))
}
