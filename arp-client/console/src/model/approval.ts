//! What an approval asks for, taken apart for drawing and for changing. Pure.

import { hides } from '../text/visible';
import type { Approval, FilePreview } from './events';

/** A tool as people know it: by its name and, where it is one of an MCP server, that server's. */
export interface Tool { name: string; server: string }

/** Reads `mcp__server__tool`; any other name stands for itself. */
export function toolOf(name: string): Tool {
  const [, server, tool] = /^mcp__(.+?)__(.+)$/.exec(name) ?? [];
  if (server && tool) return { name: tool, server };
  const [, alone] = /^mcp__(.+)$/.exec(name) ?? [];
  return alone ? { name: '', server: alone } : { name, server: '' };
}

type Fields = Record<string, unknown>;

/** The arguments by name; none where they are no object. */
export function fieldsOf(input: unknown): Fields {
  return typeof input === 'object' && input !== null && !Array.isArray(input) ? (input as Fields) : {};
}

/** The text of a plan that waits for approval. */
export function planOf(approval: Approval): string | null {
  const { plan } = fieldsOf(approval.input);
  return approval.kind === 'plan' && typeof plan === 'string' ? plan : null;
}

/** Arguments that a diff or the lines above it show already. */
const IN_A_DIFF = ['file_path', 'content', 'old_string', 'new_string', 'edits', 'notebook_path', 'new_source', 'changes', 'locations'];

/**
 * All arguments that are not shown as the command, the plan or the diff: name and value, in the agent's order. The
 * agents' own tools say `null` for what is not given; what it means to a tool of somebody else, nobody knows here.
 */
export function otherFields(approval: Approval): [string, unknown][] {
  const fields = fieldsOf(approval.input);
  const shown = new Set<string>();
  if (typeof fields['command'] === 'string' || Array.isArray(fields['command'])) shown.add('command');
  if (planOf(approval) !== null) shown.add('plan');
  if (approval.changes?.length) {
    for (const name of IN_A_DIFF) shown.add(name);
    // The way in which an edit is told where its arguments are not: a title for people.
    if (!('file_path' in fields) && fields['title'] !== undefined) shown.add('title');
  }
  if (fields['description'] === approval.reason || fields['description'] === '') shown.add('description');
  if (approval.questions?.length) for (const name of ['questions', 'schema']) shown.add(name);
  return Object.entries(fields).filter(([name, value]) => !shown.has(name) && value !== undefined && (value !== null || approval.kind === 'mcp' || approval.kind === 'other'));
}

/** Every text that is part of what is approved, wherever it stands. */
function* texts(value: unknown, depth = 0): Generator<string> {
  if (typeof value === 'string') yield value;
  else if (typeof value === 'object' && value !== null && depth < 40) {
    for (const [name, inner] of Object.entries(value)) {
      yield name;
      yield* texts(inner, depth + 1);
    }
  }
}

/** Does anything that is asked for hold characters that hide or reorder others? */
export function conceals(approval: Approval, files: readonly FilePreview[] = []): boolean {
  const { tool_name, title, reason, input, changes, questions, session_grants } = approval;
  for (const text of texts([tool_name, title, reason, input, changes, questions, session_grants, files])) if (hides(text)) return true;
  return false;
}

/** One argument that can be changed in a form; `path` leads to it. */
export interface Leaf { path: (string | number)[]; value: string | number | boolean }

/** More fields than a person fills in: then it is JSON after all. */
const MAX_LEAVES = 60;

/**
 * The arguments as fields of a form: each text as a text, with its line breaks. Null where a form cannot hold them
 * exactly: lists or objects that are empty, texts whose line ends a text field would change.
 */
export function leavesOf(input: unknown): Leaf[] | null {
  const leaves: Leaf[] = [];
  const walk = (value: unknown, path: (string | number)[]): boolean => {
    if (leaves.length > MAX_LEAVES || path.length > 6) return false;
    if (typeof value === 'string') return !/\r/.test(value.replaceAll('\r\n', '')) && !(value.includes('\r\n') && /(^|[^\r])\n/.test(value)) && leaves.push({ path, value }) > 0;
    if (typeof value === 'number' || typeof value === 'boolean') return leaves.push({ path, value }) > 0;
    if (value === null || value === undefined) return true;
    if (typeof value !== 'object') return false;
    const entries: [string | number, unknown][] = Array.isArray(value) ? value.map((inner, at) => [at, inner]) : Object.entries(value);
    return entries.every(([name, inner]) => walk(inner, [...path, name]));
  };
  if (typeof input !== 'object' || input === null || Array.isArray(input)) return null;
  return walk(input, []) && leaves.length ? leaves : null;
}

/** The arguments with changed fields put in; everything else stays exactly as it was. */
export function withLeaves(input: unknown, changed: ReadonlyMap<string, Leaf['value']>): unknown {
  const put = (value: unknown, path: (string | number)[]): unknown => {
    const key = JSON.stringify(path);
    if (changed.has(key)) {
      const now = changed.get(key);
      // A text field knows one kind of line end.
      return typeof now === 'string' && typeof value === 'string' && value.includes('\r\n') ? now.replaceAll('\n', '\r\n') : now;
    }
    if (Array.isArray(value)) return value.map((inner, at) => put(inner, [...path, at]));
    if (typeof value === 'object' && value !== null) return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, put(inner, [...path, name])]));
    return value;
  };
  return put(input, []);
}

/** A path in two parts, so that what is too long is cut in its middle: the directories, and the file's name. */
export function splitPath(path: string): [string, string] {
  const at = Math.max(path.lastIndexOf('/'), path.lastIndexOf('\\')) + 1;
  return at >= path.length ? ['', path] : [path.slice(0, at), path.slice(at)];
}
