// The console behind an nginx that passes no Host, in a real browser: what its page may do, and that a foreign page
// may not.

import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { chromium } from 'playwright-core'

const { ARP_TEST_URL: url, ARP_TEST_TOKEN: token, ARP_TEST_KEY: key } = process.env
const browser = await chromium.launch({ executablePath: process.env.ARP_TEST_CHROMIUM, args: ['--no-sandbox'] })
const context = await browser.newContext({ ignoreHTTPSErrors: true })

// Two tabs of one machine, opened in two ways.
const first = await context.newPage()
await first.goto(`${url}/?token=${token}`)
const second = await context.newPage()
await second.goto(`${url}/t/${token}`)
assert.ok(second.url().startsWith(`${url}/t/${token}/`), second.url())

for (const tab of [first, second]) {
  assert.equal(await tab.title().then((title) => title.length > 0), true, 'the page is there')
  const seen = await tab.evaluate(use, { token, key })
  assert.deepEqual(seen, { login: 200, list: 200, events: true, socket: 'open' })
}

// A page of another site, which knows the token and whose visitor is logged in.
const site = createServer((_, response) => response.setHeader('content-type', 'text/html').end('<title>evil</title>'))
await new Promise((done) => site.listen(0, '127.0.0.1', done))
const evil = await context.newPage()
await evil.goto(`http://localhost:${site.address().port}/`)
const refused = await evil.evaluate(abuse, { url, token })
assert.deepEqual(refused, { socket: 'closed', sent: 'blocked' })
await browser.close()
process.exit(0)

async function use({ token, key }) {
  const headers = { 'X-ARP-Token': token, 'Content-Type': 'application/json' }
  const login = await fetch('/api/login', { method: 'POST', headers, body: JSON.stringify({ edge_key: key }) })
  const list = await fetch('/api/sessions', { headers })
  const stream = await fetch('/api/events', { headers: { ...headers, Accept: 'text/event-stream' } })
  const reader = stream.body.getReader()
  const { done } = await reader.read()
  await reader.cancel()
  const socket = await new Promise((told) => {
    const socket = new WebSocket(`wss://${location.host}/api/events/ws?token=${token}`)
    socket.onmessage = () => told('open')
    socket.onopen = () => told('open')
    socket.onclose = () => told('closed')
  })
  return { login: login.status, list: list.status, events: !done, socket }
}

async function abuse({ url, token }) {
  const socket = await new Promise((told) => {
    const socket = new WebSocket(`${url.replace('https', 'wss')}/api/events/ws?token=${token}`)
    socket.onopen = () => told('open')
    socket.onclose = () => told('closed')
  })
  const sent = await fetch(`${url}/api/sessions?token=${token}`, { method: 'POST', body: '{}', credentials: 'include' })
    .then((response) => String(response.status))
    .catch(() => 'blocked')
  return { socket, sent }
}
