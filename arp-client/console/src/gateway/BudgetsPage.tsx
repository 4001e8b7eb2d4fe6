//! What may be spent, and what models cost: limits a day, a session, an upstream; a person's own prices.

import { useState } from 'preact/hooks';
import { money, t } from '../i18n';
import type { Room } from '../state/machines';
import { visible } from '../text/visible';
import { attempt, Loading, say, Segments } from '../ui/kit';
import { useLoad } from '../ui/load';
import { ask } from './feed';
import { Refused } from './Gateway';
import { Cell, Lines, SaveBar } from './lines';
import type { Budget, BudgetsAnswer, PricesAnswer } from './types';
import { w } from './words';

const PERS = ['day', 'session', 'upstream'] as const;
const THENS = ['warn', 'refuse'] as const;

/** A line as it is typed: numbers are texts until they are saved. */
type BudgetLine = Pick<Budget, 'name' | 'per' | 'of' | 'then'> & { usd: string };
type PriceLine = { model: string; input: string; output: string; cache_read: string; cache_write: string };

/** A number of dollars, or null where it is none. */
export function dollars(text: string): number | null {
  const value = Number(text.trim().replace(',', '.'));
  return text.trim() && Number.isFinite(value) && value >= 0 ? value : null;
}

/** How far each is used up. */
function Spent({ budgets }: { budgets: readonly Budget[] }) {
  if (!budgets.length) return null;
  return (
    <ul class="rows cards budgets">
      {budgets.map(({ name, per, of, usd, spent, reached }) => (
        <li key={name} class="rowlike">
          <span class="two">
            <b class="clip">{visible(name)}</b>
            <span class="soft clip">{[w.pers[per], of ? visible(of) : ''].filter(Boolean).join(' · ')}</span>
            {per === 'day' || of ? <progress max={usd || 1} value={Math.min(spent, usd || 1)} aria-label={visible(name)} /> : null}
          </span>
          <span class="aside">
            <span class={reached ? 'bad strong' : 'strong'}>{per === 'day' || of ? w.spentOf(money(spent), money(usd)) : money(usd)}</span>
            {reached && <span class="bad">{w.reached}</span>}
          </span>
        </li>
      ))}
    </ul>
  );
}

function BudgetForm({ room }: { room: Room }) {
  const { value, error, again, set } = useLoad(() => ask<BudgetsAnswer>(room, 'GET', '/budgets'), []);
  const [draft, setDraft] = useState<BudgetLine[] | null>(null);
  const [busy, setBusy] = useState(false);
  if (error) return <Refused error={error} onRetry={again} />;
  if (!value) return <Loading />;
  const lines = draft ?? value.budgets.map(({ name, per, of, usd, then }) => ({ name, per, of: of ?? '', usd: String(usd), then }));
  const save = (): void => {
    setBusy(true);
    void attempt(async () => {
      const budgets = lines.map(({ name, per, of, usd, then }) => ({ name: name.trim(), per, usd: dollars(usd) ?? 0, then, ...(per !== 'day' && of?.trim() ? { of: of.trim() } : {}) }));
      set(await ask<BudgetsAnswer>(room, 'PUT', '/budgets', { budgets }));
      // What was changed while it was on its way is not saved yet.
      setDraft((now) => (now === draft ? null : now));
      say(w.saved);
    }).then(() => setBusy(false));
  };
  return (
    <section class="block">
      <h2>{w.budgets}</h2>
      <p class="soft small">{w.budgetsText}</p>
      {!draft && <Spent budgets={value.budgets} />}
      <Lines<BudgetLine> lines={lines} add={w.addBudget} fresh={{ name: '', per: 'day', of: '', usd: '', then: 'warn' }} onChange={setDraft}>
        {(line, put) => (
          <>
            <Cell label={w.name} value={line.name} mono={false} onValue={(name) => put({ name })} />
            <Cell label={w.usd} value={line.usd} number onValue={(usd) => put({ usd })} />
            {line.per !== 'day' && <Cell label={line.per === 'upstream' ? w.ofUpstream : w.ofSession} value={line.of ?? ''} onValue={(of) => put({ of })} />}
            <Segments label={w.per} value={line.per} options={PERS.map((per) => [per, w.pers[per]] as const)} onPick={(per) => put({ per })} />
            <Segments label={w.op} value={line.then} options={THENS.map((then) => [then, w.thens[then]] as const)} onPick={(then) => put({ then })} />
          </>
        )}
      </Lines>
      <SaveBar changed={draft !== null} fits={lines.every(({ name, usd }) => name.trim() && dollars(usd) !== null)} busy={busy} onSave={save} onUndo={() => setDraft(null)} undo={t.cancel} save={t.save} />
    </section>
  );
}

function PriceForm({ room }: { room: Room }) {
  const { value, error, again, set } = useLoad(() => ask<PricesAnswer>(room, 'GET', '/prices'), []);
  const [draft, setDraft] = useState<PriceLine[] | null>(null);
  const [busy, setBusy] = useState(false);
  if (error) return <Refused error={error} onRetry={again} />;
  if (!value) return <Loading />;
  const own = value.prices.filter((price) => price.own);
  const lines = draft ?? own.map(({ model, input, output, cache_read, cache_write }) => ({ model, input: String(input), output: String(output), cache_read: String(cache_read), cache_write: String(cache_write) }));
  const fits = lines.every(({ model, input, output, cache_read, cache_write }) => model.trim() && dollars(input) !== null && dollars(output) !== null && [cache_read, cache_write].every((text) => !text.trim() || dollars(text) !== null));
  const save = (): void => {
    setBusy(true);
    void attempt(async () => {
      const all = lines.map(({ model, input, output, cache_read, cache_write }) => [model.trim(), {
        input: dollars(input), output: dollars(output),
        ...(cache_read.trim() ? { cache_read: dollars(cache_read) } : {}), ...(cache_write.trim() ? { cache_write: dollars(cache_write) } : {}),
      }] as const);
      set(await ask<PricesAnswer>(room, 'PUT', '/prices', { own: Object.fromEntries(all) }));
      // What was changed while it was on its way is not saved yet.
      setDraft((now) => (now === draft ? null : now));
      say(w.saved);
    }).then(() => setBusy(false));
  };
  const columns = [w.input, w.output, w.cacheRead, w.cacheWrite];
  return (
    <section class="block">
      <h2>{w.prices}</h2>
      <p class="soft small">{w.pricesText}</p>
      <Lines<PriceLine> lines={lines} add={w.addPrice} fresh={{ model: '', input: '', output: '', cache_read: '', cache_write: '' }} onChange={setDraft}>
        {(line, put) => (
          <>
            <Cell label={w.model} value={line.model} onValue={(model) => put({ model })} />
            <Cell label={w.input} value={line.input} number onValue={(input) => put({ input })} />
            <Cell label={w.output} value={line.output} number onValue={(output) => put({ output })} />
            <Cell label={w.cacheRead} value={line.cache_read} number onValue={(cache_read) => put({ cache_read })} />
            <Cell label={w.cacheWrite} value={line.cache_write} number onValue={(cache_write) => put({ cache_write })} />
          </>
        )}
      </Lines>
      <SaveBar changed={draft !== null} fits={fits} busy={busy} onSave={save} onUndo={() => setDraft(null)} undo={t.cancel} save={t.save} />
      <details class="balance">
        <summary><span>{w.shipped(value.dated)}</span></summary>
        <p class="soft small">{visible(value.source)}</p>
        <div class="sums" tabIndex={0}>
          <table>
            <thead><tr><th scope="col">{w.model}</th>{columns.map((name) => <th scope="col" key={name}>{name}</th>)}</tr></thead>
            <tbody>{value.prices.filter((price) => !price.own).map((price) => <tr key={price.model}><th scope="row">{price.model}</th>{[price.input, price.output, price.cache_read, price.cache_write].map((one, index) => <td key={index}>{one}</td>)}</tr>)}</tbody>
          </table>
        </div>
      </details>
    </section>
  );
}

export function BudgetsPage({ room }: { room: Room }) {
  return (
    <>
      <BudgetForm room={room} />
      <PriceForm room={room} />
    </>
  );
}
