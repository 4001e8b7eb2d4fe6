//! What upstreams are not to see: rules that replace, and what is hidden and put back; tried out before it counts.

import { useId, useRef, useState } from 'preact/hooks';
import { t } from '../i18n';
import type { Room } from '../state/machines';
import { visible } from '../text/visible';
import { attempt, Loading, say, Segments } from '../ui/kit';
import { useLoad } from '../ui/load';
import { ask } from './feed';
import { Refused } from './Gateway';
import { Cell, Lines, SaveBar } from './lines';
import { Faults } from './parts';
import type { DryRun, FilterRule, Filters, RecordedRun, Redaction } from './types';
import { w } from './words';

const OPS = ['replace', 'remove'] as const;
/** Recorded requests that are looked at, at most. */
const LOOKED = 200;
type Draft = Pick<Filters, 'rules' | 'redaction'>;

/** One a line; lines without anything are none. */
const listOf = (text: string): string[] => text.split('\n').filter((line) => line.trim());

function TextLines({ label, value, onValue }: { label: string; value: readonly string[]; onValue(value: string[]): void }) {
  const id = useId();
  // As it is typed: an empty last line is one that is being begun.
  const [text, setText] = useState(value.join('\n'));
  return (
    <div class="key-field">
      <label for={id}>{label}</label>
      <textarea id={id} class="field mono" rows={Math.min(6, Math.max(2, value.length + 1))} spellcheck={false} autocapitalize="off" value={text} onInput={(event) => {
        setText(event.currentTarget.value);
        onValue(listOf(event.currentTarget.value));
      }} />
    </div>
  );
}

/** "Mail addresses", "Rule 2". */
function foundBy(by: string): string {
  const [kind = '', number] = by.split(' ');
  const name = w.presets[kind] ?? w.foundBy[kind] ?? visible(kind);
  return number ? `${name} ${number}` : name;
}

function DryRunForm({ room, draft }: { room: Room; draft: Draft }) {
  const [text, setText] = useState('');
  const [result, setResult] = useState<DryRun | null>(null);
  const [recorded, setRecorded] = useState<RecordedRun | null>(null);
  const [busy, setBusy] = useState(false);
  const id = useId();
  return (
    <section class="block">
      <h2>{w.dryRun}</h2>
      <form class="edit" onSubmit={(event) => {
        event.preventDefault();
        if (busy) return;
        setBusy(true);
        setRecorded(null);
        void attempt(async () => setResult(await ask<DryRun>(room, 'POST', '/filters/dry-run', { text, ...draft }))).then((well) => {
          setBusy(false);
          if (!well) setResult(null);
        });
      }}>
        <label for={id} class="soft small">{w.dryRunText}</label>
        <textarea id={id} class="field mono" rows={4} spellcheck={false} autocapitalize="off" value={text} onInput={(event) => setText(event.currentTarget.value)} />
        <div class="actions wrap"><button type="submit" class="button" disabled={busy || !text}>{w.dryRunDo}</button><button type="button" class="button" disabled={busy} onClick={() => {
          setBusy(true);
          setResult(null);
          void attempt(async () => setRecorded(await ask<RecordedRun>(room, 'POST', '/filters/dry-run', { recorded: LOOKED, ...draft }))).then(() => setBusy(false));
        }}>{w.dryRunRecorded}</button></div>
      </form>
      {recorded && (
        <div class="panel" role="status">
          {recorded.requests.length ? <p>{w.recordedLooked(recorded.requests.length)}</p> : <p>{w.nothingRecorded}</p>}
          {recorded.found.length ? <ul>{recorded.found.map((one) => <li key={one.by}>{w.found(foundBy(one.by), one.count, visible(one.example))}</li>)}</ul> : recorded.requests.length > 0 && <p>{w.nothingFound}</p>}
        </div>
      )}
      {result && (
        <div class="panel" role="status">
          {result.found.length ? <ul>{result.found.map((one) => <li key={one.by}>{w.found(foundBy(one.by), one.count, visible(one.example))}</li>)}</ul> : <p>{w.nothingFound}</p>}
          <h3 class="field-label">{w.asUpstream}</h3>
          <pre class="output" tabIndex={0}>{visible(result.text)}</pre>
        </div>
      )}
    </section>
  );
}

export function FiltersPage({ room }: { room: Room }) {
  const { value, error, again, set } = useLoad(() => ask<Filters>(room, 'GET', '/filters'), []);
  const [draft, setDraft] = useState<Draft | null>(null);
  const latest = useRef(draft);
  latest.current = draft;
  const [busy, setBusy] = useState(false);
  // Fields that hold text of their own begin anew with it.
  const [round, setRound] = useState(0);
  if (error) return <Refused error={error} onRetry={again} />;
  if (!value) return <Loading />;
  const now: Draft = draft ?? { rules: value.rules, redaction: value.redaction };
  const { rules, redaction } = now;
  const change = (more: Partial<Redaction>): void => setDraft({ rules, redaction: { ...redaction, ...more } });
  const save = (): void => {
    setBusy(true);
    void attempt(async () => {
      // Only what was changed: the other may have been changed elsewhere meanwhile.
      set(await ask<Filters>(room, 'PUT', '/filters', {
        ...(JSON.stringify(rules) !== JSON.stringify(value.rules) ? { rules } : {}),
        ...(JSON.stringify(redaction) !== JSON.stringify(value.redaction) ? { redaction } : {}),
      }));
      // What was changed while it was on its way is not saved yet.
      if (latest.current === draft) {
        setDraft(null);
        setRound((n) => n + 1);
      }
      say(w.saved);
    }).then(() => setBusy(false));
  };
  return (
    <>
      {value.fault && <Faults faults={[value.fault]} />}
      <section class="block">
        <h2>{w.hide}</h2>
        <p class="soft small">{w.hideText}</p>
        <ul class="settings-rows rows">
          {value.presets.map(({ name, what }) => (
            <li key={name}>
              <label class="switch">
                <span>{w.presets[name] ?? visible(what)}</span>
                <input type="checkbox" role="switch" checked={redaction.presets.includes(name)} onChange={(event) => change({ presets: event.currentTarget.checked ? [...redaction.presets, name] : redaction.presets.filter((one) => one !== name) })} />
                <i aria-hidden="true" />
              </label>
            </li>
          ))}
        </ul>
        <div key={round}>
          <TextLines label={w.hiddenWords} value={redaction.words} onValue={(words) => change({ words })} />
          <TextLines label={w.patterns} value={redaction.patterns} onValue={(patterns) => change({ patterns })} />
          <TextLines label={w.keep} value={redaction.keep} onValue={(keep) => change({ keep })} />
        </div>
      </section>
      <section class="block">
        <h2>{w.rules}</h2>
        <p class="soft small">{w.rulesText}</p>
        <Lines<FilterRule> lines={rules} add={w.addRule} fresh={{ source: '', target: '', op: 'replace' }} onChange={(lines) => setDraft({ rules: lines, redaction })}>
          {(rule, put) => (
            <>
              <Cell label={w.source} value={rule.source} onValue={(source) => put({ source })} />
              {rule.op === 'replace' && <Cell label={w.target} value={rule.target} onValue={(target) => put({ target })} />}
              <Segments label={w.op} value={rule.op} options={OPS.map((op) => [op, w.ops[op]] as const)} onPick={(op) => put({ op })} />
            </>
          )}
        </Lines>
      </section>
      <section class="block">
        <label class="switch">
          <span class="two"><span>{w.failOpen}</span><span class="soft small">{w.failOpenText}</span></span>
          <input type="checkbox" role="switch" checked={redaction.fail_open} onChange={(event) => change({ fail_open: event.currentTarget.checked })} />
          <i aria-hidden="true" />
        </label>
      </section>
      <SaveBar changed={draft !== null} fits={rules.every(({ source }) => source !== '')} busy={busy} onSave={save} onUndo={() => {
        setDraft(null);
        setRound((n) => n + 1);
      }} undo={t.cancel} save={t.save} />
      <DryRunForm room={room} draft={now} />
    </>
  );
}
