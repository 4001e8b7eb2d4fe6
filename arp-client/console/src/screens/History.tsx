//! What the agents keep on the machine: projects, sessions, their text; resume, copy, delete.

import { useEffect, useMemo, useState } from 'preact/hooks';
import { ago, t } from '../i18n';
import { ApiError, call, seg } from '../net/api';
import { Timeline } from '../model/timeline';
import type { Entry } from '../model/events';
import { timeOf, type HistoryPage, type PastSession, type Project, type Session } from '../net/types';
import { entryOf } from '../state/session';
import { back, go, hrefOf } from '../state/route';
import { nameOf, roomOf, rooms, type Room } from '../state/machines';
import { estimateRow, Row } from '../timeline/rows';
import { AgentMark, Icon } from '../ui/icons';
import { attempt, baseName, Confirm, Empty, Failed, Loading, Segments, tidyPath } from '../ui/kit';
import { VirtualList } from '../ui/virtual';
import { Header } from './Header';

const PAGE = 50;

/** Loads something and keeps what came, or what went wrong. */
export function useLoad<T>(load: () => Promise<T>, on: readonly unknown[]): { value: T | null; error: unknown; again(): void; set(value: T): void } {
  const [state, setState] = useState<{ value: T | null; error: unknown }>({ value: null, error: null });
  const [round, setRound] = useState(0);
  useEffect(() => {
    let live = true;
    setState({ value: null, error: null });
    load().then(
      (value) => live && setState({ value, error: null }),
      (error: unknown) => live && setState({ value: null, error }),
    );
    return () => {
      live = false;
    };
  }, [...on, round]);
  return { ...state, again: () => setRound((n) => n + 1), set: (value) => setState({ value, error: null }) };
}

/** Projects, newest first. */
function Projects({ room, agent }: { room: Room; agent: string }) {
  const { value, error, again } = useLoad(() => call<{ projects: Project[] }>(room.machine, 'GET', `api/${agent}/projects`), [room, agent]);
  if (error instanceof ApiError && error.code === 'no_history') return <Empty icon="history" title={t.historyEmpty} />;
  if (error) return <Failed error={error} onRetry={again} />;
  if (!value) return <Loading />;
  if (!value.projects.length) return <Empty icon="history" title={t.historyEmpty} />;
  const time = (project: Project): number => timeOf(project.most_recent_session) || timeOf(project.created_at);
  return (
    <ul class="rows cards">
      {[...value.projects].sort((a, b) => time(b) - time(a)).map((project) => (
        <li key={project.id}>
          <a href={hrefOf({ name: 'history', machine: room.machine.id, agent, project: project.path, id: '' })}>
            <Icon name="folder" size={20} />
            <span class="two"><b class="clip">{baseName(project.path)}</b><span class="clip soft">{tidyPath(project.path, room.info.value?.home_dir)}</span></span>
            <span class="aside"><time>{ago(time(project))}</time><span>{t.sessionsN(project.sessions.length)}</span></span>
          </a>
        </li>
      ))}
    </ul>
  );
}

interface SessionList { sessions: PastSession[]; total?: number }

function Sessions({ room, agent, project }: { room: Room; agent: string; project: string }) {
  const load = (offset: number): Promise<SessionList> =>
    call(room.machine, 'GET', `api/${agent}/sessions?project_path=${seg(project)}&limit=${PAGE}&offset=${offset}`);
  const { value, error, again, set } = useLoad(() => load(0), [room, agent, project]);
  if (error) return <Failed error={error} onRetry={again} />;
  if (!value) return <Loading />;
  if (!value.sessions.length) return <Empty icon="history" title={t.nothingHere} />;
  return (
    <>
      <ul class="rows cards">
        {value.sessions.map((session) => (
          <li key={session.id}>
            <a href={hrefOf({ name: 'history', machine: room.machine.id, agent, project, id: session.id })}>
              <span class="two">
                <b class="clip2">{session.title || session.first_message || t.untitled}</b>
                <span class="soft">{ago(timeOf(session.updated_at ?? session.message_timestamp ?? session.created_at))}{session.message_count ? ` · ${t.messagesN(session.message_count)}` : ''}</span>
              </span>
              {session.live_session_id && <span class="tag run">{t.live}</span>}
              <Icon name="right" size={15} />
            </a>
          </li>
        ))}
      </ul>
      {(value.total ?? 0) > value.sessions.length && (
        <div class="center"><button type="button" class="button" onClick={() => void attempt(async () => {
          const more = await load(value.sessions.length);
          set({ ...more, sessions: [...value.sessions, ...more.sessions] });
        })}>{t.loadMore}</button></div>
      )}
    </>
  );
}

/** The text of one past session, page by page from its beginning. */
function Reader({ room, agent, project, id }: { room: Room; agent: string; project: string; id: string }) {
  const [entries, setEntries] = useState<readonly Entry[]>([]);
  const [next, setNext] = useState<number | null>(0);
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const [removing, setRemoving] = useState(false);
  const [text, setText] = useState('');
  const [starting, setStarting] = useState(false);
  const { value: list } = useLoad(() => call<SessionList>(room.machine, 'GET', `api/${agent}/sessions?limit=500${project ? `&project_path=${seg(project)}` : ''}`), [id]);
  const past = list?.sessions.find((session) => session.id === id);
  const info = room.info.value?.agents.find((one) => one.executor === agent);

  const load = async (): Promise<void> => {
    if (next === null || busy) return;
    setBusy(true);
    try {
      const page = await call<HistoryPage>(room.machine, 'GET', `api/${agent}/sessions/${seg(id)}?format=events&offset=${next}`);
      // Pages number their events for themselves: ours run on.
      setEntries((old) => [...old, ...page.events.map((event, index) => ({ ...entryOf(event), seq: old.length + index + 1 }))]);
      setNext(page.next_offset);
      setError(null);
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
  };
  // The first pages come by themselves, so that the end (where one reads) is there.
  useEffect(() => {
    if (!error && next !== null && entries.length < 20_000) void load();
  }, [next, id]);

  const items = useMemo(() => {
    const timeline = new Timeline();
    timeline.apply(entries);
    return timeline.items;
  }, [entries]);

  const gone = Boolean(error) && !entries.length;
  const go_on = (fork: boolean): void => {
    setStarting(true);
    void attempt(async () => {
      const answer = await call<{ session: Session }>(room.machine, 'POST', 'api/sessions', {
        executor: agent, resume: id, project_path: past?.project_path ?? (project || undefined),
        ...(fork ? { fork: true } : {}),
        ...(text.trim() ? { prompt: text.trim() } : {}),
      }, 60_000);
      room.put(answer.session);
      go({ name: 'session', machine: room.machine.id, id: answer.session.id });
    }).finally(() => setStarting(false));
  };

  return (
    <div class="screen session">
      <Header
        title={past?.title || past?.first_message || t.history}
        sub={<><AgentMark executor={agent} size={13} /><span>{t.readOnly}</span></>}
        fallback={{ name: 'history', machine: room.machine.id, agent, project, id: '' }}
      >
        {!gone && <button type="button" class="ghost round" aria-label={t.deleteSession} onClick={() => setRemoving(true)}><Icon name="trash" /></button>}
      </Header>
      {error && !entries.length ? <Failed error={error} onRetry={() => void load()} /> : !entries.length && busy ? <Loading /> : (
        <div class="timeline">
          <VirtualList items={items} estimate={estimateRow} label={t.history} render={(item) => <div class={`col k-${item.kind}`}><Row item={item} /></div>} />
        </div>
      )}
      {!gone && <div class="dock">
        {next !== null && !busy && entries.length > 0 && <div class="center"><button type="button" class="button" onClick={() => void load()}>{t.loadMore}</button></div>}
        {past?.live_session_id ? (
          <a class="button primary big" href={hrefOf({ name: 'session', machine: room.machine.id, id: past.live_session_id })}>{t.openLive}</a>
        ) : (
          <form
            class="composer"
            onSubmit={(event) => {
              event.preventDefault();
              go_on(false);
            }}
          >
            <label class="hide" for="resume-text">{t.resume}</label>
            <textarea id="resume-text" rows={1} placeholder={t.resumeHint} value={text} onInput={(event) => setText(event.currentTarget.value)} />
            <div class="composer-foot">
              <span class="usage" />
              {info?.capabilities.fork && <button type="button" class="button" disabled={starting} onClick={() => go_on(true)}>{t.forkOne}</button>}
              <button type="submit" class="button primary" disabled={starting}>{starting ? t.starting : t.resume}</button>
            </div>
          </form>
        )}
      </div>}
      {removing && <Confirm title={t.deleteSession} text={t.deleteText} action={t.del} onNo={() => setRemoving(false)} onYes={async () => {
        await call(room.machine, 'DELETE', `api/${agent}/sessions/${seg(id)}`);
        setRemoving(false);
        back({ name: 'history', machine: room.machine.id, agent, project, id: '' });
      }} />}
    </div>
  );
}

export function History({ machine, agent, project, id }: { machine: string; agent: string; project: string; id: string }) {
  const room = roomOf(machine);
  if (!room) return null;
  const agents = room.info.value?.agents.filter((one) => one.capabilities.history) ?? [];
  const current = agents.some((one) => one.executor === agent) ? agent : (agents.find((one) => one.found)?.executor ?? agents[0]?.executor ?? '');
  if (id && agent) return <Reader key={id} room={room} agent={agent} project={project} id={id} />;
  const root = !project;
  return (
    <div class="screen">
      <Header root={root} title={root ? t.history : baseName(project)} sub={root ? undefined : tidyPath(project, room.info.value?.home_dir)} fallback={{ name: 'history', machine, agent, project: '', id: '' }} />
      <div class="scroll page">
        {rooms.value.length > 1 && root && (
          <Segments label={t.machine} value={room.machine.id} options={rooms.value.map((one) => [one.machine.id, nameOf(one)] as const)} onPick={(picked) => go({ name: 'history', machine: picked, agent: current, project: '', id: '' }, true)} />
        )}
        {root && agents.length > 1 && (
          <Segments label={t.agent} value={current} options={agents.map((one) => [one.executor, one.name] as const)} onPick={(picked) => go({ name: 'history', machine: room.machine.id, agent: picked, project: '', id: '' }, true)} />
        )}
        {!room.info.value ? <Loading /> : !current ? <Empty icon="history" title={t.historyEmpty} /> : root ? <Projects room={room} agent={current} /> : <Sessions room={room} agent={current} project={project} />}
      </div>
    </div>
  );
}
