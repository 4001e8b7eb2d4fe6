//! A pretended gateway: the endpoints of docs/gateway.md that the console asks for, with a memory of what it was told.

import { EventEmitter } from 'node:events';
import type { Budget, Filters, GatewayRequest, LiveRequest, Mode, Price, Recording, Service, RouteConfig, ServiceUpstreams, SessionGateway, Sum, Upstream, UsageBy } from '../../src/gateway/types';
import { HttpError, type Body } from './http.ts';

const SERVICES: Service[] = ['claude', 'codex', 'gemini'];

export const sum = (key: string, more: Partial<Sum> = {}): Sum => ({ key, requests: 0, failures: 0, input: 0, cache_write: 0, cache_read: 0, output: 0, reasoning: 0, cost: 0, unpriced: 0, ...more });
const dayOf = (at: number): string => {
  const date = new Date(at);
  return [date.getFullYear(), date.getMonth() + 1, date.getDate()].map((part) => String(part).padStart(2, '0')).join('-');
};

export class MockGateway extends EventEmitter {
  readonly services: Record<Service, ServiceUpstreams>;
  /** Newest first. */
  readonly requests: GatewayRequest[] = [];
  readonly live = new Map<number, LiveRequest>();
  /** Keys, which nobody is told. */
  readonly keys = new Map<string, { auth_token?: string; api_key?: string }>();
  faults: string[] = [];
  /** The next test of an upstream ends so. */
  verdict = { ok: true, status: 200, millis: 640, message: '' };
  /** As the file holds it, with what this console knows nothing of. */
  routes: RouteConfig = { mode: 'default', modelMappings: { claude: [], codex: [] }, configMappings: { claude: [], codex: [] }, ours: { kept: true } };
  filters: Filters = {
    rules: [], fault: null, redaction: { presets: ['mails'], words: [], patterns: [], keep: [], services: [], fail_open: false },
    presets: [['api_keys', 'keys'], ['tokens', 'tokens'], ['mails', 'mail addresses'], ['bank_cards', 'cards']].map(([name = '', what = '']) => ({ name, what })),
  };
  recording: Recording = { on: false, requests: 200, max_kb: 512, hours: 24, kept: 0, bytes: 0 };
  /** Bodies that are kept, by the request's number. */
  readonly bodies = new Map<number, string>();
  readonly answers = new Map<number, string>();
  budgets: Budget[] = [];
  own: Price[] = [];
  #next = 1;

  constructor() {
    super();
    this.setMaxListeners(0);
    const empty = (): ServiceUpstreams => ({ mode: 'active-first', failure_threshold: 3, auto_reset_minutes: 10, active: null, file_fault: null, upstreams: [] });
    this.services = { claude: empty(), codex: empty(), gemini: empty() };
  }

  add(service: Service, name: string, more: Partial<Upstream> = {}): Upstream {
    const of = this.services[service];
    const made: Upstream = {
      name, base_url: `https://${name}.example`, has_token: true, has_key: false, weight: 0, active: of.upstreams.length === 0, standing: 'good',
      failures: 0, resting_secs: 0, disabled_until: null, proxy: null, usage: sum(name), ...more,
    };
    of.upstreams.push(made);
    if (made.active) of.active = name;
    return made;
  }

  /** A request is over. */
  request(more: Partial<GatewayRequest>): GatewayRequest {
    const made: GatewayRequest = {
      id: this.#next++, at: Date.now(), service: 'claude', session: null, agent: null, project: null, upstream: 'official', failed: [], model: 'opus', routed: null,
      path: 'POST /v1/messages', status: 200, millis: 4_200, first_millis: 900, input: 1_200, cache_write: 800, cache_read: 14_000, output: 640, reasoning: 0, cost: 0.0421, redacted: 0, error: null, ...more,
    };
    this.requests.unshift(made);
    this.live.delete(made.id);
    this.emit('event', 'request', made);
    return made;
  }

  /** A request begins or goes on. */
  under(more: Partial<LiveRequest>): LiveRequest {
    const id = more.id ?? this.#next++;
    const made: LiveRequest = { at: Date.now(), service: 'claude', session: null, upstream: 'official', model: 'opus', routed: null, phase: 'asking', failed: 0, input: 0, output: 0, millis: 0, redacted: 0, ...this.live.get(id), ...more, id };
    this.live.set(id, made);
    this.emit('event', 'live', made);
    return made;
  }

  changed(): void {
    this.emit('event', 'upstreams', {});
  }

  count(by: UsageBy, days: number): { total: Sum; sums: Sum[] } {
    const since = Date.now() - days * 86_400_000;
    const sums = new Map<string, Sum>();
    const total = sum('');
    for (const one of this.requests.filter(({ at }) => at >= since)) {
      const key = { day: dayOf(one.at), upstream: one.upstream, model: one.model, session: one.session, service: one.service, project: one.project }[by] ?? '';
      const into = sums.get(key) ?? sum(key);
      for (const of of [into, total]) {
        of.requests++;
        if (one.error) of.failures++;
        for (const part of ['input', 'cache_write', 'cache_read', 'output', 'reasoning'] as const) of[part] += one[part];
        of.cost += one.cost ?? 0;
      }
      sums.set(key, into);
    }
    return { total, sums: [...sums.values()].sort((a, b) => (a.key < b.key ? -1 : 1)) };
  }

  /** What is known of a session, as far as a test says. */
  session(of: Partial<SessionGateway> = {}): SessionGateway {
    return { upstream: 'official', model: 'claude-opus-4-8', choice: { upstream: null, model: null }, usage: sum('', { requests: 12, input: 3_000, cache_read: 48_000, output: 4_100, cost: 0.4213 }), failovers: 0, redacted: 0, waits_until: null, ...of };
  }

  /** Answers a request below `/api/gateway`. */
  answer(method: string, parts: string[], query: URLSearchParams, body: Body): object {
    const [what = '', service, name, order] = parts;
    const of = SERVICES.includes(service as Service) ? this.services[service as Service] : undefined;
    switch (`${method} ${what}${order ? `/*/${order}` : parts.length > 1 ? '/*' : ''}`) {
      case 'GET ':
        return {
          type: 'gateway', version: '0.1.0', pid: 4711, since: Date.now() - 3 * 3_600_000, listen: { claude: '127.0.0.1:3210', codex: '127.0.0.1:3211', gemini: '127.0.0.1:3212', ui: '127.0.0.1:3300' }, faults: this.faults,
          services: Object.fromEntries(SERVICES.map((one) => [one, { active: this.services[one].active, upstreams: this.services[one].upstreams.length, resting: this.services[one].upstreams.filter(({ standing }) => standing === 'resting').length }])),
          live: [...this.live.values()], today: this.count('day', 1).sums.pop() ?? sum(dayOf(Date.now())), days: this.count('day', 30).sums,
        };
      case 'GET upstreams':
        return { type: 'gateway_upstreams', services: this.services };
      case 'PUT upstreams/*': {
        if (!of || !name) break;
        const known = of.upstreams.find((one) => one.name === name);
        if (!known && !body['base_url']) throw new HttpError(400, 'bad_request', 'A new upstream needs a base_url.');
        const into = known ?? this.add(service as Service, name);
        const keys = this.keys.get(`${service}/${name}`) ?? {};
        if (body['base_url'] !== undefined) into.base_url = String(body['base_url']);
        if (body['weight'] !== undefined) into.weight = Number(body['weight']);
        for (const [field, has] of [['auth_token', 'has_token'], ['api_key', 'has_key']] as const) {
          if (body[field] === undefined) { if (!known) into[has] = false; continue; }
          keys[field] = String(body[field]);
          into[has] = body[field] !== '';
        }
        this.keys.set(`${service}/${name}`, keys);
        this.changed();
        return into;
      }
      case 'DELETE upstreams/*':
        if (!of) break;
        of.upstreams = of.upstreams.filter((one) => one.name !== name);
        this.changed();
        return { type: 'gateway_upstream_removed' };
      case 'PUT balance/*':
        if (!of) break;
        if (body['mode']) of.mode = body['mode'] as Mode;
        if (body['failure_threshold']) of.failure_threshold = Number(body['failure_threshold']);
        if (body['auto_reset_minutes']) of.auto_reset_minutes = Number(body['auto_reset_minutes']);
        this.changed();
        return of;
      case 'GET requests': {
        const words = (query.get('q') ?? '').toLowerCase();
        const before = Number(query.get('before') ?? Infinity);
        const all = this.requests.filter((one) => one.id < before && (!query.get('service') || one.service === query.get('service')) && (!query.get('failed') || one.error !== null) && JSON.stringify(one).toLowerCase().includes(words));
        const limit = Number(query.get('limit') ?? 50);
        return { type: 'gateway_requests', requests: all.slice(0, limit), has_more: all.length > limit };
      }
      case 'GET routes':
        return { type: 'gateway_routes', config: this.routes };
      case 'PUT routes':
        this.routes = body['config'] as RouteConfig;
        return { type: 'gateway_routes', config: this.routes };
      case 'PUT filters': {
        const rules = (body['rules'] ?? this.filters.rules) as Filters['rules'];
        for (const { source } of rules) {
          try {
            new RegExp(source);
          } catch {
            throw new HttpError(400, 'bad_request', `filter.json: ${source} is no pattern`);
          }
        }
        this.filters = { ...this.filters, rules, ...(body['redaction'] ? { redaction: body['redaction'] as Filters['redaction'] } : {}) };
        return { type: 'gateway_filters', ...this.filters };
      }
      case 'GET filters':
        return { type: 'gateway_filters', ...this.filters };
      case 'GET recording':
        return { type: 'gateway_recording', ...this.recording, kept: this.bodies.size };
      case 'PUT recording':
        this.recording.on = body['on'] === true;
        return { type: 'gateway_recording', ...this.recording, kept: this.bodies.size };
      case 'DELETE recording':
        this.bodies.clear();
        this.answers.clear();
        for (const one of this.requests) one.recorded = false;
        return { type: 'gateway_recording', ...this.recording, kept: 0 };
      case 'GET requests/*': {
        const kept = this.bodies.get(Number(service));
        if (kept === undefined) throw new HttpError(404, 'not_found', 'This body is not recorded.');
        return { type: 'gateway_request_body', id: Number(service), at: Date.now(), until: Date.now() + 86_400_000, body: kept, cut: false, hidden: [], answer: this.answers.get(Number(service)) ?? null, answer_cut: false, answer_hidden: [] };
      }
      case 'GET budgets':
        return { type: 'gateway_budgets', budgets: this.budgets };
      case 'PUT budgets':
        this.budgets = (body['budgets'] as Budget[]).map((one) => ({ ...one, spent: 0, reached: false }));
        return { type: 'gateway_budgets', budgets: this.budgets };
      case 'PUT prices':
        this.own = Object.entries(body['own'] as Record<string, Price>).map(([model, price]) => ({ ...price, cache_read: price.cache_read ?? price.input / 10, cache_write: price.cache_write ?? price.input, model, own: true }));
        return this.answer('GET', ['prices'], query, {});
      case 'GET prices':
        return {
          type: 'gateway_prices', source: 'a pretended list', dated: '2026-11-28',
          prices: [...this.own, { model: 'claude-opus-5', input: 5, output: 25, cache_read: 0.5, cache_write: 6.25, own: false }, { model: 'gpt-5.5', input: 5, output: 30, cache_read: 0.5, cache_write: 5, own: false }],
        };
      case 'POST filters/*': {
        if (body['recorded'] !== undefined) {
          const found = this.bodies.size ? [{ by: 'mails', count: this.bodies.size, example: '…' }] : [];
          return { type: 'gateway_dry_run', recording: this.recording.on, found, requests: [...this.bodies.keys()].map((id) => ({ id, at: Date.now(), service: 'claude', model: 'opus', found })) };
        }
        let text = String(body['text']);
        const found: { by: string; count: number; example: string }[] = [];
        const redaction = (body['redaction'] ?? this.filters.redaction) as Filters['redaction'];
        if (redaction.presets.includes('mails')) text = text.replace(/\S+@\S+/g, (mail) => { found.push({ by: 'mails', count: 1, example: `${mail.slice(0, 2)}…${mail.slice(-2)}` }); return '[MAIL_1]'; });
        ((body['rules'] ?? this.filters.rules) as Filters['rules']).forEach(({ source, target, op }, index) => {
          if (new RegExp(source).test(text)) found.push({ by: `filter ${index + 1}`, count: 1, example: source.slice(0, 1) });
          text = text.replaceAll(new RegExp(source, 'g'), op === 'remove' ? '' : target);
        });
        return { type: 'gateway_dry_run', text, found };
      }
      case 'GET usage': {
        const by = (query.get('by') ?? 'day') as UsageBy;
        return { type: 'gateway_usage', by, ...this.count(by, Number(query.get('days') ?? 30)) };
      }
    }
    if (method === 'POST' && what === 'upstreams' && of) {
      const one = of.upstreams.find((other) => other.name === name);
      if (!one) throw new HttpError(404, 'upstream_not_found', 'There is no such upstream.');
      if (order === 'test') return { type: 'gateway_test', ...this.verdict };
      if (order === 'activate') {
        for (const other of of.upstreams) other.active = other === one;
        of.active = one.name;
      }
      if (order === 'disable') {
        one.disabled_until = body['until'] === null ? null : String(body['until']);
        one.standing = one.disabled_until ? 'disabled' : 'good';
      }
      if (order === 'reset') Object.assign(one, { failures: 0, resting_secs: 0, standing: 'good' });
      this.changed();
      return one;
    }
    throw new HttpError(404, 'not_found', 'No such thing here.');
  }
}

/** A gateway with a month behind it. */
export function busyGateway(): MockGateway {
  const gateway = new MockGateway();
  gateway.add('claude', 'official', { base_url: 'https://api.anthropic.com', weight: 2, usage: sum('official', { requests: 812, failures: 6, input: 310_000, cache_write: 900_000, cache_read: 18_200_000, output: 402_000, cost: 61.4 }) });
  gateway.add('claude', 'team-relay', { weight: 1, standing: 'resting', failures: 3, resting_secs: 412, usage: sum('team-relay', { requests: 96, failures: 11, input: 40_000, output: 61_000, cost: 7.2 }) });
  gateway.add('claude', 'old-relay', { standing: 'disabled', disabled_until: '2027-01-31', has_token: false, has_key: true });
  gateway.add('codex', 'openai', { base_url: 'https://api.openai.com', usage: sum('openai', { requests: 203, input: 900_000, output: 88_000, cost: 9.81 }) });
  const models = ['claude-opus-4-8', 'claude-sonnet-5', 'gpt-5.5'];
  for (let day = 29; day >= 0; day--) {
    for (let n = 0; n < 3 + ((day * 7) % 11); n++) {
      const codex = n % 4 === 3;
      gateway.request({
        at: Date.now() - day * 86_400_000 - n * 240_000, service: codex ? 'codex' : 'claude', upstream: codex ? 'openai' : 'official', model: models[codex ? 2 : n % 2] ?? '', path: codex ? 'POST /v1/responses' : 'POST /v1/messages?beta=true',
        project: n % 2 ? '/home/me/app' : '/home/me/shop', session: `s-${day}-${n % 3}`, cost: 0.02 + ((day + n) % 5) * 0.031, output: 200 + n * 131,
        ...(n === 5 ? { failed: [['team-relay', 'it answered 503: overloaded']] as [string, string][] } : {}),
        ...(n === 7 ? { status: 429, error: 'all upstreams are resting: the last one answered 429', upstream: null, cost: null, output: 0 } : {}),
        ...(n === 2 ? { redacted: 2 } : {}),
      });
    }
  }
  gateway.budgets = [
    { name: 'each day', per: 'day', usd: 20, then: 'refuse', spent: 12.4, reached: false },
    { name: 'relay', per: 'upstream', of: 'team-relay', usd: 5, then: 'warn', spent: 5.1, reached: true },
  ];
  gateway.own = [{ model: 'glm-*', input: 0.6, output: 2.2, cache_read: 0.06, cache_write: 0.6, own: true }];
  return gateway;
}
