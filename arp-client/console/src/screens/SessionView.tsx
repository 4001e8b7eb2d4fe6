//! One session: what happened and happens, what is asked, and the next message.

import type { RefObject } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { signal, useComputed } from '@preact/signals';
import { clock, explainTrouble, money, number, t } from '../i18n';
import type { Item } from '../model/timeline';
import type { Session } from '../net/types';
import { newId } from '../net/api';
import { ApprovalPanel } from '../approval/ApprovalPanel';
import { useWriting } from '../approval/writing';
import { modeOf, modeWord } from '../model/mode';
import { OpenSession } from '../state/session';
import { roomOf, type Room } from '../state/machines';
import { branch, branchOut, canBranch } from '../state/branch';
import { fromHere } from '../state/arrive';
import { back, hrefOf } from '../state/route';
import { Checklist, estimateRow, openCard, Row } from '../timeline/rows';
import { AgentMark, Icon } from '../ui/icons';
import { visible } from '../text/visible';
import { attempt, baseName, Confirm, Connection, copy, Empty, Failed, Loading, Sheet } from '../ui/kit';
import { useWhileHere } from '../ui/here';
import { later } from '../ui/later';
import { VirtualList, type ListHandle } from '../ui/virtual';
import { Composer } from './Composer';
import { DeleteSession } from './DeleteSession';
import { Header, UnknownMachine } from './Header';
import { SidePanel } from './SidePanel';
import { titleOf } from './Inbox';
import { ModelPicker, ModePicker, modeName } from './Pickers';

// Only for machines whose agents go through a gateway.
const gatewayLine = later(async () => (await import('../gateway/SessionGateway')).GatewayLine, true);

/** Are a session's files below a directory that the machine serves? While that is not known, they are offered. */
function servesFiles(room: Room, path: string): boolean {
  if (!room.info.value?.fs_enabled) return false;
  const roots = room.roots.value;
  return !roots || roots.some((root) => path === root || path.startsWith(root.endsWith('/') ? root : `${root}/`));
}

type Open = '' | 'menu' | 'details' | 'plan' | 'mode' | 'model' | 'rename' | 'stop' | 'delete';
/** A row of the list: an item, or the mark at its beginning. */
type ListItem = Item | { kind: 'start'; key: string };

const roomy = matchMedia('(min-width: 1240px)');
/** Is there room for a panel beside the session? */
const spacious = signal(roomy.matches);
roomy.addEventListener('change', () => (spacious.value = roomy.matches));

export function statusWord(session: Session): string {
  const words = {
    starting: t.st_starting, running: t.st_running, waiting: t.st_waiting, idle: t.st_idle, parked: t.st_parked,
    completed: t.st_completed, failed: t.st_failed, cancelled: t.st_cancelled,
  };
  return words[session.status] ?? session.status;
}

function Details({ session, room }: { session: Session; room: Room }) {
  const usage = session.usage;
  const rows: [string, string | null | undefined][] = [
    [t.agent, room.info.value?.agents.find((agent) => agent.executor === session.executor)?.name ?? session.executor],
    [t.directory, session.project_path],
    [t.model, session.model],
    [t.mode, session.permission_mode && modeName(modeWord(session.permission_mode))],
    [t.tokensIn, usage?.input_tokens != null ? number(usage.input_tokens) : null],
    [t.tokensCached, usage?.cached_input_tokens ? number(usage.cached_input_tokens) : null],
    [t.tokensOut, usage?.output_tokens != null ? number(usage.output_tokens) : null],
    [t.cost, usage?.cost_usd != null ? money(usage.cost_usd) : null],
    [t.started, clock(Date.parse(session.created_at))],
    [t.updated, clock(Date.parse(session.updated_at))],
    [t.agentId, session.agent_session_id],
  ];
  return (
    <dl class="details">
      {rows.filter(([, value]) => value).map(([name, value]) => (
        <div key={name}><dt>{name}</dt><dd>{value}</dd></div>
      ))}
    </dl>
  );
}

function Menu({ open, session, room, show }: { open: OpenSession; session: Session; room: Room; show(next: Open): void }) {
  const close = useWhileHere(() => show(''));
  const live = ['starting', 'running', 'waiting', 'idle'].includes(session.status);
  return (
    <Sheet title={titleOf(session)} onClose={() => show('')}>
      <ul class="rows">
        <li><button type="button" onClick={() => show('details')}><Icon name="read" size={19} />{t.details}</button></li>
        <li><button type="button" onClick={() => show('rename')}><Icon name="edit" size={19} />{t.rename}</button></li>
        {open.timeline.value.plan.length > 0 && <li><button type="button" onClick={() => show('plan')}><Icon name="plan" size={19} />{t.plan}</button></li>}
        {servesFiles(room, session.project_path) && <li><a href={hrefOf({ name: 'files', machine: room.machine.id, path: '', session: session.id })}><Icon name="folder" size={19} />{t.files}</a></li>}
        {canBranch(room, session) && (
          <li><button type="button" onClick={() => void attempt(() => branch(room, session.id, {}, close))}><Icon name="fork" size={19} />{t.fork}</button></li>
        )}
        {live && <li><button type="button" class="bad" onClick={() => show('stop')}><Icon name="stop" size={19} />{t.stop}</button></li>}
        <li><button type="button" class="bad" onClick={() => show('delete')}><Icon name="trash" size={19} />{t.deleteSession}</button></li>
      </ul>
    </Sheet>
  );
}

function Rename({ open, session, onClose }: { open: OpenSession; session: Session; onClose(): void }) {
  const [title, setTitle] = useState(session.title ?? '');
  const close = useWhileHere(onClose);
  return (
    <Sheet title={t.rename} onClose={onClose}>
      <form
        class="inline"
        onSubmit={(event) => {
          event.preventDefault();
          void attempt(() => open.change({ title: title.trim() })).then((well) => well && close());
        }}
      >
        <input class="field" aria-label={t.title} value={title} onInput={(event) => setTitle(event.currentTarget.value)} />
        <button type="submit" class="button primary" disabled={!title.trim()}>{t.save}</button>
      </form>
    </Sheet>
  );
}

/** What the last finished text said, for those who hear the page. */
function Announcer({ open }: { open: OpenSession }) {
  const ended = useComputed(() => {
    open.version.value;
    const last = open.timeline.value.items.at(-1);
    return last?.kind === 'turn' ? last.status : null;
  }).value;
  const said = ended === null ? '' : ended === 'completed' ? t.turnDone : ended === 'interrupted' ? t.interrupted : t.turnFailed;
  return <p class="hide" role="status" aria-live="polite">{said}</p>;
}

function Timeline({ open, label, handle }: { open: OpenSession; label: string; handle: RefObject<ListHandle> }) {
  const version = open.version.value;
  const items = open.timeline.value.items;
  const atStart = open.firstSeq.value <= 1;
  const [away, setAway] = useState(false);
  const { lastSeq } = open.timeline.value;
  const seenSeq = useRef(0);
  if (!away) seenSeq.current = lastSeq;
  const list = useMemo<readonly ListItem[]>(() => [{ kind: 'start', key: 'start' } as const, ...items], [items, version]);
  return (
    <div class="timeline">
      <VirtualList<ListItem>
        items={list}
        handle={handle}
        label={label}
        estimate={(item) => (item.kind === 'start' ? 44 : estimateRow(item))}
        onNearTop={() => void open.loadOlder()}
        onEnd={(ended) => setAway(!ended)}
        render={(item) => (item.kind === 'start' ? <p class="beginning">{!atStart ? t.loadOlder : items.length > 60 ? t.beginning : ''}</p> : <div class={`col k-${item.kind}`}><Row item={item} /></div>)}
      />
      {away && (
        <button type="button" class="to-end" onClick={() => handle.current?.toEnd()}>
          <Icon name="end" size={17} /> {lastSeq > seenSeq.current ? t.newBelow : t.toEnd}
        </button>
      )}
    </div>
  );
}

/** A question that came over MCP from an agent that was not started here: there is no session to show. */
function Loose({ room, id }: { room: Room; id: string }) {
  const approval = room.approvals.value.find((one) => one.id === id);
  useEffect(() => {
    if (room.ready.value && !approval) back();
  }, [approval, room.ready.value]);
  if (!approval) return <Loading />;
  return (
    <div class="screen session">
      <Header title={approval.session_title || approval.tool_name} sub={approval.project_path} />
      <div class="fill" />
      <ApprovalPanel room={room} approvals={[approval]} />
    </div>
  );
}

export function SessionView({ machine, id }: { machine: string; id: string }) {
  const room = roomOf(machine);
  if (!room) return <UnknownMachine />;
  if (room.stranger.value) return <div class="screen session"><Header title={t.sessions} /><Empty icon="warn" title={t.tr_changed}><button type="button" class="button" onClick={() => back()}>{t.back}</button></Empty></div>;
  if (id.startsWith('~')) return <Loose room={room} id={id.slice(1)} />;
  return <Live key={`${room.key} ${id}`} room={room} id={id} />;
}

function Live({ room, id }: { room: Room; id: string }) {
  const open = useMemo(() => new OpenSession(room, id), []);
  const list = useRef<ListHandle>({ toEnd: () => undefined, toKey: () => undefined });
  const [sheet, show] = useState<Open>('');
  const [later, setLater] = useState(false);
  useEffect(() => {
    void open.open();
    return () => open.close();
  }, []);
  const session = open.session;
  useEffect(() => {
    if (session && document.visibilityState === 'visible') open.look();
  }, [session?.last_seq]);
  const writing = useWriting();
  // A new question brings the panel back.
  const asked = session?.approvals.map((approval) => approval.id).join(' ') ?? '';
  useEffect(() => setLater(false), [asked]);

  const failure = open.failure.value;
  if (!session) {
    return (
      <div class="screen session">
        <Header title={t.sessions} />
        {failure ? (
          failure.status === 404 ? (
            <Empty icon="inbox" title={t.tr_gone}><button type="button" class="button" onClick={() => back()}>{t.back}</button></Empty>
          ) : <Failed error={failure} onRetry={() => void open.loadFirst()} />
        ) : <Loading />}
      </div>
    );
  }

  const agent = room.info.value?.agents.find((one) => one.executor === session.executor);
  const approvals = session.approvals.map((approval) => ({ ...approval, executor: approval.executor ?? session.executor }));
  const asks = approvals.length > 0 && !later && !writing.here;
  /** Closes a sheet whose work is done, and no other that is open by then. */
  const shut = (which: Open): void => show((now) => (now === which ? '' : now));
  const change = (which: Open, fields: Parameters<OpenSession['change']>[0]): void => void attempt(() => open.change(fields)).then((well) => well && shut(which));
  return (
    <div class="beside">
    <div class="screen session">
      <Header
        title={titleOf(session)}
        sub={<><AgentMark executor={session.executor} size={13} /><span>{baseName(session.project_path)}</span><span class={`state ${session.status}`}>{statusWord(session)}</span></>}
      >
        <PlanChip open={open} onClick={() => show('plan')} />
        <button type="button" class="ghost round" aria-label={t.more} aria-haspopup="dialog" onClick={() => show('menu')}><Icon name="more" /></button>
      </Header>
      <Connection link={open.link} />
      {session.gateway && <gatewayLine.View room={room} session={session} />}
      <Trouble key={session.problem ? `${session.problem.kind} ${session.turns}` : ''} open={open} session={session} />
      {open.loading.value === 'first' ? <Loading /> : failure ? <Failed error={failure} onRetry={() => void open.loadFirst()} /> : <Timeline open={open} label={titleOf(session)} handle={list} />}
      <Announcer open={open} />
      {asks && <ApprovalPanel room={room} approvals={approvals} onLater={() => setLater(true)} />}
      {approvals.length > 0 && !asks && (
        <button type="button" key={asked} class="waiting-bar" onClick={() => {
          writing.end();
          setLater(false);
        }}>
          <Icon name="shield" size={17} /><span class="clip">{t.approvals(approvals.length)}: {visible(approvals[0]?.title ?? '')}</span><b>{t.review}</b>
        </button>
      )}
      {/* Never taken away, whatever is asked: who writes goes on writing. */}
      <div class="dock-place" onFocusCapture={writing.focus} onBlurCapture={writing.blur}>
        <Composer
          open={open}
          session={session}
          {...(agent?.capabilities.set_permission_mode ? { onMode: () => show('mode') } : {})}
          {...(agent?.capabilities.set_model ? { onModel: () => show('model') } : {})}
        />
      </div>
      {sheet === 'menu' && <Menu open={open} session={session} room={room} show={show} />}
      {sheet === 'details' && (
        <Sheet title={t.details} onClose={() => show('')}>
          <Details session={session} room={room} />
          {session.agent_session_id && <button type="button" class="button wide" onClick={() => void copy(session.agent_session_id ?? '')}>{t.copy}: {t.agentId}</button>}
        </Sheet>
      )}
      {sheet === 'plan' && <Sheet title={t.plan} onClose={() => show('')}><Checklist entries={open.timeline.value.plan} /></Sheet>}
      {sheet === 'rename' && <Rename open={open} session={session} onClose={() => show('')} />}
      {sheet === 'mode' && <ModePicker modes={agent?.permission_modes ?? []} value={modeOf(session, open.timeline.value.facts)} onClose={() => show('')} onPick={(mode) => change('mode', { permission_mode: mode })} />}
      {sheet === 'model' && <ModelPicker models={agent?.models ?? []} value={session.model ?? ''} onClose={() => show('')} onPick={(model) => change('model', { model })} />}
      {sheet === 'stop' && <Confirm title={t.stop} text={t.stopText} action={t.stop} onNo={() => show('')} onYes={async () => {
        await open.cancel();
        shut('stop');
      }} />}
      {sheet === 'delete' && <DeleteSession agent={agent?.name ?? session.executor} keeps={agent?.capabilities.history ?? true} onNo={() => show('')} onYes={async (history) => {
        const leave = fromHere();
        await open.remove(history);
        shut('delete');
        // Not a step back: that may be this session's own history, which is gone too.
        leave({ name: 'inbox' }, true);
      }} />}
    </div>
    {spacious.value && <SidePanel open={open} session={session} onFile={(key) => {
      openCard(key);
      list.current?.toKey(key);
    }} />}
    </div>
  );
}

/** What went wrong, and trying it again. */
function Trouble({ open, session }: { open: OpenSession; session: Session }) {
  const [busy, setBusy] = useState(false);
  // The same until it was taken: an answer that was lost tries nothing twice.
  const [id, setId] = useState(newId);
  const { problem } = session;
  if (!problem) return null;
  const retry = (): void => {
    setBusy(true);
    const wayOut = (error: unknown) => (canBranch(open.room, session) ? branchOut(error, () => void attempt(() => branch(open.room, session.id))) : undefined);
    void attempt(() => open.retry(id), wayOut).then((well) => {
      setBusy(false);
      if (well) setId(newId());
    });
  };
  return (
    <div class="line trouble">
      <Icon name="warn" size={18} />
      <p role="status" title={problem.message}>{explainTrouble(problem)}</p>
      {problem.can_retry && <button type="button" class="small" disabled={busy || session.status === 'starting' || session.status === 'running'} onClick={retry}>{t.retry}</button>}
    </div>
  );
}

function PlanChip({ open, onClick }: { open: OpenSession; onClick(): void }) {
  const plan = useComputed(() => (open.version.value, open.timeline.value.plan)).value;
  if (!plan.length) return null;
  const done = plan.filter((entry) => entry.status === 'completed').length;
  return <button type="button" class="chip" title={t.planOf(done, plan.length)} onClick={onClick}><Icon name="plan" size={15} /><span class="hide">{t.plan}: </span>{number(done)}/{number(plan.length)}</button>;
}
