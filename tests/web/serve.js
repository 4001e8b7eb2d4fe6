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
  const welcomed = []
  const vite = await createServer({
    root,
    configFile: false,
    logLevel: 'warn',
    // So that the smallest image, too, is a request of its own.
    build: { assetsInlineLimit: 0 },
    server: { host: '127.0.0.1', port: 0 },
    plugins: [application(name, seen, welcomed)],
  })
  await vite.listen()
  return {
    port: vite.httpServer.address().port,
    seen,
    welcomed,
    edit: (file, from, to) => replace(root, file, from, to),
    async close() {
      await vite.close()
      await rm(root, { recursive: true, force: true })
    },
  }
}

/** What the application has on its server: `/api/name` (which may be kept, with `?keep`) and a WebSocket at `/live/<its name>` that echoes. */
function application(name, seen, welcomed) {
  return {
    name: 'application',
    configureServer(vite) {
      const note = (request) => seen.push({ url: request.url, cookie: request.headers.cookie })
      const live = new WebSocketServer({ noServer: true })
      vite.httpServer.on('upgrade', (request, socket, head) => {
        note(request)
        const { pathname } = new URL(request.url, 'http://local')
        if (!pathname.startsWith('/live/')) return
        if (pathname !== `/live/${name}`) {
          socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n')
          return
        }
        welcomed.push(request.url)
        live.handleUpgrade(request, socket, head, (client) => {
          client.on('message', (text) => client.send(`${name} heard ${text}`))
        })
      })
      vite.middlewares.use((request, response, next) => {
        note(request)
        if (!request.url.startsWith('/api/name')) return next()
        if (request.url.endsWith('?keep')) response.setHeader('Cache-Control', 'max-age=3600')
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
