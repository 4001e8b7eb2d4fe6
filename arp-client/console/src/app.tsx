//! The frame: the inbox and, beside it (or over it on a phone), what was chosen.

import { computed, signal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { t } from './i18n';
import { hasGateway, rooms, waiting } from './state/machines';
import { go, hrefOf, route, type Route } from './state/route';
import { Inbox } from './screens/Inbox';
import { NewSession } from './screens/NewSession';
import { paletteOpen } from './keys';
import { Icon, Sprite, type IconName } from './ui/icons';
import { Toasts } from './ui/kit';
import { later } from './ui/later';

const query = matchMedia('(min-width: 900px)');
/** Is there room beside the inbox? */
const wide = signal(query.matches);
query.addEventListener('change', () => (wide.value = query.matches));

const session = later(async () => (await import('./screens/SessionView')).SessionView);
// It is wanted next, whatever is open now.
void session.fetch().catch(() => undefined);
const files = later(async () => (await import('./screens/Files')).default);
const settings = later(async () => (await import('./screens/Settings')).Settings);
// Asked for by few: nobody else pays for it.
const gateway = later(async () => (await import('./gateway/Gateway')).Gateway);
const history = later(async () => (await import('./screens/History')).History);
const palette = later(async () => (await import('./screens/Palette')).Palette);

/** Fetches what is not there yet. */
export const fetchLater = (): void => {
  for (const part of [session, history, palette, settings, files]) void part.fetch().catch(() => undefined);
};

function Nav() {
  const here = route.value.name;
  const machine = rooms.value[0]?.machine.id ?? '';
  const routed = rooms.value.find(hasGateway)?.machine.id ?? '';
  const places: [Route, string, IconName][] = [
    [{ name: 'inbox' }, t.sessions, 'inbox'],
    [{ name: 'gateway', machine: routed, tab: 'overview' }, t.gatewayShort, 'model'],
    [{ name: 'files', machine, path: '', session: '' }, t.files, 'folder'],
    [{ name: 'settings' }, t.settings, 'settings'],
  ];
  const shown = places.filter(([{ name }]) => {
    if (name === 'files') return rooms.value.some((room) => room.info.value?.fs_enabled);
    if (name === 'gateway') return routed !== '';
    return name !== 'inbox' || !gatewayOnly.value;
  });
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

/** Is nothing there but a gateway, as at its own address? */
const gatewayOnly = computed(() => rooms.value.length > 0 && rooms.value.every((room) => room.info.value?.gateway_only));

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
    case 'gateway':
      return <gateway.View machine={at.machine} tab={at.tab} />;
    case 'settings':
      return <settings.View />;
  }
}

/** Does this place take the whole of a phone's screen, without the bar below? */
const isDeep = (at: Route): boolean =>
  at.name === 'new' || at.name === 'session' || at.name === 'history' || (at.name === 'files' && Boolean(at.path || at.session));

export function App() {
  const at = route.value;
  const alone = gatewayOnly.value;
  useEffect(() => {
    if (alone && (at.name === 'inbox' || at.name === 'new')) go({ name: 'gateway', machine: rooms.peek()[0]?.machine.id ?? '', tab: 'overview' }, true);
  }, [alone, at.name]);
  return (
    <>
      <Sprite />
      <a class="skip" href="#main" onClick={(event) => {
        event.preventDefault();
        document.getElementById('main')?.focus();
      }}>{t.skip}</a>
      <div class={`shell at-${at.name} ${isDeep(at) ? 'deep' : ''} ${alone ? 'alone' : ''}`}>
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
