//! What was used and what it cost, counted one way or another.

import { useState } from 'preact/hooks';
import { money, number, short } from '../i18n';
import type { Room } from '../state/machines';
import { visible } from '../text/visible';
import { Empty, Loading, Segments } from '../ui/kit';
import { useLoad } from '../ui/load';
import { ask } from './feed';
import { Refused } from './Gateway';
import { DayBars, Figures, tokensOf } from './parts';
import { USAGE_BY, type Service, type Sum, type UsageAnswer, type UsageBy } from './types';
import { w } from './words';

const SPANS = ['1', '7', '30'] as const;

const nameOf = (by: UsageBy, key: string): string => (by === 'service' ? w.services[key as Service] : '') || visible(key) || w.unknown;

function Table({ by, sums, total }: { by: UsageBy; sums: readonly Sum[]; total: Sum }) {
  const columns: [string, (sum: Sum) => string][] = [
    [w.requests, (sum) => number(sum.requests)],
    [w.failures, (sum) => number(sum.failures)],
    [w.input, (sum) => short(sum.input)],
    [w.cacheWrite, (sum) => short(sum.cache_write)],
    [w.cacheRead, (sum) => short(sum.cache_read)],
    [w.output, (sum) => short(sum.output)],
    [w.cost, (sum) => money(sum.cost)],
  ];
  const line = (sum: Sum, name: string): preact.ComponentChildren => (
    <>
      <th scope="row">{name}</th>
      {columns.map(([title, value]) => <td key={title}>{value(sum)}</td>)}
    </>
  );
  return (
    <div class="sums" tabIndex={0}>
      <table>
        <thead><tr><th scope="col">{w.bys[by]}</th>{columns.map(([title]) => <th scope="col" key={title}>{title}</th>)}</tr></thead>
        <tbody>{sums.map((sum) => <tr key={sum.key}>{line(sum, nameOf(by, sum.key))}</tr>)}</tbody>
        <tfoot><tr>{line(total, w.total)}</tr></tfoot>
      </table>
    </div>
  );
}

export function UsagePage({ room }: { room: Room }) {
  const [by, setBy] = useState<UsageBy>('day');
  const [days, setDays] = useState<(typeof SPANS)[number]>('30');
  const { value, error, again } = useLoad(() => ask<UsageAnswer>(room, 'GET', `/usage?by=${by}&days=${days}`), [by, days]);
  // Newest day first; else what was used most.
  const sums = value ? (value.by === 'day' ? [...value.sums].sort((a, b) => (a.key < b.key ? 1 : -1)) : [...value.sums].sort((a, b) => b.cost - a.cost || tokensOf(b) - tokensOf(a))) : [];
  if (error) return <Refused error={error} onRetry={again} />;
  return (
    <>
      <Segments label={w.span} value={days} options={SPANS.map((one) => [one, w.days(Number(one))] as const)} onPick={(one) => setDays(one)} />
      <div class="filters" role="group" aria-label={w.by}>
        {USAGE_BY.map((one) => <button type="button" key={one} class="pick" aria-pressed={by === one} onClick={() => setBy(one)}>{w.bys[one]}</button>)}
      </div>
      {!value ? <Loading /> : !sums.length ? <Empty icon="model" title={w.noRequests}><p>{w.noRequestsText}</p></Empty> : (
        <>
          <Figures sum={value.total} />
          {value.by === 'day' && days !== '1' && <DayBars days={[...sums].reverse()} count={Number(days)} />}
          <Table by={value.by} sums={sums} total={value.total} />
        </>
      )}
    </>
  );
}
