//! The machine's own tunnel: where it can be reached from outside, and that this address is another one now.

import { tunnelWord, t } from '../i18n';
import { knownAddresses } from '../model/prefs';
import type { Tunnel } from '../net/types';
import type { Room } from '../state/machines';
import { Icon } from '../ui/icons';
import { copy } from '../ui/kit';
import { visible } from '../text/visible';

/** An address as it is shown: what follows `?` may be a token. */
const bare = (url: string): string => visible(url.split(/[?#]/)[0] ?? '');

/** What the services are called. */
const SERVICES: Record<string, string> = { cloudflare: 'Cloudflare Tunnel', tailscale: 'Tailscale Funnel', ngrok: 'ngrok', bore: 'bore', arp: 'arps' };

/** "Connected · ngrok", and why not if not. */
function stateOf(tunnel: Tunnel): string {
  const service = tunnel.backend ? SERVICES[tunnel.backend] ?? '' : '';
  return [tunnelWord(tunnel.state), service, tunnel.message ?? ''].filter(Boolean).map(visible).join(' · ');
}

/** The tunnel among the facts of a machine. */
export function TunnelRow({ room }: { room: Room }) {
  const tunnel = room.info.value?.tunnel;
  if (!tunnel) return null;
  const url = tunnel.public_url;
  return (
    <ul class="rows cards tunnel">
      <li>
        <div class="rowlike">
          <span class={tunnel.state === 'connected' ? 'lamp on' : 'lamp'} />
          <span class="two"><b class={url ? 'address' : ''}>{url ? bare(url) : t.tunnel}</b><span class={tunnel.state === 'error' ? 'bad' : 'soft'}>{stateOf(tunnel)}</span></span>
          {url && <button type="button" class="small" aria-label={`${t.copy}: ${t.tunnel}`} onClick={() => void copy(url)}>{t.copy}</button>}
        </div>
        {url && tunnel.previous_url && <p class="note">{t.addressChanged(bare(url), bare(tunnel.previous_url))}</p>}
      </li>
    </ul>
  );
}

/** Tells above the list that the address changed, until that is put away on this device. */
export function AddressNews({ room }: { room: Room }) {
  const { public_url: url, previous_url: before } = room.info.value?.tunnel ?? {};
  if (!url || !before || knownAddresses.value[room.machine.id] === bare(url)) return null;
  // Who came by the new address knows it.
  if (URL.canParse(url) && new URL(url).origin === new URL(room.machine.base).origin) return null;
  return (
    <div class="line news" role="status">
      <Icon name="machine" size={18} />
      <p>{t.addressChanged(bare(url), bare(before))}</p>
      <button type="button" class="small" onClick={() => void copy(url)}>{t.copy}</button>
      <button type="button" class="ghost round" aria-label={t.close} onClick={() => (knownAddresses.value = { ...knownAddresses.value, [room.machine.id]: bare(url) })}><Icon name="close" size={16} /></button>
    </div>
  );
}
