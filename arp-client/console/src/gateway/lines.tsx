//! Lines that a person adds, writes and takes out: rules, mappings.

import type { ComponentChildren } from 'preact';
import { Icon } from '../ui/icons';
import { w } from './words';

interface Props<T> { lines: readonly T[]; add: string; fresh: T; onChange(lines: T[]): void; children(line: T, set: (change: Partial<T>) => void): ComponentChildren }

/** Lines, each drawn by `children`, with a way to take it out and one to add another. */
export function Lines<T extends object>({ lines, add, fresh, onChange, children }: Props<T>) {
  return (
    <>
      {lines.length > 0 ? (
        <ol class="lines-edit">
          {lines.map((line, index) => (
            <li key={index}>
              <div class="line-fields">{children(line, (change) => onChange(lines.map((one, at) => (at === index ? { ...one, ...change } : one))))}</div>
              <button type="button" class="ghost round" aria-label={w.removeLine} title={w.removeLine} onClick={() => onChange(lines.filter((_, at) => at !== index))}><Icon name="close" size={17} /></button>
            </li>
          ))}
        </ol>
      ) : <p class="soft small">{w.noLines}</p>}
      <button type="button" class="button wide" onClick={() => onChange([...lines, fresh])}><Icon name="plus" size={18} /> {add}</button>
    </>
  );
}

/** A field of a line, with its name above. */
export function Cell({ label, value, onValue, list, mono = true, number = false }: { label: string; value: string; onValue(value: string): void; list?: string; mono?: boolean; number?: boolean }) {
  return (
    <label class={number ? 'cell narrow' : 'cell'}><span>{label}</span><input type="text" class={mono ? 'field mono' : 'field'} value={value} {...(list ? { list } : {})} {...(number ? { inputMode: 'decimal' } : {})} autocomplete="off" autocapitalize="off" spellcheck={false} onInput={(event) => onValue(event.currentTarget.value)} /></label>
  );
}

/** Save what was changed, or go back to what counts. */
export function SaveBar({ changed, fits, busy, onSave, onUndo, undo, save }: { changed: boolean; fits: boolean; busy: boolean; onSave(): void; onUndo(): void; undo: string; save: string }) {
  if (!changed) return null;
  return (
    <div class="save-bar" role="group">
      <span class="attn">{w.unsaved}</span>
      <button type="button" class="button" disabled={busy} onClick={onUndo}>{undo}</button>
      <button type="button" class="button primary" disabled={busy || !fits} onClick={onSave}>{save}</button>
    </div>
  );
}
