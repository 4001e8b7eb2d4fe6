//! The frame: the inbox and, beside it (or over it on a phone), what was chosen.

import { signal } from '@preact/signals';
import type { FunctionComponent } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { t } from './i18n';
import { rooms, waiting } from './state/machines';
import { hrefOf, route, type Route } from './state/route';
import { History } from './screens/History';
import { Inbox } from './screens/Inbox';
import { NewSession } from './screens/NewSession';
import { Palette, paletteOpen } from './screens/Palette';
import { SessionView } from './screens/SessionView';
import { Settings } from './screens/Settings';
import { Icon, Sprite, type IconName } from './ui/icons';
import { Failed, Loading, Toasts } from './ui/kit';

const query = matchMedia('(min-width: 900px)');
/** Is there room beside the inbox? */
const wide = signal(query.matches);
query.addEventListener('change', () => (wide.value = query.matches));

type FilesProps = { machine: string; path: string; session: string };
let files: FunctionComponent<FilesProps> | undefined;
/** Fetches the file viewer; asked for early, so that it is there when wanted. */
export const fetchFiles = async (): Promise<FunctionComponent<FilesProps>> => (files ??= (await import('./screens/Files')).default);

function LazyFiles(props: FilesProps) {
  const [ready, setReady] = useState(Boolean(files));
  const [error, setError] = useState<unknown>(null);
  const load = (): void => {
    setError(null);
    fetchFiles().then(() => setReady(true), setError);
  };
  useEffect(load, []);
  const View = files;
  if (ready && View) return <View {...props} />;
  return error ? <Failed error={error} onRetry={load} /> : <Loading />;
}

function Nav() {
  const here = route.value.name;
  const machine = rooms.value[0]?.machine.id ?? '';
  const places: [Route, string, IconName][] = [
    [{ name: 'inbox' }, t.sessions, 'inbox'],
    [{ name: 'history', machine, agent: '', project: '', id: '' }, t.history, 'history'],
    [{ name: 'files', machine, path: '', session: '' }, t.files, 'folder'],
    [{ name: 'settings' }, t.settings, 'settings'],
  ];
  const shown = rooms.value.some((room) => room.info.value?.fs_enabled) ? places : places.filter(([to]) => to.name !== 'files');
  return (
    <nav class="nav" aria-label={t.mainNav}>
      {shown.map(([to, label, icon]) => {
        const on = to.name === here || (to.name === 'inbox' && (here === 'session' || here === 'new'));
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
      return <SessionView machine={at.machine} id={at.id} />;
    case 'history':
      return <History {...at} />;
    case 'files':
      return <LazyFiles machine={at.machine} path={at.path} session={at.session} />;
    case 'settings':
      return <Settings />;
  }
}

/** Does this place take the whole of a phone's screen, without the bar below? */
const isDeep = (at: Route): boolean =>
  at.name === 'new' || at.name === 'session' || (at.name === 'history' && Boolean(at.project || at.id)) || (at.name === 'files' && Boolean(at.path));

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
      {paletteOpen.value && <Palette />}
      <Toasts />
    </>
  );
}
