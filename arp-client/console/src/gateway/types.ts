//! The objects of the gateway's HTTP API that the console reads; docs/gateway.md is the contract. Times are Unix
//! milliseconds, money is US dollars. Keys are never in an answer.

export const SERVICES = ['claude', 'codex', 'gemini'] as const;
export type Service = (typeof SERVICES)[number];
export type PerService<T> = Partial<Record<Service, T>>;

/** Counts of requests and of a model's tokens. */
export interface Sum {
  /** What they belong to: an upstream, a model, a day (YYYY-MM-DD) … */
  key: string;
  requests: number;
  failures: number;
  input: number;
  cache_write: number;
  cache_read: number;
  output: number;
  reasoning: number;
  cost: number;
  /** Requests of models that have no price. */
  unpriced: number;
}

export interface Upstream {
  name: string;
  base_url: string;
  has_token: boolean;
  has_key: boolean;
  weight: number;
  active: boolean;
  standing: 'good' | 'resting' | 'disabled';
  failures: number;
  resting_secs: number;
  /** Off until this day, which is included: YYYY-MM-DD. */
  disabled_until: string | null;
  proxy: string | null;
  usage: Sum;
}

export const MODES = ['active-first', 'weight-based', 'proportional'] as const;
export type Mode = (typeof MODES)[number];

export interface ServiceUpstreams {
  mode: Mode;
  failure_threshold: number;
  auto_reset_minutes: number;
  active: string | null;
  /** What is wrong with its file, in words. */
  file_fault: string | null;
  upstreams: Upstream[];
}
export interface Upstreams { services: PerService<ServiceUpstreams> }

/** A change of an upstream; what is missing stays, an empty key is taken away. */
export interface UpstreamChange { base_url?: string; auth_token?: string; api_key?: string; weight?: number }
export interface TestResult { ok: boolean; status: number | null; millis: number; message: string }

/** A request that is over. */
export interface GatewayRequest {
  id: number;
  at: number;
  service: Service;
  session: string | null;
  agent: string | null;
  project: string | null;
  upstream: string | null;
  /** Upstreams that were asked before, and what came of it. */
  failed: [string, string][];
  model: string | null;
  /** The model that was asked for in its place. */
  routed: string | null;
  path: string;
  status: number | null;
  millis: number;
  first_millis: number | null;
  input: number;
  cache_write: number;
  cache_read: number;
  output: number;
  reasoning: number;
  cost: number | null;
  redacted: number;
  error: string | null;
  /** Is its body kept? Missing where the gateway is older. */
  recorded?: boolean;
}
export interface RequestPage { requests: GatewayRequest[]; has_more: boolean }

/** A request that is under way. */
export interface LiveRequest {
  id: number;
  at: number;
  service: Service;
  session: string | null;
  upstream: string | null;
  model: string | null;
  routed: string | null;
  phase: 'asking' | 'streaming';
  failed: number;
  input: number;
  output: number;
  millis: number;
  redacted: number;
}

export interface Overview {
  version: string;
  pid: number;
  since: number;
  /** Addresses by service, and `ui`. */
  listen: Record<string, string>;
  faults: string[];
  services: PerService<{ active: string | null; upstreams: number; resting: number }>;
  live: LiveRequest[];
  today: Sum;
  /** Thirty days, the oldest first; those without requests are missing. */
  days: Sum[];
}

export const USAGE_BY = ['day', 'upstream', 'model', 'project', 'session', 'service'] as const;
export type UsageBy = (typeof USAGE_BY)[number];
export interface UsageAnswer { by: UsageBy; total: Sum; sums: Sum[] }

/** `data/model_router_config.json`. */
export interface RouteConfig {
  mode?: 'default' | 'model-mapping' | 'config-mapping';
  modelMappings?: Record<string, { source: string; target: string; source_type?: 'model' | 'config' }[]>;
  configMappings?: Record<string, { model: string; config: string }[]>;
  [more: string]: unknown;
}

export interface FilterRule { source: string; target: string; op: 'replace' | 'remove' }
/** `[redaction]` of the settings. */
export interface Redaction {
  presets: string[];
  /** Texts that are hidden as they are. */
  words: string[];
  /** Patterns; what they find is hidden, or their first group. */
  patterns: string[];
  /** Texts that are never hidden. */
  keep: string[];
  /** Services whose requests are redacted; all where none is named. */
  services: string[];
  /** Lets requests pass when the rules cannot be used. */
  fail_open: boolean;
}
export interface Filters { rules: FilterRule[]; redaction: Redaction; presets: { name: string; what: string }[]; fault: string | null }
export interface Found { by: string; count: number; example: string }
export interface DryRun { text: string; found: Found[] }
/** What rules would hide of the requests that were recorded. */
export interface RecordedRun { recording: boolean; found: Found[]; requests: { id: number; at: number; service: Service; model: string | null; found: Found[] }[] }

/** Whether bodies of requests are kept. */
export interface Recording { on: boolean; requests: number; max_kb: number; hours: number; kept: number; bytes: number }
/** What was kept of a request and its answer; an empty body was not kept. */
export interface RequestBody {
  id: number;
  until: number;
  body: string;
  cut: boolean;
  hidden: { by: string; count: number }[];
  answer: string | null;
  answer_cut: boolean;
  answer_hidden: { by: string; count: number }[];
}

/** A limit on what is spent. */
export interface Budget {
  name: string;
  per: 'day' | 'session' | 'upstream';
  of?: string | null;
  usd: number;
  then: 'warn' | 'refuse';
  spent: number;
  reached: boolean;
}
export interface BudgetsAnswer { budgets: Budget[] }
/** Dollars for a million tokens. */
export interface Price { model: string; input: number; output: number; cache_read: number; cache_write: number; own: boolean }
export interface PricesAnswer { source: string; dated: string; prices: Price[] }

/** What is known of a session, in the session object and alone. */
export interface SessionGateway {
  upstream: string | null;
  model: string | null;
  choice: { upstream: string | null; model: string | null };
  usage: Sum;
  failovers: number;
  redacted: number;
  /** It goes on by itself at this time: the quota is used up. */
  waits_until: number | null;
}
export interface SessionAnswer extends SessionGateway { session: string; service: Service; requests: GatewayRequest[] }
