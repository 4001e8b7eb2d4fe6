//! What lists and sessions both say of a turn: elapsed time, the titles of tools.

import { second, span, t } from '../i18n';
import type { ToolKind } from '../model/events';

/** Elapsed time that moves. */
export const Elapsed = ({ since }: { since: number }) => <span class="time">{span(Math.max(0, second.value - since))}</span>;

/** The title of a tool call or question, where the edge words it in English for want of anything better. */
export function worded({ kind, title, input }: { kind: ToolKind; title: string; input: unknown }): string {
  if (kind !== 'plan' && kind !== 'other') return title;
  const steps = /^(\d+) steps$/.exec(title)?.[1];
  if (steps && Array.isArray((input as { todos?: unknown } | null)?.todos)) return t.steps(Number(steps));
  return title === 'Plan' ? t.plan : title;
}
