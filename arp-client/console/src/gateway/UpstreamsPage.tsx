//! The upstreams of each service: add, change, test, weigh, switch, disable. Keys go in and never come out.

import { useId, useState } from 'preact/hooks';
import { money, number, short, span, t } from '../i18n';
import type { Room } from '../state/machines';
import { visible } from '../text/visible';
import { useWhileHere } from '../ui/here';
import { Icon } from '../ui/icons';
import { attempt, Confirm, Loading, say, Segments, Sheet } from '../ui/kit';
import { useFollow, useLoad } from '../ui/load';
import { ask, changeUpstream, FOLLOW, removeUpstream, upstreamDo, upstreams, type Feed } from './feed';
import { Refused } from './Gateway';
import { cacheShare, Faults, lastDays, ServiceMark, tokensOf } from './parts';
import { MODES, SERVICES, type Mode, type Service, type ServiceUpstreams, type TestResult, type Upstream, type UpstreamChange } from './types';
import { w } from './words';

/** Longest wait for a test, in milliseconds: upstreams may be slow. */
const TEST_TIMEOUT = 90_000;

/** Would a key that goes there be read by others on the way? */
function travelsOpen(address: string): boolean {
  if (!URL.canParse(address)) return false;
  const { protocol, hostname } = new URL(address);
  return protocol === 'http:' && !/^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(hostname);
}

/** A key that is typed in. What is set is never shown: it is kept, replaced or taken away. */
function KeyField({ label, set, value, gone, onValue, onGone }: { label: string; set: boolean; value: string; gone: boolean; onValue(value: string): void; onGone(gone: boolean): void }) {
  const id = useId();
  return (
    <div class="key-field">
      <label for={id}>{label}</label>
      <input id={id} class="field mono" type="password" autocomplete="new-password" autocapitalize="off" spellcheck={false} disabled={gone} value={value} placeholder={set ? w.keySet : w.keyNotSet} onInput={(event) => onValue(event.currentTarget.value)} />
      {set && <label class="tick"><input type="checkbox" checked={gone} onChange={(event) => onGone(event.currentTarget.checked)} />{w.keyRemove}</label>}
    </div>
  );
}

/** Adds an upstream, or changes one that is there. */
function Edit({ room, service: of, upstream, taken, onClose, changed }: { room: Room; service: Service; upstream: Upstream | null; taken(service: Service, name: string): boolean; onClose(): void; changed(): void }) {
  const close = useWhileHere(onClose);
  const [service, setService] = useState(of);
  const [name, setName] = useState(upstream?.name ?? '');
  const [address, setAddress] = useState(upstream?.base_url ?? '');
  const [token, setToken] = useState('');
  const [key, setKey] = useState('');
  const [tokenGone, setTokenGone] = useState(false);
  const [keyGone, setKeyGone] = useState(false);
  const [weight, setWeight] = useState(String(upstream?.weight ?? ''));
  const [busy, setBusy] = useState(false);
  const ids = [useId(), useId(), useId()] as const;
  const moved = upstream !== null && (upstream.has_token || upstream.has_key) && URL.canParse(address.trim()) && new URL(address.trim()).origin !== new URL(upstream.base_url).origin;
  const lacks = moved && ((upstream.has_token && !token && !tokenGone) || (upstream.has_key && !key && !keyGone));
  const doubled = !upstream && taken(service, name.trim());
  const change = (): UpstreamChange => ({
    ...(address.trim() !== upstream?.base_url ? { base_url: address.trim() } : {}),
    ...(tokenGone ? { auth_token: '' } : token ? { auth_token: token } : {}),
    ...(keyGone ? { api_key: '' } : key ? { api_key: key } : {}),
    ...(weight.trim() !== '' && Number(weight) !== upstream?.weight ? { weight: Number(weight) } : {}),
  });
  const fits = name.trim() !== '' && URL.canParse(address.trim()) && /^https?:/i.test(address.trim()) && Number.isFinite(Number(weight)) && Number(weight) >= 0 && !doubled && !lacks;
  return (
    <Sheet title={upstream ? `${w.change}: ${visible(upstream.name)}` : w.addUpstream} onClose={onClose}>
      <form class="edit" onSubmit={(event) => {
        event.preventDefault();
        if (busy || !fits) return;
        setBusy(true);
        void attempt(() => changeUpstream(room, service, name.trim(), change())).then((well) => {
          setBusy(false);
          if (!well) return;
          changed();
          close();
        });
      }}>
        {!upstream && <Segments label={w.service} value={service} options={SERVICES.map((one) => [one, w.services[one]] as const)} onPick={(one) => setService(one)} />}
        {!upstream && <><label for={ids[0]}>{w.name}</label><input id={ids[0]} class="field" value={name} autocomplete="off" autocapitalize="off" spellcheck={false} aria-invalid={doubled} onInput={(event) => setName(event.currentTarget.value)} /></>}
        <label for={ids[1]}>{w.baseUrl}</label>
        <input id={ids[1]} class="field mono" type="url" inputMode="url" placeholder={'https://'} value={address} autocomplete="off" autocapitalize="off" spellcheck={false} onInput={(event) => setAddress(event.currentTarget.value)} />
        {moved && <p class="attn small" role="status">{w.keyNeeded}</p>}
        {travelsOpen(address.trim()) && <p class="attn small" role="status">{w.insecure}</p>}
        <KeyField label={w.token} set={upstream?.has_token ?? false} value={token} gone={tokenGone} onValue={setToken} onGone={setTokenGone} />
        <KeyField label={w.apiKey} set={upstream?.has_key ?? false} value={key} gone={keyGone} onValue={setKey} onGone={setKeyGone} />
        <p class="soft small">{w.keysHidden}</p>
        <label for={ids[2]}>{w.weight}</label>
        <input id={ids[2]} class="field" type="number" min="0" step="any" inputMode="decimal" placeholder="0" value={weight} onInput={(event) => setWeight(event.currentTarget.value)} />
        <p class="soft small">{w.weightText}</p>
        <div class="actions">
          <button type="button" class="button" onClick={onClose}>{t.cancel}</button>
          <button type="submit" class="button primary" disabled={busy || !fits}>{upstream ? t.save : t.add}</button>
        </div>
      </form>
    </Sheet>
  );
}

function DisableForm({ onDisable }: { onDisable(until: string): void }) {
  const today = lastDays(1)[0] ?? '';
  const [until, setUntil] = useState(today);
  const id = useId();
  return (
    <form class="inline" onSubmit={(event) => {
      event.preventDefault();
      if (until >= today) onDisable(until);
    }}>
      <label for={id}>{w.disableUntil}</label>
      <input id={id} class="field" type="date" min={today} required value={until} onInput={(event) => setUntil(event.currentTarget.value)} />
      <button type="submit" class="button" disabled={until < today}>{w.disable}</button>
    </form>
  );
}

/** How an upstream stands, in a line. */
export function standingOf(one: Upstream): string {
  if (one.standing === 'disabled') return one.disabled_until ? w.offUntil(one.disabled_until) : w.standing.disabled;
  if (one.standing === 'resting') return one.resting_secs ? w.restsFor(span(one.resting_secs * 1000)) : w.standing.resting;
  return one.failures ? w.failuresInRow(one.failures) : w.standing.good;
}

/** All that can be done with one upstream. */
function Actions({ room, service, one, onClose, onEdit, changed }: { room: Room; service: Service; one: Upstream; onClose(): void; onEdit(): void; changed(): void }) {
  const [busy, setBusy] = useState('');
  const [result, setResult] = useState<TestResult | null>(null);
  const [removing, setRemoving] = useState(false);
  const close = useWhileHere(onClose);
  const run = (what: string, work: () => Promise<unknown>): void => {
    if (busy) return;
    setBusy(what);
    void attempt(work).then((well) => {
      setBusy('');
      if (well) changed();
    });
  };
  if (removing) return (
    <Confirm title={w.removeTitle(visible(one.name))} text={w.removeText} action={w.takeOut} onNo={() => setRemoving(false)} onYes={async () => {
      await removeUpstream(room, service, one.name);
      changed();
      close();
    }} />
  );
  const cached = cacheShare(one.usage);
  return (
    <Sheet title={visible(one.name)} onClose={onClose}>
      <dl class="details">
        <div><dt>{w.baseUrl}</dt><dd class="mono">{visible(one.base_url)}</dd></div>
        {one.proxy && <div><dt>{w.upstream}</dt><dd>{w.proxied(visible(one.proxy))}</dd></div>}
        <div><dt>{w.status}</dt><dd>{standingOf(one)}</dd></div>
        <div><dt>{w.requests}</dt><dd>{number(one.usage.requests)}{one.usage.failures > 0 && ` · ${w.failuresN(number(one.usage.failures))}`}</dd></div>
        <div><dt>{w.tokens}</dt><dd>{short(tokensOf(one.usage))}{cached && ` · ${w.cacheHits(cached)}`}</dd></div>
        <div><dt>{w.cost}</dt><dd>{money(one.usage.cost)}</dd></div>
      </dl>
      {result && <p class={result.ok ? 'notice' : 'notice bad'} role="status"><Icon name={result.ok ? 'check' : 'warn'} size={18} />{result.ok ? w.testOk(span(result.millis)) : w.testBad(visible(result.message))}</p>}
      <div class="actions wrap">
        {!one.active && <button type="button" class="button primary" disabled={busy !== ''} onClick={() => run('activate', async () => {
          await upstreamDo(room, service, one.name, 'activate');
          say(w.activated(visible(one.name)));
        })}>{w.activate}</button>}
        <button type="button" class="button" disabled={busy !== ''} onClick={() => run('test', async () => setResult(await upstreamDo<TestResult>(room, service, one.name, 'test', {}, TEST_TIMEOUT)))}>{busy === 'test' ? w.testing : w.test}</button>
        <button type="button" class="button" onClick={onEdit}>{w.change}</button>
        {(one.failures > 0 || one.standing === 'resting') && <button type="button" class="button" disabled={busy !== ''} onClick={() => run('reset', () => upstreamDo(room, service, one.name, 'reset'))}>{w.reset}</button>}
        {one.standing === 'disabled' && <button type="button" class="button" disabled={busy !== ''} onClick={() => run('enable', () => upstreamDo(room, service, one.name, 'disable', { until: null }))}>{w.enable}</button>}
        <button type="button" class="button danger" disabled={busy !== ''} onClick={() => setRemoving(true)}>{w.takeOut}</button>
      </div>
      {one.standing !== 'disabled' && <DisableForm onDisable={(until) => run('disable', () => upstreamDo(room, service, one.name, 'disable', { until }))} />}
    </Sheet>
  );
}

/** How the upstreams of a service take turns. */
function Balance({ room, service, of, changed }: { room: Room; service: Service; of: ServiceUpstreams; changed(): void }) {
  const put = (change: { mode?: Mode; failure_threshold?: number; auto_reset_minutes?: number }): void => void attempt(() => ask(room, 'PUT', `/balance/${service}`, change)).then((well) => well && changed());
  const ids = [useId(), useId()] as const;
  const figure = (id: string, label: string, value: number, send: (value: number) => void): preact.ComponentChildren => (
    <label class="figure" for={id}><span>{label}</span><input id={id} class="field" type="number" min="1" step="1" inputMode="numeric" value={value} onChange={(event) => {
      const wanted = Math.round(Number(event.currentTarget.value));
      if (Number.isFinite(wanted) && wanted >= 1 && wanted !== value) send(wanted);
      else event.currentTarget.value = String(value);
    }} /></label>
  );
  return (
    <details class="balance">
      <summary><span>{w.balance}: {w.modes[of.mode]}</span><Icon name="right" size={16} /></summary>
      <Segments label={w.mode} value={of.mode} options={MODES.map((mode) => [mode, w.modes[mode]] as const)} onPick={(mode) => put({ mode })} />
      <p class="soft small">{w.modeTexts[of.mode]}</p>
      {figure(ids[0], w.threshold, of.failure_threshold, (value) => put({ failure_threshold: value }))}
      {figure(ids[1], w.rest, of.auto_reset_minutes, (value) => put({ auto_reset_minutes: value }))}
    </details>
  );
}

export function UpstreamsPage({ room, feed }: { room: Room; feed: Feed }) {
  const { value, error, again, renew: refresh } = useLoad(() => upstreams(room), []);
  const [open, setOpen] = useState<{ service: Service; name: string } | null>(null);
  const [edit, setEdit] = useState<{ service: Service; upstream: Upstream | null } | null>(null);
  useFollow([feed.changes.value, feed.over.value], refresh, FOLLOW);
  if (error) return <Refused error={error} onRetry={again} />;
  if (!value) return <Loading />;
  const find = (service: Service, name: string): Upstream | undefined => value.services[service]?.upstreams.find((one) => one.name === name);
  const shown = open && find(open.service, open.name);
  return (
    <>
      {SERVICES.map((service) => {
        const of = value.services[service];
        if (!of) return null;
        return (
          <section class="block" key={service}>
            <h2 class="service"><ServiceMark service={service} /> {w.services[service]}</h2>
            {of.file_fault && <Faults faults={[of.file_fault]} />}
            {of.upstreams.length > 0 && (
              <ul class="rows cards">
                {of.upstreams.map((one) => (
                  <li key={one.name}>
                    <button type="button" onClick={() => setOpen({ service, name: one.name })}>
                      <span class={`lamp ${one.standing === 'good' ? 'on' : one.standing}`} />
                      <span class="two"><b class="clip">{visible(one.name)}</b><span class="soft clip">{[visible(one.base_url.replace(/^https?:\/\//, '')), one.has_token || one.has_key ? '' : w.noKey].filter(Boolean).join(' · ')}</span></span>
                      <span class="aside">{one.active ? <span class="tag">{w.active}</span> : <span>{w.weight} {number(one.weight, 2)}</span>}<span class={one.standing === 'good' ? '' : 'attn'}>{standingOf(one)}</span></span>
                    </button>
                  </li>
                ))}
              </ul>
            )}
            <button type="button" class="button wide" onClick={() => setEdit({ service, upstream: null })}><Icon name="plus" size={18} /> {w.addUpstream}</button>
            {of.upstreams.length > 1 && <Balance room={room} service={service} of={of} changed={refresh} />}
          </section>
        );
      })}
      {shown && open && !edit && <Actions room={room} service={open.service} one={shown} onClose={() => setOpen(null)} onEdit={() => setEdit({ service: open.service, upstream: shown })} changed={refresh} />}
      {edit && <Edit room={room} service={edit.service} upstream={edit.upstream} taken={(service, name) => Boolean(find(service, name))} onClose={() => setEdit(null)} changed={refresh} />}
    </>
  );
}
