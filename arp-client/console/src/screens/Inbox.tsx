//! The inbox: all sessions of all machines by attention.

import { computed, signal } from '@preact/signals';
import { useLayoutEffect, useRef } from 'preact/hooks';
import { ago, lang, number, t } from '../i18n';
import { arrange, groupOf, isUnread, matches, type Group } from '../model/inbox';
import { seen } from '../model/prefs';
import type { Session } from '../net/types';
import { go, hrefOf, route } from '../state/route';
import { nameOf, own, rooms, waiting, type Room } from '../state/machines';
import { Elapsed } from '../timeline/rows';
import { AgentMark, Icon } from '../ui/icons';
import { visible } from '../text/visible';
import { baseName, Connection, Empty, Loading } from '../ui/kit';
import { EdgeKey } from './EdgeKey';

export interface Line { room: Room; session: Session }

export const query = signal('');
const searching = signal(false);

/** Every session of every machine. */
export const allLines = computed<Line[]>(() => rooms.value.flatMap((room) => [...room.sessions.value.values()].map((session) => ({ room, session }))));

/** What the inbox shows, in its order. */
export const groups = computed(() => {
  const wanted = query.value.trim();
  const lines = wanted ? allLines.value.filter(({ session }) => matches(session, wanted)) : allLines.value;
  return arrange(lines, seen.value);
});

/** How a session is called. */
export const titleOf = (session: Session | undefined): string => session?.title || session?.first_message || t.untitled;

/** The line under a title: what happens, what is asked, what went wrong, or what was asked first. */
function Activity({ session, group, where }: { session: Session; group: Group; where: string }) {
  const approval = session.approvals[0];
  const place = <span class="where">{where} · </span>;
  if (group === 'needs' && approval) return <p class="clip">{place}{t.wants[approval.kind] ?? t.wants.other}</p>;
  if (session.status === 'failed') return <p class="clip">{place}<span class="bad">{session.error || t.st_failed}</span></p>;
  return <p class="clip">{place}{session.activity || session.first_message || ''}</p>;
}

function Item({ room, session, group }: { room: Room; session: Session; group: Group }) {
  const here = route.value.name === 'session' && route.value.id === session.id;
  const several = rooms.value.length > 1;
  const runs = group === 'running' || session.status === 'running' || session.status === 'starting';
  return (
    <li>
      <a class={`item ${group} ${here ? 'here' : ''}`} href={hrefOf({ name: 'session', machine: room.machine.id, id: session.id })} aria-current={here ? 'page' : undefined}>
        <AgentMark executor={session.executor} />
        <div class="item-main">
          <div class="item-top">
            <h3 class="clip">{titleOf(session)}</h3>
            {runs && session.turn ? <span class="when run"><i class="pulse" /><Elapsed since={Date.parse(session.turn.started_at)} /></span> : <time class="when">{ago(Date.parse(session.updated_at))}</time>}
          </div>
          <div class="item-line">
            <Activity session={session} group={group} where={several ? `${nameOf(room)} · ${baseName(session.project_path)}` : baseName(session.project_path)} />
            {session.pending_approvals > 1 && <span class="badge">{number(session.pending_approvals)}</span>}
            {group === 'unread' && <span class="dot" title={t.unread} />}
          </div>
          {session.approvals[0] && <p class="asks"><code>{visible(session.approvals[0].title)}</code></p>}
        </div>
      </a>
    </li>
  );
}

/** "2 need you · 3 working", in words. */
function Summary() {
  const lines = allLines.value;
  const count = (wanted: Group): number => lines.filter(({ session }) => groupOf(session, seen.value) === wanted).length;
  const needs = count('needs') + rooms.value.reduce((sum, room) => sum + room.approvals.value.filter((approval) => !approval.session_id).length, 0);
  const works = count('running');
  const zh = lang.value === 'zh';
  const parts = [
    needs ? (zh ? `${needs} 个等你处理` : `${needs} need${needs === 1 ? 's' : ''} you`) : '',
    works ? (zh ? `${works} 个进行中` : `${works} working`) : '',
  ].filter(Boolean);
  return <p class="summary">{parts.length ? parts.map((part, index) => <span key={index} class={index === 0 && needs ? 'attn' : ''}>{part}</span>) : <span>{zh ? '一切安静' : 'All quiet'}</span>}</p>;
}

/** Moves to the next or previous session of the inbox. */
export function step(by: 1 | -1): void {
  const lines = groups.peek().flatMap((group) => group.rows);
  const current = route.peek();
  const at = current.name === 'session' ? lines.findIndex(({ session }) => session.id === current.id) : by > 0 ? -1 : 0;
  const next = lines[Math.max(0, Math.min(lines.length - 1, at + by))];
  if (next) go({ name: 'session', machine: next.room.machine.id, id: next.session.id }, current.name === 'session');
}

/** Opens the search. */
export function openSearch(): void {
  searching.value = true;
}

export function Inbox() {
  const field = useRef<HTMLInputElement>(null);
  // Before the next key arrives: what is typed right after `/` belongs to the search.
  useLayoutEffect(() => {
    if (searching.value) field.current?.focus();
  }, [searching.value]);
  const ready = rooms.value.some((room) => room.ready.value);
  const shown = groups.value;
  const loose = rooms.value.flatMap((room) => room.approvals.value.filter((approval) => !approval.session_id).map((approval) => ({ room, approval })));
  const first = rooms.value[0];
  const labels: Record<Group, string> = { needs: t.needsYou, running: t.running, unread: t.unread, recent: t.recent };
  const locked = rooms.value.filter((room) => {
    const status = room.link.status.value;
    return status.state === 'down' && status.trouble === 'key';
  });

  return (
    <div class="inbox">
      <header class="inbox-head">
        <div class="inbox-title">
          <h1>{rooms.value.length > 1 ? t.allMachines : first ? nameOf(first) : own.name}</h1>
          <Summary />
        </div>
        <button type="button" class="ghost round" aria-label={t.search} aria-expanded={searching.value} onClick={() => {
          searching.value = !searching.value;
          if (!searching.value) query.value = '';
        }}>
          <Icon name={searching.value ? 'close' : 'search'} />
        </button>
      </header>
      {searching.value && (
        <div class="searchbar">
          <Icon name="search" size={18} />
          <input
            ref={field}
            type="search"
            aria-label={t.search}
            placeholder={t.search}
            value={query.value}
            onInput={(event) => (query.value = event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key !== 'Escape') return;
              query.value = '';
              searching.value = false;
            }}
          />
        </div>
      )}
      {rooms.value.map((room) => <Connection key={room.machine.id} link={room.link} name={rooms.value.length > 1 ? nameOf(room) : undefined} />)}
      <div class="scroll inbox-list">
        {locked.map((room) => <EdgeKey key={room.machine.id} room={room} />)}
        {!ready && !locked.length && first?.link.status.value.state !== 'down' && <Loading />}
        {loose.map(({ room, approval }) => (
          <a key={approval.id} class="item needs" href={`#/s/${room.machine.id}/~${encodeURIComponent(approval.id)}`}>
            <AgentMark executor={approval.executor ?? ''} />
            <div class="item-main">
              <div class="item-top"><h3 class="clip">{approval.session_title || approval.tool_name}</h3></div>
              <p class="asks"><span>{t.wants[approval.kind]}</span> <code>{visible(approval.title)}</code></p>
            </div>
          </a>
        ))}
        {shown.map(({ group, rows }) => (
          <section key={group} class={`group ${group}`} aria-label={labels[group]}>
            <h2>{labels[group]} <span>{number(rows.length)}</span></h2>
            <ul>{rows.map(({ room, session }) => <Item key={room.machine.id + session.id} room={room} session={session} group={group} />)}</ul>
          </section>
        ))}
        {ready && !shown.length && !loose.length && (
          query.value ? <p class="soft pad">{t.noMatch}</p> : (
            <Empty icon="inbox" title={t.emptyTitle}><p>{t.emptyText}</p></Empty>
          )
        )}
      </div>
      <div class="inbox-foot">
        <a class="new-pill" href="#/new">
          <span>{t.askAgent}</span>
          <span class="new-plus"><Icon name="plus" size={20} /></span>
        </a>
      </div>
      <p class="hide" role="status" aria-live="polite">{waiting.value ? `${t.needsYou}: ${t.approvals(waiting.value)}` : ''}</p>
    </div>
  );
}

export { isUnread };
