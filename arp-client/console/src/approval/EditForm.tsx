//! Changing what is allowed, in the form of the tool: a command is a command, a file's text is a text.

import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import { t } from '../i18n';
import { leavesOf, withLeaves, type Leaf } from '../model/approval';
import { pretty } from '../timeline/rows';
import { fieldName } from './Fields';
import { composes } from '../ui/keyname';

/** Which field is looked at first, and how high it is at least. */
const TEXTS = ['command', 'content', 'new_string', 'new_source', 'prompt', 'old_string', 'query', 'text'];

const keyOf = (leaf: Leaf): string => JSON.stringify(leaf.path);
/** `edits › 1 › new_string`, in words. */
const labelOf = ({ path }: Leaf): string => path.map((part) => (typeof part === 'number' ? String(part + 1) : fieldName(part))).join(' › ');
const rank = ({ path }: Leaf): number => {
  const at = TEXTS.indexOf(String(path[path.length - 1]));
  return at < 0 ? TEXTS.length : at;
};
const rowsOf = (text: string): number => Math.min(14, text.split('\n').length + (text.length > 60 ? 1 : 0));

type Props = { input: unknown; busy: boolean; ready: boolean; onBack(): void; onAllow(input: unknown, at: number): void };

export function EditForm({ input, busy, ready, onBack, onAllow }: Props) {
  const [leaves] = useState(() => leavesOf(input)?.sort((a, b) => (a.path.length > 1 || b.path.length > 1 ? 0 : rank(a) - rank(b))) ?? null);
  const [changed, setChanged] = useState<ReadonlyMap<string, Leaf['value']>>(new Map());
  const [json, setJson] = useState(() => pretty(input));
  const form = useRef<HTMLFormElement>(null);
  useLayoutEffect(() => form.current?.querySelector<HTMLElement>('textarea, input')?.focus(), []);

  const set = (leaf: Leaf, value: Leaf['value']): void => {
    const next = new Map(changed);
    // A text field gives every line end as one sign; what only differs in that is not changed.
    const before = typeof leaf.value === 'string' ? leaf.value.replaceAll('\r\n', '\n') : leaf.value;
    if (value === before) next.delete(keyOf(leaf));
    else next.set(keyOf(leaf), value);
    setChanged(next);
  };
  const result = (): { input: unknown } | null => {
    if (leaves) return changed.size ? { input: withLeaves(input, changed) } : null;
    try {
      return json === pretty(input) ? null : { input: JSON.parse(json) as unknown };
    } catch {
      return null;
    }
  };
  const isJson = ((): boolean => {
    try {
      return leaves !== null || JSON.parse(json) !== undefined;
    } catch {
      return false;
    }
  })();
  const changedInput = result();
  return (
    <form
      class="edit-form"
      ref={form}
      onSubmit={(event) => {
        event.preventDefault();
        if (changedInput) onAllow(changedInput.input, event.timeStamp);
      }}
      onKeyDown={(event) => {
        if (composes(event)) return;
        if (event.key === 'Escape') onBack();
        if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && !event.repeat) {
          event.preventDefault();
          event.currentTarget.requestSubmit();
        }
      }}
    >
      <div class="edit-fields scroll">
        {leaves ? leaves.map((leaf) => {
          const id = `edit-${leaf.path.join('-')}`;
          const value = changed.get(keyOf(leaf)) ?? leaf.value;
          const label = labelOf(leaf);
          if (typeof leaf.value === 'boolean') {
            return (
              <label key={id} class="choice" for={id}>
                <input id={id} type="checkbox" checked={value === true} onChange={(event) => set(leaf, event.currentTarget.checked)} />
                <span>{label}</span>
              </label>
            );
          }
          return (
            <div key={id}>
              <label class="field-name" for={id}>{label}</label>
              {typeof leaf.value === 'number' ? (
                <input id={id} class="field mono" type="number" step="any" value={Number(value)} onInput={(event) => Number.isFinite(event.currentTarget.valueAsNumber) && set(leaf, event.currentTarget.valueAsNumber)} />
              ) : (
                <textarea id={id} class="field mono" rows={rowsOf(String(value))} value={String(value)} spellcheck={false} autocapitalize="off" autocomplete="off" onInput={(event) => set(leaf, event.currentTarget.value)} />
              )}
            </div>
          );
        }) : (
          <>
            <label class="field-name" for="edit-json">{t.editJson}</label>
            <textarea id="edit-json" class="field mono" rows={rowsOf(json)} value={json} spellcheck={false} autocapitalize="off" onInput={(event) => setJson(event.currentTarget.value)} />
            {!isJson && <p class="bad small" role="alert">{t.editBad}</p>}
          </>
        )}
      </div>
      <div class="decide">
        <button type="button" class="button" onClick={onBack}>{t.back}</button>
        <button type="submit" class="button primary" disabled={busy || !changedInput} aria-disabled={!ready}>{t.allowEdited}</button>
      </div>
    </form>
  );
}
