//! What this device likes, the machines it keeps, and what is installed on them.

import { useState } from 'preact/hooks';
import { explainAgent, t } from '../i18n';
import { langChoice, notify, theme } from '../model/prefs';
import { parseAddress, withToken, type Machine } from '../net/machine';
import { addMachine, dropMachine, elsewhere, hasGateway, nameOf, own, renameMachine, rooms, type Room } from '../state/machines';
import { hrefOf } from '../state/route';
import { AgentMark, Icon } from '../ui/icons';
import { DECIDE_KEY } from '../ui/keyname';
import { Confirm, Segments, Sheet } from '../ui/kit';
import { canScan, Scanner } from '../ui/scan';
import { Header } from './Header';
import { TunnelRow } from './TunnelParts';

function Notifications() {
  const [blocked, setBlocked] = useState(false);
  if (!('Notification' in globalThis)) return <p class="soft small">{isSecureContext ? t.notifBlocked : t.notifInsecure}</p>;
  const on = notify.value === 'on' && Notification.permission === 'granted';
  return (
    <>
      <label class="switch">
        <span>{t.notifText}</span>
        <input type="checkbox" role="switch" checked={on} onChange={async (event) => {
          if (!event.currentTarget.checked) {
            notify.value = 'off';
            return;
          }
          const granted = (await Notification.requestPermission()) === 'granted';
          notify.value = granted ? 'on' : 'off';
          setBlocked(!granted);
        }} />
        <i aria-hidden="true" />
      </label>
      {blocked && <p class="bad small" role="alert">{isSecureContext ? t.notifBlocked : t.notifInsecure}</p>}
    </>
  );
}

function AddMachine({ onDone }: { onDone(): void }) {
  const [address, setAddress] = useState('');
  const [name, setName] = useState('');
  const [bad, setBad] = useState(false);
  const [scanning, setScanning] = useState(false);
  const add = (text: string): void => {
    const machine = parseAddress(text, name.trim());
    if (!machine) {
      setBad(true);
      return;
    }
    addMachine(machine);
    onDone();
  };
  return (
    <form
      class="panel"
      onSubmit={(event) => {
        event.preventDefault();
        add(address);
      }}
    >
      <input class="field mono" type="url" inputMode="url" aria-label={t.addressHint} placeholder={t.addressHint} value={address} autocomplete="off" autocapitalize="off" spellcheck={false} onInput={(event) => {
        setAddress(event.currentTarget.value);
        setBad(false);
      }} />
      <input class="field" aria-label={t.nameHint} placeholder={t.nameHint} value={name} onInput={(event) => setName(event.currentTarget.value)} />
      {bad && <p class="bad small" role="alert">{t.badAddress}</p>}
      <div class="actions">
        {canScan() && <button type="button" class="button" onClick={() => setScanning(true)}><Icon name="scan" size={18} /> {t.scan}</button>}
        <button type="button" class="button" onClick={onDone}>{t.cancel}</button>
        <button type="submit" class="button primary" disabled={!address.trim()}>{t.add}</button>
      </div>
      {scanning && <Scanner onClose={() => setScanning(false)} onFound={(text) => {
        setScanning(false);
        setAddress(text);
        add(text);
      }} />}
    </form>
  );
}

function RenameMachine({ room, onClose }: { room: Room; onClose(): void }) {
  const [name, setName] = useState(nameOf(room));
  return (
    <Sheet title={t.renameMachine} onClose={onClose}>
      <form
        class="inline"
        onSubmit={(event) => {
          event.preventDefault();
          renameMachine(room, name.trim());
          onClose();
        }}
      >
        <input class="field" aria-label={t.machineName} placeholder={t.machineNameHint} value={name} autofocus onInput={(event) => setName(event.currentTarget.value)} />
        <button type="submit" class="button primary">{t.save}</button>
      </form>
      <p class="soft small">{t.machineNameHint}</p>
    </Sheet>
  );
}

/** Taking a machine off this device: its token is forgotten, so that is asked first. */
function RemoveMachine({ machine, name }: { machine: Machine; name: string }) {
  const [asking, setAsking] = useState(false);
  return (
    <>
      <button type="button" class="small" onClick={() => setAsking(true)}>{t.remove}</button>
      {asking && <Confirm title={t.removeMachine(name)} text={t.removeMachineText} action={t.remove} onNo={() => setAsking(false)} onYes={async () => {
        setAsking(false);
        dropMachine(machine);
      }} />}
    </>
  );
}

function MachineRow({ room }: { room: Room }) {
  const { machine } = room;
  const [naming, setNaming] = useState(false);
  const live = room.link.status.value.state === 'live';
  const mine = machine === own;
  const host = new URL(machine.base).host;
  return (
    <li>
      <div class="rowlike">
        <span class={live ? 'lamp on' : 'lamp'} />
        <span class="two"><b class="clip">{nameOf(room)}</b><span class="soft clip">{room.stranger.value ? <span class="bad">{t.tr_changed}</span> : room.info.value?.host_name && room.info.value.host_name !== nameOf(room) ? `${room.info.value.host_name} · ${host}` : host}</span></span>
        {mine && <span class="tag">{t.thisMachine}</span>}
        <button type="button" class="ghost round" aria-label={`${t.renameMachine}: ${nameOf(room)}`} title={t.renameMachine} onClick={() => setNaming(true)}><Icon name="edit" size={18} /></button>
        {!mine && <RemoveMachine machine={machine} name={nameOf(room)} />}
      </div>
      {naming && <RenameMachine room={room} onClose={() => setNaming(false)} />}
    </li>
  );
}

function Elsewhere({ machine }: { machine: Machine }) {
  return (
    <li>
      <div class="rowlike">
        <Icon name="machine" size={18} />
        <span class="two"><b class="clip">{machine.name}</b><span class="soft">{t.openThereText}</span></span>
        <a class="small" href={withToken(machine.base, machine.token)} rel="noreferrer">{t.openThere}</a>
        <RemoveMachine machine={machine} name={machine.name} />
      </div>
    </li>
  );
}

export function Settings() {
  const [adding, setAdding] = useState(false);
  const keys: [string, string][] = [
    ['j  k', t.kb_move], [DECIDE_KEY, t.kb_allow], ['d', t.kb_deny], ['Ctrl K', t.kb_palette], ['n', t.kb_new], ['/', t.kb_search], ['r', t.kb_reply],
  ];
  return (
    <div class="screen">
      <Header root title={t.settings} />
      <div class="scroll page">
        <section class="block">
          <h2>{t.language}</h2>
          <Segments label={t.language} value={langChoice.value} options={[['auto', t.auto], ['en', 'English'], ['zh', '中文']]} onPick={(value) => (langChoice.value = value)} />
        </section>
        <section class="block">
          <h2>{t.theme}</h2>
          <Segments label={t.theme} value={theme.value} options={[['auto', t.auto], ['light', t.light], ['dark', t.dark]]} onPick={(value) => (theme.value = value)} />
        </section>
        <section class="block">
          <h2>{t.notifications}</h2>
          <Notifications />
        </section>
        <section class="block">
          <h2>{t.machines}</h2>
          <ul class="rows cards">
            {rooms.value.map((room) => <MachineRow key={room.key} room={room} />)}
            {elsewhere.value.map((machine) => <Elsewhere key={machine.id} machine={machine} />)}
          </ul>
          {adding ? <AddMachine onDone={() => setAdding(false)} /> : <button type="button" class="button wide" onClick={() => setAdding(true)}><Icon name="plus" size={18} /> {t.addMachine}</button>}
          <p class="soft small">{t.machinesText}</p>
        </section>
        {rooms.value.map((room) => room.info.value && (
          <section class="block" key={room.key}>
            {room.info.value.agents.length > 0 && <h2>{t.agents}{rooms.value.length > 1 && ` · ${nameOf(room)}`}</h2>}
            <ul class="rows cards" hidden={!room.info.value.agents.length}>
              {room.info.value.agents.map((agent) => (
                <li key={agent.executor}>
                  <div class="rowlike">
                    <AgentMark executor={agent.executor} />
                    <span class="two"><b>{agent.name}</b><span class={agent.problem ? 'soft' : 'soft clip'}>{agent.problem ? explainAgent(agent.problem) : agent.path ?? ''}</span></span>
                    <span class="soft">{agent.found ? agent.version : t.notFound}</span>
                  </div>
                </li>
              ))}
            </ul>
            <TunnelRow room={room} />
            {hasGateway(room) && <ul class="rows cards gateway-link"><li><a href={hrefOf({ name: 'gateway', machine: room.machine.id, tab: 'overview' })}><Icon name="model" size={19} /><span class="two"><b>{t.gateway}</b><span class="soft">{t.gatewayText}</span></span><Icon name="right" size={16} /></a></li></ul>}
            <p class="soft small">{['arpc ' + room.info.value.version, room.info.value.host_name, room.info.value.os].filter(Boolean).join(' · ')}</p>
          </section>
        ))}
        <section class="block keys-block">
          <h2>{t.keyboard}</h2>
          <dl class="details">{keys.map(([key, what]) => <div key={key}><dt><kbd>{key}</kbd></dt><dd>{what}</dd></div>)}</dl>
        </section>
      </div>
    </div>
  );
}
