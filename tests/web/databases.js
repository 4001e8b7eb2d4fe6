// Drivers of databases as programs have them, through the relay's public port: what they say differs from what the
// command line clients say. ARP_TEST_RELAY is its HOST:PORT.

import assert from 'node:assert/strict'
import { createHash, generateKeyPairSync, privateDecrypt, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import mysql from 'mysql2/promise'
import postgres from 'postgres'

const [relayHost, relayPort] = process.env.ARP_TEST_RELAY.split(':')
const relay = { host: relayHost, port: Number(relayPort) }
setTimeout(() => {
  console.error('it takes too long')
  process.exit(1)
}, 120_000).unref()

/** Extended queries on one connection, sent without waiting for the answers: of hundreds that fail none shifts another's. */
async function pipelined() {
  const sql = postgres({ ...relay, user: 'bob?token=db', password: 's3cret', database: 'postgres', max: 1, max_pipeline: 500, onnotice: () => {} })
  const asked = []
  for (let n = 0; n < 2000; n++) {
    const query = n % 100 === 7 ? sql`select 1 / ${n - n}::int as n` : sql`select ${n}::int as n, repeat('x', ${n % 977}) as rest`
    asked.push(query.then(([row]) => [row.n, row.rest.length], (e) => e.message))
  }
  const told = await Promise.all(asked)
  told.forEach((answer, n) => assert.deepEqual(answer, n % 100 === 7 ? 'division by zero' : [n, n % 977]))
  // COPY in and out, as a program does it.
  await sql`create temp table t (a int, b text)`
  const into = await sql`copy t from stdin`.writable()
  for (let n = 0; n < 20_000; n++) into.write(`${n}\t${'y'.repeat(n % 50)}\n`)
  await new Promise((done, failed) => into.on('finish', done).on('error', failed).end())
  const [{ count, sum }] = await sql`select count(*)::int, sum(length(b))::int from t`
  assert.deepEqual([count, sum], [20_000, 400 * 1225])
  let bytes = 0
  for await (const part of await sql`copy t to stdout`.readable()) bytes += part.length
  assert.ok(bytes > 490_000, String(bytes))
  await sql.end()
}

/** TLS from the first byte, told by ALPN and the host name: nothing of it is the relay's to read. */
async function direct() {
  const { ARP_TEST_NAME: name, ARP_TEST_CA: ca, ARP_TEST_USER: user } = process.env
  const ssl = { ca: readFileSync(ca), servername: name }
  for (const sslnegotiation of ['direct', undefined]) {
    const sql = postgres({ ...relay, user, password: 's3cret', database: 'postgres', max: 2, ssl, sslnegotiation })
    const told = await Promise.all([1, 2, 3].map((n) => sql`select ${n}::int as n, current_user as who`))
    assert.deepEqual(told.map(([row]) => [row.n, row.who]), [1, 2, 3].map((n) => [n, 'bob']))
    await sql.end()
  }
}

/**
 * caching_sha2_password as MySQL 8 has it: in full, with the server's RSA key, and from the server's cache. The server
 * is one of our own that says as much of the protocol as a login needs, and checks every answer.
 */
async function mysql8() {
  const seen = []
  const server = createServer((socket) => new Server8(socket, seen))
  await new Promise((done) => server.listen(Number(process.env.ARP_TEST_MYSQL_PORT), '127.0.0.1', done))
  const log_in = async (more) => {
    const db = await mysql.createConnection({ ...relay, user: 'ann', password: 's3cret', database: '?token=eight', ...more })
    await db.query('do 1')
    await db.end()
  }
  await log_in({})
  await log_in({})
  await log_in({ database: 'shop?token=eight' })
  await log_in({ user: 'ann?token=eight', database: 'shop' })
  await assert.rejects(log_in({ password: 'wrong' }), { errno: 1045, sqlState: '28000' })
  await assert.rejects(log_in({ database: '?token=nobody' }), /no edge agent has registered this token/)
  assert.deepEqual(seen, ['ann//full', 'ann//fast', 'ann/shop/fast', 'ann/shop/fast', 'ann//wrong'])
}

const sha256 = (...parts) => createHash('sha256').update(Buffer.concat(parts)).digest()
const xor = (a, b) => Buffer.from(a.map((byte, at) => byte ^ b[at % b.length]))
const keys = generateKeyPairSync('rsa', { modulusLength: 2048, publicKeyEncoding: { type: 'spki', format: 'pem' }, privateKeyEncoding: { type: 'pkcs8', format: 'pem' } })
const PASSWORD = 's3cret'
let cached = false

/** MySQL's "Connection Phase", and OK for every command. */
class Server8 {
  constructor(socket, seen) {
    Object.assign(this, { socket, seen, buffer: Buffer.alloc(0), salt: randomBytes(20).map((byte) => 33 + (byte % 94)), state: 'login' })
    socket.on('data', (data) => this.read(data)).on('error', () => {})
    const flags = 0x818f_f7ff & ~0x800 & ~0x20 // neither TLS nor compression
    const fixed = Buffer.alloc(16)
    fixed.writeUInt16LE(flags & 0xffff, 0)
    fixed[2] = 255
    fixed.writeUInt16LE(2, 3)
    fixed.writeUInt16LE(flags >>> 16, 5)
    fixed[7] = 21
    const zero = Buffer.from([0])
    const id = Buffer.from([7, 0, 0, 0])
    this.sequence = 0
    this.say([10], Buffer.from('8.4.0\0'), id, this.salt.subarray(0, 8), zero, fixed, Buffer.alloc(2), this.salt.subarray(8), zero, Buffer.from('caching_sha2_password\0'))
  }

  say(...parts) {
    const payload = Buffer.concat(parts.map((part) => Buffer.from(part)))
    const head = Buffer.from([payload.length & 255, (payload.length >> 8) & 255, 0, this.sequence++ & 255])
    this.socket.write(Buffer.concat([head, payload]))
  }

  ok() {
    this.say([0, 0, 0, 2, 0, 0, 0])
  }

  refuse() {
    this.seen.push(`${this.user}/${this.database}/wrong`)
    this.say([255, 0x15, 0x04], Buffer.from('#28000Access denied'))
    this.socket.end()
  }

  read(data) {
    this.buffer = Buffer.concat([this.buffer, data])
    while (this.buffer.length >= 4) {
      const length = this.buffer.readUIntLE(0, 3)
      if (this.buffer.length < 4 + length) return
      const sequence = this.buffer[3]
      const payload = this.buffer.subarray(4, 4 + length)
      this.buffer = this.buffer.subarray(4 + length)
      // Packets count through; a command begins anew.
      const wanted = this.state === 'ready' ? 0 : this.sequence & 255
      if (sequence !== wanted) return this.socket.destroy(new Error(`packet ${sequence} in place of ${wanted}`))
      this.sequence = sequence + 1
      this[this.state](payload)
    }
  }

  login(payload) {
    const flags = payload.readUInt32LE(0)
    let at = 32
    const string = () => {
      const end = payload.indexOf(0, at)
      const text = payload.toString('utf8', at, end)
      at = end + 1
      return text
    }
    this.user = string()
    const length = payload[at++]
    const answer = payload.subarray(at, (at += length))
    this.database = flags & 8 ? string() : ''
    assert.equal(string(), 'caching_sha2_password')
    const stage1 = sha256(Buffer.from(PASSWORD))
    const good = xor(stage1, sha256(sha256(stage1), this.salt))
    if (cached) {
      if (!good.equals(answer)) return this.refuse()
      this.seen.push(`${this.user}/${this.database}/fast`)
      this.say([1, 3])
      this.state = 'ready'
      return this.ok()
    }
    if (!good.equals(answer)) return this.refuse()
    this.say([1, 4])
    this.state = 'asked'
  }

  asked(payload) {
    // In plain a client asks for the key, and sends the password only by that.
    if (!payload.equals(Buffer.from([2]))) return this.refuse()
    this.say([1], Buffer.from(keys.publicKey))
    this.state = 'full'
  }

  full(payload) {
    const padded = privateDecrypt({ key: keys.privateKey, oaepHash: 'sha1' }, payload)
    if (xor(padded, this.salt).toString() !== `${PASSWORD}\0`) return this.refuse()
    cached = true
    this.seen.push(`${this.user}/${this.database}/full`)
    this.state = 'ready'
    this.ok()
  }

  ready(payload) {
    if (payload[0] === 1) return this.socket.end()
    this.ok()
  }
}

const scenarios = { pipelined, direct, mysql8 }
await scenarios[process.argv[2]]()
process.exit(0)
