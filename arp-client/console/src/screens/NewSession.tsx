//! Starts a session: the sentence first, the rest already chosen as last time.

import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { signal } from '@preact/signals';
import { ago, explainAgent, t } from '../i18n';
import { call, newId, seg } from '../net/api';
import { fingerprint } from '../net/machine';
import { drafts, lastChoice, setDraft } from '../model/prefs';
import { timeOf, type AgentInfo, type PastSession, type Place, type Session } from '../net/types';
import { toSession } from '../state/arrive';
import { branchOut } from '../state/branch';
import { nameOf, roomOf, rooms, type Room } from '../state/machines';
import { AgentMark, Icon } from '../ui/icons';
import { attempt, baseName, Connection, Empty, Loading, Segments, Sheet, tidyPath } from '../ui/kit';
import { EnterHint, Prompt } from '../ui/prompt';
import { DirectoryPicker, PlaceChips, placesOf } from './DirectoryPicker';
import { Header, UnknownMachine } from './Header';
import { modeHint, modeName, ModePicker, ModelPicker } from './Pickers';

/** The machine that was chosen last in this page, by the id that it had then. */
const chosenRoom = signal('');

/** The newest session of the agent in the directory, for going on with it; null while none is known. */
function useLastSession(room: Room | undefined, agent: AgentInfo | undefined, directory: string): PastSession | null {
  const [last, setLast] = useState<PastSession | null>(null);
  const executor = agent?.capabilities.resume && agent.capabilities.history ? agent.executor : '';
  useEffect(() => {
    setLast(null);
    if (!room || !executor || !directory) return;
    let live = true;
    call<{ sessions: PastSession[] }>(room.machine, 'GET', `api/${executor}/sessions?project_path=${seg(directory)}&limit=1`).then(
      ({ sessions: [newest] }) => live && setLast(newest ?? null),
      // Without it there is one thing less to choose; the start itself tells what is wrong.
      () => undefined,
    );
    return () => {
      live = false;
    };
  }, [room, executor, directory]);
  return last;
}

/** Where the id of the next start is kept. */
const START = 'new-id';

/**
 * The id of a start: the same for the same task until the session is there, over reloads too, so that a repeated tap
 * or an answer that was lost starts nothing twice.
 */
function startId(task: string): string {
  const [kept, id] = (drafts.peek()[START] ?? '').split(' ');
  const mark = fingerprint(task);
  if (kept === mark && id) return id;
  const made = newId();
  setDraft(START, `${mark} ${made}`);
  return made;
}

/** `beside`: shown beside the inbox before anything was chosen; then it takes no focus from the keys. */
export function NewSession({ beside = false }: { beside?: boolean }) {
  const room = roomOf(chosenRoom.value) ?? rooms.value[0];
  const info = room?.info.value;
  const found = info?.agents.filter((agent) => agent.found && !agent.problem) ?? [];
  const missing = info?.agents.filter((agent) => !agent.found || agent.problem) ?? [];
  const last = lastChoice.value;

  const [executor, setExecutor] = useState(last.executor ?? '');
  const [path, setPath] = useState(last.machine === undefined || room?.is(last.machine) ? (last.path ?? '') : '');
  const [model, setModel] = useState(last.model ?? '');
  const [mode, setMode] = useState(last.mode ?? '');
  const draft = drafts.value['new'] ?? '';
  const [text, setText] = useState(draft);
  // A start that was answered late takes its text from wherever it is shown by then. In place before the next key.
  useLayoutEffect(() => {
    if (!draft) setText('');
  }, [draft]);
  const [sheet, setSheet] = useState<'' | 'directory' | 'model' | 'mode' | 'machine'>('');
  const [placed, setPlaced] = useState<{ room: Room; list: readonly Place[] } | null>(null);
  const [busy, setBusy] = useState(false);
  const area = useRef<HTMLTextAreaElement>(null);
  /** Did somebody write here, for this machine? Then the directory stays the one that stood beside it. */
  const wrote = useRef(false);

  const [going, setGoing] = useState(false);

  // Before the next key arrives: what is typed right after `n` is the task.
  useLayoutEffect(() => {
    if (!beside) area.current?.focus();
  }, [Boolean(info)]);
  useEffect(() => {
    if (!room || !info) return;
    let live = true;
    void placesOf(room).then((list) => {
      if (!live) return;
      if (wrote.current) setPath((chosen) => chosen || info.defaults.project_path);
      setPlaced({ room, list });
    });
    return () => {
      live = false;
    };
  }, [room, info]);

  const agent = found.find((one) => one.executor === executor) ?? found.find((one) => one.executor === info?.defaults.executor) ?? found[0];
  // Those of another machine mean nothing on this one.
  const places = placed && placed.room === room ? placed.list : [];
  const directory = path || places.find(({ kind }) => kind === 'recent')?.path || info?.defaults.project_path || '';
  const past = useLastSession(room, agent, directory);
  useEffect(() => setGoing(false), [past?.id]);

  if (!room) return <UnknownMachine />;
  const machineRow = rooms.value.length > 1 && (
    <li><button type="button" onClick={() => setSheet('machine')}><Icon name="machine" size={19} /><span class="name">{t.machine}</span><span class="value clip">{nameOf(room)}</span><Icon name="right" size={15} /></button></li>
  );
  const machineSheet = sheet === 'machine' && (
    <Sheet title={t.machine} onClose={() => setSheet('')}>
      <Segments label={t.machine} value={room.machine.id} options={rooms.value.map((one) => [one.machine.id, nameOf(one)] as const)} onPick={(id) => {
        chosenRoom.value = id;
        wrote.current = false;
        setPath('');
        setSheet('');
      }} />
    </Sheet>
  );
  if (!info) return (
    <div class="screen new">
      <Header title={t.newSession} />
      {!beside && <Connection link={room.link} />}
      <div class="scroll">
        {machineRow && <ul class="rows settings-rows">{machineRow}</ul>}
        {room.stranger.value ? <Empty icon="warn" title={t.tr_changed} /> : room.link.status.value.state !== 'down' && <Loading />}
      </div>
      {machineSheet}
    </div>
  );

  const goOn = going && past !== null;
  const ready = Boolean(text.trim()) || goOn;
  const modes = agent?.permission_modes ?? [];
  const permission = modes.includes(mode) ? mode : modes.includes(info.defaults.permission_mode) ? info.defaults.permission_mode : (modes[0] ?? '');
  const chosenModel = agent && executor === agent.executor ? model : '';

  const start = (fork = false): void => {
    if (!ready || !agent || busy) return;
    setBusy(true);
    const arrive = toSession(room);
    const kept = drafts.peek()['new'];
    const id = startId(JSON.stringify([room.machine.id, agent.executor, directory, text.trim(), goOn && past.id, ...(fork ? ['fork'] : [])]));
    void attempt(async () => {
      const answer = await call<{ session: Session }>(room.machine, 'POST', 'api/sessions', {
        executor: agent.executor,
        project_path: directory,
        client_id: id,
        ...(text.trim() ? { prompt: text.trim() } : {}),
        // By its id, so that it is the one that was shown.
        ...(goOn ? { resume: past.id, ...(fork ? { fork } : {}) } : {}),
        ...(chosenModel ? { model: chosenModel } : {}),
        ...(permission ? { permission_mode: permission } : {}),
      }, 60_000);
      lastChoice.value = { machine: room.machine.id, executor: agent.executor, path: directory, mode: permission, model: chosenModel };
      // What was written for another one meanwhile stays.
      if (kept === drafts.peek()['new']) setDraft('new', '');
      if (drafts.peek()[START]?.endsWith(` ${id}`)) setDraft(START, '');
      arrive(answer.session, true);
    }, (error) => (goOn && !fork && agent.capabilities.fork ? branchOut(error, () => start(true)) : undefined)).finally(() => setBusy(false));
  };

  return (
    <div class="screen new">
      <Header title={t.newSession} />
      {!found.length ? (
        <Empty icon="agent" title={t.noAgents}>
          <p>{t.noAgentsText}</p>
          {missing.map((one) => <p key={one.executor} class="soft small"><b>{one.name}</b> {explainAgent(one.problem)}</p>)}
          <button type="button" class="button" onClick={() => void room.refreshInfo()}>{t.lookAgain}</button>
        </Empty>
      ) : (
        <form
          class="scroll new-form"
          onSubmit={(event) => {
            event.preventDefault();
            start();
          }}
        >
          <Prompt
            id="new-prompt"
            area={area}
            class="new-prompt"
            label={t.prompt}
            placeholder={goOn ? t.resumeHint : t.promptHint}
            value={text}
            rows={5}
            onText={(typed) => {
              wrote.current = true;
              setText(typed);
              setDraft('new', typed);
            }}
            onSend={() => start()}
          />
          <PlaceChips places={places} value={directory} home={info.home_dir} onPick={setPath} />
          <div class="new-agents">
            {found.length > 1 && (
              <fieldset class="agents">
                <legend class="hide">{t.agent}</legend>
                {found.map((one) => (
                  <label key={one.executor} class={one === agent ? 'on' : ''}>
                    <input type="radio" name="executor" checked={one === agent} onChange={() => {
                      setExecutor(one.executor);
                      setModel('');
                    }} />
                    <AgentMark executor={one.executor} />
                    <span>{one.name}</span>
                  </label>
                ))}
              </fieldset>
            )}
          </div>
          <ul class="rows settings-rows">
            {machineRow}
            <li><button type="button" onClick={() => setSheet('directory')}><Icon name="folder" size={19} /><span class="name">{t.directory}</span><span class="value clip" title={directory}>{tidyPath(directory, info.home_dir) === '~' ? '~' : baseName(directory)}</span><Icon name="right" size={15} /></button></li>
            {past && (
              <li>
                <label class="switch">
                  <Icon name="history" size={19} />
                  <span class="two"><span>{t.continueLast}</span><span class="soft last"><span class="clip">{past.title || past.first_message || t.untitled}</span> · {ago(timeOf(past.updated_at ?? past.message_timestamp ?? past.created_at))}</span></span>
                  <input type="checkbox" role="switch" checked={goOn} onChange={(event) => setGoing(event.currentTarget.checked)} />
                  <i aria-hidden="true" />
                </label>
              </li>
            )}
            {modes.length > 0 && (
              <li><button type="button" onClick={() => setSheet('mode')}><Icon name="shield" size={19} /><span class="name">{t.mode}</span><span class={permission === 'bypassPermissions' ? 'value clip attn' : 'value clip'} title={modeHint(permission)}>{modeName(permission)}</span><Icon name="right" size={15} /></button></li>
            )}
            <li><button type="button" onClick={() => setSheet('model')}><Icon name="model" size={19} /><span class="name">{t.model}</span><span class="value clip">{chosenModel || t.modelDefault}</span><Icon name="right" size={15} /></button></li>
          </ul>
          <div class="new-foot">
            <button type="submit" class="button primary big" disabled={!ready || busy}>{busy ? t.starting : goOn ? t.resume : t.start}</button>
            <EnterHint of="new-prompt" />
            {missing.length > 0 && <p class="soft small">{t.notFoundAgents}: {missing.map((one) => one.name).join(', ')}</p>}
          </div>
          {beside && (
            <p class="hints">
              {([['j', t.next], ['k', t.previous], ['Ctrl K', t.kb_palette], ['n', t.newSession], ['/', t.search]] as const).map(([key, what]) => <span key={key}><kbd>{key}</kbd>{what}</span>)}
            </p>
          )}
        </form>
      )}
      {sheet === 'directory' && <DirectoryPicker room={room} value={directory} places={places} onClose={() => setSheet('')} onPick={(picked) => {
        setPath(picked);
        setSheet('');
      }} />}
      {sheet === 'mode' && <ModePicker modes={modes} value={permission} onClose={() => setSheet('')} onPick={(picked) => {
        setMode(picked);
        setSheet('');
      }} />}
      {sheet === 'model' && <ModelPicker models={agent?.models ?? []} value={chosenModel} allowDefault onClose={() => setSheet('')} onPick={(picked) => {
        if (agent) setExecutor(agent.executor);
        setModel(picked);
        setSheet('');
      }} />}
      {machineSheet}
    </div>
  );
}
