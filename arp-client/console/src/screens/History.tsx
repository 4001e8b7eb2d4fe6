//! A session that only an agent's history knows: its text; resume, fork, delete.

import { useEffect, useMemo, useState } from 'preact/hooks';
import { t } from '../i18n';
import { call, newId, seg } from '../net/api';
import { Timeline } from '../model/timeline';
import type { Entry } from '../model/events';
import type { HistoryPage, PastSession, Session } from '../net/types';
import { entryOf } from '../state/session';
import { fromHere, toSession } from '../state/arrive';
import { hrefOf } from '../state/route';
import { roomOf, type Room } from '../state/machines';
import { findPast, forgetPast } from '../state/overview';
import { branchOut } from '../state/branch';
import { estimateRow, Row } from '../timeline/rows';
import { AgentMark, Icon } from '../ui/icons';
import { attempt, baseName, Confirm, Failed, Loading } from '../ui/kit';
import { useLoad } from '../ui/load';
import { EnterHint, Prompt } from '../ui/prompt';
import { VirtualList } from '../ui/virtual';
import { Header, UnknownMachine } from './Header';

/** The text of one past session, page by page from its beginning. */
function Reader({ room, agent, id }: { room: Room; agent: string; id: string }) {
  const [entries, setEntries] = useState<readonly Entry[]>([]);
  const [next, setNext] = useState<number | null>(0);
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const [removing, setRemoving] = useState(false);
  const [text, setText] = useState('');
  const [starting, setStarting] = useState(false);
  // A link opens it before its page of the list was read.
  const { value: list } = useLoad(() => (findPast(room, id) ? Promise.resolve(null) : call<{ sessions: PastSession[] }>(room.machine, 'GET', `api/${agent}/sessions?limit=500`)), [id]);
  const past = findPast(room, id) ?? list?.sessions.find((session) => session.id === id);
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

  // The same until the session is there: a repeated tap, or an answer that was lost, starts nothing twice.
  const [ids] = useState({ resume: newId(), fork: newId() });
  const gone = Boolean(error) && !entries.length;
  const goOn = (fork: boolean): void => {
    if (starting) return;
    setStarting(true);
    const arrive = toSession(room);
    void attempt(async () => {
      const answer = await call<{ session: Session }>(room.machine, 'POST', 'api/sessions', {
        executor: agent, resume: id, client_id: ids[fork ? 'fork' : 'resume'], project_path: past?.project_path,
        ...(fork ? { fork: true } : {}),
        ...(text.trim() ? { prompt: text.trim() } : {}),
      }, 60_000);
      arrive(answer.session);
    }, (error) => (!fork && info?.capabilities.fork ? branchOut(error, () => goOn(true)) : undefined)).finally(() => setStarting(false));
  };

  return (
    <div class="screen session">
      <Header
        title={past?.title || past?.first_message || t.history}
        sub={<><AgentMark executor={agent} size={13} />{past && <span>{baseName(past.project_path)}</span>}<span>{t.readOnly}</span></>}
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
              goOn(false);
            }}
          >
            <Prompt id="resume-text" label={t.resume} placeholder={t.resumeHint} value={text} grows={200} onText={setText} onSend={() => goOn(false)} />
            <div class="composer-foot">
              <span class="usage clip"><EnterHint of="resume-text" /></span>
              {info?.capabilities.fork && <button type="button" class="button" disabled={starting} onClick={() => goOn(true)}>{t.forkOne}</button>}
              <button type="submit" class="button primary" disabled={starting}>{starting ? t.starting : t.resume}</button>
            </div>
          </form>
        )}
      </div>}
      {removing && <Confirm title={t.deleteSession} text={t.deleteText} action={t.del} onNo={() => setRemoving(false)} onYes={async () => {
        const leave = fromHere();
        await call(room.machine, 'DELETE', `api/${agent}/sessions/${seg(id)}`);
        setRemoving(false);
        forgetPast(room, id);
        // Its step goes with it.
        leave({ name: 'inbox' }, true);
      }} />}
    </div>
  );
}

export function History({ machine, agent, id }: { machine: string; agent: string; id: string }) {
  const room = roomOf(machine);
  return room ? <Reader key={`${room.key} ${agent} ${id}`} room={room} agent={agent} id={id} /> : <UnknownMachine />;
}
