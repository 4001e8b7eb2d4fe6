//! The bar at the top of a screen: the way back (on a phone), what this is, what can be done.

import type { ComponentChildren } from 'preact';
import { t } from '../i18n';
import { back, type Route } from '../state/route';
import { Icon } from '../ui/icons';
import { Empty } from '../ui/kit';

export function Header({ title, sub, children, fallback, root = false }: { title: ComponentChildren; sub?: ComponentChildren; children?: ComponentChildren; fallback?: Route; root?: boolean }) {
  return (
    <header class={root ? 'head root' : 'head'}>
      <button type="button" class="ghost round back" aria-label={t.back} onClick={() => back(fallback)}>
        <Icon name="left" />
      </button>
      <div class="head-title">
        <h1 class="clip">{title}</h1>
        {sub && <div class="head-sub clip">{sub}</div>}
      </div>
      <div class="head-actions">{children}</div>
    </header>
  );
}

/** A link that names a machine which is not kept on this device: never another one in its place. */
export function UnknownMachine() {
  return (
    <div class="screen">
      <Header title={t.unknownMachine} />
      <Empty icon="machine" title={t.unknownMachine}><p>{t.unknownMachineText}</p></Empty>
    </div>
  );
}
