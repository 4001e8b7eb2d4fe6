//! The events that agents send, as the edge words them (`?format=events`). Types only. Unknown types and
//! fields may come at any time and are drawn as raw cards.

/** What sort of tool a call is. */
export type ToolKind =
  | 'command' | 'edit' | 'read' | 'search' | 'fetch' | 'task' | 'plan' | 'question' | 'mcp' | 'other';

/** One file's change; `diff` holds hunks of a unified diff. */
export interface FileChange { path: string; diff: string }

/** One step of a plan. */
export interface PlanEntry { content: string; status: 'pending' | 'in_progress' | 'completed' }

/** A question with its choices; free text is allowed besides. `descriptions`: what each choice means. */
export interface Question { text: string; header: string | null; options: string[]; descriptions?: string[]; multiple: boolean }

/** What is allowed besides the one call, when it is allowed for the session. */
export type Grant =
  | { type: 'tool'; tool: string; pattern?: string }
  | { type: 'same_command' | 'same_files' | 'same_access' }
  | { type: 'mode'; mode: string }
  | { type: 'named'; name: string };

/** What an approval would do to a file as it is now. `diff` is null where that could not be compared. */
export interface FilePreview {
  path: string;
  moved_to?: string;
  action: 'create' | 'overwrite' | 'edit' | 'delete';
  outside_project: boolean;
  diff: string | null;
  problem: 'no_match' | 'missing' | 'outside_project' | 'too_large' | 'not_text' | 'unreadable' | null;
}

/** A question of the agent that waits for a decision. */
export interface Approval {
  id: string;
  tool_call_id: string | null;
  tool_name: string;
  kind: ToolKind;
  title: string;
  reason: string | null;
  input: unknown;
  changes?: FileChange[];
  can_allow_session: boolean;
  session_grants?: Grant[];
  /** For a plan: the modes to choose from for what follows. */
  modes?: string[];
  can_edit: boolean;
  questions?: Question[];
}

/** What became of an approval. */
export type Outcome = 'allowed' | 'allowed_for_session' | 'denied' | 'timed_out' | 'void';

/** Tokens and cost so far, as far as the agent tells. */
export interface Usage {
  input_tokens?: number | null;
  cached_input_tokens?: number | null;
  output_tokens?: number | null;
  cost_usd?: number | null;
}

/** One thing that happened in a session. */
export type AgentEvent =
  | { type: 'init'; agent_session_id: string | null; model: string | null; cwd: string | null; permission_mode: string | null }
  | { type: 'user_message'; id: string | null; text: string }
  | { type: 'text'; id: string; text: string; delta: boolean; parent?: string | null }
  | { type: 'thinking'; id: string; text: string; delta: boolean; parent?: string | null }
  | { type: 'tool_call'; id: string; name: string; kind: ToolKind; title: string; input: unknown; changes?: FileChange[]; parent?: string | null }
  | { type: 'tool_result'; id: string; output: string; delta: boolean; is_error: boolean; exit_code?: number | null; parent?: string | null }
  | { type: 'plan'; entries: PlanEntry[] }
  | ({ type: 'approval' } & Approval)
  | { type: 'approval_resolved'; id: string; outcome: Outcome; message?: string | null; edited?: { asked: unknown; ran: unknown } | null }
  | ({ type: 'usage' } & Usage)
  | { type: 'error'; message: string; retrying: boolean }
  | { type: 'turn_end'; status: 'completed' | 'interrupted' | 'failed'; message?: string | null; duration_ms?: number | null }
  | { type: 'status'; status: string; message?: string | null; exit_code?: number | null; exit_signal?: number | null }
  | { type: 'stderr'; text: string }
  | { type: 'raw'; data: unknown };

/** An event with its place in the session's log. `time` is Unix milliseconds, 0 where unknown. */
export interface Entry { seq: number; time: number; event: AgentEvent }
