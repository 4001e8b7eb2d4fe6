//! Which model is asked for in place of which, and of which upstream. What this page does not know stays in the file.

import { useEffect, useState } from 'preact/hooks';
import { t } from '../i18n';
import type { Room } from '../state/machines';
import { attempt, Loading, say, Segments } from '../ui/kit';
import { useLoad } from '../ui/load';
import { ask, upstreams } from './feed';
import { Refused } from './Gateway';
import { Cell, Lines, SaveBar } from './lines';
import { ServiceMark } from './parts';
import { SERVICES, type RouteConfig, type Service } from './types';
import { w } from './words';

const KINDS = ['default', 'model-mapping', 'config-mapping'] as const;

export function RoutingPage({ room }: { room: Room }) {
  const { value, error, again, set } = useLoad(() => ask<{ config: RouteConfig }>(room, 'GET', '/routes'), []);
  const [names, setNames] = useState<Record<string, string[]>>({});
  const [draft, setDraft] = useState<RouteConfig | null>(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    void upstreams(room).then(({ services }) => setNames(Object.fromEntries(SERVICES.map((service) => [service, (services[service]?.upstreams ?? []).map(({ name }) => name)]))), () => undefined);
  }, []);
  if (error) return <Refused error={error} onRetry={again} />;
  if (!value) return <Loading />;
  const config = draft ?? value.config;
  const mode = KINDS.find((kind) => kind === config.mode) ?? 'default';
  const change = (more: RouteConfig): void => setDraft({ ...config, ...more });
  const mappings = (service: Service) => config.modelMappings?.[service] ?? [];
  const assigned = (service: Service) => config.configMappings?.[service] ?? [];
  const fits = SERVICES.every((service) => mappings(service).every(({ source, target }) => source.trim() && target.trim()) && assigned(service).every((one) => one.model.trim() && one.config.trim()));
  const save = (): void => {
    setBusy(true);
    void attempt(async () => {
      set(await ask<{ config: RouteConfig }>(room, 'PUT', '/routes', { config }));
      // What was changed while it was on its way is not saved yet.
      setDraft((now) => (now === draft ? null : now));
      say(w.saved);
    }).then(() => setBusy(false));
  };
  return (
    <>
      <section class="block">
        <h2>{w.routing}</h2>
        <Segments label={w.routing} value={mode} options={KINDS.map((kind) => [kind, w.routeModes[kind]] as const)} onPick={(kind) => change({ mode: kind })} />
        <p class="soft small">{w.routeTexts[mode]}</p>
      </section>
      {mode !== 'default' && SERVICES.map((service) => (
        <section class="block" key={service}>
          <h2 class="service"><ServiceMark service={service} /> {w.services[service]}</h2>
          <datalist id={`upstreams-${service}`}>{names[service]?.map((name) => <option key={name} value={name} />)}</datalist>
          {mode === 'model-mapping' ? (
            <Lines lines={mappings(service)} add={w.addLine} fresh={{ source: '', target: '', source_type: 'model' as const }} onChange={(lines) => change({ modelMappings: { ...config.modelMappings, [service]: lines } })}>
              {(line, put) => (
                <>
                  <label class="cell narrow"><span>{w.whenKind}</span>
                    <select class="field" value={line.source_type ?? 'model'} onChange={(event) => put({ source_type: event.currentTarget.value === 'config' ? 'config' : 'model' })}>
                      <option value="model">{w.kindModel}</option>
                      <option value="config">{w.kindUpstream}</option>
                    </select>
                  </label>
                  <Cell label={line.source_type === 'config' ? w.whenUpstream : w.whenModel} value={line.source} {...(line.source_type === 'config' ? { list: `upstreams-${service}` } : {})} onValue={(source) => put({ source })} />
                  <Cell label={w.thenModel} value={line.target} onValue={(target) => put({ target })} />
                </>
              )}
            </Lines>
          ) : (
            <Lines lines={assigned(service)} add={w.addLine} fresh={{ model: '', config: '' }} onChange={(lines) => change({ configMappings: { ...config.configMappings, [service]: lines } })}>
              {(line, put) => (
                <>
                  <Cell label={w.whenModel} value={line.model} onValue={(model) => put({ model })} />
                  <Cell label={w.thenUpstream} value={line.config} list={`upstreams-${service}`} onValue={(name) => put({ config: name })} />
                </>
              )}
            </Lines>
          )}
        </section>
      ))}
      <SaveBar changed={draft !== null} fits={fits} busy={busy} onSave={save} onUndo={() => setDraft(null)} undo={t.cancel} save={t.save} />
    </>
  );
}
