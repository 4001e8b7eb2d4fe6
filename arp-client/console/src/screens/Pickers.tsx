//! Sheets that choose a permission mode or a model; used before a session starts and while it runs.

import { useState } from 'preact/hooks';
import { t } from '../i18n';
import { Icon } from '../ui/icons';
import { Sheet } from '../ui/kit';
import { named } from '../model/named';

/** A mode's name for people; an unknown one keeps the agent's word. */
export function modeName(mode: string): string {
  const names: Record<string, string> = { default: t.pm_default, acceptEdits: t.pm_acceptEdits, plan: t.pm_plan, bypassPermissions: t.pm_bypassPermissions };
  return named(names, mode) ?? mode;
}

/** What a mode means, in a sentence. */
export function modeHint(mode: string): string {
  const hints: Record<string, string> = { default: t.pm_default_hint, acceptEdits: t.pm_acceptEdits_hint, plan: t.pm_plan_hint, bypassPermissions: t.pm_bypassPermissions_hint };
  return named(hints, mode) ?? '';
}

export function ModePicker({ modes, value, onPick, onClose }: { modes: readonly string[]; value: string; onPick(mode: string): void; onClose(): void }) {
  return (
    <Sheet title={t.mode} onClose={onClose}>
      <ul class="rows">
        {modes.map((mode) => (
          <li key={mode}>
            <button type="button" aria-pressed={mode === value} onClick={() => onPick(mode)}>
              <span class="two"><b class={mode === 'bypassPermissions' ? 'attn' : ''}>{modeName(mode)}</b><span class="soft">{modeHint(mode)}</span></span>
              {mode === value && <Icon name="check" size={18} />}
            </button>
          </li>
        ))}
      </ul>
    </Sheet>
  );
}

export function ModelPicker({ models, value, allowDefault = false, onPick, onClose }: { models: readonly string[]; value: string; allowDefault?: boolean; onPick(model: string): void; onClose(): void }) {
  const [typed, setTyped] = useState('');
  const list = value && !models.includes(value) ? [value, ...models] : models;
  return (
    <Sheet title={t.model} onClose={onClose}>
      <ul class="rows">
        {allowDefault && (
          <li><button type="button" aria-pressed={value === ''} onClick={() => onPick('')}><span class="two"><b>{t.modelDefault}</b></span>{value === '' && <Icon name="check" size={18} />}</button></li>
        )}
        {list.map((model) => (
          <li key={model}><button type="button" aria-pressed={model === value} onClick={() => onPick(model)}><span class="two"><b class="mono">{model}</b></span>{model === value && <Icon name="check" size={18} />}</button></li>
        ))}
      </ul>
      <form
        class="inline"
        onSubmit={(event) => {
          event.preventDefault();
          if (typed.trim()) onPick(typed.trim());
        }}
      >
        <input class="field mono" aria-label={t.modelOther} placeholder={t.modelOther} value={typed} autocapitalize="off" autocorrect="off" spellcheck={false} onInput={(event) => setTyped(event.currentTarget.value)} />
        <button type="submit" class="button primary" aria-label={t.save} disabled={!typed.trim()}><Icon name="check" size={18} /></button>
      </form>
    </Sheet>
  );
}
