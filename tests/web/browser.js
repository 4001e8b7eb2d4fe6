// A real browser on pages behind the relay.

import assert from 'node:assert/strict'
import { chromium } from 'playwright-core'
import { behindRelay, runScenario } from './driver.js'
import { serve } from './serve.js'

/** Far above what anything takes, for busy machines. */
const PATIENCE = 60_000

await runScenario({ page, origins, tabs })

/** One page with everything that pages have, and hot reload. */
async function page() {
  const vite = await serve('demo')
  const relay = await behindRelay(vite.port)
  const { browser, context } = await launch()
  const tab = await open(context, `${relay}/?token=demo`)
  await shows(tab, 'demo', 'first')

  const { width, styles } = await tab.evaluate(() => ({
    width: document.getElementById('logo').naturalWidth,
    styles: getComputedStyle(document.getElementById('message')).color,
  }))
  assert.equal(width, 32, 'the image is there')
  assert.equal(styles, 'rgb(1, 2, 3)', 'the style sheet is there')
  await tab.waitForFunction(() => performance.getEntriesByType('resource').some((r) => r.name.includes('dot.svg')))
  assert.equal(await tab.evaluate(() => window.late()), 'late alone demo, deep demo', 'a module loaded later')

  await hotReload(tab, vite, 'first', 'second', 'demo')
  await vite.edit('src/style.css', 'rgb(1, 2, 3)', 'rgb(3, 2, 1)')
  await tab.waitForFunction(() => getComputedStyle(document.getElementById('message')).color === 'rgb(3, 2, 1)')
  soundTraffic(tab, relay)

  for (const { url, cookie } of vite.seen) {
    assert.doesNotMatch(url, /token=demo/, 'the token does not reach the application')
    assert.doesNotMatch(cookie ?? '', /arp_token/, 'nor does the cookie')
  }
  await browser.close()
  await vite.close()
}

/** Two tabs of one browser, two clients, and each on an origin of its own, as the relay's domain gives them. */
async function origins() {
  const { alice, bob, a, b, relays, close } = await twoTabs((relay, name) =>
    `${relay.replace('127.0.0.1', 'localhost')}/?token=${name}`,
  )
  const [ofAlice, ofBob] = ['alice', 'bob'].map((name) => relays.replace('127.0.0.1', `${name}.localhost`))
  // The one that was opened last makes no difference to the other, nor does a reload.
  for (const word of ['second', 'third']) {
    const before = word === 'second' ? 'first' : 'second'
    await hotReload(a, alice, before, word, 'alice')
    await hotReload(b, bob, before, word, 'bob')
    for (const [tab, name] of [[a, 'alice'], [b, 'bob']]) {
      assert.equal(await tab.evaluate(() => window.late()), `late alone ${name}, deep ${name}`)
      assert.equal(await tab.evaluate(() => window.ask()), name)
      assert.equal(await tab.evaluate(() => window.call('again')), `${name} heard again`)
      await tab.reload()
      await shows(tab, name, word)
    }
  }
  soundTraffic(a, ofAlice, `${relays.replace('127.0.0.1', 'localhost')}/?token=alice`)
  soundTraffic(b, ofBob, `${relays.replace('127.0.0.1', 'localhost')}/?token=bob`)
  await close()
}

/**
 * Two tabs of one browser, two clients, one origin. A page whose URL holds the token loads whole, at first and again,
 * and what it fetches is of its own client, modules imported later and WebSockets opened later included.
 */
async function tabs() {
  const { alice, bob, a, b, relays, close } = await twoTabs((relay, name) => `${relay}/?token=${name}`)
  for (const [tab, name] of [[a, 'alice'], [b, 'bob'], [a, 'alice'], [b, 'bob']]) {
    assert.equal(await tab.evaluate(() => window.ask()), name)
    assert.equal(await tab.evaluate(() => window.late()), `late alone ${name}, deep ${name}`)
    assert.equal(await tab.evaluate(() => window.call('again')), `${name} heard again`)
  }
  await hotReload(a, alice, 'first', 'second', 'alice')
  await hotReload(b, bob, 'first', 'second', 'bob')
  for (const [tab, name, word] of [
    [a, 'alice', 'second'],
    [b, 'bob', 'second'],
    [b, 'bob', 'second'],
    [a, 'alice', 'second'],
  ]) {
    await tab.reload()
    await shows(tab, name, word)
    assert.equal(await tab.evaluate(() => window.late()), `late alone ${name}, deep ${name}`)
    assert.equal(await tab.evaluate(() => window.call('again')), `${name} heard again`)
    for (const [other, its] of [[a, 'alice'], [b, 'bob']]) {
      assert.equal(await other.evaluate(() => window.ask()), its)
      assert.equal(await other.evaluate(() => window.ask('?keep')), its, 'not what the other tab left in the cache')
    }
  }
  await hotReload(b, bob, 'second', 'third', 'bob')
  await hotReload(a, alice, 'second', 'third', 'alice')
  for (const tab of [a, b]) soundTraffic(tab, relays)
  await close()
}

/** Opens two tabs, one after the other, and checks at the end that no WebSocket went astray. */
async function twoTabs(address) {
  const [alice, bob] = [await serve('alice'), await serve('bob')]
  const relays = await behindRelay(alice.port, bob.port)
  const { browser, context } = await launch()
  const a = await open(context, address(relays, 'alice'))
  await shows(a, 'alice', 'first')
  const b = await open(context, address(relays, 'bob'))
  await shows(b, 'bob', 'first')
  const close = async () => {
    for (const [vite, other] of [[alice, 'bob'], [bob, 'alice']]) {
      const strays = vite.welcomed.filter((url) => url.includes(other))
      assert.deepEqual(strays, [], 'no WebSocket of the other tab was taken')
    }
    await browser.close()
    await Promise.all([alice.close(), bob.close()])
  }
  return { alice, bob, a, b, relays, close }
}

async function launch() {
  const browser = await chromium.launch({
    executablePath: process.env.ARP_TEST_CHROMIUM,
    args: [
      '--headless=new',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  })
  const context = await browser.newContext()
  context.setDefaultTimeout(PATIENCE)
  context.setDefaultNavigationTimeout(PATIENCE)
  return { browser, context }
}

/** Opens a tab that records its traffic. */
async function open(context, url) {
  const tab = await context.newPage()
  tab.traffic = []
  tab.sockets = []
  tab.faults = []
  tab.on('request', (request) => tab.traffic.push(request.url()))
  tab.on('requestfailed', (r) => tab.faults.push(`${r.url()}: ${r.failure()?.errorText}`))
  tab.on('response', (r) => r.status() >= 400 && tab.faults.push(`${r.url()}: ${r.status()}`))
  tab.on('websocket', (socket) => {
    tab.sockets.push(socket.url())
    socket.on('socketerror', (error) => tab.faults.push(`${socket.url()}: ${error}`))
  })
  tab.on('pageerror', (error) => tab.faults.push(String(error)))
  tab.on('console', (message) => message.type() === 'error' && tab.faults.push(message.text()))
  await tab.goto(url)
  return tab
}

/** Waits until a page is complete, and checks that all its parts are of one client. */
async function shows(tab, name, word) {
  try {
    await tab.waitForFunction(() => document.body.dataset.ready === 'yes')
  } catch (error) {
    throw new Error(`the page of ${name} is not complete: ${tab.faults.join('; ')}`, { cause: error })
  }
  const parts = await tab.evaluate(() => [...document.querySelectorAll('p')].map((p) => p.textContent))
  assert.deepEqual(parts, [`${word} ${name}`, `deep ${name}`, name, `${name} heard hello`])
}

/** Changes a source file and waits for the change in the page, which must not have been loaded again. */
async function hotReload(tab, vite, from, to, name) {
  const mark = `${Math.random()}`
  await tab.evaluate((m) => (window.mark = m), mark)
  await vite.edit('src/message.js', from, to)
  try {
    await tab.waitForFunction(
      (text) => document.getElementById('message').textContent === text,
      `${to} ${name}`,
    )
  } catch (error) {
    throw new Error(`the change did not reach the page of ${name}: ${tab.faults.join('; ')}`, { cause: error })
  }
  assert.equal(await tab.evaluate(() => window.mark), mark, 'the page was not loaded again')
  assert.equal(await tab.evaluate(() => document.getElementById('chain').textContent), `deep ${name}`)
}

/** Everything came, and all of it from the relay, after the address in `first` if that was another one. */
function soundTraffic(tab, relay, first) {
  assert.deepEqual(tab.faults, [])
  const { host } = new URL(relay)
  const strangers = [...tab.traffic, ...tab.sockets].filter((url) => new URL(url).host !== host && url !== first)
  assert.deepEqual(strangers, [], 'nothing goes past the relay')
  assert.ok(tab.sockets.some((url) => !url.includes('/live/')), 'the hot reload has a WebSocket')
  assert.ok(tab.sockets.some((url) => url.includes('/live/')), 'the application has one')
}
