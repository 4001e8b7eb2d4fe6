//! Asks what is to be deleted: our record of a session, or with it what the agent itself keeps.

import { useState } from 'preact/hooks';
import { t } from '../i18n';
import { attempt, Confirm, Sheet, useRipe } from '../ui/kit';

type History = 'keep' | 'delete';

/** `keeps`: does the agent keep a history of its own that could go too? Then it is asked for. */
export function DeleteSession({ agent, keeps, onYes, onNo }: { agent: string; keeps: boolean; onYes(history?: History): Promise<unknown>; onNo(): void }) {
  const [history, setHistory] = useState<History>('keep');
  const [busy, setBusy] = useState(false);
  const ripe = useRipe();
  if (!keeps) return <Confirm title={t.deleteSession} text={t.deleteText} action={t.del} onNo={onNo} onYes={() => onYes()} />;
  const choices: [History, string, string][] = [['keep', t.deleteRecord, t.deleteRecordText(agent)], ['delete', t.deleteAll(agent), t.deleteAllText]];
  return (
    <Sheet title={t.deleteSession} onClose={onNo}>
      <fieldset class="choices">
        <legend>{t.deleteWhich}</legend>
        {choices.map(([value, name, text]) => (
          <label key={value}>
            <input type="radio" name="history" value={value} checked={history === value} onChange={() => setHistory(value)} />
            <span class="two"><b>{name}</b><span class="soft">{text}</span></span>
          </label>
        ))}
      </fieldset>
      <div class="actions">
        <button type="button" class="button" onClick={onNo}>{t.cancel}</button>
        <button type="button" class="button danger" disabled={busy || !ripe} onClick={async () => {
          setBusy(true);
          await attempt(() => onYes(history));
          setBusy(false);
        }}>{t.del}</button>
      </div>
    </Sheet>
  );
}
