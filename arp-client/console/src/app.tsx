//! The frame: the inbox and, beside it (or over it on a phone), what was chosen.

import { signal } from '@preact/signals';
import type { FunctionComponent } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { t } from './i18n';
import { rooms, waiting } from './state/machines';
import { hrefOf, route, type Route } from './state/route';
import { Inbox } from './screens/Inbox';
import { NewSession } from './screens/NewSession';
import { paletteOpen } from './keys';
import { Icon, Sprite, type IconName } from './ui/icons';
import { Failed, Loading, Toasts } from './ui/kit';

const query = matchMedia('(min-width: 900px)');
/** Is there room beside the inbox? */
const wide = signal(query.matches);
query.addEventListener('change', () => (wide.value = query.matches));

/** A screen that is fetched when it is first wanted, or before, while nothing else is to be done. */
function later<P extends object>(fetch: () => Promise<FunctionComponent<P>>): { fetch(): Promise<unknown>; View: FunctionComponent<P> } {
  let view: FunctionComponent<P> | undefined;
  const get = async (): Promise<unknown> => (view ??= await fetch());
  const View = (props: P) => {
    const [ready, setReady] = useState(Boolean(view));
    const [error, setError] = useState<unknown>(null);
    const load = (): void => {
      setError(null);
      get().then(() => setReady(true), setError);
    };
    useEffect(load, []);
    const Shown = view;
    if (ready && Shown) return <Shown {...props} />;
    return error ? <Failed error={error} onRetry={load} /> : <Loading />;
  };
  return { fetch: get, View };
}

const session = later(async () => (await import('./screens/SessionView')).SessionView);
// It is wanted next, whatever is open now.
void session.fetch().catch(() => undefined);
const files = later(async () => (await import('./screens/Files')).default);
const settings = later(async () => (await import('./screens/Settings')).Settings);
const history = later(async () => (await import('./screens/History')).History);
const palette = later(async () => (await import('./screens/Palette')).Palette);

/** Fetches what is not there yet. */
export const fetchLater = (): void => {
  for (const part of [session, history, palette, settings, files]) void part.fetch().catch(() => undefined);
};

function Nav() {
  const here = route.value.name;
  const machine = rooms.value[0]?.machine.id ?? '';
  const places: [Route, string, IconName][] = [
    [{ name: 'inbox' }, t.sessions, 'inbox'],
    [{ name: 'files', machine, path: '', session: '' }, t.files, 'folder'],
    [{ name: 'settings' }, t.settings, 'settings'],
  ];
  const shown = rooms.value.some((room) => room.info.value?.fs_enabled) ? places : places.filter(([to]) => to.name !== 'files');
  return (
    <nav class="nav" aria-label={t.mainNav}>
      {shown.map(([to, label, icon]) => {
        const on = to.name === here || (to.name === 'inbox' && (here === 'session' || here === 'new' || here === 'history'));
        return (
          <a key={to.name} href={hrefOf(to)} class={on ? 'on' : ''} aria-current={on ? 'page' : undefined}>
            <span class="nav-icon"><Icon name={icon} size={22} />{to.name === 'inbox' && waiting.value > 0 && <b class="badge">{waiting.value}</b>}</span>
            <span>{label}</span>
          </a>
        );
      })}
    </nav>
  );
}

function Main() {
  const at = route.value;
  switch (at.name) {
    case 'inbox':
      return wide.value ? <NewSession key="beside" beside /> : null;
    case 'new':
      return <NewSession key="new" />;
    case 'session':
      return <session.View machine={at.machine} id={at.id} />;
    case 'history':
      return <history.View machine={at.machine} agent={at.agent} id={at.id} />;
    case 'files':
      return <files.View machine={at.machine} path={at.path} session={at.session} />;
    case 'settings':
      return <settings.View />;
  }
}

/** Does this place take the whole of a phone's screen, without the bar below? */
const isDeep = (at: Route): boolean =>
  at.name === 'new' || at.name === 'session' || at.name === 'history' || (at.name === 'files' && Boolean(at.path || at.session));

export function App() {
  const at = route.value;
  return (
    <>
      <Sprite />
      <a class="skip" href="#main" onClick={(event) => {
        event.preventDefault();
        document.getElementById('main')?.focus();
      }}>{t.skip}</a>
      <div class={`shell at-${at.name} ${isDeep(at) ? 'deep' : ''}`}>
        <aside class="side" aria-label={t.sessions}>
          <Inbox />
        </aside>
        <main class="main" id="main" tabIndex={-1}>
          <Main />
        </main>
        <Nav />
      </div>
      {paletteOpen.value && <palette.View />}
      <Toasts />
    </>
  );
}
