//! A session at the gateway: who serves it, what it came to, and choosing another upstream or none.

import { useEffect, useId, useState } from 'preact/hooks';
import { clock, money, number, short, t } from '../i18n';
import type { Session } from '../net/types';
import type { Room } from '../state/machines';
import { visible } from '../text/visible';
import { Icon } from '../ui/icons';
import { attempt, Loading, Sheet } from '../ui/kit';
import { useLoad } from '../ui/load';
import { chooseFor, sessionOf, upstreams } from './feed';
import { Refused } from './Gateway';
import { cacheShare, RequestLine, RequestSheet, tokensOf } from './parts';
import { SERVICES, type GatewayRequest, type SessionGateway, type Upstream } from './types';
import { standingOf } from './UpstreamsPage';
import { w } from './words';
import './gateway.css';

/** "official · 12K tokens · $0.42 · 1 failover". */
function lineOf({ upstream, model, usage, failovers, redacted }: SessionGateway): string {
  return [
    visible(upstream ?? w.nobody), visible(model ?? ''), tokensOf(usage) ? w.tokensOut(short(tokensOf(usage))) : '', usage.cost ? money(usage.cost) : '',
    failovers ? w.failovers(failovers) : '', redacted ? w.hidden(redacted) : '',
  ].filter(Boolean).join(' · ');
}

function Choose({ room, session, gateway, onClose }: { room: Room; session: Session; gateway: SessionGateway; onClose(): void }) {
  const { value, error, again, renew, set } = useLoad(() => sessionOf(room, session.id), [session.id]);
  const [names, setNames] = useState<readonly Upstream[]>([]);
  const [open, setOpen] = useState<GatewayRequest | null>(null);
  const [busy, setBusy] = useState(false);
  // What was tapped stands there at once, and goes back if it is refused.
  const [wanted, setWanted] = useState<string | null | undefined>(undefined);
  const [typed, setTyped] = useState<string | null>(null);
  const id = useId();
  const service = SERVICES.find((one) => one === (value?.service ?? session.executor));
  useEffect(() => {
    if (service) void upstreams(room).then(({ services }) => setNames(services[service]?.upstreams ?? []), () => undefined);
  }, [service]);
  useEffect(() => {
    if (value) renew();
  }, [gateway]);
  if (open) return <RequestSheet room={room} request={open} onClose={() => setOpen(null)} />;
  const now = value ?? gateway;
  const chosen = wanted === undefined ? now.choice.upstream : wanted;
  const choose = (choice: { upstream?: string | null; model?: string | null }): void => {
    if (busy) return;
    setBusy(true);
    setWanted(choice.upstream);
    void attempt(async () => {
      await chooseFor(room, session.id, choice);
      set(await sessionOf(room, session.id));
      setTyped((now) => (now === typed ? null : now));
    }).then(() => {
      setBusy(false);
      setWanted(undefined);
    });
  };
  const cached = cacheShare(now.usage);
  return (
    <Sheet title={w.gateway} onClose={onClose}>
      {error ? <Refused error={error} onRetry={again} /> : !value ? <Loading /> : (
        <>
          {now.waits_until !== null && <p class="notice attn" role="status"><Icon name="clock" size={18} />{w.waitsUntil(clock(now.waits_until))}</p>}
          <dl class="details">
            <div><dt>{w.upstream}</dt><dd>{visible(now.upstream ?? w.nobody)}</dd></div>
            <div><dt>{w.model}</dt><dd>{visible(now.model ?? '')}</dd></div>
            <div><dt>{w.requests}</dt><dd>{number(now.usage.requests)}{now.failovers > 0 && ` · ${w.failovers(now.failovers)}`}</dd></div>
            <div><dt>{w.tokens}</dt><dd>{short(tokensOf(now.usage))}{cached && ` · ${w.cacheHits(cached)}`}</dd></div>
            <div><dt>{w.cost}</dt><dd>{money(now.usage.cost)}</dd></div>
            {now.redacted > 0 && <div><dt>{w.secrets}</dt><dd>{number(now.redacted)}</dd></div>}
          </dl>
          <fieldset class="choices" disabled={busy}>
            <legend>{w.switchUpstream}</legend>
            <label><input type="radio" name="upstream" checked={chosen === null} onChange={() => choose({ upstream: null })} /><span>{w.asConfigured}</span></label>
            {names.map((one) => (
              <label key={one.name}><input type="radio" name="upstream" checked={chosen === one.name} onChange={() => choose({ upstream: one.name })} /><span class="two"><b>{visible(one.name)}</b><span class="soft">{standingOf(one)}</span></span></label>
            ))}
          </fieldset>
          <form class="inline" onSubmit={(event) => {
            event.preventDefault();
            choose({ model: (typed ?? '').trim() || null });
          }}>
            <label for={id}>{w.switchModel}</label>
            <input id={id} class="field mono" autocomplete="off" autocapitalize="off" spellcheck={false} placeholder={w.modelHint} value={typed ?? now.choice.model ?? ''} onInput={(event) => setTyped(event.currentTarget.value)} />
            <button type="submit" class="button" disabled={busy || typed === null || typed.trim() === (now.choice.model ?? '')}>{t.save}</button>
          </form>
          {value.requests.length > 0 && <ul class="rows cards">{value.requests.slice(0, 10).map((request) => <RequestLine key={request.id} request={request} onOpen={() => setOpen(request)} />)}</ul>}
        </>
      )}
    </Sheet>
  );
}

/** One line below the bar of a session; a tap shows all of it and lets one choose. */
export function GatewayLine({ room, session }: { room: Room; session: Session }) {
  const [open, setOpen] = useState(false);
  const { gateway } = session;
  if (!gateway) return null;
  const waits = gateway.waits_until !== null;
  return (
    <>
      <button type="button" class={waits ? 'line at-gateway attn' : 'line at-gateway'} aria-haspopup="dialog" onClick={() => setOpen(true)}>
        <Icon name={waits ? 'clock' : 'model'} size={16} />
        <span class="clip" role="status">{waits ? w.waitsUntil(clock(gateway.waits_until ?? 0)) : lineOf(gateway)}</span>
        <Icon name="right" size={14} />
      </button>
      {open && <Choose room={room} session={session} gateway={gateway} onClose={() => setOpen(false)} />}
    </>
  );
}
