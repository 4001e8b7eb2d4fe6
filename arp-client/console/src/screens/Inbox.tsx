//! The one list: all sessions of all machines, by attention and then by day, with search and filters.

import { signal } from '@preact/signals';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { ago, dayOf, explainTrouble, number, t } from '../i18n';
import { groupOf, type Group } from '../model/inbox';
import { seen } from '../model/prefs';
import type { Session } from '../net/types';
import { go, hrefOf, route, type Route } from '../state/route';
import { dropMachine, nameOf, own, rooms, waiting, type Room } from '../state/machines';
import { allLines, filter, hasMore, isFiltered, isPast, loadFailed, loadingMore, loadMore, pastLines, query, sections, timeOfLine, type Line, type PastLine } from '../state/overview';
import { Elapsed, worded } from '../timeline/words';
import { AgentMark, Icon } from '../ui/icons';
import { visible } from '../text/visible';
import { composes } from '../ui/keyname';
import { Memo } from '../ui/memo';
import { baseName, Connection, Empty, Loading, Sheet } from '../ui/kit';
import { EdgeKey } from './EdgeKey';
import { AddressNews } from './TunnelParts';

const searching = signal(false);

/** How a session is called. */
export const titleOf = (session: Session | undefined): string => session?.title || session?.first_message || t.untitled;

/** The line under a title: what happens, what is asked, what went wrong, or what was asked first. */
function Activity({ session, group, where }: { session: Session; group: Group; where: string }) {
  const approval = session.approvals[0];
  const place = <span class="where">{where} · </span>;
  if (group === 'needs' && approval) return <p class="clip">{place}{t.wants[approval.kind] ?? t.wants.other}</p>;
  if (session.problem) return <p class="clip">{place}<span class="bad">{explainTrouble(session.problem)}</span></p>;
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
          {session.approvals[0] && <p class="asks"><code>{visible(worded(session.approvals[0]))}</code></p>}
        </div>
      </a>
    </li>
  );
}

/** A session of an agent's own history. */
function PastItem({ line: { room, executor, past } }: { line: PastLine }) {
  const here = route.value.name === 'history' && route.value.id === past.id;
  const where = rooms.value.length > 1 ? `${nameOf(room)} · ${baseName(past.project_path)}` : baseName(past.project_path);
  return (
    <li>
      <a class={`item recent ${here ? 'here' : ''}`} href={hrefOf(routeOf({ room, executor, past }))} aria-current={here ? 'page' : undefined}>
        <AgentMark executor={executor} />
        <div class="item-main">
          <div class="item-top">
            <h3 class="clip">{past.title || past.first_message || t.untitled}</h3>
            <time class="when">{ago(timeOfLine({ room, executor, past }))}</time>
          </div>
          <div class="item-line"><p class="clip"><span class="where">{where}{past.message_count ? ` · ${t.messagesN(past.message_count)}` : ''}</span></p></div>
        </div>
      </a>
    </li>
  );
}

/** Where a line leads. */
const routeOf = (line: Line): Route =>
  isPast(line) ? { name: 'history', machine: line.room.machine.id, agent: line.executor, id: line.past.id } : { name: 'session', machine: line.room.machine.id, id: line.session.id };

/** "2 need you · 3 working", in words. */
function Summary() {
  const lines = allLines.value;
  const count = (wanted: Group): number => lines.filter(({ session }) => groupOf(session, seen.value) === wanted).length;
  const needs = count('needs') + rooms.value.reduce((sum, room) => sum + room.approvals.value.filter((approval) => !approval.session_id).length, 0);
  const works = count('running');
  // Of a machine that another answers for, nothing is known.
  if (rooms.value.every((room) => room.stranger.value)) return <p class="summary">{t.tr_changed}</p>;
  const parts = [needs ? t.needN(needs) : '', works ? t.workN(works) : ''].filter(Boolean);
  return <p class="summary">{parts.length ? parts.map((part, index) => <span key={index} class={index === 0 && needs ? 'attn' : ''}>{part}</span>) : <span>{t.quiet}</span>}</p>;
}

/** Moves to the next or previous session of the list. */
export function step(by: 1 | -1): void {
  const lines = sections.peek().flatMap((section) => section.lines);
  const current = route.peek();
  const open = current.name === 'session' || current.name === 'history';
  const at = open ? lines.findIndex((line) => (isPast(line) ? line.past.id : line.session.id) === current.id) : by > 0 ? -1 : 0;
  const next = lines[Math.max(0, Math.min(lines.length - 1, at + by))];
  if (next) go(routeOf(next), open);
}

/** Opens the search. */
export function openSearch(): void {
  searching.value = true;
}

/** Which agents, which directory, only what lives. */
function Filters() {
  const [choosing, setChoosing] = useState(false);
  const { executor, project, live } = filter.value;
  const agents = new Map(rooms.value.flatMap((room) => room.info.value?.agents.filter((agent) => agent.found || agent.capabilities.history).map((agent) => [agent.executor, agent.name] as const) ?? []));
  const set = (change: Partial<typeof filter.value>): void => void (filter.value = { ...filter.value, ...change });
  const projects = [...new Set(allLines.value.map(({ session }) => session.project_path).concat(pastLines.value.map(({ past }) => past.project_path)))].filter(Boolean).sort();
  return (
    <div class="filters" role="group" aria-label={t.filters}>
      <button type="button" class="pick" aria-pressed={live} onClick={() => set({ live: !live })}>{t.onlyLive}</button>
      {agents.size > 1 && [...agents].map(([id, name]) => (
        <button type="button" key={id} class="pick" aria-pressed={executor === id} onClick={() => set({ executor: executor === id ? '' : id })}>{name}</button>
      ))}
      <button type="button" class="pick" aria-haspopup="dialog" aria-pressed={Boolean(project)} onClick={() => (project ? set({ project: '' }) : setChoosing(true))}>
        {project ? <><span class="clip">{baseName(project)}</span><Icon name="close" size={14} /></> : t.directory}
      </button>
      {choosing && (
        <Sheet title={t.directory} onClose={() => setChoosing(false)}>
          <ul class="rows">
            {projects.map((path) => (
              <li key={path}>
                <button type="button" onClick={() => {
                  set({ project: path });
                  setChoosing(false);
                }}>
                  <Icon name="folder" size={18} /><span class="two"><b class="clip">{baseName(path)}</b><span class="clip soft">{path}</span></span>
                </button>
              </li>
            ))}
          </ul>
        </Sheet>
      )}
    </div>
  );
}

/** Another machine answers where one was kept. */
function Stranger({ room }: { room: Room }) {
  const info = room.stranger.value;
  if (!info) return null;
  const was = room.machine.name;
  const now = info.client_id && !/^[0-9A-F]{32}$/i.test(info.client_id) ? info.client_id : info.host_name;
  return (
    <section class="panel stranger" role="alert">
      <h2><Icon name="warn" size={18} /> {t.strangerTitle(was)}</h2>
      <p class="soft">{t.strangerText(now, was)}</p>
      <div class="actions">
        {room.machine !== own && <button type="button" class="button" onClick={() => dropMachine(room.machine)}>{t.remove}</button>}
        <button type="button" class="button" onClick={() => room.accept()}>{t.strangerUse(now)}</button>
      </div>
    </section>
  );
}

/** The end of the list: the next pages come when it is near. */
function More() {
  const mark = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const box = mark.current;
    if (!box || loadFailed.value) return;
    const near = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && loadMore(), { rootMargin: '600px' });
    near.observe(box);
    return () => near.disconnect();
  }, [loadingMore.value, loadFailed.value]);
  if (!hasMore.value) return null;
  return (
    <div class="center more" ref={mark}>
      {loadFailed.value ? <><p class="soft small">{t.listFailed}</p><button type="button" class="small" onClick={loadMore}>{t.retry}</button></> : <Loading />}
    </div>
  );
}

/** Lines cut where the day changes. */
function byDay(lines: readonly Line[]): [string, Line[]][] {
  const days: [string, Line[]][] = [];
  for (const line of lines) {
    const day = dayOf(timeOfLine(line));
    const last = days[days.length - 1];
    if (last?.[0] === day) last[1].push(line);
    else days.push([day, [line]]);
  }
  return days;
}

export function Inbox() {
  const field = useRef<HTMLInputElement>(null);
  // Before the next key arrives: what is typed right after `/` belongs to the search.
  useLayoutEffect(() => {
    if (searching.value) field.current?.focus();
  }, [searching.value]);
  const ready = rooms.value.some((room) => room.ready.value);
  const shown = sections.value;
  const loose = rooms.value.flatMap((room) => room.approvals.value.filter((approval) => !approval.session_id).map((approval) => ({ room, approval })));
  const first = rooms.value[0];
  const labels: Record<Exclude<Group, 'recent'>, string> = { needs: t.needsYou, running: t.running, unread: t.unread };
  const locked = rooms.value.filter((room) => {
    const status = room.link.status.value;
    return status.state === 'down' && status.trouble === 'key';
  });
  const strangers = rooms.value.filter((room) => room.stranger.value);
  const close = (): void => {
    searching.value = false;
    query.value = '';
    filter.value = { executor: '', project: '', live: false };
  };
  const row = (line: Line, group: Group) =>
    isPast(line)
      ? <Memo key={`${line.room.key} ${line.past.id}`} on={[line.past]}>{() => <PastItem line={line} />}</Memo>
      : <Memo key={`${line.room.key} ${line.session.id}`} on={[line.room, line.session, group]}>{() => <Item room={line.room} session={line.session} group={group} />}</Memo>;

  return (
    <div class="inbox">
      <header class="inbox-head">
        <div class="inbox-title">
          <h1>{rooms.value.length > 1 ? t.allMachines : first ? nameOf(first) : own.name}</h1>
          <Summary />
        </div>
        <button type="button" class="ghost round" aria-label={t.search} aria-expanded={searching.value} onClick={() => (searching.value ? close() : openSearch())}>
          <Icon name={searching.value ? 'close' : 'search'} />
        </button>
      </header>
      {searching.value && (
        <>
          <div class="searchbar">
            <Icon name="search" size={18} />
            <input
              ref={field}
              type="search"
              aria-label={t.search}
              placeholder={t.search}
              value={query.value}
              onInput={(event) => (query.value = event.currentTarget.value)}
              onKeyDown={(event) => event.key === 'Escape' && !composes(event) && close()}
            />
          </div>
          <Filters />
        </>
      )}
      {rooms.value.map((room) => !room.stranger.value && <Connection key={room.key} link={room.link} name={rooms.value.length > 1 ? nameOf(room) : undefined} />)}
      {rooms.value.map((room) => !room.stranger.value && <AddressNews key={room.key} room={room} />)}
      <div class="scroll inbox-list">
        {strangers.map((room) => <Stranger key={room.key} room={room} />)}
        {locked.map((room) => <EdgeKey key={room.key} room={room} />)}
        {!ready && !locked.length && !strangers.length && first?.link.status.value.state !== 'down' && <Loading />}
        {loose.map(({ room, approval }) => (
          <a key={approval.id} class="item needs" href={`#/s/${room.machine.id}/~${encodeURIComponent(approval.id)}`}>
            <AgentMark executor={approval.executor ?? ''} />
            <div class="item-main">
              <div class="item-top"><h3 class="clip">{approval.session_title || approval.tool_name}</h3></div>
              <p class="asks"><span>{t.wants[approval.kind]}</span> <code>{visible(worded(approval))}</code></p>
            </div>
          </a>
        ))}
        {shown.flatMap(({ group, lines }) =>
          group === 'recent'
            ? byDay(lines).map(([day, some]) => (
              <section key={day} class="group recent" aria-label={day}>
                <h2>{day}</h2>
                <ul>{some.map((line) => row(line, group))}</ul>
              </section>
            ))
            : [
              <section key={group} class={`group ${group}`} aria-label={labels[group]}>
                <h2>{labels[group]} <span>{number(lines.length)}</span></h2>
                <ul>{lines.map((line) => row(line, group))}</ul>
              </section>,
            ])}
        {ready && !shown.length && !loose.length && !(isFiltered.value && loadingMore.value) && (
          isFiltered.value ? !hasMore.value && <p class="soft pad">{t.noMatch}</p> : !hasMore.value && (
            <Empty icon="inbox" title={t.emptyTitle}><p>{t.emptyText}</p></Empty>
          )
        )}
        {ready && <More />}
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
