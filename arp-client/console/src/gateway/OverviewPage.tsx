//! What the gateway does now, today and lately.

import { useEffect, useState } from 'preact/hooks';
import { number, second, span } from '../i18n';
import type { Room } from '../state/machines';
import { visible } from '../text/visible';
import { Loading } from '../ui/kit';
import { useFollow, useLoad } from '../ui/load';
import { FOLLOW, overview, type Feed } from './feed';
import { Refused } from './Gateway';
import { DayBars, Faults, Figures, modelOf, RequestLine, RequestSheet, ServiceMark } from './parts';
import { SERVICES, type GatewayRequest, type LiveRequest } from './types';
import { w } from './words';

/** What goes on at this moment. A request that is told by the first answer only is shown until it is told to be over. */
function Live({ live }: { live: readonly LiveRequest[] }) {
  if (!live.length) return <p class="soft small">{w.noneUnder}</p>;
  return (
    <ul class="rows cards">
      {live.map((one) => {
        const millis = Math.max(one.millis, second.value - one.at);
        const rate = one.phase === 'streaming' && one.output && one.millis > 0 ? w.perSecond(number((one.output / one.millis) * 1000)) : '';
        return (
          <li key={one.id}>
            <div class="rowlike">
              <ServiceMark service={one.service} />
              <span class="two">
                <b class="clip">{modelOf(one)}</b>
                <span class="soft clip">{[visible(one.upstream ?? w.nobody), one.phase === 'asking' ? w.asking : w.streaming, one.failed ? w.after(one.failed) : '', one.redacted ? w.hidden(one.redacted) : ''].filter(Boolean).join(' · ')}</span>
              </span>
              <span class="aside"><span>{span(millis)}</span><span>{rate || (one.output ? w.tokensOut(number(one.output)) : '')}</span></span>
            </div>
          </li>
        );
      })}
    </ul>
  );
}

export function OverviewPage({ room, feed }: { room: Room; feed: Feed }) {
  const { value, error, again, renew } = useLoad(() => overview(room), []);
  const [open, setOpen] = useState<GatewayRequest | null>(null);
  const { live, over, changes, connected } = feed;
  // Counts follow what is over, without asking for each of them.
  useFollow([over.value, changes.value], renew, FOLLOW);
  useEffect(() => {
    // The gateway was started meanwhile.
    if (error && connected.value) again();
  }, [connected.value]);
  if (error) return <Refused error={error} onRetry={() => {
    feed.start();
    again();
  }} />;
  if (!value) return <Loading />;
  const ended = new Set(over.value.map(({ id }) => id));
  const under = new Map(value.live.filter(({ id }) => !ended.has(id)).map((one) => [one.id, one]));
  for (const [id, one] of live.value) under.set(id, one);
  return (
    <>
      <Faults faults={value.faults} />
      <section class="block">
        <h2>{w.running} · {w.upFor(span(second.value - value.since))}</h2>
        <ul class="rows cards">
          {SERVICES.map((service) => {
            const of = value.services[service];
            return (
              <li key={service}>
                <div class="rowlike">
                  <ServiceMark service={service} />
                  <span class="two"><b>{w.services[service]}</b><span class="soft clip">{of?.upstreams ? w.serviceLine(of.upstreams, of.resting) : w.noUpstream}</span></span>
                  <span class="aside"><span class="strong clip">{visible(of?.active ?? '')}</span><span class="mono">{value.listen[service] ?? ''}</span></span>
                </div>
              </li>
            );
          })}
        </ul>
      </section>
      <section class="block">
        <h2>{w.under}</h2>
        <Live live={[...under.values()].sort((a, b) => b.at - a.at)} />
      </section>
      <section class="block">
        <h2>{w.today}</h2>
        <Figures sum={value.today} />
      </section>
      <section class="block">
        <h2>{w.month}</h2>
        <DayBars days={value.days} />
      </section>
      {over.value.length > 0 && (
        <section class="block">
          <h2>{w.newest}</h2>
          <ul class="rows cards">{over.value.slice(0, 5).map((request) => <RequestLine key={request.id} request={request} onOpen={() => setOpen(request)} />)}</ul>
        </section>
      )}
      {open && <RequestSheet room={room} request={open} onClose={() => setOpen(null)} />}
    </>
  );
}
