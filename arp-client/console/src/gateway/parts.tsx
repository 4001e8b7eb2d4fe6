//! Small parts of the gateway's pages: counts, bars of days, a request in a line and in full.

import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { clock, money, number, short, span } from '../i18n';
import type { Room } from '../state/machines';
import { visible } from '../text/visible';
import { AgentMark, Icon } from '../ui/icons';
import { attempt, Sheet } from '../ui/kit';
import { ask } from './feed';
import type { GatewayRequest, RequestBody, Service, Sum } from './types';
import { w } from './words';

/** All tokens of a sum: what the cache served was input, too. */
export const tokensOf = (sum: Pick<Sum, 'input' | 'cache_write' | 'cache_read' | 'output'>): number => sum.input + sum.cache_write + sum.cache_read + sum.output;

/** The part of the input that the cache served, as `62%`; empty where there was none. */
export function cacheShare(sum: Pick<Sum, 'input' | 'cache_write' | 'cache_read'>): string {
  const input = sum.input + sum.cache_write + sum.cache_read;
  return input && sum.cache_read ? `${number((sum.cache_read / input) * 100)}%` : '';
}

export function Figures({ sum }: { sum: Sum }) {
  const cached = cacheShare(sum);
  const figures: [string, string, string][] = [
    [w.requests, number(sum.requests), sum.failures ? w.failuresN(number(sum.failures)) : ''],
    [w.tokens, short(tokensOf(sum)), cached && w.cacheHits(cached)],
    [w.cost, money(sum.cost), ''],
  ];
  return (
    <>
      <dl class="figures">
        {figures.map(([name, value, more]) => <div key={name}><dt>{name}</dt><dd>{value}{more && <small>{more}</small>}</dd></div>)}
      </dl>
      {sum.unpriced > 0 && <p class="soft small">{w.unpriced(number(sum.unpriced))}</p>}
    </>
  );
}

const DAY = 86_400_000;
/** The last `count` days as YYYY-MM-DD, the oldest first, as this device counts them. */
export function lastDays(count: number, now = Date.now()): string[] {
  const noon = new Date(now);
  noon.setHours(12, 0, 0, 0);
  return Array.from({ length: count }, (_, index) => {
    const day = new Date(noon.getTime() - (count - 1 - index) * DAY);
    return [day.getFullYear(), day.getMonth() + 1, day.getDate()].map((part) => String(part).padStart(2, '0')).join('-');
  });
}

/** A bar a day: how many requests, and what they cost. */
export function DayBars({ days, count = 30 }: { days: readonly Sum[]; count?: number }) {
  const known = new Map(days.map((day) => [day.key, day]));
  const all = lastDays(count);
  // A day that this device has not reached yet is there, too.
  const newest = days[days.length - 1]?.key ?? '';
  if (newest > (all[all.length - 1] ?? '')) all.push(newest);
  const most = Math.max(1, ...days.map(({ requests }) => requests));
  return (
    <ol class="bars">
      {all.map((date) => {
        const day = known.get(date);
        const told = w.day(date, number(day?.requests ?? 0), money(day?.cost ?? 0));
        const height = day ? Math.max(3, Math.round((day.requests / most) * 100)) : 0;
        return (
          <li key={date} title={told}>
            <span class="hide">{told}</span>
            <svg aria-hidden="true" viewBox="0 0 10 100" preserveAspectRatio="none"><rect class="ground" width="10" height="100" rx="2" /><rect y={100 - height} width="10" height={height} rx="2" /></svg>
          </li>
        );
      })}
    </ol>
  );
}

export const ServiceMark = ({ service }: { service: Service }) => <AgentMark executor={service} size={15} />;

/** "opus", or "opus → haiku" where another one was asked for. */
export const modelOf = ({ model, routed }: { model: string | null; routed: string | null }): string =>
  visible(routed && routed !== model ? `${model ?? '?'} → ${routed}` : model ?? '');

export const isBad = ({ status, error }: GatewayRequest): boolean => error !== null || status === null || status >= 400;

export function RequestLine({ request, onOpen }: { request: GatewayRequest; onOpen(): void }) {
  const bad = isBad(request);
  return (
    <li>
      <button type="button" onClick={onOpen}>
        <ServiceMark service={request.service} />
        <span class="two">
          <b class="clip">{modelOf(request) || visible(request.path)}</b>
          <span class={bad ? 'bad clip' : 'soft clip'}>{bad && request.error ? visible(request.error) : [visible(request.upstream ?? w.nobody), request.failed.length ? w.after(request.failed.length) : '', request.redacted ? w.hidden(request.redacted) : ''].filter(Boolean).join(' · ')}</span>
        </span>
        <span class="aside">
          <span>{clock(request.at)}</span>
          <span class={bad ? 'bad' : ''}>{bad ? request.status ?? '—' : request.cost !== null ? money(request.cost) : short(tokensOf(request))}</span>
        </span>
      </button>
    </li>
  );
}

/** What was kept of a request and its answer, once it is asked for. */
function KeptBody({ room, id }: { room: Room; id: number }) {
  const [body, setBody] = useState<RequestBody | null>(null);
  const [busy, setBusy] = useState(false);
  if (!body) {
    return (
      <div class="actions"><button type="button" class="button" disabled={busy} onClick={() => {
        setBusy(true);
        void attempt(async () => setBody(await ask<RequestBody>(room, 'GET', `/requests/${id}/body`))).then(() => setBusy(false));
      }}>{w.showBody}</button></div>
    );
  }
  return (
    <>
      <Kept title={w.body} hint={w.bodyText(clock(body.until))} text={body.body || null} none={w.noBody} cut={body.cut} />
      <Kept title={w.answer} hint={w.answerText} text={body.answer} none={w.noAnswer} cut={body.answer_cut} />
    </>
  );
}

function Kept({ title, hint, text, none, cut }: { title: string; hint: string; text: string | null; none: string; cut: boolean }) {
  return (
    <section>
      <h3 class="field-label">{title}</h3>
      <p class="soft small">{text === null ? none : hint}</p>
      {text !== null && <pre class="output kept" tabIndex={0}>{visible(pretty(text))}</pre>}
      {cut && <p class="soft small">{w.bodyCut}</p>}
    </section>
  );
}

/** JSON with a line for each member; as it is where it is none (any more). */
function pretty(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

export function RequestSheet({ request, room, onClose }: { request: GatewayRequest; room: Room; onClose(): void }) {
  const rows: [string, ComponentChildren][] = [
    [w.time, clock(request.at)],
    [w.upstream, visible(request.upstream ?? '')],
    [w.model, visible(request.routed ?? request.model ?? '')],
    [w.asked, request.routed && request.routed !== request.model ? visible(request.model ?? '') : ''],
    [w.path, visible(request.path)],
    [w.status, request.status ?? ''],
    [w.error, request.error && visible(request.error)],
    [w.triedBefore, request.failed.length > 0 && <ul>{request.failed.map(([name, what], index) => <li key={index}><b>{visible(name)}</b>: {visible(what)}</li>)}</ul>],
    [w.took, span(request.millis)],
    [w.first, request.first_millis !== null && span(request.first_millis)],
    [w.input, number(request.input)],
    [w.cacheWrite, request.cache_write > 0 && number(request.cache_write)],
    [w.cacheRead, request.cache_read > 0 && number(request.cache_read)],
    [w.output, number(request.output)],
    [w.reasoning, request.reasoning > 0 && number(request.reasoning)],
    [w.cost, request.cost !== null && money(request.cost)],
    [w.secrets, request.redacted > 0 && number(request.redacted)],
    [w.session, request.session && visible(request.session)],
    [w.agent, request.agent && visible(request.agent)],
    [w.project, request.project && visible(request.project)],
  ];
  return (
    <Sheet title={modelOf(request) || visible(request.path)} onClose={onClose}>
      <dl class="details">{rows.filter(([, value]) => value !== '' && value !== false && value !== null).map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}</dl>
      {request.recorded && <KeptBody room={room} id={request.id} />}
    </Sheet>
  );
}

/** What is wrong with the machine's files. */
export function Faults({ faults }: { faults: readonly string[] }) {
  return <>{faults.map((fault) => <p key={fault} class="notice bad" role="alert"><Icon name="warn" size={18} />{visible(fault)}</p>)}</>;
}
