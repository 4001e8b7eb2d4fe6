//! The bar at the top of a screen: the way back (on a phone), what this is, what can be done.

import type { ComponentChildren } from 'preact';
import { t } from '../i18n';
import { back, type Route } from '../state/route';
import { Icon } from '../ui/icons';

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
