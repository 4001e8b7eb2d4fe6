//! Asks for the key that a machine's owner set besides the token. The key itself is kept by a cookie of the
//! edge that scripts cannot read.

import { useState } from 'preact/hooks';
import { t } from '../i18n';
import { ApiError, call } from '../net/api';
import { nameOf, type Room } from '../state/machines';
import { Icon } from '../ui/icons';
import { attempt } from '../ui/kit';

export function EdgeKey({ room }: { room: Room }) {
  const [key, setKey] = useState('');
  const [wrong, setWrong] = useState(false);
  return (
    <form
      class="panel"
      onSubmit={(event) => {
        event.preventDefault();
        setWrong(false);
        void attempt(async () => {
          try {
            await call(room.machine, 'POST', 'api/login', { edge_key: key });
          } catch (error) {
            if (!(error instanceof ApiError) || error.status !== 401) throw error;
            setWrong(true);
            return;
          }
          setKey('');
          room.link.retry();
          await room.refreshInfo();
        });
      }}
    >
      <h2><Icon name="key" size={18} /> {nameOf(room)}</h2>
      <p class="soft">{t.edgeKeyText}</p>
      <label>
        <span class="hide">{t.edgeKey}</span>
        <input class="field" type="password" autocomplete="current-password" placeholder={t.edgeKey} value={key} onInput={(event) => setKey(event.currentTarget.value)} />
      </label>
      {wrong && <p class="bad small" role="alert">{t.keyWrong}</p>}
      <div class="actions"><button type="submit" class="button primary" disabled={!key}>{t.unlock}</button></div>
    </form>
  );
}
