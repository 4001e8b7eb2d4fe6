//! A real machine for the journeys: arps, and arpc with the real CLIs on a loopback model API, in a home of its
//! own. Needs built binaries; what is missing is said by name.

import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const ROOT = join(import.meta.dirname, '../../../..');
const TARGET = process.env['CARGO_TARGET_DIR'] ?? join(ROOT, 'target');

/** A binary of this project, debug or release, or null. */
export function binary(name: string): string | null {
  return ['debug', 'release'].map((profile) => join(TARGET, profile, name)).find(existsSync) ?? null;
}

/** Does this arpc have such a flag? What is not merged yet cannot be tried. */
export function knows(flag: string): boolean {
  const edge = binary('arpc');
  const has = edge !== null && execFileSync(edge, ['--help'], { encoding: 'utf8' }).includes(flag);
  if (!has) console.warn(`SKIPPED: arpc has no ${flag}`);
  return has;
}

/** The directory that holds the real CLIs, or null. */
export function agentsDir(): string | null {
  const places = [process.env['ARP_TEST_AGENTS'], join(ROOT, '.cache/agents/node_modules/.bin'), ...(process.env['PATH'] ?? '').split(':')];
  return places.find((dir) => dir && existsSync(join(dir, 'claude'))) ?? null;
}

/** Waits for a line of a process that matches. */
function line(child: ChildProcess, wanted: RegExp, what: string): Promise<RegExpExecArray> {
  return new Promise((resolve, reject) => {
    let text = '';
    const hear = (data: Buffer): void => {
      text += data.toString();
      const match = wanted.exec(text);
      if (match) resolve(match);
    };
    child.stdout?.on('data', hear);
    child.stderr?.on('data', hear);
    child.on('exit', (code) => reject(new Error(`${what} ended (${code}) and said: ${text}`)));
    setTimeout(() => reject(new Error(`${what} did not say ${wanted}, but: ${text}`)), 90_000).unref();
  });
}

/**
 * A port that nobody listens on right now, below those that systems give to outgoing connections: a relay that is
 * started again finds it still free.
 */
async function freePort(): Promise<number> {
  for (;;) {
    const port = 18_000 + Math.floor(Math.random() * 14_000);
    const free = await new Promise<boolean>((resolve) => {
      const server = createServer();
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
    });
    if (free) return port;
  }
}

async function kill(child: ChildProcess | null): Promise<void> {
  if (!child || child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await gone;
}

/** What is not built or installed, as the commands that make it; empty when all is there. */
export function missingParts(): string[] {
  return [
    binary('arps') && binary('arpc') ? '' : 'cargo build -p arps -p arpc',
    binary('arp-model-api') ? '' : 'cargo build -p arp-testkit --bin arp-model-api',
    agentsDir() ? '' : 'npm install the CLIs and set ARP_TEST_AGENTS to their node_modules/.bin',
  ].filter(Boolean);
}

export class RealMachine {
  readonly home = mkdtempSync(join(tmpdir(), 'arp-console-'));
  readonly project = join(this.home, 'project');
  #children: ChildProcess[] = [];
  #env: NodeJS.ProcessEnv = {};
  #edge: ChildProcess | null = null;
  #relay: ChildProcess | null = null;
  #edgeArgs: string[];
  #gateway = '';
  #model = '';
  #port = 0;
  #ports: number[] = [];
  base = '';

  /**
   * Gives arpc a tunnel of its own besides the relay: a program of this home, whose address has the host that
   * `tunnelHost` said last (127.0.0.1 at first). Before `start`.
   */
  withTunnel(): this {
    const program = join(this.home, 'mytunnel');
    const count = join(this.home, 'tunnel.count');
    const pid = join(this.home, 'tunnel.pid');
    const host = join(this.home, 'tunnel.host');
    writeFileSync(program, `#!/bin/sh\nn=$(cat '${count}' 2>/dev/null || echo 0)\necho $((n + 1)) > '${count}'\necho $$ > '${pid}'\necho "at http://$(cat '${host}'):$1/"\nexec sleep 100000\n`, { mode: 0o755 });
    this.tunnelHost('127.0.0.1');
    const config = join(this.home, 'arpc.toml');
    writeFileSync(config, `[tunnel]\nbackend = "custom"\nhealth_check_interval = 1\n[tunnel.reconnect]\nbackoff_base_ms = 10\nbackoff_max_ms = 50\n[tunnel.custom]\ncommand = "${program} {port}"\nurl_pattern = "at (http\\\\S+)"\nstartup_timeout_secs = 60\n`);
    this.#edgeArgs = [...this.#edgeArgs, '--config', config];
    return this;
  }

  /** The host of the tunnel's address from its next start on. However often it starts, the address changes by this alone. */
  tunnelHost(host: string): void {
    writeFileSync(join(this.home, 'tunnel.host'), host);
  }

  /** Sends its agents through a gateway of this home, with one upstream a service: the model API. Before `start`. */
  withGateway(): this {
    this.#edgeArgs = [...this.#edgeArgs, '--gateway'];
    this.#gateway = join(this.home, '.clp');
    return this;
  }

  /** Another model API; answers its address and how to end it. */
  async anotherModel(): Promise<{ url: string; end(): Promise<void>; asked(): Promise<string> }> {
    const api = this.#spawn(binary('arp-model-api') ?? '', [], process.env);
    const [, address] = await line(api, /listening (\S+)/, 'arp-model-api');
    const url = `http://${address}`;
    return { url, end: () => kill(api), asked: async () => (await fetch(`${url}/__fake/requests`)).text() };
  }

  /** How often the tunnel's program was started. */
  tunnelsStarted(): number {
    return Number(readFileSync(join(this.home, 'tunnel.count'), 'utf8'));
  }

  /** Ends the tunnel's program; arpc starts it anew. */
  loseTunnel(): void {
    process.kill(Number(readFileSync(join(this.home, 'tunnel.pid'), 'utf8')), 'SIGKILL');
  }

  /** `edgeArgs`: more of arpc's command line. */
  constructor(edgeArgs: string[] = []) {
    this.#edgeArgs = edgeArgs;
  }
  /** How it is reached, once it was started. */
  way: '' | 'relay' | 'loopback' = '';

  /** Starts the model API and arpc; `base` is then where the console is. */
  async start(): Promise<void> {
    const model = binary('arp-model-api');
    const agents = agentsDir();
    if (!model || !agents) throw new Error('cargo build -p arp-testkit --bin arp-model-api, and install the CLIs (ARP_TEST_AGENTS)');
    const api = this.#spawn(model, [], process.env);
    const [, address] = await line(api, /listening (\S+)/, 'arp-model-api');
    const url = `http://${address}`;
    this.#model = url;
    mkdirSync(join(this.home, '.gemini'), { recursive: true });
    mkdirSync(join(this.home, '.codex'), { recursive: true });
    mkdirSync(this.project);
    writeFileSync(join(this.project, 'README.md'), '# demo\n');
    execFileSync('git', ['init', '-q'], { cwd: this.project });
    writeFileSync(join(this.home, '.gemini/settings.json'), JSON.stringify({
      security: { auth: { selectedType: 'gemini-api-key' } }, privacy: { usageStatisticsEnabled: false }, telemetry: { enabled: false },
      general: { enableAutoUpdate: false, enableAutoUpdateNotification: false, maxAttempts: 2 },
    }));
    writeFileSync(join(this.home, '.codex/config.toml'), `model = "gpt-5.5"\nmodel_provider = "fake"\n\n[model_providers.fake]\nname = "fake"\nbase_url = "${url}/v1"\nenv_key = "FAKE_KEY"\nwire_api = "responses"\nsupports_websockets = false\n\n[analytics]\nenabled = false\n`);
    this.#env = {
      PATH: `${agents}:${process.env['PATH']}`, HOME: this.home, CODEX_HOME: join(this.home, '.codex'), XDG_DATA_HOME: join(this.home, 'data'),
      ANTHROPIC_BASE_URL: url, GOOGLE_GEMINI_BASE_URL: url, ANTHROPIC_API_KEY: '-', FAKE_KEY: '-', GEMINI_API_KEY: '-',
      DISABLE_AUTOUPDATER: '1', CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1', DISABLE_TELEMETRY: '1', DISABLE_ERROR_REPORTING: '1', IS_SANDBOX: '1',
    };
    if (this.#gateway) {
      mkdirSync(this.#gateway);
      for (const service of ['claude', 'codex', 'gemini']) writeFileSync(join(this.#gateway, `${service}.json`), JSON.stringify({ main: { base_url: url, auth_token: 'key-of-main', weight: 1 } }));
      Object.assign(this.#env, { CLP_HOME: this.#gateway, ...Object.fromEntries(['CLAUDE', 'CODEX', 'GEMINI', 'UI'].map((port) => [`CLP_${port}_PORT`, '0'])) });
    }
    await this.startEdge();
  }

  /**
   * Starts arpc behind a relay of its own. `way` says how it is then reached: through the relay, or, with
   * ARP_CONSOLE_LOOPBACK, at its own listener.
   */
  async startEdge(): Promise<void> {
    const edge = binary('arpc');
    if (!edge || !binary('arps')) throw new Error('cargo build -p arps -p arpc');
    if (!this.#ports.length) {
      this.#ports = [await freePort(), await freePort(), await freePort()];
      await this.startRelay();
    }
    this.way = process.env['ARP_CONSOLE_LOOPBACK'] ? 'loopback' : 'relay';
    const args = [...this.edgeArgs(), '--no-qr'];
    if (this.way === 'loopback') {
      this.#port ||= await freePort();
      this.base = `http://127.0.0.1:${this.#port}`;
      args.push('--listen', `127.0.0.1:${this.#port}`);
    }
    const child = this.#spawn(edge, args, this.#env);
    this.#edge = child;
    const ended = new Promise<never>((_, reject) => child.once('exit', () => reject(new Error('arpc ended at once'))));
    ended.catch(() => undefined);
    await Promise.race([this.#up(), ended]);
  }

  /** Starts the relay on the ports that it had before. */
  async startRelay(): Promise<void> {
    const [control, proxy, visitors] = this.#ports.map(String) as [string, string, string];
    this.#relay = this.#spawn(binary('arps') ?? '', ['--bind', '127.0.0.1', '--control-port', control, '--proxy-port', proxy, '--public-port', visitors, '--allow-plaintext'], this.#env);
    this.base = `http://127.0.0.1:${visitors}`;
  }

  /** The command line by which arpc comes to this relay. */
  edgeArgs(id = 'demo'): string[] {
    const [control, proxy] = this.#ports.map(String) as [string, string];
    return ['--server-addr', '127.0.0.1', '--control-port', control, '--proxy-port', proxy, '--client-id', id, '--plaintext', '--reconnect-interval', '1', '--command-mode', '--enable-fs', '--fs-root', this.project, ...this.#edgeArgs];
  }

  /** A second arpc on this relay, that carries bytes to a local port; answers how to end it. */
  async carries(id: string, port: number, ...more: string[]): Promise<() => Promise<void>> {
    const [control, proxy] = this.#ports.map(String) as [string, string];
    const data = join(this.home, `data-of-${id}`);
    const child = this.#spawn(binary('arpc') ?? '', ['--server-addr', '127.0.0.1', '--control-port', control, '--proxy-port', proxy, '--client-id', id, '--plaintext', '--local-port', String(port), '--data-dir', data, '--no-qr', ...more], this.#env);
    await line(child, /Registered with the relay/, 'arpc');
    return () => kill(child);
  }

  /** The environment of arpc and of the agents below it. */
  get env(): NodeJS.ProcessEnv {
    return this.#env;
  }

  /** The next answer of the model, whatever it is asked; `delay` spreads it over that many seconds. */
  async answer(text: string, delay = 0): Promise<void> {
    await this.#order('queue', { text, delay });
  }

  /** Lets the answers of `fake hold` go on. */
  async release(): Promise<void> {
    await this.#order('release');
  }

  /** Our id of the session that began last. */
  async newest(): Promise<string> {
    const answer = await fetch(`${this.base}/api/sessions?limit=1&token=demo`);
    return (await answer.json() as { sessions: { id: string }[] }).sessions[0]?.id ?? '';
  }

  async statusOf(session: string): Promise<string> {
    const answer = await fetch(`${this.base}/api/sessions/${session}?lines=none&token=demo`);
    return (await answer.json() as { session: { status: string } }).session.status;
  }

  /** The body of the newest request to the model, as text. */
  async lastAsked(): Promise<string> {
    return JSON.stringify((await this.#asked()).pop()?.body ?? null);
  }

  /** The models that the requests named so far. */
  async modelsAsked(): Promise<string[]> {
    return (await this.#asked()).map(({ body }) => body?.model ?? '');
  }

  async #asked(): Promise<{ body: { model?: string } | null }[]> {
    const answer = await fetch(`${this.#model}/__fake/requests`);
    const told = await answer.json() as { requests: { body: { model?: string } | null }[] } | { body: { model?: string } | null }[];
    return Array.isArray(told) ? told : told.requests;
  }

  async #order(order: string, body: object = {}): Promise<void> {
    const answer = await fetch(`${this.#model}/__fake/${order}`, { method: 'POST', body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`the model API refused ${order}: ${answer.status}`);
  }

  async #up(): Promise<void> {
    for (const end = Date.now() + 90_000; Date.now() < end;) {
      const up = await fetch(`${this.base}/api/health?token=demo`).then((answer) => answer.ok, () => false);
      if (up) return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error('arpc did not come up');
  }

  /** Ends arpc without warning; its sessions live on in their hosts. */
  async killEdge(): Promise<void> {
    await kill(this.#edge);
  }

  /** Ends the relay without warning. */
  async killRelay(): Promise<void> {
    await kill(this.#relay);
  }

  async stop(): Promise<void> {
    // Sessions outlive an arpc that only stops: their agents are ended with it.
    const edge = binary('arpc');
    if (edge && this.#edge?.exitCode === null && this.#edge.signalCode === null) {
      await new Promise((resolve) => execFile(edge, ['stop', '--park'], { env: this.#env, cwd: this.home, timeout: 60_000 }, resolve));
    }
    // So does a gateway.
    if (edge && this.#gateway) await new Promise((resolve) => execFile(edge, ['gateway', 'stop'], { env: this.#env, cwd: this.home, timeout: 60_000 }, resolve));
    const ended = this.#children.filter((child) => child.exitCode === null && child.signalCode === null).map((child) => {
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGTERM');
      setTimeout(() => child.kill('SIGKILL'), 8_000).unref();
      return gone;
    });
    await Promise.all(ended);
    rmSync(this.home, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }

  #spawn(program: string, args: string[], env: NodeJS.ProcessEnv): ChildProcess {
    const child = spawn(program, args, { env, cwd: this.home, stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout?.resume();
    child.stderr?.resume();
    this.#children.push(child);
    return child;
  }
}
