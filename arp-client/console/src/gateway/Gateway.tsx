//! The gateway of one machine: its pages, and what they share. Fetched when it is first opened.

import { useEffect, useLayoutEffect, useMemo, useRef } from 'preact/hooks';
import { t } from '../i18n';
import { ApiError } from '../net/api';
import { Header, UnknownMachine } from '../screens/Header';
import { hasGateway, nameOf, roomOf, rooms, type Room } from '../state/machines';
import { GATEWAY_TABS, go, hrefOf, type GatewayTab } from '../state/route';
import { Connection, Empty, Failed } from '../ui/kit';
import { Feed } from './feed';
import { BudgetsPage } from './BudgetsPage';
import { FiltersPage } from './FiltersPage';
import { OverviewPage } from './OverviewPage';
import { RequestsPage } from './RequestsPage';
import { RoutingPage } from './RoutingPage';
import { UpstreamsPage } from './UpstreamsPage';
import { UsagePage } from './UsagePage';
import { w } from './words';
import './gateway.css';

/** Why a page of the gateway cannot be shown, and what to do. */
export function Refused({ error, onRetry }: { error: unknown; onRetry(): void }) {
  if (error instanceof ApiError && error.code === 'gateway_not_running') {
    return (
      <Empty icon="model" title={w.notRunning}>
        <p>{w.notRunningText}</p>
        <pre class="command" tabIndex={0}>{'arpc gateway start'}</pre>
        <button type="button" class="button" onClick={onRetry}>{t.retry}</button>
      </Empty>
    );
  }
  if (error instanceof ApiError && error.status === 404) return <Empty icon="model" title={w.notThere}><p>{w.notThereText}</p></Empty>;
  return <Failed error={error} onRetry={onRetry} />;
}

function Page({ room, tab, feed }: { room: Room; tab: GatewayTab; feed: Feed }) {
  switch (tab) {
    case 'overview':
      return <OverviewPage room={room} feed={feed} />;
    case 'upstreams':
      return <UpstreamsPage room={room} feed={feed} />;
    case 'routing':
      return <RoutingPage room={room} />;
    case 'filters':
      return <FiltersPage room={room} />;
    case 'requests':
      return <RequestsPage room={room} feed={feed} />;
    case 'usage':
      return <UsagePage room={room} />;
    case 'budgets':
      return <BudgetsPage room={room} />;
  }
}

function Shown({ room, tab }: { room: Room; tab: GatewayTab }) {
  const feed = useMemo(() => new Feed(room), []);
  useEffect(() => {
    feed.start();
    return () => feed.stop();
  }, []);
  const machine = room.machine.id;
  const tabs = useRef<HTMLElement>(null);
  // On a phone not all of them are in sight.
  useLayoutEffect(() => tabs.current?.querySelector('[aria-current]')?.scrollIntoView({ inline: 'center', block: 'nearest' }), [tab]);
  return (
    <div class="screen gateway">
      <Header root title={w.gateway} sub={room.info.value?.gateway_only ? undefined : nameOf(room)}>
        {rooms.value.filter(hasGateway).length > 1 && (
          <select class="small" aria-label={w.chooseMachine} value={machine} onChange={(event) => go({ name: 'gateway', machine: event.currentTarget.value, tab }, true)}>
            {rooms.value.filter(hasGateway).map((one) => <option key={one.machine.id} value={one.machine.id}>{nameOf(one)}</option>)}
          </select>
        )}
      </Header>
      <nav ref={tabs} class="filters tabs" aria-label={w.sections}>
        {GATEWAY_TABS.map((one) => (
          <a key={one} class="pick" href={hrefOf({ name: 'gateway', machine, tab: one })} aria-current={one === tab ? 'page' : undefined} onClick={(event) => {
            // One step back leads out of the gateway, whichever page is open.
            event.preventDefault();
            go({ name: 'gateway', machine, tab: one }, true);
          }}>{w.tabs[one]}</a>
        ))}
      </nav>
      <Connection link={room.link} />
      <div class="scroll page" key={tab} tabIndex={0}>
        <Page room={room} tab={tab} feed={feed} />
      </div>
    </div>
  );
}

export function Gateway({ machine, tab }: { machine: string; tab: GatewayTab }) {
  const room = machine ? roomOf(machine) : rooms.value.find(hasGateway);
  if (!room || room.stranger.value) return <UnknownMachine />;
  return <Shown key={room.key} room={room} tab={tab} />;
}
