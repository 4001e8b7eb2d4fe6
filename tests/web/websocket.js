// WebSockets through the relay, between a client and a server that know nothing of it.

import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { WebSocket, WebSocketServer } from 'ws'
import { behindRelay, runScenario } from './driver.js'

const MIB = 1024 * 1024

await runScenario({ messages, pings, closing, negotiation, compression, many, tokens })

async function messages() {
  const { connect } = await exposed(echo)
  const socket = await connect('/')
  for (const text of ['hello', '', 'grüße ✓', 'x'.repeat(70_000)]) {
    assert.deepEqual(await answer(socket, text), { data: text, binary: false })
  }
  const bytes = randomBytes(MIB)
  for (let round = 0; round < 8; round++) {
    const { data, binary } = await answer(socket, bytes)
    assert.ok(binary && data.equals(bytes), '1 MiB comes back as it was sent')
  }
  // Fragments stay fragments of one message.
  socket.send('one, ', { fin: false })
  socket.send('two', { fin: true })
  assert.equal(String((await once(socket, 'message'))[0]), 'one, two')
}

async function pings() {
  const { server, connect } = await exposed(echo)
  const [[there], socket] = await Promise.all([once(server, 'connection'), connect('/')])
  for (const [from, to] of [
    [socket, there],
    [there, socket],
  ]) {
    const [pong, ping] = [once(from, 'pong'), once(to, 'ping')]
    from.ping('are you there')
    assert.equal(String((await ping)[0]), 'are you there')
    assert.equal(String((await pong)[0]), 'are you there')
  }
}

async function closing() {
  const { server, connect } = await exposed(echo)
  const pair = async () => {
    const [[there], here] = await Promise.all([once(server, 'connection'), connect('/')])
    return [there, here]
  }
  for (const first of [0, 1]) {
    for (const [code, reason] of [
      [1000, ''],
      [4001, 'signed out'],
    ]) {
      const ends = await pair()
      const closed = Promise.all(ends.map((end) => once(end, 'close')))
      ends[first].close(code, reason)
      for (const [toldCode, toldReason] of await closed) {
        assert.deepEqual([toldCode, String(toldReason)], [code, reason])
      }
    }
    // An end without a goodbye is told as such.
    const ends = await pair()
    const closed = once(ends[1 - first], 'close')
    ends[first].terminate()
    assert.equal((await closed)[0], 1006)
  }
}

async function negotiation() {
  const { connect, url } = await exposed(echo, { handleProtocols: (asked) => asked.has('v2.app') && 'v2.app' })
  assert.equal((await connect('/', ['v1.app', 'v2.app'])).protocol, 'v2.app')
  assert.equal((await connect('/')).protocol, '')
  // A refusal comes through as the server gave it.
  const refused = new WebSocket(`${url}/nowhere?token=demo`)
  const [request, response] = await once(refused, 'unexpected-response')
  assert.equal(response.statusCode, 403)
  request.destroy()
}

async function compression() {
  const { connect } = await exposed(echo, { perMessageDeflate: true })
  const socket = await connect('/', [], { perMessageDeflate: true })
  assert.match(socket.extensions, /^permessage-deflate/)
  const text = 'the same again and again, '.repeat(20_000)
  for (let round = 0; round < 5; round++) {
    assert.deepEqual(await answer(socket, text), { data: text, binary: false })
  }
  const plain = await connect('/', [], { perMessageDeflate: false })
  assert.equal(plain.extensions, '')
  assert.deepEqual(await answer(plain, text), { data: text, binary: false })
}

async function many() {
  const { connect } = await exposed(echo)
  const sockets = await Promise.all(Array.from({ length: 50 }, () => connect('/')))
  await Promise.all(
    sockets.map(async (socket, n) => {
      const bytes = randomBytes(10_000 + n)
      for (let round = 0; round < 20; round++) {
        const { data } = await answer(socket, bytes)
        assert.equal(digest(data), digest(bytes), `WebSocket ${n} hears only itself`)
      }
    }),
  )
}

async function tokens() {
  const seen = []
  const { url } = await exposed((socket, request) => {
    seen.push(request.url)
    echo(socket)
  })
  for (const [asked, given] of [
    ['/live?token=demo&token=of-the-app', '/live?token=of-the-app'],
    ['/live?token=of-the-app&x=1&token=demo', '/live?token=of-the-app&x=1'],
    ['/t/demo/live?token=of-the-app', '/live?token=of-the-app'],
  ]) {
    const socket = new WebSocket(`${url}${asked}`)
    await once(socket, 'open')
    assert.equal(seen.pop(), given)
    socket.terminate()
  }
  for (const options of [{ headers: { 'X-ARP-Token': 'demo' } }, { headers: { Cookie: 'arp_token=demo' } }]) {
    const socket = new WebSocket(`${url}/live?token=of-the-app`, options)
    await once(socket, 'open')
    assert.equal(seen.pop(), '/live?token=of-the-app')
    socket.terminate()
  }
}

/** Starts a server behind the relay; `connect` opens a WebSocket to it. */
async function exposed(handler, options = {}) {
  const server = new WebSocketServer({
    host: '127.0.0.1',
    port: 0,
    verifyClient: ({ req }, done) => done(!req.url.startsWith('/nowhere'), 403),
    ...options,
  })
  server.on('connection', handler)
  await once(server, 'listening')
  const relay = await behindRelay(server.address().port)
  const url = relay.replace('http', 'ws')
  const connect = async (path, protocols = [], clientOptions = {}) => {
    const socket = new WebSocket(`${url}${path}?token=demo`, protocols, clientOptions)
    await once(socket, 'open')
    return socket
  }
  return { server, connect, url }
}

function echo(socket) {
  socket.on('message', (data, binary) => socket.send(data, { binary }))
}

/** Sends a message and gives the one that comes back. */
async function answer(socket, message) {
  const back = once(socket, 'message')
  socket.send(message)
  const [data, binary] = await back
  return { data: binary ? data : String(data), binary }
}

function digest(bytes) {
  return createHash('sha256').update(bytes).digest('hex')
}
