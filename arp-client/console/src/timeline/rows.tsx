//! The rows of a session: one component a kind of item. They draw; they decide nothing.

import { signal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { money, number, short, span, t } from '../i18n';
import type { PlanEntry, Usage } from '../model/events';
import type { DecisionItem, Item, ThinkingItem, ToolItem } from '../model/timeline';
import { Markdown } from '../text/Markdown';
import { closeLines } from '../text/bidi';
import { terminal } from '../text/terminal';
import { visible } from '../text/visible';
import { Icon, type IconName } from '../ui/icons';
import { Memo } from '../ui/memo';
import { Path } from '../ui/path';
import { Diff, DiffCount } from './Diff';
import { Elapsed, worded } from './words';

/** Which cards are open, by the key of their item; outlives a row that scrolls out of sight. */
const open = signal<ReadonlySet<string>>(new Set());
/** Opens a card, wherever it is. */
export const openCard = (key: string): void => {
  if (!open.peek().has(key)) toggle(key);
};
const toggle = (key: string): void => {
  const next = new Set(open.peek());
  if (!next.delete(key)) next.add(key);
  open.value = next;
};

/** Output shown before "show all", in UTF-16 units and lines. */
const SHORT_TEXT = 6_000;
const SHORT_LINES = 40;

/** Plain output; its end is what matters, so that is what a long one shows. */
export function Output({ text: raw, bad = false }: { text: string; bad?: boolean }) {
  const [all, setAll] = useState(false);
  const text = terminal(raw);
  const lines = text.split('\n');
  const long = text.length > SHORT_TEXT || lines.length > SHORT_LINES;
  const shown = all || !long ? text : lines.slice(-SHORT_LINES).join('\n').slice(-SHORT_TEXT);
  return (
    <>
      {long && !all && (
        <button type="button" class="link" onClick={() => setAll(true)}>
          {t.showMore} ({number(lines.length)} {t.lines})
        </button>
      )}
      <pre class={bad ? 'output bad' : 'output'} tabIndex={0}>{shown}</pre>
    </>
  );
}

/** JSON for reading. */
export const pretty = (value: unknown): string => {
  if (typeof value === 'string') return value;
  try {
    return JSON.stringify(value, null, 2) ?? '';
  } catch {
    return String(value);
  }
};

/** A card in one line that opens. */
function Card({ id, icon, title, mono = true, meta, tone = '', label, children }: {
  id: string; icon: IconName; title: ComponentChildren; mono?: boolean; meta?: ComponentChildren; tone?: string; label?: string; children?: ComponentChildren | (() => ComponentChildren);
}) {
  const opened = open.value.has(id);
  return (
    <div class={`card ${tone} ${opened ? 'open' : ''}`}>
      <button type="button" class="card-head" aria-expanded={opened} onClick={() => toggle(id)}>
        <Icon name={icon} size={17} />
        {label && <span class="hide">{label}: </span>}
        <span class={mono ? 'card-title mono' : 'card-title'}>{title}</span>
        <span class="card-meta">{meta}</span>
        <Icon name="right" size={14} class="turn" />
      </button>
      {opened && <div class="card-body">{typeof children === 'function' ? children() : children}</div>}
    </div>
  );
}

function toolMeta(item: ToolItem): ComponentChildren {
  switch (item.state) {
    case 'running':
      return <><Elapsed since={item.time} /><i class="pulse" /></>;
    case 'waiting':
      return <span class="attn">{t.waiting}</span>;
    case 'denied':
      return <span class="bad">{t.denied}</span>;
    case 'stopped':
      return <span>{t.stopped}</span>;
    case 'failed':
      return <span class="bad">{item.exitCode !== null && item.exitCode !== 0 ? t.exitCode(item.exitCode) : t.failed}</span>;
    case 'done': {
      if (item.changes.length) return <DiffCount changes={item.changes} />;
      const took = item.endTime - item.time;
      return item.time && took >= 1_000 ? <span class="time">{span(took)}</span> : null;
    }
  }
}

/** The whole command of a tool, when its input has one. */
export function commandOf(input: unknown): string | null {
  if (typeof input !== 'object' || input === null) return null;
  const command = (input as { command?: unknown }).command;
  if (typeof command === 'string') return command;
  if (Array.isArray(command) && command.every((part) => typeof part === 'string')) return command.join(' ');
  return null;
}

/** A sub-agent's answer often is its last words over again. */
function repeats(item: ToolItem): boolean {
  const last = item.children[item.children.length - 1];
  return last?.kind === 'text' && last.text.trim() === item.output.trim();
}

/** What was asked for, where something else ran. */
function Asked({ input }: { input: unknown }) {
  return (
    <details class="asked-for">
      <summary>{t.askedFor}</summary>
      <pre class="output" tabIndex={0}>{visible(commandOf(input) ?? pretty(input))}</pre>
    </details>
  );
}

function ToolBody({ item }: { item: ToolItem }) {
  const command = commandOf(item.ran ?? item.input);
  const bare = item.changes.length || item.children.length || command;
  return (
    <>
      {command && <pre class="command" tabIndex={0}>{visible(command)}</pre>}
      {item.changes.length > 0 && <Diff changes={item.changes} />}
      {item.ran !== undefined && !command && <pre class="output" tabIndex={0}>{visible(pretty(item.ran))}</pre>}
      {item.ran !== undefined && <Asked input={item.asked} />}
      {!bare && item.ran === undefined && item.input !== null && <pre class="output" tabIndex={0}>{visible(pretty(item.input))}</pre>}
      {item.children.length > 0 && (
        <div class="children">
          {item.children.map((child) => (
            <div class="row" key={child.key}><Row item={child} /></div>
          ))}
        </div>
      )}
      {item.output
        ? item.tool === 'task'
          ? !repeats(item) && <Markdown text={item.output} />
          : !(item.changes.length && item.state === 'done') && <Output text={item.output} bad={item.state === 'failed' || item.state === 'denied'} />
        : item.state !== 'running' && item.state !== 'waiting' && !item.changes.length && <p class="soft small">{t.noOutput}</p>}
    </>
  );
}

function Tool({ item }: { item: ToolItem }) {
  const steps = item.tool === 'task' && item.children.length > 0 ? <span>{t.steps(item.children.length)}</span> : null;
  const ran = commandOf(item.ran);
  const title = ran === null ? worded({ kind: item.tool, title: item.title, input: item.input }) || item.name : (ran.split('\n', 1)[0] ?? '') + (ran.includes('\n') ? '…' : '');
  const isPath = item.tool === 'edit' || item.tool === 'read';
  return (
    <Card
      id={item.key}
      icon={item.tool}
      tone={`tool ${item.state}`}
      label={t.toolWords[item.tool]}
      title={item.tool === 'mcp' || item.tool === 'other' ? <><b>{item.name}</b> {item.title !== item.name && visible(item.title)}</> : isPath ? <Path path={title} /> : visible(title)}
      mono={item.tool !== 'task' && item.tool !== 'question' && item.tool !== 'plan'}
      meta={<>{item.ran !== undefined && <span class="attn">{t.changedIt}</span>}{steps}{toolMeta(item)}</>}
    >
      {() => <ToolBody item={item} />}
    </Card>
  );
}

function Thinking({ item }: { item: ThinkingItem }) {
  const took = item.endTime - item.time;
  const title = item.streaming ? t.thinking : item.time && took >= 1_000 ? t.thoughtFor(span(took)) : t.thought;
  return (
    <Card id={item.key} icon="thinking" tone="thought" title={title} mono={false} meta={item.streaming ? <i class="pulse" /> : null}>
      {() => <Markdown text={item.text} streaming={item.streaming} />}
    </Card>
  );
}

/** A checklist. */
export function Checklist({ entries }: { entries: readonly PlanEntry[] }) {
  return (
    <ul class="checklist">
      {entries.map((entry, index) => (
        <li key={index} class={entry.status}>
          <span class={entry.status === 'completed' ? 'box on' : entry.status === 'in_progress' ? 'box now' : 'box'}>
            {entry.status === 'completed' && <Icon name="check" size={13} />}
          </span>
          <span>{entry.content}</span>
        </li>
      ))}
    </ul>
  );
}

function Decision({ item }: { item: DecisionItem }) {
  const words = { allowed: t.allowedIt, allowed_for_session: t.allowedSessionIt, denied: t.deniedIt, timed_out: t.timedOut, void: t.voided };
  const bad = item.outcome === 'denied' || item.outcome === 'timed_out';
  return (
    <Card
      id={item.key}
      icon={item.approval.kind}
      tone="tool"
      title={visible(worded(item.approval))}
      meta={item.outcome ? <span class={bad ? 'bad' : ''}>{words[item.outcome]}</span> : <span class="attn">{t.waiting}</span>}
    >
      {() => (
        <>
          {item.approval.changes?.length ? <Diff changes={item.approval.changes} /> : <pre class="output" tabIndex={0}>{visible(commandOf(item.ran ?? item.approval.input) ?? pretty(item.ran ?? item.approval.input))}</pre>}
          {item.ran !== undefined && <Asked input={item.asked} />}
          {item.message && <p class="soft">{item.message}</p>}
        </>
      )}
    </Card>
  );
}

/** Tokens and cost in one short line. */
export function usageLine(usage: Usage | null): string {
  if (!usage) return '';
  const count = (usage.input_tokens ?? 0) + (usage.output_tokens ?? 0);
  return [count ? t.tokens(short(count)) : '', usage.cost_usd ? money(usage.cost_usd) : ''].filter(Boolean).join(' · ');
}

function draw(item: Item): ComponentChildren {
  switch (item.kind) {
    case 'user':
      return <div class="bubble"><span class="hide">{t.you}: </span>{closeLines(item.text)}</div>;
    case 'text':
      return <Markdown text={item.text} streaming={item.streaming} />;
    case 'thinking':
      return <Thinking item={item} />;
    case 'tool':
      return <Tool item={item} />;
    case 'plan': {
      const done = item.entries.filter((entry) => entry.status === 'completed').length;
      if (item.old) return <Card id={item.key} icon="plan" tone="tool" title={t.plan} mono={false} meta={t.planOf(done, item.entries.length)}>{() => <Checklist entries={item.entries} />}</Card>;
      return (
        <div class="plan">
          <div class="plan-head"><b>{t.plan}</b><span class="soft">{t.planOf(done, item.entries.length)}</span></div>
          <Checklist entries={item.entries} />
        </div>
      );
    }
    case 'error':
      return (
        <div class={item.retrying ? 'notice' : 'notice bad'}>
          <Icon name="warn" size={18} />
          <p>{item.retrying && <b>{t.retrying}. </b>}{item.message}</p>
        </div>
      );
    case 'turn': {
      const word = item.status === 'completed' ? t.turnDone : item.status === 'interrupted' ? t.interrupted : t.turnFailed;
      return (
        <div class={`turn-end ${item.status}`}>
          <span>{[word, item.durationMs !== null ? span(item.durationMs) : ''].filter(Boolean).join(' · ')}</span>
          {item.message && item.status !== 'completed' && <p>{item.message}</p>}
        </div>
      );
    }
    case 'decision':
      return <Decision item={item} />;
    case 'stderr':
      return <Card id={item.key} icon="warn" tone="tool" title={t.stderr} mono={false}>{() => <Output text={item.text} />}</Card>;
    case 'raw': {
      const type = (item.data as { type?: unknown } | null)?.type;
      return (
        <Card id={item.key} icon="raw" tone="tool" title={<>{t.raw}{typeof type === 'string' && <span class="soft"> {type}</span>}</>} mono={false}>
          {() => <Output text={pretty(item.data)} />}
        </Card>
      );
    }
  }
}

/** One row; drawn anew only when its item was replaced. */
export function Row({ item }: { item: Item }) {
  return <Memo on={[item]}>{() => draw(item)}</Memo>;
}

/** A guess of how high a row will be, in pixels. */
export function estimateRow(item: Item): number {
  switch (item.kind) {
    case 'text':
      return 24 + Math.ceil(item.text.length / 62) * 25;
    case 'user':
      return 58 + Math.ceil(item.text.length / 46) * 24;
    case 'plan':
      return item.old ? 38 : 60 + item.entries.length * 30;
    case 'turn':
      return 46;
    case 'error':
      return 62;
    default:
      return 38;
  }
}
