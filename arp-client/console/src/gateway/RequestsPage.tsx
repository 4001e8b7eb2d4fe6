//! The requests that are over: searched, newest first, each with all that is known of it.

import { useEffect, useRef, useState } from 'preact/hooks';
import { number, t } from '../i18n';
import type { Room } from '../state/machines';
import { Icon } from '../ui/icons';
import { attempt, Empty, Loading } from '../ui/kit';
import { useLoad } from '../ui/load';
import { ask, type Feed } from './feed';
import { Refused } from './Gateway';
import { isBad, RequestLine, RequestSheet } from './parts';
import { SERVICES, type GatewayRequest, type Recording, type RequestPage, type Service } from './types';
import { w } from './words';

const PAGE = 50;
/** Pause after the last letter before it is asked, in milliseconds. */
const PAUSE = 250;

/** Whether bodies are kept, and what of them is there. */
function RecordingSwitch({ room, onChange }: { room: Room; onChange(): void }) {
  const { value, set } = useLoad(() => ask<Recording>(room, 'GET', '/recording'), []);
  const [busy, setBusy] = useState(false);
  // What was tapped stands there at once, and goes back if it is refused.
  const [wanted, setWanted] = useState<boolean | null>(null);
  // A gateway that is older knows nothing of it.
  if (!value) return null;
  const change = (asked: Promise<Recording>): void => {
    setBusy(true);
    void attempt(async () => {
      set(await asked);
      onChange();
    }).then(() => {
      setBusy(false);
      setWanted(null);
    });
  };
  return (
    <div class="recording">
      <label class="switch">
        <span class="two"><span>{w.recording}</span><span class="soft small">{w.recordingText(value.requests, value.hours)}</span></span>
        <input type="checkbox" role="switch" checked={wanted ?? value.on} onChange={(event) => {
          const on = event.currentTarget.checked;
          setWanted(on);
          change(ask<Recording>(room, 'PUT', '/recording', { on }));
        }} />
        <i aria-hidden="true" />
      </label>
      {value.kept > 0 && <div class="actions wrap"><span class="soft small">{w.keptNow(number(value.kept))}</span><button type="button" class="button" disabled={busy} onClick={() => change(ask<Recording>(room, 'DELETE', '/recording'))}>{w.forgetKept}</button></div>}
    </div>
  );
}

export function RequestsPage({ room, feed }: { room: Room; feed: Feed }) {
  const [words, setWords] = useState('');
  const [service, setService] = useState<Service | ''>('');
  const [failed, setFailed] = useState(false);
  const [page, setPage] = useState<RequestPage | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [round, setRound] = useState(0);
  const [open, setOpen] = useState<GatewayRequest | null>(null);
  const asked = useRef(0);
  const shownKind = useRef('');

  const query = (before?: number): string => {
    const made = new URLSearchParams({ limit: String(PAGE) });
    if (words.trim()) made.set('q', words.trim());
    if (service) made.set('service', service);
    if (failed) made.set('failed', 'true');
    if (before !== undefined) made.set('before', String(before));
    return `/requests?${made}`;
  };
  useEffect(() => {
    const mine = ++asked.current;
    const timer = setTimeout(() => {
      ask<RequestPage>(room, 'GET', query()).then(
        (value) => {
          // An answer to what was typed before is none to what stands there now.
          if (mine !== asked.current) return;
          const last = value.requests[value.requests.length - 1]?.id ?? 0;
          const kind = `${words} ${service} ${failed}`;
          // The same asked again: pages that were read before stay below, where they join.
          setPage((old) => (old && kind === shownKind.current && (old.requests[0]?.id ?? 0) >= last ? { requests: [...value.requests, ...old.requests.filter(({ id }) => id < last)], has_more: old.has_more } : value));
          shownKind.current = kind;
          setError(null);
        },
        (reason: unknown) => mine === asked.current && setError(reason),
      );
    }, words ? PAUSE : 0);
    return () => clearTimeout(timer);
  }, [words, service, failed, round, feed.changes.value]);

  const older = async (): Promise<void> => {
    const mine = asked.current;
    const next = await ask<RequestPage>(room, 'GET', query(page?.requests[page.requests.length - 1]?.id));
    if (mine === asked.current && page) setPage({ requests: [...page.requests, ...next.requests], has_more: next.has_more });
  };
  // What ends while one looks stands on top, as long as nothing is looked for that it may not be.
  const fresh = words.trim() ? [] : feed.over.value.filter((one) => (!service || one.service === service) && (!failed || isBad(one)));
  const known = new Set(page?.requests.map(({ id }) => id));
  const shown = page ? [...fresh.filter(({ id }) => !known.has(id)), ...page.requests].sort((a, b) => b.id - a.id) : [];
  if (error) return <Refused error={error} onRetry={() => setRound((n) => n + 1)} />;
  return (
    <>
      <div class="searchbar"><Icon name="search" size={18} /><input type="search" aria-label={w.search} placeholder={w.search} value={words} onInput={(event) => setWords(event.currentTarget.value)} /></div>
      <div class="filters" role="group" aria-label={t.filters}>
        <button type="button" class="pick" aria-pressed={failed} onClick={() => setFailed(!failed)}>{w.onlyFailed}</button>
        {SERVICES.map((one) => <button type="button" key={one} class="pick" aria-pressed={service === one} onClick={() => setService(service === one ? '' : one)}>{w.services[one]}</button>)}
      </div>
      {!page ? <Loading /> : shown.length === 0 ? <Empty icon="model" title={w.noRequests}><p>{w.noRequestsText}</p></Empty> : (
        <ul class="rows cards">{shown.map((request) => <RequestLine key={request.id} request={request} onOpen={() => setOpen(request)} />)}</ul>
      )}
      {page?.has_more && <button type="button" class="button wide older" onClick={() => void attempt(older)}>{w.older}</button>}
      <RecordingSwitch room={room} onChange={() => setRound((n) => n + 1)} />
      {open && <RequestSheet room={room} request={open} onClose={() => setOpen(null)} />}
    </>
  );
}
