//! The objects of the edge's HTTP API that the console reads; docs/api.md is the contract.

import type { SessionGateway } from '../gateway/types';
import type { AgentEvent, Approval, Usage } from '../model/events';

export type Status =
  | 'starting' | 'running' | 'waiting' | 'idle' | 'parked' | 'completed' | 'failed' | 'cancelled';

export interface Queued { id: string; client_id: string | null; text: string; created_at: string }

/** An approval with what says which session it belongs to. */
export interface WaitingApproval extends Approval {
  session_id: string | null;
  agent_session_id?: string | null;
  session_title?: string | null;
  executor?: string | null;
  project_path?: string | null;
  source?: 'session' | 'mcp';
  created_at?: string;
  expires_at?: string | null;
}

export interface Problem { kind: string; message: string; api_status: number | null; can_retry: boolean }

export interface Session {
  id: string;
  executor: string;
  agent_session_id: string | null;
  title: string | null;
  first_message: string | null;
  project_path: string;
  model: string | null;
  permission_mode: string | null;
  status: Status;
  turn: { number: number; started_at: string; prompt: string } | null;
  turns: number;
  /** What went wrong, until the next turn begins. Older edges do not tell. */
  problem?: Problem | null;
  last_turn?: 'completed' | 'interrupted' | 'failed' | null;
  queue: Queued[];
  approvals: WaitingApproval[];
  pending_approvals: number;
  last_seq: number;
  activity: string | null;
  usage: Usage | null;
  error: string | null;
  /** What the model gateway knows of it; missing where the machine sends nothing through one. */
  gateway?: SessionGateway | null;
  parent_id: string | null;
  origin: string;
  created_at: string;
  updated_at: string;
  ended_at: string | null;
}

export interface Capabilities {
  approvals: boolean;
  token_deltas: boolean;
  interrupt: boolean;
  resume: boolean;
  resume_last: boolean;
  fork: boolean;
  set_model: boolean;
  set_permission_mode: boolean;
  allowed_tools: boolean;
  history: boolean;
}

export interface AgentInfo {
  executor: string;
  name: string;
  found: boolean;
  version: string | null;
  path: string | null;
  problem: string | null;
  capabilities: Capabilities;
  permission_modes: string[];
  models: string[];
}

/** How the machine's own tunnel stands; address and backend are there while it is connected. */
export interface Tunnel {
  state: string;
  public_url?: string;
  backend?: string;
  previous_url?: string | null;
  /** Of `error`: why it was given up. */
  message?: string;
  attempt?: number;
}

export interface Info {
  version: string;
  host_name: string;
  os: string;
  /** The public name of the edge: no token. Older edges have none. */
  edge_id?: string;
  client_id?: string | null;
  home_dir: string;
  agents: AgentInfo[];
  fs_enabled: boolean;
  allow_bypass: boolean;
  edge_key_required: boolean;
  /** Null where it has no tunnel. Older edges do not tell. */
  tunnel?: Tunnel | null;
  /** Its agents go through a model gateway, whose pages can be opened. */
  gateway?: boolean;
  /** Nothing is there but a gateway. */
  gateway_only?: boolean;
  defaults: { executor: string; project_path: string; permission_mode: string };
}

/** An event as the API words it: the event itself with its place and time. */
export type WireEvent = AgentEvent & { seq: number; at?: string | null };

export interface EventPage { events: WireEvent[]; first_seq: number; last_seq: number; has_more: boolean }

/** When something was: Unix seconds as a number, or RFC 3339 as a string. */
export type When = number | string | null | undefined;

/** The same in milliseconds; 0 where it is not known. */
export function timeOf(when: When): number {
  if (typeof when === 'number') return when * 1000;
  return when ? Date.parse(when) || 0 : 0;
}

export interface Project { id: string; path: string; sessions: string[]; created_at: When; most_recent_session: When }
export interface WorkingDirectory { path: string; shortname: string; lastDate: When; conversationCount: number }
export interface PastSession {
  id: string;
  project_id: string;
  project_path: string;
  created_at: When;
  updated_at?: When;
  title?: string | null;
  first_message: string | null;
  message_timestamp: When;
  message_count: number | null;
  live_session_id?: string | null;
}
/** One entry of `/api/overview`. */
export type OverviewEntry = { kind: 'session'; session: Session } | { kind: 'past'; executor: string; session: PastSession };
export interface Overview { entries: OverviewEntry[]; total: number; next: string | null }
/** One entry of `/api/directories`. */
export interface Place { path: string; kind: 'home' | 'repository' | 'recent'; last_used: number | null }
export interface HistoryPage { events: WireEvent[]; next_offset: number | null }

export interface FsEntry { name: string; type: 'file' | 'directory' | 'symlink' | 'other'; size: number | null; mtime: When }
export interface FsRoots { type: 'roots'; roots: { path: string; name: string }[] }
export interface FsDirectory { type: 'directory'; path: string; entries: FsEntry[]; total?: number; truncated?: boolean }
export interface FsFile { type: 'file'; path: string; size: number; bytes: number; encoding: 'utf-8' | 'base64'; truncated: boolean; content: string }
