//! Where something is written for an agent. Enter does the same in all of them, and they say so: with a keyboard it
//! sends and Shift+Enter begins a line; on a touch screen it begins a line and the button sends.

import type { Ref } from 'preact';
import { useLayoutEffect, useRef } from 'preact/hooks';
import { t } from '../i18n';
import { composes } from './keyname';

/** Is there a keyboard, as far as a page can tell? */
const keys = matchMedia('(hover: hover) and (pointer: fine)');
const hasKeys = (): boolean => keys.matches;

interface Props {
  id: string;
  label: string;
  value: string;
  placeholder: string;
  onText(text: string): void;
  onSend(): void;
  /** In place of leaving the field. */
  onEscape?(): void;
  /** As high as its text, up to this many pixels; without, its height is the style's. */
  grows?: number;
  rows?: number;
  class?: string;
  area?: Ref<HTMLTextAreaElement>;
}

export function Prompt({ id, label, value, placeholder, onText, onSend, onEscape, grows, rows = 1, class: name, area }: Props) {
  const own = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => {
    const box = own.current;
    if (!box || !grows) return;
    box.style.height = 'auto';
    box.style.height = `${Math.min(box.scrollHeight, grows)}px`;
  }, [value, grows]);
  return (
    <>
      <label class="hide" for={id}>{label}</label>
      <textarea
        id={id}
        ref={(box) => {
          own.current = box;
          if (typeof area === 'function') area(box);
          else if (area) area.current = box;
        }}
        class={name}
        rows={rows}
        placeholder={placeholder}
        value={value}
        enterkeyhint={hasKeys() ? 'send' : 'enter'}
        aria-describedby={`${id}-enter`}
        onInput={(event) => onText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (composes(event)) return;
          if (event.key === 'Escape') (onEscape ?? (() => event.currentTarget.blur()))();
          if (event.key !== 'Enter' || event.shiftKey || event.repeat) return;
          if (!hasKeys() && !event.ctrlKey && !event.metaKey) return;
          // With nothing written, this decides about what is asked, if anything is.
          if (!value.trim() && (event.ctrlKey || event.metaKey)) return;
          event.preventDefault();
          onSend();
        }}
      />
    </>
  );
}

/** What Enter does here; shown where there is a keyboard. */
export const EnterHint = ({ of }: { of: string }) => <span class="enter-hint" id={`${of}-enter`}>{t.enterSends}</span>;
