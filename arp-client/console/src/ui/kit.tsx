//! Small parts that every screen uses: sheets, toasts, menus, choices, the line that tells of the connection.

import type { ComponentChildren } from 'preact';
import { useEffect, useId, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { signal } from '@preact/signals';
import { clock, explain, number, second, t } from '../i18n';
import type { Link } from '../net/link';
import { sheetClosed, sheetOpened } from '../state/route';
import { Icon, type IconName } from './icons';

/** By then a doubled tap is over, in milliseconds: until then a new sheet does nothing that cannot be undone. */
const DOUBLED = 500;

/** A dialog: from below on a phone, in the middle on a wide screen. Esc, the backdrop and the cross close it. */
export function Sheet({ title, onClose, children, wide = false }: { title: string; onClose(): void; children: ComponentChildren; wide?: boolean }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const opened = useRef(0);
  const latest = useRef(onClose);
  latest.current = onClose;
  const id = useId();
  // Before the next key arrives: it belongs to the dialog.
  useLayoutEffect(() => {
    const box = dialog.current;
    if (!box || box.open) return;
    const before = document.activeElement as HTMLElement | null;
    const close = (): void => latest.current();
    box.showModal();
    opened.current = performance.now();
    sheetOpened(close);
    return () => {
      sheetClosed(close);
      box.close();
      before?.focus?.();
    };
  }, []);
  return (
    <dialog
      class={wide ? 'sheet wide' : 'sheet'}
      ref={dialog}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onClick={(event) => {
        // Not the second tap of the two that opened it.
        if (event.target === dialog.current && event.timeStamp - opened.current > DOUBLED) onClose();
      }}
    >
      <div class="sheet-in">
        <header class="sheet-head">
          <h2 id={id}>{title}</h2>
          <button type="button" class="ghost round" aria-label={t.close} onClick={onClose}>
            <Icon name="close" />
          </button>
        </header>
        <div class="sheet-body">{children}</div>
      </div>
    </dialog>
  );
}

/** What can be done about what a toast says. */
export interface Way { name: string; run(): void }
interface Toast { id: number; text: string; bad: boolean; way: Way | undefined }
const toasts = signal<readonly Toast[]>([]);
let nextToast = 1;

/** Says something in passing; with a way out, for long enough to take it. */
export function say(text: string, bad = false, way?: Way): void {
  const toast = { id: nextToast++, text, bad, way };
  toasts.value = [...toasts.value.slice(-2), toast];
  setTimeout(() => (toasts.value = toasts.value.filter((other) => other !== toast)), way ? 20_000 : bad ? 7_000 : 2_500);
}

/** Runs what a button does; what fails is said, with the way out of it if there is one. Returns whether it went well. */
export async function attempt(work: () => Promise<unknown>, wayOut?: (error: unknown) => Way | undefined): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    say(explain(error), true, wayOut?.(error));
    return false;
  }
}

/** Where toasts appear; a live region that is always there. */
export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map((toast) => (
        <p key={toast.id} class={toast.bad ? 'toast bad' : 'toast'}>
          {toast.text}
          {toast.way && <button type="button" class="small" onClick={() => {
            toasts.value = toasts.value.filter((other) => other !== toast);
            toast.way?.run();
          }}>{toast.way.name}</button>}
        </p>
      ))}
    </div>
  );
}

/** One of a few values, all in sight. */
export function Segments<T extends string>({ label, value, options, onPick }: { label: string; value: T; options: readonly (readonly [T, string])[]; onPick(value: T): void }) {
  const name = useId();
  return (
    <fieldset class="segments">
      <legend class="hide">{label}</legend>
      {options.map(([option, text]) => (
        <label key={option} class={option === value ? 'on' : ''}>
          <input type="radio" name={name} checked={option === value} onChange={() => onPick(option)} />
          <span>{text}</span>
        </label>
      ))}
    </fieldset>
  );
}

/** Has whoever tapped to come here lifted the finger for good? */
export function useRipe(): boolean {
  const [ripe, set] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => set(true), DOUBLED);
    return () => clearTimeout(timer);
  }, []);
  return ripe;
}

/** Lets the first of two quick taps through: what stood below the finger may be gone, and another thing in its place. */
export function useSingle(): (event: UIEvent, work: () => void) => void {
  const last = useRef(-Infinity);
  return (event, work) => {
    const soon = event.timeStamp - last.current < DOUBLED;
    last.current = event.timeStamp;
    if (!soon) work();
  };
}

/** A button that asks once more before it does what cannot be undone. */
export function Confirm({ title, text, action, onYes, onNo }: { title: string; text: string; action: string; onYes(): Promise<unknown>; onNo(): void }) {
  const [busy, setBusy] = useState(false);
  const ripe = useRipe();
  return (
    <Sheet title={title} onClose={onNo}>
      <p class="soft">{text}</p>
      <div class="actions">
        <button type="button" class="button" onClick={onNo}>
          {t.cancel}
        </button>
        <button
          type="button"
          class="button danger"
          disabled={busy || !ripe}
          onClick={async () => {
            setBusy(true);
            await attempt(onYes);
            setBusy(false);
          }}
        >
          {action}
        </button>
      </div>
    </Sheet>
  );
}

/** An empty place that says what it is and what to do. */
export function Empty({ icon, title, children }: { icon: IconName; title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <Icon name={icon} size={36} />
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** Something is being fetched. After a while it says more than nothing; requests end by themselves. */
export function Loading() {
  return (
    <div class="loading" role="status">
      <span class="hide">{t.loading}</span>
      <i /><i /><i />
    </div>
  );
}

/** A failed fetch with the way out. */
export function Failed({ error, onRetry }: { error: unknown; onRetry(): void }) {
  return (
    <div class="empty" role="alert">
      <Icon name="warn" size={36} />
      <h2>{t.failedTitle}</h2>
      <p>{explain(error)}</p>
      <button type="button" class="button" onClick={onRetry}>
        {t.retry}
      </button>
    </div>
  );
}

/** Time that a line may take to come back before it is spoken of. */
const GRACE = 1_500;

/** Says that the line is down, why and since when; silent while all is well. */
export function Connection({ link, name }: { link: Link; name?: string }) {
  const status = link.status.value;
  if (status.state === 'live' || status.state === 'ended') return null;
  if (second.value - status.since < GRACE && Date.now() - status.since < GRACE) return null;
  if (status.state === 'connecting') {
    return (
      <div class="line" role="status">
        <Icon name="offline" size={18} />
        <p>{name ? `${name}: ` : ''}{t.reconnecting}</p>
      </div>
    );
  }
  const seconds = Math.max(0, Math.ceil((status.retryAt - second.value) / 1000));
  const words = { offline: t.tr_offline, relay: t.tr_relay, edge: t.tr_edge, token: t.tr_token, key: t.tr_key, gone: t.tr_gone, changed: t.tr_changed, error: t.tr_error };
  return (
    <div class={name ? 'line down named' : 'line down'}>
      <Icon name={status.trouble === 'key' ? 'key' : 'offline'} size={18} />
      <p>
        <span role="status">
          <b>{name ? `${name}: ` : ''}{t.offlineSince(clock(status.since))}.</b> {words[status.trouble]}
        </span>{' '}
        {seconds > 0 && <span class="soft">{t.retryIn(number(seconds))}</span>}
      </p>
      <button type="button" class="small" onClick={() => link.retry()}>
        {t.retry}
      </button>
    </div>
  );
}

/** Copies text and says so. Works without a secure context, where the clipboard object is missing. */
export async function copy(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement('textarea');
    area.value = text;
    area.className = 'hide';
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
  say(t.copied);
}

/** The last part of a path, and the path with the home directory shortened. */
export const baseName = (path: string): string => path.replace(/\/+$/, '').split(/[\\/]/).pop() || path;
export const tidyPath = (path: string, home: string | undefined): string =>
  home && (path === home || path.startsWith(`${home}/`)) ? `~${path.slice(home.length)}` : path;
